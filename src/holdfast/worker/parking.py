"""Parked waits of one attempt: looked after here for a few seconds, then the run is suspended.

While every branch of the code is parked, or waits for one that is, the run is idle. An idle run stays warm
for a few seconds, because most waits are short. Then, or at once when it is known to wait longer or the worker
has no place left for what it may be waiting for, every parked wait raises `Suspended`, which unwinds the
code, and the run is let go.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

from holdfast.errors import (
    HoldfastError,
    InvalidRequest,
    NotFound,
    RunNotFound,
    Unprocessable,
    WaitpointNotFound,
)
from holdfast.model.limits import MAX_WAITS
from holdfast.worker.link import Link
from holdfast.worker.scope import Branches, Scope

T = TypeVar("T")

TURNS = 8  # of the loop, until what one result sets in motion has come to its next stop
LOOK_SECONDS = 0.25  # how often a run with parked and live branches is looked at
ASKED_AT_ONCE = 1_000
REFUSED = (InvalidRequest, NotFound, RunNotFound, Unprocessable, WaitpointNotFound)  # and will be again
NEAR_MS = 50  # a due time that is nearer than this is not worth a suspension


class Suspended(BaseException):  # not an error: nothing went wrong
    """The run is suspended until what it waits for has ended; this unwinds its code.

    It is no Exception, so that `except Exception` does not swallow it. Clean up and let it pass: the
    run is executed again from the top, and what is recorded is not done twice.
    """


@dataclass(slots=True, eq=False)
class Parked:
    """One durable wait: for the first of several runs and tokens, or for a time (epoch ms).

    wake  which of the ends resumes a suspended run, as in wire/workers.py
    """

    runs: Collection[str] = ()
    tokens: Collection[str] = ()
    due_at: int | None = None
    wake: str = "any"
    future: asyncio.Future[dict[str, Any]] = field(init=False)

    def on_wire(self, group: int) -> Iterator[dict[str, Any]]:
        head = {"wake": self.wake, "group": group}
        if self.due_at is not None:
            yield {"on": "time", "dueAt": self.due_at, **head}
        for id in self.runs:
            yield {"on": "run", "id": id, **head}
        for id in self.tokens:
            yield {"on": "token", "id": id, **head}


class Parking:
    """is_busy  whether something is about to be handed to the code"""

    def __init__(
        self,
        link: Link,
        branches: Branches,
        loop: asyncio.AbstractEventLoop,
        warm_ms: int,
        is_busy: Callable[[], bool],
    ) -> None:
        self.suspending = False
        self.waits: list[dict[str, Any]] = []  # of the suspension
        self.unwound: list[asyncio.Task[Any]] = []  # the branches that it ends
        self.idle_seconds = 0.0
        self._link = link
        self._branches = branches
        self._loop = loop
        self._warm_ms = warm_ms
        self._is_busy = is_busy
        self._parked: dict[Parked, None] = {}
        self._changed = asyncio.Event()
        self._moved = False  # a wait began or ended
        self._crowded = False  # its place is wanted
        self._watcher: asyncio.Task[None] | None = None

    async def park(self, parked: Parked, scope: Scope) -> dict[str, Any]:
        """What has ended, by id; nothing when the time has come. Raises Suspended."""
        parked.future = self._loop.create_future()
        scope.parked += 1
        self._parked[parked] = None
        self._moved = True
        self._changed.set()
        if self._watcher is None or self._watcher.done():
            self._watcher = self.background(self._watch())
        try:
            return await parked.future
        finally:
            scope.parked -= 1
            self._parked.pop(parked, None)
            self._moved = True
            self._changed.set()

    def give_place(self) -> None:
        """The worker is full: an idle run is suspended now."""
        self._crowded = True
        self._changed.set()

    def close(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()

    def background(self, coro: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task of ours, which is no branch of the run."""
        return asyncio.Task(coro, loop=self._loop, context=Context())

    async def look(self, runs: Sequence[str], tokens: Sequence[str], wait_ms: int) -> dict[str, Any]:
        """The results of those that have ended, by id, as soon as the server answers."""
        while True:
            try:
                return await self._link.results(runs, tokens, wait_ms)
            except REFUSED:
                raise
            except HoldfastError:
                await asyncio.sleep(1.0)

    async def _watch(self) -> None:
        """Looks after parked waits until there are none, or the run is suspended."""
        polling: asyncio.Task[dict[str, Any]] | None = None
        polled: set[str] = set()
        looked: set[str] = set()  # had not ended when the server was asked
        idle_since: float | None = None
        try:
            while self._parked:
                self._changed.clear()
                for _ in range(TURNS):
                    await asyncio.sleep(0)
                self._ring(looked)
                runs = {id for one in self._parked for id in one.runs}
                tokens = {id for one in self._parked for id in one.tokens}
                if polling is not None and not runs | tokens <= polled:
                    polling.cancel()
                    polling = None
                if polling is None and runs | tokens:
                    polled = runs | tokens
                    polling = self._poll(runs, tokens, self._warm_ms if polled <= looked else 0)
                idle_since = self._idle(idle_since)
                if idle_since is not None and runs | tokens <= looked and self._is_time(idle_since):
                    idle_since = self._idle(idle_since, over=True)
                    await self._suspend()
                    return
                await self._news(polling, idle_since)
                if polling is not None and polling.done():
                    asked, polling = polling, None
                    looked = polled
                    if isinstance(asked.exception(), REFUSED):
                        await self._blame()
                    else:
                        looked = polled.difference(asked.result())
                        self._deliver(asked.result())
        finally:
            if polling is not None:
                polling.cancel()
            self._idle(idle_since, over=True)

    def _poll(self, runs: set[str], tokens: set[str], wait_ms: int) -> asyncio.Task[dict[str, Any]]:
        some_tokens = tuple(tokens)[:ASKED_AT_ONCE]
        some_runs = tuple(runs)[: ASKED_AT_ONCE - len(some_tokens)]
        return self.background(self.look(some_runs, some_tokens, wait_ms))

    def _idle(self, since: float | None, over: bool = False) -> float | None:
        """Since when the run is idle; its time limit stands still meanwhile."""
        now = time.monotonic()
        moved, self._moved = self._moved, False
        if not over and any(map(_ends_by_itself, self._parked)) and self._branches.all_wait():
            if since is None:
                self._crowded = False
                self._link.told("idle")
                return now
            if not moved:
                return since
            self.idle_seconds += now - since
            return now  # a wait that began just now is given its time, too
        if since is not None:
            self.idle_seconds += now - since
            self._link.told("active")
        return None

    def _is_time(self, idle_since: float) -> bool:
        """Whether an idle run is to be suspended."""
        if self._is_busy():
            return False  # something is about to be handed out
        now = self._link.now_ms()
        # Short sleeps are recorded when they are over: a run that was suspended in one would begin it anew.
        crowded = self._crowded and all(one.runs or one.tokens for one in self._parked)
        if crowded or (time.monotonic() - idle_since) * 1_000 >= self._warm_ms:
            nearest = min((one.due_at for one in self._parked if one.due_at is not None), default=None)
            return nearest is None or nearest - now > NEAR_MS
        return all(
            not (one.runs or one.tokens) and (one.due_at is None or one.due_at - now > self._warm_ms)
            for one in self._parked
        )

    async def _news(self, polling: asyncio.Task[Any] | None, idle_since: float | None) -> None:
        """Until something may have happened."""
        seconds = LOOK_SECONDS
        if idle_since is not None:
            seconds = max(0.0, idle_since + self._warm_ms / 1_000 - time.monotonic()) + 0.001
        if dues := [one.due_at for one in self._parked if one.due_at is not None]:
            seconds = min(seconds, max(0.0, (min(dues) - self._link.now_ms()) / 1_000) + 0.001)
        changed = self.background(_wait_for(self._changed))
        waits: list[asyncio.Task[Any]] = [changed, *([polling] if polling is not None else [])]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()

    def _ring(self, looked: Collection[str]) -> None:
        """Whose time has come; of a limit, only when what it limits was looked at and had not ended."""
        now = self._link.now_ms()
        for one in list(self._parked):
            if one.due_at is None or one.due_at > now or one.future.done():
                continue
            if all(id in looked for id in (*one.runs, *one.tokens)):
                one.future.set_result({})

    async def _blame(self) -> None:
        """A request for all was refused: whoever asks for what there is not is told."""
        for one in list(self._parked):
            if one.runs or one.tokens:
                try:
                    found = await self._poll(set(one.runs), set(one.tokens), 0)
                except REFUSED as error:
                    if not one.future.done():
                        one.future.set_exception(error)
                else:
                    self._deliver(found)

    def _deliver(self, found: Mapping[str, Any]) -> None:
        for one in list(self._parked):
            own = {id: found[id] for id in found if id in one.runs or id in one.tokens}
            if own and not one.future.done():
                one.future.set_result(own)

    async def _suspend(self) -> None:
        self.suspending = True
        # Of more than can be told the first ones: when those have ended it waits for the others.
        waits = (wait for group, one in enumerate(self._parked) for wait in one.on_wire(group))
        self.waits = list(islice(waits, MAX_WAITS))
        branches = self._branches
        if branches.on_wait is not None and branches.context is not None:
            context = branches.context.copy()
            await asyncio.Task(_coroutine(branches.on_wait()), loop=self._loop, context=context)
        self.unwound = list(branches.started)
        for future in (*(one.future for one in self._parked), *branches.ended_by_suspension()):
            if not future.done():
                future.set_exception(Suspended("the run is suspended until what it waits for has ended"))


def is_suspended(error: BaseException | None) -> bool:
    """Whether an error is what unwinds code for a suspension; a group must hold nothing else."""
    if isinstance(error, BaseExceptionGroup):
        return all(is_suspended(one) for one in error.exceptions)
    return isinstance(error, Suspended)


def _ends_by_itself(parked: Parked) -> bool:
    """Whether it waits for anything but to be cancelled."""
    return bool(parked.runs or parked.tokens or parked.due_at is not None)


async def _wait_for(event: asyncio.Event) -> None:
    await event.wait()


async def _coroutine(awaitable: Awaitable[T]) -> T:
    return await awaitable
