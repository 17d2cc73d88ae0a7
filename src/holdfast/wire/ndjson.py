"""Lines of JSON as they arrive in pieces that end anywhere, also inside a character."""

from __future__ import annotations

from typing import NamedTuple

HEAD = 4_096  # bytes; kept of a line that is too long


class RawLine(NamedTuple):
    """A line without its end. `number` counts from 1, blank lines too. Of one that is too long only the head is there."""

    number: int
    data: bytes
    is_whole: bool


class Lines:
    """Cuts a stream into lines; blank ones are left out. Keeps at most `limit` bytes of a line that has not ended."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._number = 0
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[RawLine]:
        """The lines that end in `chunk`."""
        first, *others = chunk.split(b"\n")
        self._keep(first)
        found: list[RawLine] = []
        for part in others:
            self._end(found)
            self._keep(part)
        return found

    def end(self) -> list[RawLine]:
        """The last line, when no end of line came after it."""
        found: list[RawLine] = []
        self._end(found)
        return found

    def _keep(self, part: bytes) -> None:
        if not part:
            return
        held, self._size = self._size, self._size + len(part)
        if self._size <= self._limit:
            self._parts.append(part)
        elif held <= self._limit:
            self._parts = [b"".join([*self._parts, part[:HEAD]])[:HEAD]]

    def _end(self, found: list[RawLine]) -> None:
        self._number += 1
        data = b"".join(self._parts)
        is_whole = self._size <= self._limit
        if not is_whole or data.strip():
            found.append(RawLine(self._number, data, is_whole))
        self._parts, self._size = [], 0
