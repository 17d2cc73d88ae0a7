"""The policy of calls to a server: what is sent again, after which delay, and what an error becomes.

A flow is a generator that yields what it needs (`Send`, `Pause`) and is sent what came of it (`Reply`,
`Unanswered`). So the policy is written once, and the blocking and the async front both carry it out.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from holdfast import errors

T = TypeVar("T")

TRIES = 5
# Waiting for a result repeats nothing by being repeated, so it outlasts the restart of a server.
PATIENT_TRIES = 12
FIRST_DELAY = 0.2  # seconds; doubles with each try
LONGEST_DELAY = 8.0
LONGEST_ASKED = 60.0  # seconds; so long a server may ask to be left alone
NOT_DONE = frozenset({429, 503})  # answers that promise that nothing was changed
REQUEST_KEY = "x-trigger-request-idempotency-key"


@dataclass(frozen=True, slots=True)
class Request:
    """One logical call.

    body        JSON in UTF-8
    lines       a stream of JSON lines in the place of the body
    repeatable  whether it may be sent again when nobody knows if it was carried out
    timeout     seconds to wait for the answer
    """

    method: str
    path: str
    body: bytes | None = None
    lines: Sequence[bytes] | None = None
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
    """The decoded answer to `request`. Raises as `replied` does."""
    return decoded((yield from replied(request)))


def replied(request: Request) -> Flow[Reply]:
    """The answer to `request`. Raises what the server's error code stands for, or ServerUnreachable.

    Every try of one call carries the same key, by which the server knows what it has made already.
    """
    headers = {REQUEST_KEY: os.urandom(16).hex()}
    for number in range(1, request.tries + 1):
        outcome = yield Send(request, headers)
        assert outcome is not None
        if isinstance(outcome, Reply) and 200 <= outcome.status < 300:
            return outcome
        if number == request.tries or not may_repeat(request, outcome):
            raise error_of(outcome)
        yield Pause(delay_before_next(number, outcome))
    raise AssertionError("the last try ends the loop")


def may_repeat(request: Request, outcome: Reply | Unanswered) -> bool:
    """Whether to ask again: after no answer, 408, 429 and 5xx, unless the server says otherwise.

    What a Holdfast server does not find is not there: its `x-should-retry: true` on a 404 is meant for others.
    """
    if isinstance(outcome, Unanswered):
        return request.repeatable or not outcome.sent
    said = outcome.headers.get("x-should-retry")
    if said == "false":
        return False
    if outcome.status in NOT_DONE:
        return True
    mends = outcome.status == 408 or outcome.status >= 500 or (said == "true" and outcome.status != 404)
    return request.repeatable and mends


def delay_before_next(number: int, outcome: Reply | Unanswered) -> float:
    """Seconds; what the server asks for is obeyed, up to a minute."""
    if isinstance(outcome, Reply):
        asked_for = asked_delay(outcome)
        if asked_for is not None:
            return min(LONGEST_ASKED, asked_for) + random.random() * FIRST_DELAY
    return float(min(LONGEST_DELAY, FIRST_DELAY * 2 ** (number - 1))) * (0.5 + random.random())


def asked_delay(reply: Reply) -> float | None:
    """Seconds that the server wants to be left alone: Retry-After (seconds or a date), of a 429 also x-ratelimit-reset.

    The latter is epoch milliseconds; one that is past says nothing (the wire contract, 1.6).
    """
    after = reply.headers.get("retry-after", "").strip()
    if after.isdecimal() and len(after) < 6:
        return float(after)
    if after:
        from email.utils import parsedate_to_datetime

        try:
            return max(0.0, parsedate_to_datetime(after).timestamp() - time.time())
        except (ValueError, OverflowError):
            pass
    reset = reply.headers.get("x-ratelimit-reset", "")
    if reply.status == 429 and reset.isdecimal() and len(reset) < 16:
        left = int(reset) / 1_000 - time.time()
        return left if left > 0 else None
    return None


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
    for missing in (
        errors.RunNotFound,
        errors.WaitpointNotFound,
        errors.BatchNotFound,
        errors.BulkActionNotFound,
    ):
        if code == missing.code:
            return missing()
    if code == errors.Fenced.code:
        fenced = errors.Fenced("")
        fenced.args = (message,)
        return fenced
    return next((kind(message) for kind in PLAIN if code == kind.code), errors.HoldfastError(message))


PLAIN: tuple[type[errors.HoldfastError], ...] = (
    errors.Forbidden,
    errors.ScopesExceedKeyAccess,
    errors.NotFound,
    errors.UnsupportedMediaType,
    errors.StoreUnavailable,
    errors.StoreTooNew,
    errors.NoMasterKey,
)
