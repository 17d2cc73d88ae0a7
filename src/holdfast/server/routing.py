"""How a route is declared: method, path, the shapes it validates; the OpenAPI document is made of the same.

Paths are matched before percent-decoding, so that a task id may hold a slash (`%2F`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import unquote

from pydantic import TypeAdapter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from holdfast.engine import Engine
from holdfast.errors import InvalidRequest, PayloadTooLarge
from holdfast.server.auth import Keys
from holdfast.server.tokens import Signer, environment_and_scopes
from holdfast.wire.codec import decode

T = TypeVar("T")
MAX_BODY = 4 * 1024 * 1024
BODY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Call:
    """One authenticated request."""

    request: Request
    engine: Engine
    environment_id: str
    signer: Signer
    body_seconds: float = BODY_SECONDS

    def path(self, name: str) -> str:
        """A path parameter, decoded. Raises InvalidRequest for what can be no name."""
        value = unquote(self.request.path_params[name])
        if not value or "\x00" in value or len(value) > 4_096 or "\ufffd" in value:
            raise InvalidRequest(f"{name} in the path can not be read", name)
        return value

    async def body(self, shape: TypeAdapter[T], limit: int = MAX_BODY, empty: Any = None) -> T:
        """The validated body. Raises InvalidRequest, PayloadTooLarge or pydantic's ValidationError.

        empty   taken for a body without a byte, where the route allows that
        """
        raw = await read_body(self.request, limit, self.body_seconds)
        if not raw:
            if empty is None:
                raise InvalidRequest("Request body is empty", "body")
            return shape.validate_python(empty)
        return shape.validate_python(decode(raw))


Handler = Callable[[Call], Awaitable[Response]]
Checked = Callable[[Call, list[str]], None]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A route of the API. `body` and `answer` are what the OpenAPI document shows.

    public  what a public token has to cover: is given the call and its scopes, and raises NotAuthorised or
            Forbidden. Without it public tokens are refused
    opened  finds the environment of a call without a key, by what stands in its path
    """

    method: str
    path: str
    handler: Handler
    summary: str
    body: TypeAdapter[Any] | None = None
    answer: Mapping[str, Any] | None = None
    query: tuple[str, ...] = ()
    body_optional: bool = False
    public: Checked | None = None
    opened: Callable[[Request, Engine, Mapping[str, Signer]], Awaitable[str]] | None = None

    def serve(
        self, engine: Engine, keys: Keys, signers: Mapping[str, Signer], body_seconds: float
    ) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            scopes: list[str] | None = None
            if self.opened is not None:
                environment_id = await self.opened(request, engine, signers)
            elif self.public is not None and (token := keys.public_token(request)) is not None:
                now = await engine.store.read(lambda tx: tx.now)
                environment_id, scopes = environment_and_scopes(token, signers, now)
            else:
                environment_id = keys.environment(request)
            call = Call(request, engine, environment_id, signers[environment_id], body_seconds)
            if scopes is not None and self.public is not None:
                self.public(call, scopes)
            return await self.handler(call)

        return endpoint


async def read_body(request: Request, limit: int, seconds: float) -> bytes:
    """At most `limit` bytes of body, all of which must arrive within `seconds`."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and len(declared) < 20 and int(declared) > limit:
        raise PayloadTooLarge(f"Request body too large: {declared} bytes, at most {limit}", "body")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise InvalidRequest("Content-Encoding is not supported: send the body as it is", "content-encoding")
    chunks, size = [], 0
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise PayloadTooLarge(f"Request body too large: over {limit} bytes", "body")
                chunks.append(chunk)
    except TimeoutError:
        raise InvalidRequest(f"Request body did not arrive within {seconds:g} seconds", "body") from None
    except ClientDisconnect:
        raise InvalidRequest("Request body was cut off", "body") from None
    return b"".join(chunks)


class RawPaths:
    """Matches routes on the path as it was sent; handlers decode the parameters themselves."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (raw := scope.get("raw_path")):
            scope = {**scope, "path": raw.decode("ascii", "replace")}
        await self._app(scope, receive, send)


def query_number(request: Request, name: str, default: int, most: int, least: int = 0) -> int:
    """A whole number in the query. Raises InvalidRequest naming it."""
    text = request.query_params.get(name)
    if text is None:
        return default
    if not text.isdecimal() or len(text) > 9 or not least <= int(text) <= most:
        raise InvalidRequest(f"{name} is {text[:40]!r}: expected a whole number from {least} to {most}", name)
    return int(text)
