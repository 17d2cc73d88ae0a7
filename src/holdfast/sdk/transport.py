"""One server and one key: carries out flows over HTTP, blocking or async."""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from holdfast import errors
from holdfast.sdk.context import current_run_or_none
from holdfast.sdk.policy import Flow, Pause, Reply, Send, Unanswered

if TYPE_CHECKING:
    import asyncio

    import httpx2

    AsyncClients = weakref.WeakKeyDictionary[
        asyncio.AbstractEventLoop, tuple[httpx2.AsyncClient, AsyncGenerator[None, None]]
    ]

T = TypeVar("T")


def refuse_in_loop(name: str, twin: str = "", instead: str = "") -> None:
    """Raises BlockingCallInLoop when an event loop runs in this thread."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None and asyncio._get_running_loop() is not None:
        raise errors.BlockingCallInLoop(name, instead or f"use `await {twin}()` instead")


class Connection:
    """One server and one key: carries flows out, blocking or async.

    branch     the preview branch to act in
    in_run     whether calls made inside of a run are fenced by its lease (its own server)
    transport  replaces the network, for tests

    Clients are made at first use: one for all threads, and one for each event loop, which closes
    together with its loop. After a fork the child makes its own.
    """

    def __init__(
        self, url: str, key: str, *, branch: str = "", in_run: bool = False, transport: Any = None
    ) -> None:
        self.url = url.rstrip("/")
        self._key = key
        self._branch = branch
        self.in_run = in_run
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
                outcome = _unanswered(error, self.url)
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
                response = await client.request(**self._arguments(step, streams_async=True))
            except self._failures() as error:
                outcome = _unanswered(error, self.url)
            else:
                outcome = Reply(response.status_code, response.headers, response.content)

    def close(self) -> None:
        """Close the connections of blocking calls; the next call opens new ones."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _arguments(self, step: Send, *, streams_async: bool = False) -> dict[str, Any]:
        headers = dict(step.headers)
        run = current_run_or_none() if self.in_run else None
        if run is not None:
            headers["x-holdfast-lease"] = "{}:{}".format(*run.lease)
        import httpx2

        request = step.request
        content: Any = request.body
        if request.lines is not None:
            headers["content-type"] = "application/x-ndjson"
            content = _streamed(request.lines) if streams_async else iter(request.lines)
        return {
            "method": request.method,
            "url": self.url + request.path,
            "content": content,
            "params": request.query or None,
            "headers": headers,
            "timeout": httpx2.Timeout(request.timeout, connect=5.0, pool=None),
        }

    def _settings(self) -> dict[str, Any]:
        import httpx2

        headers = {"content-type": "application/json"}
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        if self._branch:
            headers["x-trigger-branch"] = self._branch
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


async def _streamed(lines: Sequence[bytes]) -> AsyncGenerator[bytes, None]:
    for line in lines:
        yield line


def _unanswered(error: Exception, url: str) -> Unanswered:
    import httpx2

    return Unanswered(error, not isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout), url)
