"""The policy of calls to a server: what is sent again, after which delay, and what an error becomes.

A flow is a generator that yields what it needs (`Send`, `Pause`) and is sent what came of it (`Reply`,
`Unanswered`). So the policy is written once, and the blocking and the async front both carry it out.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from holdfast import errors

T = TypeVar("T")

TRIES = 5
# Waiting for a result repeats nothing by being repeated, so it outlasts the restart of a server.
PATIENT_TRIES = 12
FIRST_DELAY = 0.2  # seconds; doubles with each try
LONGEST_DELAY = 8.0
REPEATED = frozenset({408, 429, 500, 502, 503, 504})
NOT_DONE = frozenset({429, 503})  # answers that promise that nothing was changed
REQUEST_KEY = "x-trigger-request-idempotency-key"


@dataclass(frozen=True, slots=True)
class Request:
    """One logical call.

    body        JSON in UTF-8
    repeatable  whether it may be sent again when nobody knows if it was carried out
    timeout     seconds to wait for the answer
    """

    method: str
    path: str
    body: bytes | None = None
    query: tuple[tuple[str, str], ...] = ()
    repeatable: bool = True
    timeout: float = 30.0
    tries: int = TRIES


@dataclass(frozen=True, slots=True)
class Send:
    request: Request
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Pause:
    seconds: float


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Unanswered:
    """No answer came; `sent` tells whether the request may have arrived."""

    error: Exception
    sent: bool
    url: str = "the server"


Flow = Generator[Send | Pause, Reply | Unanswered | None, T]


def asked(request: Request) -> Flow[Any]:
    """The decoded answer to `request`. Raises what the server's error code stands for, or ServerUnreachable.

    Every try of one call carries the same key, by which the server knows a trigger it has done already.
    """
    headers = {REQUEST_KEY: os.urandom(16).hex()}
    for number in range(1, request.tries + 1):
        outcome = yield Send(request, headers)
        assert outcome is not None
        if isinstance(outcome, Reply) and 200 <= outcome.status < 300:
            return decoded(outcome)
        if number == request.tries or not may_repeat(request, outcome):
            raise error_of(outcome)
        yield Pause(delay_before_next(number, outcome))
    raise AssertionError("the last try ends the loop")


def may_repeat(request: Request, outcome: Reply | Unanswered) -> bool:
    if isinstance(outcome, Unanswered):
        return request.repeatable or not outcome.sent
    return outcome.status in (REPEATED if request.repeatable else NOT_DONE)


def delay_before_next(number: int, outcome: Reply | Unanswered) -> float:
    """Seconds; a Retry-After of the server is obeyed up to the longest delay."""
    if isinstance(outcome, Reply):
        asked_for = outcome.headers.get("retry-after", "")
        if asked_for.isdecimal() and len(asked_for) < 6:
            return min(LONGEST_DELAY, float(asked_for)) + random.random() * FIRST_DELAY
    return float(min(LONGEST_DELAY, FIRST_DELAY * 2 ** (number - 1))) * (0.5 + random.random())


def decoded(reply: Reply) -> Any:
    try:
        return json.loads(reply.body)
    except ValueError:
        raise errors.ServerUnreachable(
            f"the answer ({reply.status}) is no JSON: is there a Holdfast server at this address?"
        ) from None


def error_of(outcome: Reply | Unanswered) -> Exception:
    """What to raise for an answer that is none, or none of success."""
    if isinstance(outcome, Unanswered):
        text = str(outcome.error) or type(outcome.error).__name__
        # Not chained: the traceback of an HTTP library fills a screen and says no more than its text.
        return errors.ServerUnreachable(
            f"no answer from {outcome.url}: {text}; is it running, and is HOLDFAST_API_URL right?"
        )
    try:
        body = json.loads(outcome.body)
    except ValueError:
        body = None
    if not isinstance(body, dict) or not isinstance(body.get("error"), str):
        return errors.ServerUnreachable(
            f"the server answered {outcome.status} and no error of Holdfast's: is the address right?"
        )
    if outcome.status >= 500 and body.get("code") != errors.StoreUnavailable.code:
        return errors.ServerUnreachable(f"the server answered {outcome.status}: {body['error']}")
    return error_from(body)


def error_from(body: Mapping[str, Any]) -> errors.HoldfastError:
    """The error that {"error", "code", "param"?} stands for; of an unknown code a plain HoldfastError."""
    message, code, param = str(body["error"]), body.get("code"), body.get("param")
    for kind in (errors.InvalidRequest, errors.Unprocessable, errors.PayloadTooLarge):
        if code == kind.code:
            return kind(message, param)
    if code == errors.NotAuthorised.code:
        return errors.NotAuthorised(f"{message} (is HOLDFAST_SECRET_KEY set to a key of this server?)")
    for plain in (errors.Forbidden, errors.NotFound, errors.StoreUnavailable, errors.StoreTooNew):
        if code == plain.code:
            return plain(message)
    if code == errors.RunNotFound.code:
        return errors.RunNotFound()
    if code == errors.WaitpointNotFound.code:
        return errors.WaitpointNotFound()
    if code == errors.Fenced.code:
        fenced = errors.Fenced("")
        fenced.args = (message,)
        return fenced
    return errors.HoldfastError(message)
