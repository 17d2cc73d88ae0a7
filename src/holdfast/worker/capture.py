"""Whose output is it? Logging and print of user code, attributed to the attempt they happen in.

A context variable names the current attempt's recorder; tasks and threads that user code starts by
asyncio or by our pool inherit it. Output outside of any attempt goes to the real stderr.
"""

from __future__ import annotations

import io
import logging
import sys
import time
from contextvars import ContextVar
from typing import Any, Protocol, TextIO

OWN_CALLS = ("httpx2", "httpcore2")


class Recorder(Protocol):
    """Takes the log lines of one attempt; called from any thread, never blocks, never raises."""

    def log(self, at_ms: int, level: str, logger: str, message: str) -> None: ...

    def write(self, stream: str, text: str) -> None:
        """Part of what was printed to `stream`; lines are cut where the newlines are."""
        ...


recording: ContextVar[Recorder | None] = ContextVar("holdfast_recording", default=None)


def install(level: int = logging.INFO) -> None:
    """Take over sys.stdout, sys.stderr and the root logger of this process; calling it twice is harmless."""
    if isinstance(sys.stdout, Redirected):
        return
    sys.stdout = Redirected("stdout", sys.stderr)
    sys.stderr = Redirected("stderr", sys.stderr)
    root = logging.getLogger()
    root.addHandler(RunHandler())
    if root.level in (logging.NOTSET, logging.WARNING):
        root.setLevel(level)


class RunHandler(logging.Handler):
    """Gives records to the current attempt's recorder, else writes them to the real stderr."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(message)s"))
        self._outside = logging.Formatter("%(levelname)s %(name)s: %(message)s")

    def emit(self, record: logging.LogRecord) -> None:
        try:
            recorder = recording.get()
            if recorder is None:
                if record.levelno < logging.WARNING and record.name.startswith(OWN_CALLS):
                    return  # an executor that asks for results, which is nobody's news
                real = sys.__stderr__
                if real is not None:
                    real.write(self._outside.format(record) + "\n")
                    real.flush()
                return
            recorder.log(int(record.created * 1_000), record.levelname, record.name, self.format(record))
        except Exception:
            # The rule of logging.Handler: a record that can not be formatted must not fail the caller.
            self.handleError(record)


class Redirected(io.TextIOBase):
    """Stands in for sys.stdout or sys.stderr."""

    def __init__(self, name: str, outside: TextIO) -> None:
        self._name = name
        self._outside = outside

    @property
    def encoding(self) -> str:  # type: ignore[override]  # the base declares a plain attribute
        return "utf-8"

    def write(self, text: str) -> int:
        recorder = recording.get()
        if recorder is not None:
            recorder.write(self._name, text)
            return len(text)
        return self._outside.write(text)

    @property
    def buffer(self) -> Any:
        """For code that writes bytes: they can not be attributed and go outside."""
        return self._outside.buffer

    def flush(self) -> None:
        if recording.get() is None:
            self._outside.flush()

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        return self._outside.fileno()


def now_ms() -> int:
    """A stamp for people; nothing is decided by it."""
    return int(time.time() * 1_000)
