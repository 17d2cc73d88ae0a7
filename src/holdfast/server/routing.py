"""How a route is declared: method, path, the shapes it validates; the OpenAPI document is made of the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import unquote

from pydantic import TypeAdapter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from holdfast.engine import Engine
from holdfast.errors import (
    InvalidRequest,
    NotAuthorised,
    PayloadTooLarge,
    Unprocessable,
    UnsupportedMediaType,
)
from holdfast.model.environment import Environment
from holdfast.server.access import Access, Thing, covers, lacking
from holdfast.server.auth import Credential, Keyring, Kind
from holdfast.server.objects import Objects
from holdfast.server.tokens import Signer
from holdfast.server.vault import Vault
from holdfast.wire.codec import decode
from holdfast.wire.versions import SDK_VERSION

T = TypeVar("T")
MAX_BODY = 4 * 1024 * 1024
BODY_SECONDS = 60.0
# Browsers send the second without asking first, and `curl -d` calls everything a form: JSON it must be all the same.
JSON_TYPES = ("application/json", "text/plain", "application/x-www-form-urlencoded")


@dataclass(slots=True)
class Call:
    """One authenticated request."""

    request: Request
    engine: Engine
    credential: Credential
    signer: Signer
    vault: Vault
    body_seconds: float = BODY_SECONDS
    _raw: bytes | None = field(default=None, repr=False)

    @property
    def environment_id(self) -> str:
        return self.credential.environment_id

    @property
    def sdk(self) -> bool:
        """Whether the caller speaks the vocabulary of the official SDK (wire/versions.py)."""
        return self.request.headers.get("x-trigger-api-version") == SDK_VERSION

    @property
    def sees_data(self) -> bool:
        """Whether payload and output may be told."""
        return self.credential.kind is not Kind.PUBLIC_KEY

    @property
    def objects_or_none(self) -> Objects | None:
        found: Objects | None = self.request.app.state.objects
        return found

    @property
    def objects(self) -> Objects:
        """Where large payloads and outputs are. Raises Unprocessable."""
        found = self.objects_or_none
        if found is None:
            raise Unprocessable("This server has no object store")
        return found

    async def environment(self) -> Environment:
        """The environment that the caller acts in, with its project."""
        found = await self.engine.environment(self.environment_id)
        if found is None:
            raise NotAuthorised("Invalid API key: its environment is there no more")
        return found

    def require(self, action: str, things: Sequence[Thing]) -> None:
        """Raises Forbidden unless the scopes in use cover the action on any of the things."""
        scopes = self.credential.scopes
        if scopes is not None and not covers(scopes, action, things):
            raise lacking(action, things)

    def path(self, name: str) -> str:
        """A path parameter, decoded. Raises InvalidRequest for what can be no name."""
        value = unquote(self.request.path_params[name])
        if not value or "\x00" in value or len(value) > 4_096 or "\ufffd" in value:
            raise InvalidRequest(f"{name} in the path can not be read", name)
        return value

    async def body(self, shape: TypeAdapter[T], limit: int = MAX_BODY, empty: Any = None) -> T:
        """The validated body. Raises InvalidRequest, PayloadTooLarge or pydantic's ValidationError.

        empty   taken for a body without a byte, where the route allows that

        Asking again gives the same: what a call needs may have to be found in it.
        """
        if self._raw is None:
            self._raw = await read_body(self.request, limit, self.body_seconds)
        if not self._raw:
            if empty is None:
                raise InvalidRequest("Request body is empty", "body")
            return shape.validate_python(empty)
        refuse_other_types(self.request.headers.get("content-type", ""), JSON_TYPES)
        return shape.validate_python(decode(self._raw))


Handler = Callable[[Call], Awaitable[Response]]
Opened = Callable[[Request, Engine, Keyring], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A route of the API. `body` and `answer` are what the OpenAPI document shows.

    access        what a caller needs. None for a route that takes no credential; then `opened` finds the environment of a
                  call by what stands in its path
    status        of a success
    opens_branch  whether a preview branch that nobody has heard of is made, as by a worker that registers
    """

    method: str
    path: str
    handler: Handler
    summary: str
    access: Access | None
    body: TypeAdapter[Any] | None = None
    answer: Mapping[str, Any] | TypeAdapter[Any] | None = None
    sdk_answer: Mapping[str, Any] | None = None
    query: tuple[str, ...] = ()
    body_optional: bool = False
    status: int = 200
    opens_branch: bool = False
    opened: Opened | None = None

    def serve(
        self, engine: Engine, keyring: Keyring, vault: Vault, body_seconds: float
    ) -> Callable[[Request], Awaitable[Response]]:
        opener = None
        if self.opens_branch and self.access is not None:
            opener = (self.access.action, [(kind, None) for kind in self.access.kinds])

        async def endpoint(request: Request) -> Response:
            if self.access is None:
                assert self.opened is not None
                credential = Credential(await self.opened(request, engine, keyring), Kind.OPEN)
            else:
                credential = await keyring.credential(request, opener)
            signer = await keyring.signer(credential.environment_id)
            if signer is None and self.access is None:
                signer = Signer(credential.environment_id, (), "")  # of no environment: nothing to sign here
            if signer is None:
                raise NotAuthorised("Invalid API key: its environment is there no more")
            call = Call(request, engine, credential, signer, vault, body_seconds)
            if self.access is not None:
                await self.access.check(call)
            return await self.handler(call)

        return endpoint


def refuse_other_types(given: str, read: Sequence[str]) -> None:
    """Raises UnsupportedMediaType for a Content-Type that is not one of `read`; none at all counts as the first."""
    kind = given.partition(";")[0].strip().lower()
    if kind and kind not in read:
        raise UnsupportedMediaType(f"Content-Type is {kind[:80]!r}: send the body as {read[0]}")


async def read_body(request: Request, limit: int, seconds: float) -> bytes:
    """At most `limit` bytes of body, all of which must arrive within `seconds`."""
    _refuse_announced(request, limit)
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


async def body_chunks(request: Request, limit: int, seconds: float) -> AsyncIterator[bytes]:
    """The same as it arrives, for what should not be held in memory."""
    _refuse_announced(request, limit)
    deadline = asyncio.get_running_loop().time() + seconds
    stream = request.stream()
    size = 0
    while True:
        try:
            async with asyncio.timeout_at(deadline):
                chunk = await anext(stream, None)
        except TimeoutError:
            raise InvalidRequest(f"Request body did not arrive within {seconds:g} seconds", "body") from None
        except ClientDisconnect:
            raise InvalidRequest("Request body was cut off", "body") from None
        if chunk is None:
            return
        size += len(chunk)
        if size > limit:
            raise PayloadTooLarge(f"Request body too large: over {limit} bytes", "body")
        yield chunk


def _refuse_announced(request: Request, limit: int) -> None:
    """Raises for a body that the headers say enough of."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and len(declared) < 20 and int(declared) > limit:
        raise PayloadTooLarge(f"Request body too large: {declared} bytes, at most {limit}", "body")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise InvalidRequest("Content-Encoding is not supported: send the body as it is", "content-encoding")


def query_number(request: Request, name: str, default: int, most: int, least: int = 0) -> int:
    """A whole number in the query. Raises InvalidRequest naming it."""
    text = request.query_params.get(name)
    if text is None:
        return default
    if not text.isdecimal() or len(text) > 9 or not least <= int(text) <= most:
        raise InvalidRequest(f"{name} is {text[:40]!r}: expected a whole number from {least} to {most}", name)
    return int(text)
