"""Identifiers: a prefix that says what it is, then 25 characters that sort by creation."""

from __future__ import annotations

import random
import threading
from typing import NewType

RunId = NewType("RunId", str)
WorkerId = NewType("WorkerId", str)
EnvironmentId = NewType("EnvironmentId", str)

DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
TIME_LENGTH = 9  # 36**9 ms last until the year 5188
MAX_COUNT = 0x10000


def base36(number: int, length: int) -> str:
    """`number` in base 36, padded with zeros to `length` characters."""
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 36)
        digits.append(DIGITS[digit])
    return "".join(reversed(digits))


class Ids:
    """Makes identifiers: 9 characters of time, 4 that count within the millisecond, 12 random ones.

    Ids of one `Ids` sort strictly by the order they were asked for, also when the clock steps
    back. They are no secrets. Safe to share between threads. A seeded `random` makes them repeatable.
    """

    def __init__(self, source: random.Random | None = None) -> None:
        self._random = source or random.Random()
        self._lock = threading.Lock()
        self._last_ms = -1
        self._count = 0
        self._time = ""

    def new(self, prefix: str, now_ms: int) -> str:
        with self._lock:
            if now_ms > self._last_ms:
                self._last_ms, self._count, self._time = now_ms, 0, base36(now_ms, TIME_LENGTH)
            else:
                self._count += 1
                if self._count == MAX_COUNT:
                    self._last_ms, self._count = self._last_ms + 1, 0
                    self._time = base36(self._last_ms, TIME_LENGTH)
            return f"{prefix}_{self._time}{self._count:04x}{self._random.getrandbits(48):012x}"


def attempt_id(run_id: str, start: int) -> str:
    """The id of a run's `start`-th start: derived, so that asking twice gives the same."""
    return f"attempt_{run_id.partition('_')[2]}{base36(start, 2)}"
