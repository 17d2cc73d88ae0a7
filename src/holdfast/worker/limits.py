"""What an executor does to itself before it runs user code: how it dies, and how much it may take."""

from __future__ import annotations

import ctypes
import math
import os
import select
import signal
import struct
import sys
import threading
import time

DEADLINE = struct.Struct("!d")


def lease_clock() -> float:
    """Seconds on a clock that all processes of this host share, that never jumps, and that also runs
    while the host sleeps: deadlines of leases are told by it."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.clock_gettime(boot) if boot is not None else time.monotonic()


def die_with_parent(parent: int) -> None:
    """Ask the kernel (Linux) to kill this process when the supervisor ends, however it ends."""
    if sys.platform == "linux":
        death_signal = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None, use_errno=True).prctl(death_signal, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)  # it ended before we asked


def kill_own_group() -> None:
    """End this process and all that it started; it leads its process group."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def watch_lifeline(descriptor: int) -> None:
    """End this process when the supervisor is gone, or lets the lease pass, in a thread.

    The supervisor writes the deadline (by `lease_clock`) after every renewal. A thread that gets
    its turn late, because user code holds the interpreter, first reads what was written meanwhile:
    busy user code is never taken for a lost lease, a frozen supervisor is.
    """
    threading.Thread(target=_watch, args=(descriptor,), name="holdfast-lifeline", daemon=True).start()


def _watch(descriptor: int) -> None:
    deadline: float | None = None
    while True:
        wait = None if deadline is None or deadline == math.inf else max(0.0, deadline - lease_clock())
        readable, _, _ = select.select([descriptor], [], [], wait)
        if not readable:
            kill_own_group()
        data = os.read(descriptor, 4_096)
        if not data:
            kill_own_group()
        deadline = DEADLINE.unpack(data[-DEADLINE.size :])[0]


def limit_memory(extra_bytes: int) -> None:
    """Let this process map at most `extra_bytes` more than now; beyond it Python raises MemoryError."""
    import resource

    mapped = 0
    try:
        with open("/proc/self/statm") as file:
            mapped = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        mapped = 512 * 1024 * 1024  # no /proc: room for the interpreter itself
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = mapped + extra_bytes
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))


def resident_bytes(pid: int) -> int:
    """Resident memory of a process, 0 where there is no /proc."""
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
