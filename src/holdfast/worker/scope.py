"""Branches of a run's code: which asyncio task asks, and whether it is waiting for anything but the run itself.

A scope is a branch: the attempt is "", the second task that it starts of a coroutine `fetch` is
"fetch.1", and one that this one starts "fetch.1/parse.0". Tasks are numbered when they are created,
which code does in the same order each time, and not when they first get a turn. Threads
(`asyncio.to_thread`) belong to the scope of the task that started them. What a step or a hook starts
has no number: it is not started when the step is recorded.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from types import CodeType
from typing import Any
from weakref import WeakKeyDictionary

from holdfast.sdk.context import is_in_step

MAX_PATH = 400  # characters
NAME = 40

_ASYNCIO = os.path.dirname(asyncio.__file__)
# Where a task waits for other tasks, by file and function; None for the whole file.
_PEERS: dict[str, frozenset[str] | None] = {
    os.path.join(_ASYNCIO, "taskgroups.py"): None,
    os.path.join(_ASYNCIO, "locks.py"): None,
    os.path.join(_ASYNCIO, "queues.py"): None,
    os.path.join(_ASYNCIO, "tasks.py"): frozenset({"_wait", "wait_for"}),
}
# Where a suspension ends the waiting itself: none of these passes on what a branch raises.
_ENDED: dict[str, frozenset[str] | None] = {
    os.path.join(_ASYNCIO, "locks.py"): None,
    os.path.join(_ASYNCIO, "queues.py"): None,
    os.path.join(_ASYNCIO, "tasks.py"): frozenset({"_wait"}),
}
_ANYIO = f"{os.sep}anyio{os.sep}"  # waits for sockets by asyncio's own locks


class Branches:
    """The branches of one attempt's code.

    on_wait  called before the run is suspended, in the context of the code
    """

    def __init__(self) -> None:
        self.root = Scope("", self)
        self.started: WeakKeyDictionary[asyncio.Task[Any], Scope] = WeakKeyDictionary()
        self.on_wait: Callable[[], Awaitable[None]] | None = None
        self.context: Context | None = None

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Makes the current task the root."""
        self.root.task = asyncio.current_task()
        token = current_scope.set(self.root)
        self.context = copy_context()
        try:
            yield
        finally:
            current_scope.reset(token)

    def all_wait(self) -> bool:
        """Whether every branch waits durably, or for a branch that does."""
        root = self.root
        if root.task is None or not _waits(root.task, root):
            return False
        return all(task.done() or _waits(task, scope) for task, scope in list(self.started.items()))

    def ended_by_suspension(self) -> Iterator[asyncio.Future[Any]]:
        """What the code waits for, by asyncio's means, and nobody would end when all branches are unwound, or
        what would give the code the end of a branch as a result.
        """
        for task in (self.root.task, *list(self.started)):
            awaited = getattr(task, "_fut_waiter", None)
            if task is None or task.done() or awaited is None or awaited.done():
                continue
            innermost = _innermost(task.get_coro())
            if is_gathering(awaited) or (innermost is not None and _is_in(_ENDED, innermost)):
                yield awaited

    def left(self) -> list[asyncio.Task[Any]]:
        """Tasks that the code started and that go on."""
        return [task for task in self.started if not task.done()]


class Scope:
    """One branch.

    parked   how many durable waits are under way in it
    working  how many steps are
    """

    __slots__ = ("_branches", "_children", "parked", "path", "task", "working")

    def __init__(self, path: str, branches: Branches) -> None:
        self.path = path
        self._branches = branches
        self.task: asyncio.Task[Any] | None = None  # of the attempt itself
        self.parked = 0
        self.working = 0
        self._children: Counter[str] = Counter()

    def child(self, name: str) -> Scope:
        """The next branch of this name. Libraries start tasks, too, and not always as many: so names count apart."""
        number = self._children[name]
        self._children[name] += 1
        path = f"{self.path}/{name}.{number}" if self.path else f"{name}.{number}"
        if len(path) > MAX_PATH:
            path = f"{path[:NAME]}~{hashlib.sha256(path.encode()).hexdigest()}"
        return Scope(path, self._branches)

    def uncounted(self) -> Scope:
        """A task that asks for nothing durable, such as one within a step."""
        return Scope(self.path, self._branches)

    def add(self, task: asyncio.Task[Any], child: Scope) -> None:
        self._branches.started[task] = child


current_scope: ContextVar[Scope | None] = ContextVar("holdfast_scope", default=None)


def task_factory(
    loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **options: Any
) -> asyncio.Task[Any]:
    """Makes the loop's tasks; one that a run starts gets a scope of its own."""
    context = options.pop("context", None)
    scope = current_scope.get() if context is None else context.get(current_scope)
    if scope is None:
        return asyncio.Task(coro, loop=loop, context=context, **options)
    # One that is given is copied as well: of several tasks in it each needs a scope of its own.
    context = copy_context() if context is None else context.copy()
    child = context.run(_next_scope, scope, coro)
    context.run(current_scope.set, child)
    task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, context=context, **options)
    scope.add(task, child)
    return task


def _next_scope(scope: Scope, coro: Any) -> Scope:
    return scope.uncounted() if is_in_step() else scope.child(getattr(coro, "__name__", "task")[:NAME])


def _waits(task: asyncio.Task[Any], scope: Scope) -> bool:
    if scope.working or scope.parked:
        return not scope.working
    awaited = getattr(task, "_fut_waiter", None)
    if awaited is None:
        return False  # it is about to get its turn
    if isinstance(awaited, asyncio.Task) or is_gathering(awaited) or _is_shield(awaited):
        return True  # whose tasks are looked at themselves
    return _waits_for_peers(task.get_coro())


def is_gathering(awaited: Any) -> bool:
    """Whether it is what `asyncio.gather` gives."""
    return type(awaited).__name__ == "_GatheringFuture"


def _is_shield(awaited: Any) -> bool:
    """Whether it is what `asyncio.shield` gives for a task."""
    for callback, _ in getattr(awaited, "_callbacks", None) or ():
        if getattr(callback, "__qualname__", "") == "shield.<locals>._outer_done_callback":
            cells = inspect.getclosurevars(callback).nonlocals
            return isinstance(cells.get("inner"), asyncio.Task)
    return False


def _waits_for_peers(coro: Any) -> bool:
    """Whether the innermost of these coroutines waits, by asyncio's means, for what other tasks do."""
    innermost = _innermost(coro)
    return innermost is not None and _is_in(_PEERS, innermost)


def _is_in(places: Mapping[str, frozenset[str] | None], code: CodeType) -> bool:
    names = places.get(code.co_filename, frozenset())
    return names is None or code.co_name in names


def _innermost(coro: Any) -> CodeType | None:
    """Where a coroutine waits; None inside of anyio."""
    innermost = None
    while (code := getattr(coro, "cr_code", None)) is not None:
        if _ANYIO in code.co_filename:
            return None
        innermost, coro = code, coro.cr_await
    return innermost
