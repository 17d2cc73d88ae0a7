"""`@step`: functions whose result is recorded once in a run, and not computed again.

@step(retry=3)
async def charge(order: Order) -> str: ...

receipt = await charge(order)        # in a run: recorded; after a crash it is not charged again
step(client.send)(message)           # any function can be one
"""

from __future__ import annotations

import functools
import inspect
import random
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextvars import copy_context
from typing import Any, Protocol, TypeVar, overload

from holdfast.errors import RetryAfter, StepTimedOut
from holdfast.model.duration import duration_ms
from holdfast.model.error import clean
from holdfast.model.journal import STEP, Entry
from holdfast.model.retry import RetryPolicy, retry_delay_ms
from holdfast.sdk.context import Durable, current_durable, in_step
from holdfast.sdk.options import Duration
from holdfast.sdk.retry import Retry
from holdfast.sdk.transport import refuse_in_loop
from holdfast.sdk.values import Kept, digest, error_again, error_told, return_hint

F = TypeVar("F", bound=Callable[..., Any])
MAX_NAME = 200
NO_RETRY = Retry(1)
_NOT_SAID: Any = object()


class Decorator(Protocol):
    """What `@step(…)` gives: the function stays what it is."""

    def __call__(self, fn: F, /) -> F: ...


@overload
def step(fn: F, /) -> F: ...
@overload
def step(
    *,
    name: str | None = None,
    retry: Retry | int | None = None,
    timeout: Duration | None = None,
    returns: Any = ...,
) -> Decorator: ...
def step(
    fn: Any = None,
    /,
    *,
    name: str | None = None,
    retry: Retry | int | None = None,
    timeout: Duration | None = None,
    returns: Any = _NOT_SAID,
) -> Any:
    """Make a function a step, sync or async. Outside of a run, and inside another step, it is the plain function.

    name     what it is called in the journal; by default the function's name
    retry    how often it is tried, a `Retry` or the number of tries; by default once. The delays are
             slept in place. When it has failed for the last time, the failure is recorded and raised
    timeout  how long one try may take: StepTimedOut. A sync function goes on in its thread if it does
             not react
    returns  the type of the result; by default the function's annotation

    The result is written as JSON by its type, at most 3 MiB, and what the call gives is read back from
    that, the first time as well as later. A secret (`SecretStr`) is written as it is, so that it comes
    back whole. The code goes on when the result is in the store: so a step that is recorded never runs
    again in its run. One that was interrupted before runs again: make it harmless to repeat.

    A run asks for the same steps in the same order each time its code is executed. ReplayMismatch is
    raised when it does not.
    """
    scope = sys._getframe(1)

    def decorate(function: Callable[..., Any]) -> Any:
        local_names = dict(scope.f_locals) if "<locals>" in getattr(function, "__qualname__", "") else None
        return _Step(function, name, retry, timeout, returns, local_names).wrapper()

    return decorate if fn is None else decorate(fn)


