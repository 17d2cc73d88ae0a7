"""`@task`, which makes a function a task."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, overload

from holdfast.sdk import registry
from holdfast.sdk.hooks import KINDS, Hooks
from holdfast.sdk.queue import Queue
from holdfast.sdk.retry import Retry
from holdfast.sdk.task import AsyncTask, Duration, Hook, Isolation, SyncTask, Task

if TYPE_CHECKING:
    from holdfast.sdk.cron import Cron

P = ParamSpec("P")
R = TypeVar("R")


class Decorator(Protocol):
    """What `@task(…)` gives: it keeps the function's parameters and result."""

    @overload
    def __call__(  # type: ignore[overload-overlap]  # coroutine functions are meant to match the first
        self, fn: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> SyncTask[P, R]: ...


@overload
def task(  # type: ignore[overload-overlap]  # coroutine functions are meant to match the first
    fn: Callable[P, Coroutine[Any, Any, R]], /
) -> AsyncTask[P, R]: ...
@overload
def task(fn: Callable[P, R], /) -> SyncTask[P, R]: ...
@overload
def task(
    *,
    id: str | None = None,
    queue: Queue | str | None = None,
    key: str | None = None,
    cron: Cron | str | None = None,
    retry: Retry | int | None = None,
    timeout: Duration | None = None,
    ttl: Duration | None = None,
    machine: str | None = None,
    isolation: Isolation = "thread",
    memory_limit: int | str | None = None,
    on_start_attempt: Hook | None = None,
    on_success: Hook | None = None,
    on_failure: Hook | None = None,
    on_complete: Hook | None = None,
    on_cancel: Hook | None = None,
    on_wait: Hook | None = None,
    on_resume: Hook | None = None,
    catch_error: Hook | None = None,
    middleware: Hook | None = None,
) -> Decorator: ...
def task(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    id: str | None = None,
    queue: Queue | str | None = None,
    key: str | None = None,
    cron: Cron | str | None = None,
    retry: Retry | int | None = None,
    timeout: Duration | None = None,
    ttl: Duration | None = None,
    machine: str | None = None,
    isolation: Isolation = "thread",
    memory_limit: int | str | None = None,
    **hooks: Hook | None,
) -> Any:
    """Make a function a task, sync or async: `@task`, or `@task(retry=5, timeout="10m")`.

    id            the task's name; by default the function's, in kebab case: send_email → "send-email"
    queue         the queue its runs wait in, a `Queue` or the name of one; by default one of its own
    key           path of the concurrency key, such as "order.tenant": begins with a parameter
    cron          a `Cron`, or an expression such as "0 9 * * *" (in UTC), by which it runs by itself
    retry         a `Retry`, or the number of attempts; by default 3 attempts
    timeout       how long one attempt may take, in whole seconds; the server allows no less than 5 s
    ttl           runs that were not started by then expire
    machine       a size such as "small-1x"
    isolation     "process" gives every run a process of its own
    memory_limit  of that process, in bytes or such as "512MB"
    on_success…   hooks, a function or several each: see `Hooks`

    Raises TypeError for a function that can be no task, DuplicateName when another function has the id.
    """
    if fn is not None and not callable(fn):
        raise TypeError(f"@task decorates functions, and this is {fn!r}; options have names: @task(id=…)")
    if unknown := [name for name in hooks if name not in KINDS]:
        raise TypeError(f"@task has no option {unknown[0]!r}")
    scope = sys._getframe(1)

    def decorate(function: Callable[..., Any]) -> Task[Any, Any]:
        kind = AsyncTask if inspect.iscoroutinefunction(function) else SyncTask
        is_nested = "<locals>" in getattr(function, "__qualname__", "")
        made: Task[Any, Any] = kind(
            function,
            id=id,
            queue=queue,
            key=key,
            cron=cron,
            retry=retry,
            timeout=timeout,
            ttl=ttl,
            machine=machine,
            isolation=isolation,
            memory_limit=memory_limit,
            hooks=Hooks(**hooks),
            local_names=dict(scope.f_locals) if is_nested else None,
        )
        registry.add_task(made)
        return made

    return decorate if fn is None else decorate(fn)
