"""The threads that sync user code runs in, and how one of them is asked to stop.

A pool of our own, because the standard one can neither tell which thread a call runs in nor let go
of a thread that does not come back. Results of all threads that end at the same moment wake the loop
once.
"""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class RunInterrupted(BaseException):  # not an error: nothing went wrong
    """The run was cancelled or its time is over; this unwinds its code.

    It is no Exception, so that `except Exception` in a task does not swallow it. Clean up and let
    it pass: a task that goes on is killed seconds later, together with its process.
    """


class Call:
    """One function call in one thread."""

    __slots__ = ("began", "context", "ended", "error", "function", "future", "lock", "thread", "value")

    def __init__(
        self, function: Callable[[], Any], future: asyncio.Future[Any], began: Callable[[], None] | None
    ) -> None:
        self.function = function
        self.future = future
        self.began = began  # called in the loop, when the call had to wait for a thread
        self.context = contextvars.copy_context()
        self.lock = threading.Lock()
        self.thread: int | None = None  # while user code runs
        self.ended = False
        self.value: Any = None
        self.error: BaseException | None = None


class ThreadPool:
    """At most `size` threads, made as they are needed. Every method belongs to the loop's thread."""

    def __init__(self, size: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._size = size
        self._threads = 0
        self._busy = 0
        self._calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
        self._events: deque[tuple[Call, bool]] = deque()  # (call, whether it ended)
        self._awake = False

    @property
    def is_full(self) -> bool:
        """Whether the next call would have to wait for a thread."""
        return self._busy >= self._size

    async def run(self, function: Callable[[], T], began: Callable[[], None] | None = None) -> T:
        """What `function` returns or raises, in a thread with a copy of this context.

        A cancellation raises RunInterrupted in the thread and then waits for it to end: as long as
        user code goes on, so does this call.
        """
        call = Call(function, self._loop.create_future(), began if self.is_full else None)
        self._busy += 1
        self._calls.put(call)
        if self._threads < min(self._busy, self._size):
            self._threads += 1
            threading.Thread(target=self._work, name=f"holdfast-{self._threads}", daemon=True).start()
        try:
            await call.future
        except asyncio.CancelledError:
            await self._stop(call)
            raise
        if call.error is not None:
            try:
                raise call.error
            finally:
                del call  # the traceback must not keep itself alive through this frame
        return call.value  # type: ignore[no-any-return]  # a slot for any result

    async def _stop(self, call: Call) -> None:
        call.future = self._loop.create_future()
        with call.lock:
            if call.thread is not None:
                _raise_in(call.thread, RunInterrupted)
            else:
                call.function = _interrupted  # it waits for a thread; it shall find nothing to do
        while not call.ended:
            try:
                await call.future
            except asyncio.CancelledError:
                if not call.ended:
                    call.future = self._loop.create_future()

    def _work(self) -> None:
        while True:
            try:
                self._perform(self._calls.get())
            except RunInterrupted:
                continue  # it arrived when the call had just ended

    def _perform(self, call: Call) -> None:
        try:
            if call.began is not None:
                self._tell(call, False)
            try:
                with call.lock:
                    call.thread = threading.get_ident()
                call.value = call.context.run(call.function)
            finally:
                with call.lock:
                    call.thread = None
                    _raise_in(threading.get_ident(), None)  # what was not delivered in time never is
        except BaseException as error:
            call.error = error.with_traceback(error.__traceback__)
        self._tell(call, True)

    def _tell(self, call: Call, ended: bool) -> None:
        self._events.append((call, ended))
        if not self._awake:
            self._awake = True
            self._loop.call_soon_threadsafe(self._collect)

    def _collect(self) -> None:
        # Cleared before the queue is emptied: an event added from now on wakes the loop again.
        self._awake = False
        while self._events:
            call, ended = self._events.popleft()
            if not ended:
                if call.began is not None:
                    call.began()
                continue
            self._busy -= 1
            call.ended = True
            if not call.future.done():
                call.future.set_result(None)


def _interrupted() -> None:
    raise RunInterrupted("stopped before it began")


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Raise `error` in `thread` at its next instruction in Python; None takes a pending one back."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), None if error is None else ctypes.py_object(error)
    )
