"""The tokens of an environment: `client.tokens`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar, Unpack, overload

from holdfast.sdk.options import Duration, duration_on_wire
from holdfast.sdk.policy import Flow, Request, asked
from holdfast.sdk.resources.base import Resource, cursor_pages, epoch_ms, moment, plain_value, segment, texts

if TYPE_CHECKING:
    from holdfast.sdk.token import Token

T = TypeVar("T")
PATH = "/api/v1/waitpoints/tokens"


class TokenFilters(TypedDict, total=False):
    """Different filters narrow together, values of one widen.

    status                    WAITING, COMPLETED or TIMED_OUT
    tag                       any of these, exactly
    created_from, created_to  both inclusive
    period                    created in the last so much
    """

    status: str | Sequence[str]
    tag: str | Sequence[str]
    idempotency_key: str
    created_from: datetime
    created_to: datetime
    period: Duration


@dataclass(frozen=True, slots=True)
class TokenState:
    """A token, as it was when it was read.

    url     POST JSON to it and the token is completed with that
    output  what it was completed with, as plain JSON values; of one that timed out, the error. Lists do not tell it.
    """

    id: str
    url: str
    status: Literal["WAITING", "COMPLETED", "TIMED_OUT"]
    tags: Sequence[str]
    created_at: datetime
    completed_at: datetime | None
    timeout_at: datetime | None
    idempotency_key: str | None
    output: Any


class Tokens(Resource):
    """The tokens of an environment. Ids that name none raise WaitpointNotFound."""

    @overload
    def create(
        self,
        type: type[T],
        *,
        timeout: Duration | datetime | None = None,
        tags: str | Sequence[str] | None = None,
        idempotency_key: str | None = None,
        idempotency_key_ttl: Duration | None = None,
    ) -> Token[T]: ...
    @overload
    def create(
        self,
        type: Any = Any,
        *,
        timeout: Duration | datetime | None = None,
        tags: str | Sequence[str] | None = None,
        idempotency_key: str | None = None,
        idempotency_key_ttl: Duration | None = None,
    ) -> Token[Any]: ...
    def create(
        self,
        type: Any = Any,
        *,
        timeout: Duration | datetime | None = None,
        tags: str | Sequence[str] | None = None,
        idempotency_key: str | None = None,
        idempotency_key_ttl: Duration | None = None,
    ) -> Token[Any]:
        """Make a token on this server, that nobody waits for yet. In a task, `wait.token` is the durable one.

        type             what completes it must fit this, and `result` gives it
        timeout          after which it can be completed no more; without one it waits for ever
        tags             up to ten texts of at most 128 characters
        idempotency_key  a second token with this key is the first one, for `idempotency_key_ttl` (for ever)
        """
        creating = _creating(type, timeout, tags, idempotency_key, idempotency_key_ttl)
        return self._token(self._do("create", creating), type)

    @overload
    async def acreate(
        self,
        type: type[T],
        *,
        timeout: Duration | datetime | None = None,
        tags: str | Sequence[str] | None = None,
        idempotency_key: str | None = None,
        idempotency_key_ttl: Duration | None = None,
    ) -> Token[T]: ...
    @overload
    async def acreate(
        self,
        type: Any = Any,
        *,
        timeout: Duration | datetime | None = None,
        tags: str | Sequence[str] | None = None,
        idempotency_key: str | None = None,
        idempotency_key_ttl: Duration | None = None,
    ) -> Token[Any]: ...
    async def acreate(
        self,
        type: Any = Any,
        *,
        timeout: Duration | datetime | None = None,
        tags: str | Sequence[str] | None = None,
        idempotency_key: str | None = None,
        idempotency_key_ttl: Duration | None = None,
    ) -> Token[Any]:
        """As `create`, inside an event loop."""
        creating = _creating(type, timeout, tags, idempotency_key, idempotency_key_ttl)
        return self._token(await self._ado(creating), type)

    def list(self, **filters: Unpack[TokenFilters]) -> Iterator[TokenState]:
        """The tokens that match every filter, newest first; pages are fetched as needed."""
        return self._each(cursor_pages(PATH, _token_state, _query(filters)))

    def alist(self, **filters: Unpack[TokenFilters]) -> AsyncIterator[TokenState]:
        """As `list`, for `async for`."""
        return self._aeach(cursor_pages(PATH, _token_state, _query(filters)))

    def retrieve(self, token_id: str) -> TokenState:
        """The token, as it is now. Raises WaitpointNotFound."""
        return self._do("retrieve", _reading(token_id))

    async def aretrieve(self, token_id: str) -> TokenState:
        """As `retrieve`, inside an event loop."""
        return await self._ado(_reading(token_id))

    def complete(self, token_id: str, value: Any = None) -> None:
        """Complete it with JSON values. Doing so again, or after its timeout, changes nothing.

        Raises Unprocessable when the type it was made with refuses the value, PayloadTooLarge over 512 KiB.
        """
        self._do("complete", _completing(token_id, value))

    async def acomplete(self, token_id: str, value: Any = None) -> None:
        """As `complete`, inside an event loop."""
        await self._ado(_completing(token_id, value))

    def _token(self, told: dict[str, Any], type: Any) -> Token[Any]:
        from holdfast.sdk.token import Token

        return Token(told, type, self._connection)


def _creating(
    type: Any,
    timeout: Duration | datetime | None,
    tags: str | Sequence[str] | None,
    idempotency_key: str | None,
    idempotency_key_ttl: Duration | None,
) -> Flow[dict[str, Any]]:
    from holdfast.sdk.token import asked_for, creating
    from holdfast.sdk.values import Kept

    value = None if type is Any else Kept("the payload of a token", lambda: type)
    return (yield from creating(asked_for(value, timeout, tags, idempotency_key, idempotency_key_ttl)))


def _reading(token_id: str) -> Flow[TokenState]:
    return _token_state((yield from asked(Request("GET", f"{PATH}/{segment(token_id, 'token_id')}"))))


def _completing(token_id: str, value: Any) -> Flow[None]:
    body = json.dumps({"data": plain_value(value, "value")}).encode()
    yield from asked(Request("POST", f"{PATH}/{segment(token_id, 'token_id')}/complete", body))


def _query(filters: Mapping[str, Any]) -> dict[str, str]:
    query: dict[str, str] = {}
    for name, value in filters.items():
        match name:
            case _ if name not in TokenFilters.__annotations__:
                raise TypeError(
                    f"there is no filter {name!r}; there are {', '.join(TokenFilters.__annotations__)}"
                )
            case _ if value is None:
                pass
            case "status":
                query["filter[status]"] = ",".join(texts(value, name))
            case "tag":
                query["filter[tags]"] = ",".join(texts(value, name))
            case "idempotency_key":
                query["filter[idempotencyKey]"] = texts(value, name)[0]
            case "period":
                query["filter[createdAt][period]"] = duration_on_wire(value, name)
            case _:
                query[f"filter[createdAt][{name.removeprefix('created_')}]"] = str(epoch_ms(value, name))
    return query


def _token_state(told: Mapping[str, Any]) -> TokenState:
    created_at = moment(told["createdAt"])
    assert created_at is not None
    return TokenState(
        told["id"],
        told["url"],
        told["status"],
        tuple(told["tags"]),
        created_at,
        moment(told.get("completedAt")),
        moment(told.get("timeoutAt")),
        told.get("idempotencyKey"),
        json.loads(told.get("output") or "null"),
    )
