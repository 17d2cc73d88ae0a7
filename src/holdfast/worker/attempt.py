"""One attempt: payload in, hooks and function, outcome out.

The order, from the outside in (engine-semantics, section 9):

    payload by the type hints    fails: TASK_INPUT_ERROR, no hook runs
    middleware                   global ones first (outermost), then the task's
      on_start_attempt
      the function
    output by the return type    fails: TASK_OUTPUT_ERROR
    on_success, or catch_error (the task's first) and, when no attempt follows, on_failure
    on_complete, when no attempt follows

A hook that raises before the function fails the attempt; one that raises after it is logged only.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
import traceback
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from holdfast.errors import (
    AbortRun,
    Forbidden,
    HoldfastError,
    InvalidRequest,
    JournalFull,
    NotAuthorised,
    NotFound,
    PayloadTooLarge,
    ReplayMismatch,
    RetryAfter,
    RunNotFound,
    SuspensionSwallowed,
    Unprocessable,
    WaitInStep,
    WaitpointNotFound,
)
from holdfast.model.duration import duration_ms
from holdfast.model.error import (
    MAX_CAUSES,
    MAX_MESSAGE,
    MAX_NAME,
    MAX_STACK,
    RunError,
    clean,
    internal_error,
    may_be_retried,
)
from holdfast.model.limits import MAX_OUTPUT
from holdfast.model.retry import retry_delay_ms
from holdfast.sdk.context import CurrentRun, entered, in_step
from holdfast.sdk.hooks import Hooks, global_hooks
from holdfast.sdk.task import Task
from holdfast.worker.durable import Durable
from holdfast.worker.parking import is_suspended
from holdfast.worker.scope import Branches

log = logging.getLogger("holdfast.worker")

CANCELLED = "cancelled"  # the message of the cancellation that lets on_cancel run
# Of code or request, and the same at the next attempt.
REFUSALS = (
    Forbidden,
    InvalidRequest,
    JournalFull,
    NotAuthorised,
    NotFound,
    PayloadTooLarge,
    RunNotFound,
    Unprocessable,
    WaitInStep,
    WaitpointNotFound,
)
MAX_FRAMES = 50


class InThread(Protocol):
    """Runs a function in a thread with a copy of the context; cancelling it stops that function."""

    def __call__(self, function: Callable[[], Any], /) -> Awaitable[Any]: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended: `output` as JSON text, or `error` and whether another attempt is wanted."""

    output: str | None = None
    error: RunError | None = None
    retry_delay_ms: int | None = None
    forget: Sequence[int] = ()  # recorded failures that the next attempt tries anew
    suspended: bool = False  # it has not ended: it waits


class MiddlewareFailed(HoldfastError):
    """A middleware raised an error of its own, or never called the next one."""


async def run_attempt(
    task: Task[Any, Any],
    run: CurrentRun,
    payload: str | Callable[[], Awaitable[str]] | None,
    *,
    max_attempts: int | None = None,
    in_thread: InThread = asyncio.to_thread,
    branches: Branches | None = None,
    durable: Callable[[], Durable | None] = lambda: None,
    resumed: bool = False,
) -> Outcome:
    """Run `task` once and say how it ended. Only a cancellation is raised.

    payload       as JSON text, or what reads it from the object store
    max_attempts  the run's own number; None takes the task's
    in_thread     where sync functions run
    branches      keeps track of the asyncio tasks that the code starts
    durable       the run's journal and waits, if it has used any by then
    resumed       it goes on after a suspension
    """
    branches = branches or Branches()
    with entered(run), branches.entered():
        attempts = max_attempts or task.retry.policy.max_attempts
        attempt = _Attempt(task, run, in_thread, attempts, durable, resumed)
        if callable(payload):
            try:
                payload = await payload()
            except HoldfastError as error:
                return attempt.unread(error)
        try:
            args, kwargs = task.decode_payload(payload, run)
        except HoldfastError as error:
            return Outcome(
                error=_internal("TASK_INPUT_ERROR", f"the payload does not fit {task.id}: {error}")
            )
        branches.on_wait = lambda: attempt.each("on_wait", run)
        try:
            return await attempt.perform(args, kwargs)
        except asyncio.CancelledError as cancelled:
            if CANCELLED in cancelled.args:
                await attempt.each("on_cancel", run)
            raise