class _Step:
    def __init__(
        self,
        fn: Callable[..., Any],
        name: str | None,
        retry: Retry | int | None,
        timeout: Duration | None,
        returns: Any,
        local_names: Mapping[str, Any] | None,
    ) -> None:
        if not callable(fn):
            raise TypeError(
                f"@step decorates functions, and this is {fn!r}; options have names: @step(name=…)"
            )
        if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
            raise TypeError(f"{fn!r} is a generator; a step returns one value")
        self.fn = fn
        self.name = name or getattr(fn, "__name__", "") or type(fn).__name__
        if not 1 <= len(self.name) <= MAX_NAME or clean(self.name) != self.name:
            raise ValueError(
                f"the step name {self.name[:40]!r} must have 1 to {MAX_NAME} characters, without NUL and surrogates"
            )
        self.retry = Retry(retry) if isinstance(retry, int) else retry or NO_RETRY
        self.policy: RetryPolicy = self.retry.policy
        self.timeout = None if timeout is None else duration_ms(timeout, "timeout") / 1_000
        if self.timeout is not None and self.timeout <= 0:
            raise ValueError(f"timeout of step {self.name} is {timeout!r}: expected more than nothing")
        what = f"step {self.name}"
        hint = (lambda: return_hint(fn, what, local_names)) if returns is _NOT_SAID else (lambda: returns)
        self.result = Kept(f"the result of {what}", hint)

    def wrapper(self) -> Callable[..., Any]:
        """The function that stands in the place of the decorated one."""
        if inspect.iscoroutinefunction(self.fn):

            async def asynchronous(*args: Any, **kwargs: Any) -> Any:
                return await self._async_call(args, kwargs)

            made: Callable[..., Any] = asynchronous
        else:

            def synchronous(*args: Any, **kwargs: Any) -> Any:
                return self._sync_call(args, kwargs)

            made = synchronous
        functools.update_wrapper(made, self.fn)
        made.step_name = self.name  # type: ignore[attr-defined]  # for tests, which count calls by it
        return made

    # ---- async

    async def _async_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        from asyncio import CancelledError, current_task

        durable = current_durable()
        if durable is None:
            return await self.fn(*args, **kwargs)
        mark = digest(args, kwargs)
        entry = await durable.recall(STEP, self.name, mark)
        if entry is not None:
            return self._recorded(durable, entry)
        try:
            with durable.working(self.name), in_step(self.name):
                text = self.result.encode(await self._tried(durable, args, kwargs))
        except (GeneratorExit, SystemExit, KeyboardInterrupt):
            raise  # the end of the coroutine, or of the process
        except BaseException as error:
            task = current_task()
            if isinstance(error, CancelledError) and (task is None or task.cancelling()):
                durable.cancelled(STEP, self.name, mark)
                raise
            # Also a cancellation that nobody asked for: then what the step awaited was cancelled.
            entry = await durable.record(STEP, self.name, mark, ok=False, value=_text(error_told(error)))
            durable.failed(error, entry)
            raise
        await durable.record(STEP, self.name, mark, value=text)
        return self.result.decode(text)

    async def _tried(self, durable: Durable, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        number = 1
        while True:
            try:
                return await self._within_timeout(args, kwargs)
            except Exception as error:
                delay = self._delay_ms(error, number)
                if delay is None:
                    raise
            await durable.pause(delay / 1_000)
            number += 1

    async def _within_timeout(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.timeout is None:
            return await self.fn(*args, **kwargs)
        from asyncio import timeout

        try:
            async with timeout(self.timeout) as limit:
                return await self.fn(*args, **kwargs)
        except TimeoutError:
            if limit.expired():
                raise StepTimedOut(f"step {self.name} took longer than {self.timeout:g} s") from None
            raise

    # ---- sync

    def _sync_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        durable = current_durable()
        if durable is None:
            return self.fn(*args, **kwargs)
        instead = f"make it `async def`, or call it as `await asyncio.to_thread({self.fn.__name__}, …)`"
        refuse_in_loop(f"the sync step {self.name}", instead=instead)
        mark = digest(args, kwargs)
        entry = durable.blocking(lambda: durable.recall(STEP, self.name, mark))
        if entry is not None:
            return self._recorded(durable, entry)
        try:
            with durable.working(self.name), in_step(self.name):
                text = self.result.encode(self._tried_here(durable, args, kwargs))
        except BaseException as error:  # of an attempt that is being stopped nothing is recorded
            value = _text(error_told(error))
            entry = durable.blocking(lambda: durable.record(STEP, self.name, mark, ok=False, value=value))
            durable.failed(error, entry)
            raise
        durable.blocking(lambda: durable.record(STEP, self.name, mark, value=text))
        return self.result.decode(text)

    def _tried_here(self, durable: Durable, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        number = 1
        while True:
            try:
                if self.timeout is None:
                    return self.fn(*args, **kwargs)
                return self._in_thread(self.timeout, args, kwargs)
            except Exception as error:
                delay = self._delay_ms(error, number)
                if delay is None:
                    raise
            durable.blocking(functools.partial(durable.pause, delay / 1_000))
            number += 1

    def _in_thread(self, seconds: float, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call that is waited for no longer than its timeout."""
        ended: list[tuple[Any, BaseException | None]] = []
        context = copy_context()

        def call() -> None:
            try:
                ended.append((context.run(self.fn, *args, **kwargs), None))
            except BaseException as error:
                ended.append((None, error))

        thread = threading.Thread(target=call, name=f"step {self.name}", daemon=True)
        thread.start()
        until = time.monotonic() + seconds
        while thread.is_alive() and (left := until - time.monotonic()) > 0:
            thread.join(min(left, 0.5))  # in pieces, so that this thread can be interrupted
        if not ended:
            raise StepTimedOut(f"step {self.name} took longer than {seconds:g} s; its thread goes on")
        value, error = ended[0]
        if error is not None:
            raise error
        return value

    # ---- both

    def _recorded(self, durable: Durable, entry: Entry) -> Any:
        if entry.ok:
            return self.result.decode(entry.value or "null")
        from pydantic_core import from_json

        error = error_again(self.name, from_json(entry.value or "{}"))
        durable.failed(error, entry)
        raise error

    def _delay_ms(self, error: Exception, number: int) -> int | None:
        """Before the next try; None when there is none."""
        if number >= self.policy.max_attempts or isinstance(error, self.retry.give_up_on):
            return None
        if isinstance(error, RetryAfter):
            return max(0, duration_ms(error.delay, "delay"))
        if self.retry.retry_on and not isinstance(error, self.retry.retry_on):
            return None
        return retry_delay_ms(self.policy, number, random.random())


def _text(value: Any) -> str:
    from pydantic_core import to_json

    return to_json(value).decode()
