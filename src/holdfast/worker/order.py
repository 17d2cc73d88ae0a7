"""The order in which results reach the code: that in which they are recorded, one after another.

Between two results of different branches the loop makes a few turns, live as well as in a replay, until what
the first one set in motion has come to its next stop. So `asyncio.wait` and `as_completed` see the same branch
win each time. Code that runs in one branch waits for nothing.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable, Coroutine
from typing import Any

from holdfast.model.journal import Entry, Journal
from holdfast.worker.parking import TURNS

GAP_SECONDS = 0.5  # a result waits so long for an earlier one that the code has not asked for yet


class Order:
    def __init__(
        self,
        journal: Journal,
        loop: asyncio.AbstractEventLoop,
        background: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self._journal = journal
        self._loop = loop
        self._background = background
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._pump: asyncio.Task[None] | None = None
        self._latest = ""  # the branch that was given something last

    @property
    def is_busy(self) -> bool:
        """Whether something waits for its turn."""
        return bool(self._waiting)

    def turn(self, entry: Entry, scope: str) -> asyncio.Future[None] | None:
        """None when it is the turn of `entry` now, else what to wait for; `hand_out` follows."""
        if entry.loose or (not self._waiting and scope == self._latest and self._journal.is_next(entry)):
            return None
        future = self._loop.create_future()
        heapq.heappush(self._waiting, (entry.seq, future))
        if self._pump is None or self._pump.done():
            self._pump = self._background(self._hand_out_all())
        return future

    def hand_out(self, entry: Entry, scope: str) -> None:
        """The code gets `entry` now."""
        self._latest = scope
        self._journal.hand_out(entry)

    async def _hand_out_all(self) -> None:
        while self._waiting:
            for _ in range(TURNS):
                await asyncio.sleep(0)
            waited = time.monotonic()
            while not self._is_due() and time.monotonic() - waited < GAP_SECONDS:  # noqa: ASYNC110
                await asyncio.sleep(0.001)  # rare: an earlier one is yet to be asked for
            _, future = heapq.heappop(self._waiting)
            if not future.done():
                future.set_result(None)

    def _is_due(self) -> bool:
        return self._journal.is_next(Entry(self._waiting[0][0], "", "", ""))
