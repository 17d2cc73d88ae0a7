"""The worker's way to the server: bytes out, status and bytes back.

`HttpApi` uses sockets; `AsgiApi` calls the server's ASGI application in the same process, which is
how `holdfast dev` and `holdfast start` join the two without a second protocol.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from holdfast.errors import ServerUnreachable

Scope = MutableMapping[str, Any]
AsgiApp = Callable[
    [Scope, Callable[[], Awaitable[Scope]], Callable[[Scope], Awaitable[None]]], Awaitable[None]
]


class Api(Protocol):
    """What the supervisor needs of a server. Each call raises ServerUnreachable for want of an answer."""

    async def post(
        self, path: str, body: bytes, timeout: float, *, urgent: bool = False
    ) -> tuple[int, bytes]:
        """Status and body of a POST; `urgent` takes the way that no other traffic can fill."""
        ...

    async def delete(self, path: str, timeout: float) -> tuple[int, bytes]: ...

    async def close(self) -> None: ...


class HttpApi:
    """Over HTTP/1.1, with a connection of their own for urgent calls.

    url   the server, such as http://localhost:3030
    key   a secret key, such as tr_dev_…
    """

    def __init__(self, url: str, key: str) -> None:
        import httpx2

        def client(connections: int) -> httpx2.AsyncClient:
            return httpx2.AsyncClient(
                base_url=url.rstrip("/"),
                headers={"authorization": f"Bearer {key}", "content-type": "application/json"},
                limits=httpx2.Limits(
                    max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=60
                ),
            )

        self._failures = (httpx2.HTTPError, OSError)
        self._ordinary, self._urgent = client(8), client(2)

    async def post(
        self, path: str, body: bytes, timeout: float, *, urgent: bool = False
    ) -> tuple[int, bytes]:
        return await self._send("POST", path, body, timeout, urgent)

    async def delete(self, path: str, timeout: float) -> tuple[int, bytes]:
        return await self._send("DELETE", path, b"", timeout, False)

    async def close(self) -> None:
        await self._ordinary.aclose()
        await self._urgent.aclose()

    async def _send(
        self, method: str, path: str, body: bytes, timeout: float, urgent: bool
    ) -> tuple[int, bytes]:
        client = self._urgent if urgent else self._ordinary
        try:
            # The client's own timeout is per read; the outer one bounds the whole call.
            async with asyncio.timeout(timeout):
                response = await client.request(method, path, content=body, timeout=timeout)
        except TimeoutError:  # before the others: it is an OSError
            raise ServerUnreachable(f"no answer within {timeout:.1f} s") from None
        except self._failures as error:
            raise ServerUnreachable(f"{type(error).__name__}: {error}") from error
        return response.status_code, response.content


class AsgiApi:
    """Calls an ASGI application directly: no socket, no HTTP parser."""

    def __init__(self, app: AsgiApp, key: str) -> None:
        self._app = app
        self._headers = [
            (b"host", b"holdfast"),
            (b"authorization", f"Bearer {key}".encode()),
            (b"content-type", b"application/json"),
        ]

    async def post(
        self, path: str, body: bytes, timeout: float, *, urgent: bool = False
    ) -> tuple[int, bytes]:
        return await self._send("POST", path, body, timeout)

    async def delete(self, path: str, timeout: float) -> tuple[int, bytes]:
        return await self._send("DELETE", path, b"", timeout)

    async def close(self) -> None:
        return None

    async def _send(self, method: str, path: str, body: bytes, timeout: float) -> tuple[int, bytes]:
        status = 0
        parts: list[bytes] = []
        waiting = [{"type": "http.request", "body": body, "more_body": False}]
        gone = asyncio.Event()

        async def receive() -> Scope:
            if waiting:
                return waiting.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Scope) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                parts.append(message.get("body", b""))

        scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [*self._headers, (b"content-length", str(len(body)).encode())],
            "client": ("127.0.0.1", 0),
            "server": ("holdfast", 80),
            "state": {},
        }
        try:
            async with asyncio.timeout(timeout):
                await self._app(scope, receive, send)
        except TimeoutError:
            raise ServerUnreachable(f"no answer within {timeout:.1f} s") from None
        except Exception as error:
            # An ASGI server would answer 500 for an application that raises; here we are that server.
            if not status:
                raise ServerUnreachable(f"the server failed: {type(error).__name__}: {error}") from error
        finally:
            gone.set()
        return status, b"".join(parts)
