"""The clock of a store under test."""

from __future__ import annotations

from datetime import UTC, datetime


class Clock:
    """Epoch milliseconds that only a test moves. Begins on 24 November 2026, at noon UTC."""

    def __init__(self) -> None:
        self.now = int(datetime(2026, 11, 24, 12, tzinfo=UTC).timestamp()) * 1_000

    def __call__(self) -> int:
        return self.now

    def advance(self, ms: int) -> None:
        self.now += ms
