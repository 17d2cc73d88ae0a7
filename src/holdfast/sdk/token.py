"""Tokens: waiting for somebody outside. Made by `wait.token`, completed by whoever has its id or URL."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar, overload
from urllib.parse import quote

from holdfast.errors import InvalidRequest, ResultTimeout, TokenTimedOut, Unprocessable
from holdfast.model.duration import duration_ms
from holdfast.model.limits import MAX_IDEMPOTENCY_KEY
from holdfast.sdk import options as trigger_options
from holdfast.sdk.client import default_client
from holdfast.sdk.context import current_durable, refuse_in_step
from holdfast.sdk.metadata import checked_tags
from holdfast.sdk.options import Duration
from holdfast.sdk.policy import Flow, Request, asked
from holdfast.sdk.transport import Connection, refuse_in_loop
from holdfast.sdk.values import Kept, digest
from holdfast.sdk.waiting import until_ended

T = TypeVar("T")
S = TypeVar("S")
PATH = "/api/v1/waitpoints/tokens"


class Token(Generic[T]):
    """Something that is completed from outside: by a person, a webhook, another program.

        token = await wait.atoken(Approval, timeout="3d")
        await mail(link=token.url)
        approval = await token.aresult()         # no worker is held while nobody answers

    id                   `waitpoint_…`
    url                  POST JSON to it and the token is completed with that; whoever has it may
    public_access_token  completes this token, and nothing else, as a bearer token from a browser; a day long
    is_cached            whether it was found by its idempotency key

    A token is completed once: what comes later changes nothing. Safe to share between threads and loops.
    """

    def __init__(self, told: dict[str, Any], type: Any = Any, connection: Connection | None = None) -> None:
        self.id: str = told["id"]
        self.url: str = told.get("url", "")
        self.public_access_token: str = told.get("publicAccessToken", "")
        self.is_cached: bool = bool(told.get("isCached", False))
        self._connection = connection  # of the server it is on; without one that is the default one
        self._value = Kept(f"the payload of token {self.id}", lambda: type)

    def __repr__(self) -> str:
        return f"<Token {self.id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Token) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    @overload
    @classmethod
    def by_id(cls, id: str) -> Token[Any]: ...
    @overload
    @classmethod
    def by_id(cls, id: str, type: type[S]) -> Token[S]: ...
    @classmethod
    def by_id(cls, id: str, type: Any = Any) -> Token[Any]:
        """A token that was made elsewhere. Nothing is asked of the server."""
        if not isinstance(id, str) or not id.startswith("waitpoint_"):
            raise InvalidRequest(f'the token id is {id!r}: expected one such as "waitpoint_…"', "id")
        return cls({"id": id}, type)

    def result(self, timeout: Duration | None = None) -> T:
        """Wait until it is completed, and give what with; inside a run the wait is durable.

        Raises TokenTimedOut when the token's own timeout passes, ResultTimeout after `timeout`, WaitpointNotFound.
        """
        refuse_in_loop("result", "aresult")
        refuse_in_step("token.result()")
        durable = current_durable()
        limit = _limit(timeout)
        if durable is not None:
            return self._settled(durable.blocking(lambda: self._durably(limit)))
        return self._settled(self._there().run(self._ended(limit)))

    async def aresult(self, timeout: Duration | None = None) -> T:
        """As `result`, inside an event loop."""
        refuse_in_step("token.aresult()")
        limit = _limit(timeout)
        if current_durable() is not None:
            return self._settled(await self._durably(limit))
        return self._settled(await self._there().arun(self._ended(limit)))

    def complete(self, value: T) -> None:
        """Complete it. Doing so again, or after its timeout, changes nothing.

        Raises OutputInvalid for a value that does not fit the type, Unprocessable when the type it was made with
        refuses it, PayloadTooLarge over 512 KiB, WaitpointNotFound.
        """
        refuse_in_loop("complete", "acomplete")
        self._there().run(completing(self.id, self._value.encode(value)))

    async def acomplete(self, value: T) -> None:
        """As `complete`, inside an event loop."""
        await self._there().arun(completing(self.id, self._value.encode(value)))

    def _there(self) -> Connection:
        return default_client().connection if self._connection is None else self._connection

    async def _durably(self, limit: int | None) -> dict[str, Any]:
        durable = current_durable()
        assert durable is not None
        if limit is None:
            return await durable.result_of(self.id, token=True)
        found = await durable.first([], [self.id], await durable.deadline(limit))
        if found is None:
            raise _too_late(self.id)
        return found[1]

    def _ended(self, limit: int | None) -> Flow[dict[str, Any]]:
        deadline = None if limit is None else time.monotonic() + limit / 1_000
        found = yield from until_ended([], [self.id], deadline)
        if not found:
            raise _too_late(self.id)
        return found[self.id]

    def _settled(self, told: dict[str, Any]) -> T:
        if told.get("outputIsError"):
            raise TokenTimedOut(self.id)
        value: T = self._value.decode(told.get("output") or "null")
        return value


def asked_for(
    value: Kept | None,
    timeout: Duration | datetime | None,
    tags: str | Sequence[str] | None,
    idempotency_key: str | None,
    idempotency_key_ttl: Duration | None,
) -> dict[str, Any]:
    """What a new token is asked for with. Raises InvalidRequest or Unprocessable naming what can not be."""
    told: dict[str, Any] = {}
    if timeout is not None:
        told["timeout"] = _timeout(timeout)
    if tags:
        told["tags"] = checked_tags([tags] if isinstance(tags, str) else list(tags), [])
    if idempotency_key is not None:
        if not isinstance(idempotency_key, str) or not 1 <= len(idempotency_key) <= MAX_IDEMPOTENCY_KEY:
            raise InvalidRequest(
                f"idempotency_key must be a text of 1 to {MAX_IDEMPOTENCY_KEY} characters", "idempotency_key"
            )
        told["idempotencyKey"] = idempotency_key
    if idempotency_key_ttl is not None:
        told["idempotencyKeyTTL"] = (
            f"{trigger_options.whole_seconds(idempotency_key_ttl, 'idempotency_key_ttl')}s"
        )
    if value is not None and (schema := value.schema()):
        told["schema"] = schema
    return told


def mark(told: dict[str, Any]) -> str | None:
    """Equal for tokens that are asked for alike."""
    return digest([told], {})


def creating(told: dict[str, Any]) -> Flow[dict[str, Any]]:
    import json

    made: dict[str, Any] = yield from asked(Request("POST", PATH, json.dumps(told).encode()))
    return made


def completing(id: str, value: str) -> Flow[None]:
    body = f'{{"data":{value}}}'.encode()
    yield from asked(Request("POST", f"{PATH}/{quote(id, safe='')}/complete", body))


def _timeout(value: Duration | datetime) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    ms = duration_ms(value, "timeout")
    if ms <= 0:
        raise Unprocessable(f"timeout is {value!r}: expected more than nothing", "timeout")
    return trigger_options.duration_on_wire(value, "timeout")


def _limit(timeout: timedelta | float | str | None) -> int | None:
    return None if timeout is None else max(0, duration_ms(timeout, "timeout"))


def _too_late(id: str) -> ResultTimeout:
    return ResultTimeout(f"token {id} was not completed in time; waiting again later is fine")
