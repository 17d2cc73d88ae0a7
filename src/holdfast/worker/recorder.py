"""The writing end of a journal: entries to the store, and word back when they are there.

All that is recorded in one turn of the loop travels in one report. Entries that nothing depends on yet (that
a wait is over, that something was cancelled) are noted, without a commit of their own: they travel with the
next one, and if they get lost, nothing came after.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from holdfast.errors import HoldfastError, JournalFull
from holdfast.model.journal import Entry, Journal
from holdfast.sdk.policy import error_from
from holdfast.worker.link import Link

MAX_ENTRIES = 1_000  # in one report
MAX_BYTES = 4 * 1024 * 1024  # of the values in one report, or one value

# An entry on its way, the delay that becomes its due time, and who waits for its commit.
Unsent = tuple[Entry, int | None, "asyncio.Future[None] | None"]


class Recorder:
    """run     the run as it was claimed
    before  called before entries are sent: puts on its way what must not come after them
    """

    def __init__(
        self,
        run: Mapping[str, Any],
        journal: Journal,
        link: Link,
        loop: asyncio.AbstractEventLoop,
        before: Callable[[], None],
    ) -> None:
        self.broken: HoldfastError | None = None  # nothing more can be recorded, or goes with what is
        self.over = False  # nobody waits for commits any more
        self._head = {"run": run["id"], "lease": run["lease"]}
        self._journal = journal
        self._link = link
        self._loop = loop
        self._before = before
        self._unsent: list[Unsent] = []
        self._flushing = False
        self._late: dict[asyncio.Task[Any], int] = {}  # how often cancelled, each by the end of a commit

    async def record(self, entry: Entry, delay_ms: int | None = None) -> None:
        """A new entry, which is in the store when this returns."""
        future = self._loop.create_future()
        self._unsent.append((entry, delay_ms, future))
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self.flush)
        await self.committed(future)

    def note(self, entry: Entry) -> None:
        """A new entry that travels with the next one."""
        self._unsent.append((entry, None, None))

    async def make(self, report: str, entry: Entry, asked: Mapping[str, Any]) -> None:
        """Have the server make what an entry names; it gives the entry its value."""
        self.flush()
        future = self._loop.create_future()

        def answered(answer: Mapping[str, Any]) -> None:
            self._heard(answer)
            if answer["status"] == "ok":
                entry.value = answer["value"]
                future.set_result(None)
            elif answer["status"] == "refused":
                error = _refusal(answer)
                if not self._journal.take_back(entry):
                    self.broken = error
                future.set_exception(error)

        told = {"kind": report, **self._head, "first": entry.seq, "scope": entry.scope, "name": entry.name}
        self._link.report({**told, "args": entry.args, **asked}, answered)
        await self.committed(future)

    async def committed(self, future: asyncio.Future[None]) -> None:
        """Until the store has it. A cancellation waits until then, because what is recorded has happened: it reaches
        the code where it awaits or asks for something next.
        """
        was_cancelled = False
        while not future.done():
            try:
                await asyncio.shield(future)
            except asyncio.CancelledError:
                if self.over:
                    raise
                was_cancelled = True
        task = asyncio.current_task()
        if was_cancelled and task is not None:
            self._late[task] = task.cancelling()
            self._loop.call_soon(self._cancel_again, task)
        future.result()

    def is_cancelled(self) -> bool:
        """Whether a cancellation of this task is late; the caller raises it."""
        if not self._late:
            return False
        task = asyncio.current_task()
        return task is not None and self._is_late(task)

    def _cancel_again(self, task: asyncio.Task[Any]) -> None:
        if self._is_late(task) and not task.done():
            task.cancel()
            task.uncancel()

    def _is_late(self, task: asyncio.Task[Any]) -> bool:
        """Unless who asked for it has taken it back: then the code has left its time limit behind."""
        asked = self._late.pop(task, None)
        return asked is not None and task.cancelling() >= asked

    def flush(self) -> None:
        """Send what waits."""
        self._flushing = False
        self._before()
        while self._unsent:
            count = _fitting(self._unsent)
            part, self._unsent = self._unsent[:count], self._unsent[count:]
            told = []
            for entry, delay_ms, _ in part:
                told.append(entry.on_wire() if delay_ms is None else {**entry.on_wire(), "delayMs": delay_ms})
            report = {"kind": "entries", **self._head, "first": part[0][0].seq, "entries": told}
            self._link.report(report, partial(self._stored, part))

    def _stored(self, part: Sequence[Unsent], answer: Mapping[str, Any]) -> None:
        self._heard(answer)
        if answer["status"] == "refused":
            self.broken = _refusal(answer)
        values = answer.get("values") or [None] * len(part)
        for (entry, delay_ms, future), value in zip(part, values, strict=True):
            if delay_ms is not None and value is not None:
                entry.value = value
            if future is None or future.done():
                continue
            if answer["status"] == "ok":
                future.set_result(None)
            elif self.broken is not None:
                future.set_exception(self.broken)
            # Fenced: the run is somebody else's, and whoever reported it stops this attempt.

    def _heard(self, answer: Mapping[str, Any]) -> None:
        if (now := answer.get("now")) is not None:
            self._link.heard(now)


def _fitting(unsent: Sequence[Unsent]) -> int:
    """How many fit into one report."""
    size = 0
    for count, (entry, _, _) in enumerate(unsent[:MAX_ENTRIES]):
        size += len(entry.value or "")
        if size > MAX_BYTES and count:
            return count
    return min(len(unsent), MAX_ENTRIES)


def _refusal(answer: Mapping[str, Any]) -> HoldfastError:
    text = str(answer.get("error", ""))
    if answer.get("code") in (None, JournalFull.code, "payload_too_large"):
        return JournalFull(f"the run can record no more: {text}")
    return error_from({"error": text, "code": answer.get("code"), "param": answer.get("param")})
