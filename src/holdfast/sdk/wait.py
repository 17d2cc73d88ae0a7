"""Durable waits: `wait.sleep("1d")`, `wait.until(monday)`, `wait.token(Approval)`, `wait.first(run, token)`.

Inside a task a wait that lasts longer than a few seconds holds nothing: the run is suspended, its process is
free for others, and it goes on where it was, on any worker, when the wait is over. Outside of a task the same
names wait in place. Inside a step they raise WaitInStep.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar, overload

from holdfast.errors import InvalidRequest, ResultTimeout
from holdfast.model.duration import duration_ms, epoch_ms
from holdfast.sdk.client import default_client
from holdfast.sdk.context import current_durable, refuse_in_step
from holdfast.sdk.options import Duration
from holdfast.sdk.policy import Flow
from holdfast.sdk.run import Run
from holdfast.sdk.token import Token, asked_for, creating, mark
from holdfast.sdk.transport import refuse_in_loop
from holdfast.sdk.values import Kept
from holdfast.sdk.waiting import until_ended

T = TypeVar("T")
Thing = TypeVar("Thing", bound=Run[Any] | Token[Any])

__all__ = ["afirst", "asleep", "atoken", "auntil", "first", "sleep", "token", "until"]


def sleep(duration: Duration) -> None:
    """Wait for a `timedelta`, a number of seconds, or text such as "1d". Raises InvalidRequest below zero."""
    refuse_in_loop("wait.sleep", "wait.asleep")
    refuse_in_step("wait.sleep()")
    ms = _duration(duration)
    durable = current_durable()
    if durable is None:
        time.sleep(ms / 1_000)
    else:
        durable.blocking(lambda: durable.sleep("sleep", ms=ms))


async def asleep(duration: Duration) -> None:
    """As `sleep`, inside an event loop."""
    refuse_in_step("wait.asleep()")
    ms = _duration(duration)
    durable = current_durable()
    if durable is None:
        await _plain_sleep(ms / 1_000)
    else:
        await durable.sleep("sleep", ms=ms)


def until(moment: datetime | str) -> None:
    """Wait until a moment: a `datetime` (without an offset it is UTC) or ISO 8601. One in the past is over."""
    refuse_in_loop("wait.until", "wait.auntil")
    refuse_in_step("wait.until()")
    at = _moment(moment)
    durable = current_durable()
    if durable is None:
        time.sleep(max(0.0, at / 1_000 - time.time()))
    else:
        durable.blocking(lambda: durable.sleep("until", until_ms=at))


async def auntil(moment: datetime | str) -> None:
    """As `until`, inside an event loop."""
    refuse_in_step("wait.auntil()")
    at = _moment(moment)
    durable = current_durable()
    if durable is None:
        await _plain_sleep(max(0.0, at / 1_000 - time.time()))
    else:
        await durable.sleep("until", until_ms=at)


@overload
def token(
    type: type[T],
    *,
    timeout: Duration | datetime | None = None,
    tags: str | Sequence[str] | None = None,
    idempotency_key: str | None = None,
    idempotency_key_ttl: Duration | None = None,
) -> Token[T]: ...
@overload
def token(
    type: Any = Any,
    *,
    timeout: Duration | datetime | None = None,
    tags: str | Sequence[str] | None = None,
    idempotency_key: str | None = None,
    idempotency_key_ttl: Duration | None = None,
) -> Token[Any]: ...
def token(
    type: Any = Any,
    *,
    timeout: Duration | datetime | None = None,
    tags: str | Sequence[str] | None = None,
    idempotency_key: str | None = None,
    idempotency_key_ttl: Duration | None = None,
) -> Token[Any]:
    """A new token, which somebody outside completes; `token.result()` waits for that.

    type                 what it is completed with; anything else is refused where it arrives
    timeout              after it the token is TIMED_OUT; a duration or a date, by default never
    tags                 up to ten texts of at most 128 characters
    idempotency_key      a second call with the same key gives the first token, also a completed one
    idempotency_key_ttl  how long the key is kept; by default as long as the token

    A run that is executed again gets the token it made before. Raises InvalidRequest or Unprocessable.
    """
    refuse_in_loop("wait.token", "wait.atoken")
    refuse_in_step("wait.token()")
    told = _asked_for(type, timeout, tags, idempotency_key, idempotency_key_ttl)
    durable = current_durable()
    if durable is None:
        return Token(default_client().connection.run(creating(told)), type)
    return Token(durable.blocking(lambda: durable.token(mark(told), told)), type)


@overload
async def atoken(
    type: type[T],
    *,
    timeout: Duration | datetime | None = None,
    tags: str | Sequence[str] | None = None,
    idempotency_key: str | None = None,
    idempotency_key_ttl: Duration | None = None,
) -> Token[T]: ...
@overload
async def atoken(
    type: Any = Any,
    *,
    timeout: Duration | datetime | None = None,
    tags: str | Sequence[str] | None = None,
    idempotency_key: str | None = None,
    idempotency_key_ttl: Duration | None = None,
) -> Token[Any]: ...
async def atoken(
    type: Any = Any,
    *,
    timeout: Duration | datetime | None = None,
    tags: str | Sequence[str] | None = None,
    idempotency_key: str | None = None,
    idempotency_key_ttl: Duration | None = None,
) -> Token[Any]:
    """As `token`, inside an event loop."""
    refuse_in_step("wait.atoken()")
    told = _asked_for(type, timeout, tags, idempotency_key, idempotency_key_ttl)
    durable = current_durable()
    if durable is None:
        return Token(await default_client().connection.arun(creating(told)), type)
    return Token(await durable.token(mark(told), told), type)


def first(*things: Thing, timeout: Duration | None = None) -> Thing:
    """The first of these runs and tokens to end; its `.result()` gives at once what came of it.

    Raises ResultTimeout after `timeout`. The others go on.
    """
    refuse_in_loop("wait.first", "wait.afirst")
    refuse_in_step("wait.first()")
    by_id, limit = _things(things), None if timeout is None else _duration(timeout, "timeout")
    durable = current_durable()
    if durable is None:
        return by_id[default_client().connection.run(_first(by_id, limit))]
    return by_id[durable.blocking(lambda: _durably_first(by_id, limit))]


async def afirst(*things: Thing, timeout: Duration | None = None) -> Thing:
    """As `first`, inside an event loop."""
    refuse_in_step("wait.afirst()")
    by_id, limit = _things(things), None if timeout is None else _duration(timeout, "timeout")
    if current_durable() is None:
        return by_id[await default_client().connection.arun(_first(by_id, limit))]
    return by_id[await _durably_first(by_id, limit)]


async def _plain_sleep(seconds: float) -> None:
    import asyncio

    await asyncio.sleep(seconds)


async def _durably_first(by_id: Mapping[str, object], limit: int | None) -> str:
    durable = current_durable()
    assert durable is not None
    runs, tokens = _by_kind(by_id)
    found = await durable.first(runs, tokens, None if limit is None else await durable.deadline(limit))
    if found is None:
        raise _none_in_time(by_id)
    return found[0]


def _first(by_id: Mapping[str, object], limit: int | None) -> Flow[str]:
    runs, tokens = _by_kind(by_id)
    deadline = None if limit is None else time.monotonic() + limit / 1_000
    found = yield from until_ended(runs, tokens, deadline)
    if not found:
        raise _none_in_time(by_id)
    return next(id for id in by_id if id in found)


def _by_kind(by_id: Mapping[str, object]) -> tuple[list[str], list[str]]:
    tokens = [id for id, thing in by_id.items() if isinstance(thing, Token)]
    return [id for id in by_id if id not in tokens], tokens


def _things(things: Sequence[Thing]) -> dict[str, Thing]:
    if not things:
        raise InvalidRequest("wait.first was given nothing to wait for", "things")
    for thing in things:
        if not isinstance(thing, Run | Token):
            raise TypeError(f"wait.first takes runs and tokens, and this is {thing!r}")
    return {thing.id: thing for thing in things}


def _none_in_time(by_id: Mapping[str, object]) -> ResultTimeout:
    return ResultTimeout(f"none of {', '.join(list(by_id)[:4])} ended in time; waiting again later is fine")


def _asked_for(
    type: Any,
    timeout: Duration | datetime | None,
    tags: str | Sequence[str] | None,
    idempotency_key: str | None,
    idempotency_key_ttl: Duration | None,
) -> dict[str, Any]:
    value = None if type is Any else Kept("the payload of a token", lambda: type)
    return asked_for(value, timeout, tags, idempotency_key, idempotency_key_ttl)


def _duration(value: timedelta | float | str, param: str = "duration") -> int:
    ms = duration_ms(value, param)
    if ms < 0:
        raise InvalidRequest(f"{param} is {value!r}: expected nothing below zero", param)
    return ms


def _moment(value: datetime | str) -> int:
    try:
        return epoch_ms(value if isinstance(value, datetime) else datetime.fromisoformat(value))
    except (ValueError, TypeError, OverflowError):
        raise InvalidRequest(
            f'moment is {value!r}: expected a datetime or ISO 8601, such as "2026-12-24T18:00:00Z"', "moment"
        ) from None
