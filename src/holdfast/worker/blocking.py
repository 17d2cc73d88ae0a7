"""Coroutines of an attempt for its sync code, which runs in threads."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import Any, TypeVar

T = TypeVar("T")


class Interrupted(BaseException):  # not an error: nothing went wrong
    """The attempt is over, or is being stopped; this ends what its code left behind."""


class Blocking:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: dict[asyncio.Task[Any], None] = {}
        self._over = False

    def blocking(self, start: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What the coroutine gives, for a thread other than the loop's. Raises Interrupted after `let_go`."""
        context = copy_context()
        done: concurrent.futures.Future[T] = concurrent.futures.Future()

        def begin() -> None:
            if self._over:
                done.set_exception(Interrupted("the attempt is over"))
                return
            # Made by hand, so that it belongs to the scope of the thread.
            task = asyncio.Task(start(), loop=self._loop, context=context)
            self._calls[task] = None
            task.add_done_callback(ended)

        def ended(task: asyncio.Task[T]) -> None:
            self._calls.pop(task, None)
            if task.cancelled():
                done.set_exception(Interrupted("the attempt is being stopped"))
            elif (error := task.exception()) is not None:
                done.set_exception(error)
            else:
                done.set_result(task.result())

        self._loop.call_soon_threadsafe(begin)
        return done.result()

    def let_go(self) -> None:
        """Whoever waits is told that it is over."""
        self._over = True
        for task in list(self._calls):
            task.cancel()
