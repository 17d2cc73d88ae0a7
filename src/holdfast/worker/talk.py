"""What the supervisor tells people: lines on stderr, written by a thread of their own.

A terminal that was stopped, or a log collector that does not read, blocks whoever writes to it. Here
that is a daemon thread, and beyond a thousand waiting pieces output is dropped: leases matter more.
"""

from __future__ import annotations

import queue
import sys
import threading
from typing import TextIO


class Talk:
    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._waiting: queue.Queue[str | None] = queue.Queue(maxsize=1_000)
        self._thread = threading.Thread(target=self._write, name="holdfast-talk", daemon=True)
        self._thread.start()

    def say(self, line: str) -> None:
        """One line of the worker's own."""
        self.pass_on(f"worker: {line}\n")

    def pass_on(self, text: str) -> None:
        """Text of an executor, as it is."""
        try:
            self._waiting.put_nowait(text)
        except queue.Full:
            return  # nobody reads: see above

    def close(self, timeout: float = 1.0) -> None:
        try:
            self._waiting.put(None, timeout=timeout)
        except queue.Full:
            return
        self._thread.join(timeout)

    def _write(self) -> None:
        while (text := self._waiting.get()) is not None:
            stream = self._stream or sys.stderr
            try:
                stream.write(text)
                stream.flush()
            except (OSError, ValueError):
                continue  # the stream was closed under us; there is nobody left to tell
