"""What all resources share: carrying out flows on either side, pages, and reading what the wire tells."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias, TypeVar
from urllib.parse import quote

from holdfast.errors import InvalidRequest
from holdfast.sdk.policy import Flow, Request, asked
from holdfast.sdk.transport import Connection, refuse_in_loop

T = TypeVar("T")

PAGE = 100

# What was asked for after a cursor (None at first), and the next cursor (None at the end).
Page: TypeAlias = tuple[list[T], str | None]
Pages: TypeAlias = Callable[[str | None], Flow[Page[T]]]
Query: TypeAlias = Mapping[str, str]


class Resource:
    """Things of one kind on one server. Safe to share between threads and event loops."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def _do(self, name: str, flow: Flow[T], twin: str = "") -> T:
        """Carry out a flow for the blocking method of this name."""
        refuse_in_loop(name, twin or f"a{name}")
        return self._connection.run(flow)

    def _ado(self, flow: Flow[T]) -> Coroutine[Any, Any, T]:
        return self._connection.arun(flow)

    def _each(self, pages: Pages[T], name: str = "list") -> Iterator[T]:
        """The things on all pages; a page is asked for when it is needed."""
        cursor: str | None = None
        while True:
            things, cursor = self._do(name, pages(cursor))
            yield from things
            if not cursor:
                return

    async def _aeach(self, pages: Pages[T]) -> AsyncIterator[T]:
        cursor: str | None = None
        while True:
            things, cursor = await self._ado(pages(cursor))
            for thing in things:
                yield thing
            if not cursor:
                return


def cursor_pages(
    path: str, read: Callable[[dict[str, Any]], T], query: Query | None = None, size: int | None = None
) -> Pages[T]:
    """Pages that name the next one by a cursor."""

    def page(cursor: str | None) -> Flow[Page[T]]:
        asked_for = {**(query or {}), "page[size]": str(size or PAGE)}
        if cursor is not None:
            asked_for["page[after]"] = cursor
        answer = yield from asked(Request("GET", path, query=tuple(asked_for.items())))
        return [read(one) for one in answer["data"]], answer["pagination"].get("next")

    return page


def numbered_pages(path: str, read: Callable[[dict[str, Any]], T]) -> Pages[T]:
    """Pages that have numbers."""

    def page(cursor: str | None) -> Flow[Page[T]]:
        number = int(cursor or 1)
        answer = yield from asked(Request("GET", path, query=(("page", str(number)), ("perPage", str(PAGE)))))
        more = number < answer["pagination"]["totalPages"]
        return [read(one) for one in answer["data"]], str(number + 1) if more else None

    return page


def moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def epoch_ms(at: datetime, name: str) -> int:
    """Raises InvalidRequest for what is no datetime; one without an offset is local, as in Python."""
    if not isinstance(at, datetime):
        raise InvalidRequest(f"{name} is {at!r}: expected a datetime", name)
    return round(at.timestamp() * 1_000)


def segment(text: str, name: str) -> str:
    """A part of a path. Raises InvalidRequest for what can be none."""
    if not isinstance(text, str) or not text or text in (".", ".."):
        raise InvalidRequest(f"{name} is {text!r}: expected a text that is not empty", name)
    return quote(text, safe="")


def plain_value(value: Any, name: str) -> Any:
    """JSON values of what pydantic writes as such. Raises InvalidRequest, naming it, for anything else."""
    from holdfast.wire import codec

    try:
        written = codec.encode(value)
    except InvalidRequest as error:
        raise InvalidRequest(f"{name} can not be written as JSON: {error}", name) from None
    return codec.decode(written, name)


def texts(value: str | Sequence[str], name: str) -> list[str]:
    """One or several texts. Raises InvalidRequest for anything else."""
    values = [value] if isinstance(value, str) else list(value)
    for one in values:
        if not isinstance(one, str) or not one:
            raise InvalidRequest(f"{name} holds {one!r}: expected texts that are not empty", name)
    return values
