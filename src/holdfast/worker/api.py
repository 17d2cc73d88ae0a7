"""The worker's way to the server: bytes out, status and bytes back.

`HttpApi` uses sockets; `AsgiApi` calls the server's ASGI application in the same process, which is
how `holdfast dev` and `holdfast start` join the two without a second protocol.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from holdfast.errors import ServerUnreachable
from holdfast.worker.http import calls_to

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
    """Over HTTP/1.1, with connections of their own for urgent calls.

    url     the server, such as http://localhost:3030
    key     a secret key, such as tr_dev_…
    branch  the preview branch to act in

    Proxies that the environment names (HTTPS_PROXY and so on) are used.
    """

    def __init__(self, url: str, key: str, branch: str = "") -> None:
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        if branch:
            headers["x-trigger-branch"] = branch
        self._ordinary, self._urgent = calls_to(url, headers, 8), calls_to(url, headers, 2)

    async def post(
        self, path: str, body: bytes, timeout: float, *, urgent: bool = False
    ) -> tuple[int, bytes]:
        return await self._send("POST", path, body, timeout, urgent)

    async def delete(self, path: str, timeout: float) -> tuple[int, bytes]:
        return await self._send("DELETE", path, b"", timeout, False)

    async def close(self) -> None:
        await self._ordinary.close()
        await self._urgent.close()

    async def _send(
        self, method: str, path: str, body: bytes, timeout: float, urgent: bool
    ) -> tuple[int, bytes]:
        calls = self._urgent if urgent else self._ordinary
        try:
            async with asyncio.timeout(timeout):
                return await calls.call(method, path, body)
        except TimeoutError:  # before the other: it is an OSError
            raise ServerUnreachable(f"no answer within {timeout:.1f} s") from None
        except OSError as error:
            raise ServerUnreachable(f"{type(error).__name__}: {error}") from error


class AsgiApi:
    """Calls an ASGI application directly: no socket, no HTTP parser."""

    def __init__(self, app: AsgiApp, key: str, branch: str = "") -> None:
        self._app = app
        self._headers = [
            (b"host", b"holdfast"),
            (b"authorization", f"Bearer {key}".encode()),
            (b"content-type", b"application/json"),
        ]
        if branch:
            self._headers.append((b"x-trigger-branch", branch.encode()))

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