class _Attempt:
    def __init__(
        self,
        task: Task[Any, Any],
        run: CurrentRun,
        in_thread: InThread,
        max_attempts: int,
        durable: Callable[[], Durable | None],
        resumed: bool,
    ) -> None:
        self.durable = durable
        self.resumed = resumed
        self.task = task
        self.run = run
        self.in_thread = in_thread
        self.max_attempts = max_attempts
        self.inner: BaseException | None = None  # what the function itself raised

    async def perform(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Outcome:
        try:
            value = await self._through_middleware(args, kwargs)
        except asyncio.CancelledError as error:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                raise
            # User code awaited something that was cancelled.
            return self._held_up(error) or await self._failed(error)
        except BaseException as error:
            return self._held_up(error) or await self._failed(error)
        if (held_up := self._held_up(None)) is not None:
            return held_up
        try:
            output = self.task.encode_output(value)
        except Exception as error:
            message = (
                f"{self.task.id} returned a {type(value).__name__} that can not be written as JSON: {error}"
            )
            return Outcome(error=_internal("TASK_OUTPUT_ERROR", message))
        if len(output) > MAX_OUTPUT // 4 and len(output.encode()) > MAX_OUTPUT:
            message = f"{self.task.id} returned {len(output.encode())} bytes; at most {MAX_OUTPUT} are kept"
            return Outcome(error=_internal("TASK_OUTPUT_ERROR", message))
        await self.each("on_success", self.run, value)
        await self.each("on_complete", self.run)
        return Outcome(output=output)

    def unread(self, error: HoldfastError) -> Outcome:
        """The outcome where the payload could not be read: another attempt may find the object store there."""
        text = f"the payload of {self.task.id} can not be read from the object store: {error}"
        if isinstance(error, REFUSALS):
            return Outcome(error=_internal("TASK_INPUT_ERROR", text))
        return Outcome(error={**as_data(error), "message": text}, retry_delay_ms=self._retry_delay_ms(error))

    def _held_up(self, error: BaseException | None) -> Outcome | None:
        """The outcome of code that was unwound for a suspension, or that can not go on as it is recorded."""
        durable = self.durable()
        if durable is None:
            return None
        if durable.suspending:
            if error is not None:
                if not is_suspended(error):
                    log.warning("clean-up raised while the run was suspended, which goes on", exc_info=error)
                return Outcome(suspended=True)
            swallowed = SuspensionSwallowed(
                f"{self.task.id} caught Suspended, which unwinds a run that waits, and went on: let it pass "
                "(`except Exception` does)"
            )
            return Outcome(error=as_data(swallowed))
        if error is None and durable.broken is None:
            durable.check_end()
        broken = durable.broken
        if not isinstance(broken, ReplayMismatch):
            # What was raised for it, the code may have caught.
            return Outcome(error=as_data(broken)) if broken is not None and error is None else None
        sides = {"recorded": broken.recorded, "asked": broken.asked}
        return Outcome(error={**_internal("TASK_RUN_REPLAY_MISMATCH", str(broken)), **sides})

    async def _through_middleware(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        chain = [*global_hooks.middleware, *self.task.hooks.middleware]
        if not chain:
            return await self._function(args, kwargs)
        reached = False
        result: Any = None

        async def step(index: int) -> Any:
            nonlocal reached, result
            if index == len(chain):
                reached = True
                result = await self._function(args, kwargs)
                return result
            return await self._call(chain[index], self.run, lambda: step(index + 1))

        try:
            await step(0)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            if error is self.inner:
                raise
            raise MiddlewareFailed(f"a middleware raised {type(error).__name__}: {error}") from error
        if not reached:
            raise MiddlewareFailed("a middleware returned without calling the next one: the task was not run")
        if self.inner is not None:
            raise self.inner  # a middleware may look at a failure, but not make it a success
        return result

    async def _function(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            first = "on_resume" if self.resumed else "on_start_attempt"
            for hooks in (global_hooks, self.task.hooks):
                for hook in _hooks(hooks, first):
                    with in_step(f"{first} (a hook)"):
                        await self._call(hook, self.run)
            if self.task.is_async:
                return await self.task.fn(*args, **kwargs)
            return await self.in_thread(lambda: self.task.fn(*args, **kwargs))
        except BaseException as error:
            self.inner = error
            raise

    async def _failed(self, error: BaseException) -> Outcome:
        if isinstance(error.__cause__, StopIteration) and str(error) == "coroutine raised StopIteration":
            error = error.__cause__  # what user code raised: coroutines can not let it pass
        delay = self._retry_delay_ms(error)
        recorded = as_data(error)
        if not may_be_retried(recorded):
            delay = None
        for hook in (*self.task.hooks.catch_error, *global_hooks.catch_error):
            try:
                with in_step("catch_error (a hook)"):
                    verdict = await self._call(hook, self.run, error)
                if not verdict:
                    continue
                delay = self._verdict_ms(verdict, error)
            except asyncio.CancelledError:
                raise
            except BaseException as raised:
                message = f"catch_error raised {type(raised).__name__}: {raised}"
                return Outcome(error=_internal("HANDLE_ERROR_ERROR", message))
            break
        if delay is None:
            await self.each("on_failure", self.run, error)
            await self.each("on_complete", self.run)
        durable = self.durable()
        forget = durable.to_forget(error) if durable is not None and delay is not None else ()
        return Outcome(error=recorded, retry_delay_ms=delay, forget=forget)

    def _retry_delay_ms(self, error: BaseException) -> int | None:
        """The delay before the next attempt by the task's policy, None when there shall be none."""
        retry = self.task.retry
        if isinstance(error, (AbortRun, *REFUSALS, MemoryError, *retry.give_up_on)):
            return None
        if isinstance(error, RetryAfter):
            return self._chosen_ms(error.delay)
        if retry.retry_on and not isinstance(error, tuple(retry.retry_on)):
            return None
        policy = retry.policy
        if self.run.attempt >= self.max_attempts:
            return None
        if policy.max_attempts != self.max_attempts:
            policy = type(policy)(
                self.max_attempts, policy.factor, policy.min_delay_ms, policy.max_delay_ms, policy.jitter
            )
        return retry_delay_ms(policy, self.run.attempt, random.random())

    def _verdict_ms(self, verdict: Any, error: BaseException) -> int | None:
        """What catch_error decided: an AbortRun or RetryAfter, returned instead of raised; else the policy."""
        if isinstance(verdict, AbortRun):
            return None
        if isinstance(verdict, RetryAfter):
            return self._chosen_ms(verdict.delay)
        return self._retry_delay_ms(error)

    def _chosen_ms(self, delay: Any) -> int | None:
        return max(0, duration_ms(delay, "delay")) if self.run.attempt < self.max_attempts else None

    async def each(self, name: str, *given: Any) -> None:
        """Run the hooks of one kind; what they raise is logged and changes nothing."""
        for hooks in (global_hooks, self.task.hooks):
            for hook in _hooks(hooks, name):
                try:
                    with in_step(f"{name} (a hook)"):
                        await self._call(hook, *given)
                except asyncio.CancelledError:
                    raise
                except BaseException:
                    log.exception("a hook of %s raised; the attempt's outcome stays", name)

    async def _call(self, hook: Callable[..., Any], *given: Any) -> Any:
        result = hook(*given)
        return await result if inspect.isawaitable(result) else result


def as_data(error: BaseException) -> RunError:
    """An exception as it is recorded; out of memory is a code of its own."""
    if isinstance(error, MemoryError):
        return _internal("TASK_PROCESS_OOM_KILLED", f"MemoryError: {error}" if str(error) else "MemoryError")
    if isinstance(error, MiddlewareFailed):
        return _internal("TASK_MIDDLEWARE_ERROR", str(error))
    told = {"type": "BUILT_IN_ERROR", **_told(error)}
    causes: list[RunError] = []
    at = error.__cause__
    while at is not None and at is not error and len(causes) < MAX_CAUSES:
        causes.append(_told(at))
        at = at.__cause__
    return told | ({"causes": causes} if causes else {})


def _told(error: BaseException) -> RunError:
    try:
        message = str(error)
    except Exception as broken:
        message = f"(its text can not be had: {type(broken).__name__})"
    return {
        "name": clean(type(error).__name__, MAX_NAME),
        "message": clean(message, MAX_MESSAGE),
        "stackTrace": _trace(error),
    }


def _trace(error: BaseException) -> str:
    """The traceback without our own frames; the middle of a deep one is left out."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_ours(frame.filename)]
    if len(frames) > MAX_FRAMES:
        frames = frames[:5] + frames[5 - MAX_FRAMES :]
    lines = ["Traceback (most recent call last):\n", *traceback.format_list(frames)]
    lines += traceback.format_exception_only(type(error), error)
    if error.__cause__ is not None and error.__cause__ is not error:
        lines += ["caused by: ", *traceback.format_exception_only(type(error.__cause__), error.__cause__)]
    return clean("".join(lines), MAX_STACK)


def _is_ours(filename: str) -> bool:
    return filename.startswith(OURS)


OURS = tuple(f"{__file__.rpartition('/worker/')[0]}/{part}/" for part in ("worker", "sdk"))


def _internal(code: str, message: str) -> RunError:
    return internal_error(code, clean(message, MAX_MESSAGE))


def _hooks(hooks: Hooks, name: str) -> list[Callable[..., Any]]:
    found: list[Callable[..., Any]] = getattr(hooks, name)
    return found
