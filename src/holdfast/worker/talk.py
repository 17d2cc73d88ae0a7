"""What the supervisor tells people: lines on stderr, written by a thread of their own.

A terminal that was stopped, or a log collector that does not read, blocks whoever writes to it. Here
that is a daemon thread, and beyond a thousand waiting pieces output is dropped: leases matter more.
"""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Iterable, Mapping
from typing import Any, TextIO


class Talk:
    """echo  whether what runs log and print is told as well, as a developer wants it"""

    def __init__(self, stream: TextIO | None = None, *, echo: bool = False) -> None:
        self._stream = stream
        self._echo = echo
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

    def logged(self, run: Mapping[str, Any], records: Iterable[Mapping[str, Any]]) -> None:
        """With echo, the log records of a run, each in a line of its own."""
        if self._echo:
            for record in records:
                printed = record["logger"] in ("stdout", "stderr")
                origin = "" if printed else f"{record['level']} {record['logger']}: "
                self._tell(run, f"{origin}{record['message']}")

    def failed(self, run: Mapping[str, Any], error: Mapping[str, Any]) -> None:
        """With echo, how an attempt of a run failed, with its traceback."""
        if self._echo:
            message = error.get("message", "")
            what = error.get("stackTrace") or f"{error.get('name') or error.get('code')}: {message}"
            self._tell(run, f"attempt {run['attempt']} failed: {what.rstrip()}")

    def _tell(self, run: Mapping[str, Any], text: str) -> None:
        indented = text.replace("\n", "\n    ")
        self.pass_on(f"{run['id']} {run['task']}: {indented}\n")

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
