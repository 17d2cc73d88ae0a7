"""An executor's way to the store: journal reports through its supervisor, results from the server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from holdfast.sdk.client import default_client
from holdfast.sdk.stored import content
from holdfast.sdk.waiting import ended
from holdfast.worker.pipe import Message

Answered = Callable[[Mapping[str, Any]], None]


class Link(Protocol):
    """The way to the store, of an executor or of a test."""

    def report(self, report: dict[str, Any], answered: Answered) -> None:
        """Send a journal report; `answered` is called in the loop when it is committed or refused."""
        ...

    async def results(self, runs: Sequence[str], tokens: Sequence[str], wait_ms: int) -> dict[str, Any]:
        """Those that have ended, by id; waits up to `wait_ms` for the first. Raises ServerUnreachable."""
        ...

    async def pause(self, seconds: float) -> None:
        """Sleep within a step."""
        ...

    def now_ms(self) -> int:
        """The store's time, as far as it is known here; never ahead of it."""
        ...

    def heard(self, now_ms: int) -> None:
        """An answer told the store's time."""
        ...

    def performs(self, step: str) -> None:
        """A step begins that is not recorded."""
        ...

    def told(self, kind: str) -> None:
        """The attempt became "idle" or "active"."""
        ...


class Outbox(Protocol):
    """The sending end of a pipe."""

    def send(self, message: Message) -> None: ...


class PipeLink:
    """The link of one attempt. Its supervisor sends each report until it is answered."""

    def __init__(self, run: Mapping[str, Any], pipe: Outbox) -> None:
        self._run = run
        self._pipe = pipe
        self._clock = (int(run["now"]), time.monotonic())
        self._waiting: dict[int, Answered] = {}  # by the place of the report's first entry

    def report(self, report: dict[str, Any], answered: Answered) -> None:
        self._waiting[report["first"]] = answered
        self._pipe.send(report)

    def answered(self, message: Message) -> None:
        """The supervisor tells what became of a report."""
        if (answered := self._waiting.pop(message["first"], None)) is not None:
            answered(message["answer"])

    async def results(self, runs: Sequence[str], tokens: Sequence[str], wait_ms: int) -> dict[str, Any]:
        return await default_client().connection.arun(ended(runs, tokens, wait_ms))

    async def payload(self) -> str:
        """The payload of a run that has it in the object store, as JSON text. Raises NotFound, ServerUnreachable."""
        return await default_client().connection.arun(content(self._run["id"], "payload"))

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def now_ms(self) -> int:
        at, then = self._clock
        return at + int((time.monotonic() - then) * 1_000)

    def heard(self, now_ms: int) -> None:
        if now_ms > self.now_ms():
            self._clock = (now_ms, time.monotonic())

    def performs(self, step: str) -> None:
        return None

    def told(self, kind: str) -> None:
        self._pipe.send({"kind": kind, "run": self._run["id"], "lease": self._run["lease"]})
