"""HTTP/1.1 to one server, for the few kinds of calls that a worker makes all the time.

An HTTP client for everything takes 880 µs of CPU for a call of 4 kB, this takes 80: httptools parses, and nothing is
looked up that is the same each time. Where there is a proxy, the client for everything takes over.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Protocol, cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from httptools import HttpParserError, HttpResponseParser

IDLE_SECONDS = 60.0  # something between here and the server may have forgotten a connection after that


class BadAnswer(OSError):
    """What came is no HTTP answer, or not all of it came."""


class Calls(Protocol):
    async def call(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and body. Raises OSError; a call that is cancelled takes its connection with it."""
        ...

    async def close(self) -> None: ...


def calls_to(url: str, headers: dict[str, str], limit: int) -> Calls:
    """Calls to the server at `url` over at most `limit` connections, by the proxy that the environment names for it."""
    parts = urlsplit(url)
    proxies = getproxies()
    if (proxies.get(parts.scheme) or proxies.get("all")) and not proxy_bypass(parts.hostname or ""):
        return Proxied(url, headers, limit)
    return Pool(url, headers, limit)


class Proxied:
    """By way of a proxy."""

    def __init__(self, url: str, headers: dict[str, str], limit: int) -> None:
        import httpx2

        limits = httpx2.Limits(
            max_connections=limit, max_keepalive_connections=limit, keepalive_expiry=IDLE_SECONDS
        )
        self._client = httpx2.AsyncClient(base_url=url, headers=headers, limits=limits, timeout=None)
        self._failures = httpx2.HTTPError

    async def call(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        try:
            response = await self._client.request(method, path, content=body)
        except self._failures as error:
            raise BadAnswer(f"{type(error).__name__}: {error}") from error
        return response.status_code, response.content

    async def close(self) -> None:
        await self._client.aclose()


class Pool:
    """At most `limit` connections to the server at `url`, one call at a time on each."""

    def __init__(self, url: str, headers: dict[str, str], limit: int) -> None:
        parts = urlsplit(url)
        self._is_secure = parts.scheme == "https"
        self._host = parts.hostname or "localhost"
        self._port = parts.port or (443 if self._is_secure else 80)
        self._path = parts.path.rstrip("/")
        host = parts.netloc.rpartition("@")[2]
        lines = "".join(f"{name}: {value}\r\n" for name, value in {"host": host, **headers}.items())
        self._lines = f" HTTP/1.1\r\n{lines}content-length: "
        self._tls: ssl.SSLContext | None = None
        self._free = asyncio.Semaphore(limit)
        self._idle: list[Connection] = []

    async def call(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        async with self._free:
            connection = self._from_idle() or await self._connect()
            head = f"{method} {self._path}{path}{self._lines}{len(body)}\r\n\r\n"
            try:
                answer = await connection.call(head.encode() + body)
            except BaseException:
                connection.close()
                raise
            if connection.is_open:
                self._idle.append(connection)
            else:
                connection.close()
            return answer

    async def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _from_idle(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()  # the one used last: those that are too many grow old
            if connection.is_open and connection.idle_seconds() < IDLE_SECONDS:
                return connection
            connection.close()
        return None

    async def _connect(self) -> Connection:
        if self._is_secure and self._tls is None:
            import httpx2

            self._tls = httpx2.create_ssl_context()  # trusts whom the client of the SDK trusts
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, self._host, self._port, ssl=self._tls)
        return connection


class Connection(asyncio.Protocol):
    """One connection, with the call that is under way."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser = HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._parts: list[bytes] = []
        self._used_at = self._loop.time()
        self.is_open = False

    async def call(self, request: bytes) -> tuple[int, bytes]:
        assert self._transport is not None
        self._answer = self._loop.create_future()
        self._transport.write(request)
        try:
            return await self._answer
        finally:
            self._answer = None
            self._used_at = self._loop.time()

    def idle_seconds(self) -> float:
        return self._loop.time() - self._used_at

    def close(self) -> None:
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    # ---- called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # that of uvloop is none by its class
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        if self._answer is None:
            self.close()  # nothing was asked
            return
        try:
            self._parser.feed_data(data)
        except HttpParserError as error:
            self._fail(BadAnswer(f"this is no HTTP answer: {error}"))
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = False
        self._fail(error if isinstance(error, OSError) else BadAnswer("the connection was closed"))

    def _fail(self, error: OSError) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)

    # ---- called by the parser

    def on_message_begin(self) -> None:
        self._parts = []

    def on_body(self, part: bytes) -> None:
        self._parts.append(part)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            return  # the answer itself is still to come
        if not self._parser.should_keep_alive():
            self.is_open = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((status, b"".join(self._parts)))
