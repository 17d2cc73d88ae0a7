"""Group commit: calls that wait at the same moment become one call and one commit.

A call alone waits for nobody: a writer takes whatever is there and goes. While it commits, the next
calls gather, so batches grow with the load and with nothing else.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from holdfast.errors import HoldfastError, StoreUnavailable

# Bounds the time one commit may take, so that a heartbeat behind a large batch does not wait long.
MAX_ITEMS = 4_000


class Call:
    """One use case with its items, and what became of it."""

    __slots__ = ("error", "future", "items", "result", "use_case")

    def __init__(
        self, use_case: Callable[..., Any], items: Sequence[Any], future: asyncio.Future[Any]
    ) -> None:
        self.use_case = use_case
        self.items = items
        self.future = future
        self.result: Any = None
        self.error: BaseException | None = None


def answer(calls: Sequence[Call]) -> None:
    """Tells each event loop, in one go, what became of its calls."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Call]] = {}
    for call in calls:
        by_loop.setdefault(call.future.get_loop(), []).append(call)
    for loop, own in by_loop.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_resolve, own)


def _resolve(calls: list[Call]) -> None:
    for call in calls:
        if call.future.done():  # whoever waited was cancelled; the commit stands
            continue
        if call.error is not None:
            call.future.set_exception(call.error)
        else:
            call.future.set_result(call.result)


def call_together(
    run: Callable[[Callable[..., Any], list[Any]], Sequence[Any]], calls: Sequence[Call]
) -> None:
    """Runs calls of one use case as one, and shares the results out.

    `run(use_case, items)` executes it over an open transaction, undoing it when it raises. When the
    merged call raises, each is tried alone, so that a bad one never fails its neighbours.
    """
    try:
        results = run(calls[0].use_case, [item for call in calls for item in call.items])
        position = 0
        for call in calls:
            call.result = list(results[position : position + len(call.items)])
            position += len(call.items)
    except StoreUnavailable:
        raise
    except Exception as error:
        if len(calls) > 1:
            for call in calls:
                call_together(run, [call])
        else:
            calls[0].error = error


class Committer:
    """Writer threads over one queue. `commit(calls)` performs calls and sets their results."""

    def __init__(
        self, name: str, threads: int, commit: Callable[[list[Call]], None], merge_all: bool
    ) -> None:
        self._commit = commit
        self._merge_all = merge_all
        self._waiting: deque[Call] = deque()
        self._wakeup = threading.Condition()
        self._closing = False
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-writer-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    async def submit(self, use_case: Callable[..., Any], items: Sequence[Any]) -> Any:
        call = Call(use_case, items, asyncio.get_running_loop().create_future())
        with self._wakeup:
            if self._closing:
                raise StoreUnavailable("the store is closed")
            self._waiting.append(call)
            self._wakeup.notify()
        return await call.future

    def close(self) -> None:
        with self._wakeup:
            self._closing = True
            self._wakeup.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while calls := self._take():
            try:
                self._commit(calls)
            except HoldfastError as error:
                for call in calls:
                    call.error = call.error or error
            except Exception as error:
                for call in calls:
                    call.error = error
            answer(calls)

    def _take(self) -> list[Call]:
        """Everything that waits, or (without `merge_all`) all that waits for the same use case as the first."""
        with self._wakeup:
            while not self._waiting:
                if self._closing:
                    return []
                self._wakeup.wait()
            taken, left, size = [self._waiting.popleft()], [], len(self._waiting)
            items = len(taken[0].items)
            for _ in range(size):
                call = self._waiting.popleft()
                same = self._merge_all or call.use_case is taken[0].use_case
                if same and items + len(call.items) <= MAX_ITEMS:
                    taken.append(call)
                    items += len(call.items)
                else:
                    left.append(call)
            self._waiting.extendleft(reversed(left))
            if left:
                self._wakeup.notify()
            return taken
