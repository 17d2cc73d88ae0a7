"""Calls to a server: the policy as generators, and the two fronts, blocking and async, that drive them.

A flow yields what it needs (`Send`, `Pause`) and is sent what came of it (`Reply`, `Unanswered`).
So which answers are repeated, how long is waited, and which error a code becomes, is written once.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
import weakref
from collections.abc import AsyncGenerator, Generator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from holdfast import errors
from holdfast.sdk.context import current_run_or_none

if TYPE_CHECKING:
    import asyncio

    import httpx2

    AsyncClients = weakref.WeakKeyDictionary[
        asyncio.AbstractEventLoop, tuple[httpx2.AsyncClient, AsyncGenerator[None, None]]
    ]

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
        error = errors.ServerUnreachable(
            f"no answer from the server: {text}; is it running, and is HOLDFAST_API_URL right?"
        )
        error.__cause__ = outcome.error
        return error
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
    for plain in (errors.NotFound, errors.StoreUnavailable, errors.StoreTooNew):
        if code == plain.code:
            return plain(message)
    if code == errors.RunNotFound.code:
        return errors.RunNotFound()
    if code == errors.Fenced.code:
        fenced = errors.Fenced("")
        fenced.args = (message,)
        return fenced
    return errors.HoldfastError(message)


def refuse_in_loop(name: str, twin: str) -> None:
    """Raises BlockingCallInLoop when an event loop runs in this thread."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None and asyncio._get_running_loop() is not None:
        raise errors.BlockingCallInLoop(name, twin)


class Connection:
    """One server and one key: carries flows out, blocking or async.

    in_run     whether calls made inside of a run are fenced by its lease (its own server)
    transport  replaces the network, for tests

    Clients are made at first use: one for all threads, and one for each event loop, which closes
    together with its loop. After a fork the child makes its own.
    """

    def __init__(self, url: str, key: str, *, in_run: bool = False, transport: Any = None) -> None:
        self.url = url.rstrip("/")
        self._key = key
        self._in_run = in_run
        self._transport = transport
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._client: httpx2.Client | None = None
        self._async_clients: AsyncClients = weakref.WeakKeyDictionary()

    def run(self, flow: Flow[T]) -> T:
        """Carry out `flow`, blocking this thread."""
        client = self._sync_client()
        outcome: Reply | Unanswered | None = None
        while True:
            try:
                step = flow.send(outcome)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]  # a generator's result is untyped here
            if isinstance(step, Pause):
                time.sleep(step.seconds)
                outcome = None
                continue
            try:
                response = client.request(**self._arguments(step))
            except self._failures() as error:
                outcome = _unanswered(error)
            else:
                outcome = Reply(response.status_code, response.headers, response.content)

    async def arun(self, flow: Flow[T]) -> T:
        """Carry out `flow` on the running loop."""
        import asyncio

        client = await self._async_client()
        outcome: Reply | Unanswered | None = None
        while True:
            try:
                step = flow.send(outcome)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]  # a generator's result is untyped here
            if isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
                outcome = None
                continue
            try:
                response = await client.request(**self._arguments(step))
            except self._failures() as error:
                outcome = _unanswered(error)
            else:
                outcome = Reply(response.status_code, response.headers, response.content)

    def close(self) -> None:
        """Close the connections of blocking calls; the next call opens new ones."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _arguments(self, step: Send) -> dict[str, Any]:
        headers = dict(step.headers)
        run = current_run_or_none() if self._in_run else None
        if run is not None:
            headers["x-holdfast-lease"] = "{}:{}".format(*run.lease)
        import httpx2

        request = step.request
        return {
            "method": request.method,
            "url": self.url + request.path,
            "content": request.body,
            "params": request.query or None,
            "headers": headers,
            "timeout": httpx2.Timeout(request.timeout, connect=5.0, pool=None),
        }

    def _settings(self) -> dict[str, Any]:
        import httpx2

        headers = {"content-type": "application/json"}
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        # No limit on connections: each call that waits for a result holds one, and a trigger must not
        # stand in line behind them.
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=30)
        return {"headers": headers, "limits": limits, "transport": self._transport}

    def _failures(self) -> tuple[type[Exception], ...]:
        import httpx2

        return (httpx2.TransportError, OSError)

    def _sync_client(self) -> httpx2.Client:
        import httpx2

        with self._lock:
            if self._process != os.getpid():
                # Sockets of the parent process: to be left to it, not closed.
                self._process, self._client = os.getpid(), None
                self._async_clients = weakref.WeakKeyDictionary()
            if self._client is None:
                self._client = httpx2.Client(**self._settings())
                weakref.finalize(self, self._client.close)
            return self._client

    async def _async_client(self) -> httpx2.AsyncClient:
        import asyncio

        loop = asyncio.get_running_loop()
        kept = self._async_clients.get(loop)
        if kept is not None:
            return kept[0]
        import httpx2

        client = httpx2.AsyncClient(**self._settings())
        # Loops end their async generators before they close, and so this one closes the client.
        keeper = _closes_with_loop(client, self._async_clients, loop)
        self._async_clients[loop] = client, keeper
        await anext(keeper)
        return client


async def _closes_with_loop(
    client: httpx2.AsyncClient, clients: AsyncClients, loop: asyncio.AbstractEventLoop
) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        clients.pop(loop, None)
        await client.aclose()


def _unanswered(error: Exception) -> Unanswered:
    import httpx2

    return Unanswered(error, not isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout))
