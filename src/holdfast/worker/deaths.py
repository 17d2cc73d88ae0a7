"""What the death of an executor tells about the runs that were in it."""

from __future__ import annotations

import signal

from holdfast.model.error import RunError, internal_error

CODES: dict[int, str] = {signal.SIGSEGV: "TASK_PROCESS_SIGSEGV", signal.SIGTERM: "TASK_PROCESS_SIGTERM"}


class OutOfMemoryCounter:
    """Counts what the kernel killed in our control group for want of memory: evidence, not a guess."""

    def __init__(self) -> None:
        self._seen = _kills()

    def has_grown(self) -> bool:
        before, self._seen = self._seen, _kills()
        return self._seen > before


def death(code: int, others: int, out_of_memory: bool) -> RunError:
    """The error of a run whose process ended.

    code    its exit code; below 0 the number of the signal that killed it
    others  how many other runs had begun in it
    """
    company = f"; {others} other runs were in it" if others else ""
    if code >= 0:
        text = f"the process of the run exited with code {code}{company}"
        return internal_error("TASK_PROCESS_EXITED_WITH_NON_ZERO_CODE", text)
    number = -code
    if number == signal.SIGKILL and out_of_memory:
        return internal_error(
            "TASK_PROCESS_OOM_KILLED", f"the kernel killed the process for want of memory{company}"
        )
    return internal_error(
        CODES.get(number, "TASK_PROCESS_EXITED_WITH_NON_ZERO_CODE"),
        f"the process of the run was killed by signal {_signal_name(number)}{company}",
    )


def over_time(seconds: int, killed: bool) -> RunError:
    """The error of an attempt that took longer than its limit."""
    how = (
        "its process was killed: it did not end when it was asked" if killed else "it ended when it was asked"
    )
    return internal_error("MAX_DURATION_EXCEEDED", f"the attempt took longer than {seconds} s; {how}")


def describe(code: int) -> str:
    """An exit code for people; below 0 it is a signal."""
    if code >= 0:
        return f"exit code {code}"
    return f"signal {_signal_name(-code)}"


def _signal_name(number: int) -> str:
    return signal.Signals(number).name if number in set(signal.Signals) else str(number)


def _kills() -> int:
    try:
        with open("/proc/self/cgroup") as file:
            group = next(line.split("::", 1)[1].strip() for line in file if line.startswith("0::"))
        with open(f"/sys/fs/cgroup{group}/memory.events") as file:
            return sum(int(line.split()[1]) for line in file if line.startswith("oom_kill "))
    except (OSError, StopIteration, ValueError, IndexError):
        return 0  # no such counter here: then nothing is concluded from it
