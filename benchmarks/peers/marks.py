"""What a body leaves behind so that it is timed from outside, the same way for every product."""

from __future__ import annotations

import os
import struct
import time
from dataclasses import dataclass
from pathlib import Path

FILE = "HOLDFAST_BENCH_MARKS"
STARTED, ENDED = 0, 1
RECORD = struct.Struct("<qq")
_file: int | None = None


def mark(kind: int) -> None:
    """One appending write of 16 bytes, about a microsecond, safe across threads and processes."""
    global _file
    now = time.monotonic_ns()
    if _file is None:
        _file = os.open(os.environ[FILE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(_file, RECORD.pack(kind, now))


@dataclass(frozen=True, slots=True)
class Marks:
    ended: int
    seconds: float  # from the first mark to the last


def read(path: Path) -> Marks:
    data = path.read_bytes() if path.exists() else b""
    found = list(RECORD.iter_unpack(data[: len(data) // RECORD.size * RECORD.size]))
    times = [at for _, at in found] or [0]
    return Marks(sum(kind == ENDED for kind, _ in found), (max(times) - min(times)) / 1e9)
