"""The durable part of one attempt: its journal, its waits, and how it is suspended.

What user code asks for goes through `recall`: what the journal has is answered from it, in the order
in which it was recorded. What is new is done, and `record` gives it to the store before the code goes on.

A wait is parked (parking.py). When the code does nothing but wait, the run is suspended: its code is
unwound, and some day it is claimed again and executed anew from the top.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from holdfast.errors import HoldfastError
from holdfast.model import journal as kinds
from holdfast.model.journal import Entry, Journal
from holdfast.sdk.policy import error_from
from holdfast.worker.blocking import Blocking, Interrupted
from holdfast.worker.failures import Failures
from holdfast.worker.link import Link
from holdfast.worker.order import Order
from holdfast.worker.parking import REFUSED, Parked, Parking, Suspended
from holdfast.worker.recorder import Recorder
from holdfast.worker.scope import Branches, Scope, current_scope

T = TypeVar("T")

LEFT_SECONDS = 1.0  # for the end of branches whose root has ended
LAST = "last"  # marks the last of several results that came together


class Durable:
    """run      as it was claimed
    loop     in which its async code runs
    warm_ms  how long an idle run is kept
    before   called before entries are sent: puts on its way what must not come after them
    changes  how many changes of metadata the code has made so far
    began    since when the attempt is at work (monotonic seconds)
    """

    def __init__(
        self,
        run: Mapping[str, Any],
        link: Link,
        branches: Branches,
        loop: asyncio.AbstractEventLoop,
        *,
        warm_ms: int,
        before: Callable[[], None],
        changes: Callable[[], int] = lambda: 0,
        began: Callable[[], float] = time.monotonic,
    ) -> None:
        self.journal = Journal([Entry.of(seq, told) for seq, told in enumerate(run.get("journal") or ())])
        self._link = link
        self._warm_ms = warm_ms
        self._changes = changes
        self.operations = 0  # changes of metadata that the code had made at its last entry
        self._branches = branches
        self._loop = loop
        self._results: dict[str, Entry] = {}  # by run
        self._failures = Failures(self.journal)
        self._recorder = Recorder(run, self.journal, link, loop, before)
        self._threads = Blocking(loop)
        self._parking = Parking(link, branches, loop, warm_ms, lambda: self._order.is_busy)
        self._order = Order(self.journal, loop, self._parking.background)
        self._began = began
        self._active_ms = int(run.get("activeMs", 0))
        self._is_resumed = bool(run.get("resumed"))
        self._is_beyond = False  # the code has asked for something that is not recorded

    # ---- for the attempt

    @property
    def broken(self) -> HoldfastError | None:
        """Why the attempt can not go on."""
        return self._recorder.broken

    @property
    def is_replaying(self) -> bool:
        """Whether the code is where it has been before: something recorded was not handed out yet, or a
        resumed run has not come to what it waited for.
        """
        return self.journal.is_replaying or (self._is_resumed and not self._is_beyond)

    @property
    def suspending(self) -> bool:
        """Whether the code is being unwound for a suspension."""
        return self._parking.suspending

    @property
    def waits(self) -> list[dict[str, Any]]:
        """What the suspended run waits for, as it is reported."""
        return self._parking.waits

    @property
    def active_ms(self) -> int:
        """How long the attempt was at work, waits not counted."""
        active_seconds = time.monotonic() - self._began() - self._parking.idle_seconds
        return self._active_ms + max(0, round(active_seconds * 1_000))

    async def close(self) -> None:
        """The code has come to its end. Of a suspended run it ends what its code left behind: it will be there anew."""
        self.interrupt()
        left = self._branches.left() if self.suspending else []
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=LEFT_SECONDS)
        for task in self._parking.unwound:
            if task.done() and not task.cancelled():
                task.exception()  # seen: the loop need not tell of it

    def check_end(self) -> None:
        """The code has returned: it must have asked for all that it did before."""
        try:
            self.journal.check_end()
        except HoldfastError as error:
            self._recorder.broken = error

    def give_place(self) -> None:
        """The worker is full: if the run only waits, it is suspended now."""
        self._parking.give_place()

    def flush(self) -> None:
        """Put on its way what was noted."""
        self._recorder.flush()

    def interrupt(self) -> None:
        """The attempt is over, or being stopped: whoever waits in a thread is let go."""
        self._recorder.over = True
        self._threads.let_go()
        self._parking.close()

    # ---- recorded, or new?

    async def recall(
        self, kind: str, name: str, args: str | None = None, *, among: Collection[str] = ()
    ) -> Entry | None:
        """What this call gave before, in its turn; None when it is new.

        A call that the code cancelled then waits here until it is cancelled again. Raises ReplayMismatch.
        """
        self._check()
        self.operations = self._changes()
        try:
            entry = self.journal.ask(_scope().path, kind, name, args, among=among)
        except HoldfastError as error:
            self._recorder.broken = error
            raise
        if entry is None:
            self._is_beyond = True
            if self._recorder.is_cancelled():
                self.cancelled(kind, name, args)
                raise asyncio.CancelledError
            return None
        if entry.ok is None:
            self._failures.cancelled(entry)
            self.journal.hand_out(entry)
            await self._park(Parked())
        await self._in_turn(entry)
        if entry.ok is False and kind in (kinds.DONE, kinds.FIRST):
            refusal = error_from(_json(entry.value))
            self._failures.add(refusal, entry, self.operations)
            raise refusal
        return entry

    async def record(
        self,
        kind: str,
        name: str,
        args: str | None = None,
        *,
        ok: bool = True,
        value: str | None = None,
        ref: str | None = None,
        delay_ms: int | None = None,
    ) -> Entry:
        """A new entry, which is in the store when this returns."""
        self._check()
        entry = self.journal.add(_scope().path, kind, name, args, ok, value, ref)
        await self._recorder.record(entry, delay_ms)
        await self._in_turn(entry)
        return entry

    def note(
        self,
        kind: str,
        name: str,
        args: str | None = None,
        *,
        ok: bool | None = True,
        value: str | None = None,
        ref: str | None = None,
    ) -> Entry:
        """A new entry that travels with the next one."""
        entry = self.journal.add(_scope().path, kind, name, args, ok, value, ref)
        self._recorder.note(entry)
        if ok is None:
            self.journal.hand_out(entry)
        return entry

    def cancelled(self, kind: str, name: str, args: str | None = None) -> None:
        """The code itself cancelled a call, which a replay has to repeat; nothing when the run is stopped."""
        if not (self._recorder.over or self.suspending or self.broken):
            self._failures.cancelled(self.note(kind, name, args, ok=None))

    def failed(self, error: BaseException, about: Entry | str) -> None:
        """`error` is raised for the failure that an entry records: of a step or trigger, or the result of a run."""
        entry = self._results.get(about) if isinstance(about, str) else about
        if entry is not None:
            self._failures.add(error, entry, self._changes())

    def to_forget(self, error: BaseException) -> list[int]:
        """The recorded failures that ended the attempt with `error`, by seq: the next attempt tries them anew."""
        forgotten = self._failures.to_forget(error)
        self.operations = self._failures.changes_before(forgotten, self.operations)
        return forgotten

    async def pause(self, seconds: float) -> None:
        """Sleep within a step."""
        await self._link.pause(seconds)

    @contextmanager
    def working(self, step: str) -> Iterator[None]:
        """While a step is under way the run is not idle."""
        self._link.performs(step)
        scope = _scope()
        scope.working += 1
        try:
            yield
        finally:
            scope.working -= 1

    # ---- what the server makes

    async def trigger(
        self, name: str, args: str | None, items: Sequence[Any]
    ) -> tuple[Entry, list[dict[str, Any]]]:
        """Children, for each {"id", "isCached"?} or {"error", "code"}. A replay triggers only what failed."""
        first = entry = await self.recall(kinds.TRIGGER, name, args) or await self._made(
            kinds.TRIGGER, "triggers", name, args, {"items": list(items)}, _scope().path
        )
        answers: list[dict[str, Any]] = _json(first.value)
        given = [first] * len(answers)  # which trigger gave each answer
        scope = f"~{first.seq}"
        while places := self._to_be_tried(given, answers):
            again = self.journal.ask(scope, kinds.TRIGGER, name)
            if again is None:
                failed = [items[place] for place in places]
                again = await self._made(kinds.TRIGGER, "triggers", name, None, {"items": failed}, scope)
            else:
                self.journal.hand_out(again)
                places = self._to_be_tried(given, answers, again)
            for place, answer in zip(places, _json(again.value), strict=True):
                answers[place], given[place] = answer, again
            entry = again
        return entry, answers

    def _to_be_tried(
        self, given: Sequence[Entry], answers: Sequence[Mapping[str, Any]], by: Entry | None = None
    ) -> list[int]:
        pairs = enumerate(zip(given, answers, strict=True))
        return [place for place, (entry, answer) in pairs if self.journal.is_to_be_tried(entry, answer, by)]

    async def token(self, args: str | None, asked: Mapping[str, Any]) -> dict[str, Any]:
        """A new token: {"id", "isCached", "url", "publicAccessToken"}."""
        entry = await self.recall(kinds.TOKEN, "token", args)
        if entry is None:
            entry = await self._made(kinds.TOKEN, "token", "token", args, asked, _scope().path)
        made: dict[str, Any] = _json(entry.value)
        return made

    async def _made(
        self, kind: str, report: str, name: str, args: str | None, asked: Mapping[str, Any], scope: str
    ) -> Entry:
        self._check()
        entry = self.journal.add(scope, kind, name, args)
        await self._recorder.make(report, entry, asked)
        if scope == _scope().path:
            await self._in_turn(entry)
        else:
            self.journal.hand_out(entry)
        return entry

    # ---- waits

    async def sleep(self, name: str, ms: int | None = None, until_ms: int | None = None) -> None:
        """Until a time has passed; short ones are recorded when they are over."""
        entry = await self.recall(kinds.SLEEP, name)
        if entry is not None and entry.ref is not None:
            return
        if entry is None:
            if ms is None:
                assert until_ms is not None
                ms = until_ms - self._link.now_ms()
            if ms <= self._warm_ms:
                due = self._link.now_ms() + max(0, ms)
                await self._waited(kinds.SLEEP, name, Parked(due_at=due))
                await self._in_turn(self.note(kinds.SLEEP, name, value=str(due), ref="over"))
                return
            if until_ms is None:
                entry = await self.record(kinds.SLEEP, name, delay_ms=ms)
            else:
                entry = await self.record(kinds.SLEEP, name, value=str(until_ms))
        if await self.recall(kinds.DONE, name) is None:
            await self._waited(kinds.DONE, name, Parked(due_at=int(entry.value or 0)))
            await self._in_turn(self.note(kinds.DONE, name))

    async def deadline(self, ms: int) -> int:
        """A time limit of a wait, as epoch ms; recorded, so that a resumed run keeps it."""
        entry = await self.recall(kinds.SLEEP, "timeout")
        if entry is None:
            entry = await self.record(kinds.SLEEP, "timeout", delay_ms=ms)
        return int(entry.value or 0)

    async def first(
        self, runs: Sequence[str], tokens: Sequence[str], due_at: int | None = None
    ) -> tuple[str, dict[str, Any]] | None:
        """The first of these to end, and its result; None when `due_at` came before."""
        # Not by their ids: one that failed an attempt is triggered anew, and has another one.
        name = f"first of {len(runs) + len(tokens)}"
        entry = await self.recall(kinds.FIRST, name)
        if entry is not None:
            return None if entry.ref is None else (entry.ref, await self._result(entry))
        found = await self._waited(kinds.FIRST, name, Parked(set(runs), set(tokens), due_at))
        wanted = next((id for id in (*runs, *tokens) if id in found), None)
        value = None if wanted is None or wanted in runs else _text(found[wanted])
        noted = self.note(kinds.FIRST, name, value=value, ref=wanted)
        if wanted is not None:
            self._results[wanted] = noted
        await self._in_turn(noted)
        return None if wanted is None else (wanted, found[wanted])

    async def result_of(self, id: str, *, token: bool = False) -> dict[str, Any]:
        """The result of a run or token, once it has ended."""
        entry = await self.recall(kinds.DONE, id)
        if entry is not None:
            return await self._result(entry, token)
        parked = Parked(tokens={id}) if token else Parked(runs={id})
        found = await self._waited(kinds.DONE, id, parked)
        value = _text(found[id]) if token else None
        await self._in_turn(self._over_for(id, value=value))
        return dict(found[id])

    async def next_results(self, ids: Collection[str], wake: str) -> list[tuple[str, dict[str, Any]]]:
        """The results of at least one of these runs; `wake` as in wire/workers.py."""
        left = dict.fromkeys(ids)
        known: list[tuple[str, dict[str, Any]]] = []
        while left and (entry := await self.recall(kinds.DONE, next(iter(left)), among=left)) is not None:
            del left[entry.name]
            known.append((entry.name, await self._result(entry)))
            if entry.args == LAST:
                return known
        if not left:
            return known
        # Nothing is recorded, or the last of those that came together was not.
        found = await self._waited(kinds.DONE, next(iter(left)), Parked(left, wake=wake))
        for number, id in enumerate(found, 1):
            await self._in_turn(self._over_for(id, args=LAST if number == len(found) else None))
        return [*known, *found.items()]

    def _over_for(self, id: str, *, args: str | None = None, value: str | None = None) -> Entry:
        entry = self._results[id] = self.note(kinds.DONE, id, args, value=value, ref=id)
        return entry

    async def _waited(self, kind: str, name: str, parked: Parked) -> dict[str, Any]:
        try:
            return await self._park(parked)
        except asyncio.CancelledError:
            self.cancelled(kind, name)
            raise
        except REFUSED as error:
            told = {"error": str(error), "code": error.code}
            entry = await self.record(kind, name, ok=False, value=_text(told))
            self._failures.add(error, entry, self.operations)
            raise

    async def _park(self, parked: Parked) -> dict[str, Any]:
        self._check()
        return await self._parking.park(parked, _scope())

    async def _result(self, entry: Entry, token: bool = False) -> dict[str, Any]:
        """The result that an entry speaks of; a large one was left with its run."""
        self._results[entry.ref or entry.name] = entry
        if entry.value is not None:
            result: dict[str, Any] = _json(entry.value)
            return result
        id = entry.ref or entry.name
        found: dict[str, Any] = {}
        while id not in found:
            found = (
                await self._parking.look((), (id,), 0) if token else await self._parking.look((id,), (), 0)
            )
        return dict(found[id])

    def blocking(self, start: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What a coroutine of this class gives, for a thread of the run, which it blocks."""
        return self._threads.blocking(start)

    # ---- inside

    def _check(self) -> None:
        if self.broken is not None:
            raise self.broken
        if self.suspending:
            raise Suspended("the run is being suspended")
        if self._recorder.over:
            raise Interrupted("the attempt is over")

    async def _in_turn(self, entry: Entry) -> None:
        """Until everything recorded before `entry` was handed out, and has shown its effect."""
        scope = _scope().path
        if (turn := self._order.turn(entry, scope)) is not None:
            await self._recorder.committed(turn)
        self._order.hand_out(entry, scope)


def _scope() -> Scope:
    scope = current_scope.get()
    assert scope is not None
    return scope


def _json(text: str | None) -> Any:
    from pydantic_core import from_json

    return from_json(text or "null")


def _text(value: Any) -> str:
    from pydantic_core import to_json

    return to_json(value).decode()
