"""The list of runs: filters and cursors out of the query."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from starlette.datastructures import QueryParams
from starlette.responses import Response

from holdfast.engine import Filters
from holdfast.errors import Forbidden, HoldfastError, InvalidRequest
from holdfast.model import limits
from holdfast.model.duration import duration_ms, epoch_ms
from holdfast.model.environment import type_named
from holdfast.server.access import Access
from holdfast.server.problems import respond
from holdfast.server.routing import Call, Endpoint, query_number
from holdfast.wire import answers, versions
from holdfast.wire.runs import list_item

MAX_VALUES = 100
LISTS = {"taskIdentifier": "task", "version": "version", "machine": "machine", "queue": "queue", "tag": "tag"}
# Filters on what no run of this release has: nothing matches them.
NOTHING = ("region", "error")
ONE = ("batch", "bulkAction", "isTest", "parent", "schedule")
CREATED = ("createdAt][from", "createdAt][to", "createdAt][period")
KNOWN = tuple(f"filter[{name}]" for name in (*sorted(("env", "status", *LISTS, *NOTHING, *ONE)), *CREATED))
PAGED = (*KNOWN, "page[size]", "page[after]", "page[before]")


async def list_runs(call: Call) -> Response:
    query = call.request.query_params
    size = query_number(call.request, "page[size]", limits.DEFAULT_PAGE, limits.MAX_PAGE, least=1)
    at = cursors(call)
    tasks = list_values(query, "taskIdentifier")
    for task in tasks or (None,):
        call.require("read", [("runs", None), ("tasks", task)])
    if named := list_values(query, "env"):
        await _require_environment(call, named)
    now = await call.engine.store.read(lambda tx: tx.now)
    page = await call.engine.page(
        call.environment_id, filters(query, now, call.sdk), size, at.after, at.before
    )
    if call.sdk:
        env = {"id": call.environment_id, "name": call.environment_id}
        data = [{**versions.list_item(run), "env": env} for run in page.runs]
    else:
        data = [list_item(run) for run in page.runs]
    return answer_page(data, page.next, page.previous, at.turn)


def answer_page(
    data: list[dict[str, Any]], next: str | None, previous: str | None = None, turn: int = 0
) -> Response:
    """A page; a cursor that there is not is left out. `turn` as in Cursors."""
    cursors = (("next", next), ("previous", previous))
    pagination = {
        name: f"{cursor}.{turn}" if turn else cursor for name, cursor in cursors if cursor is not None
    }
    return respond({"data": data, "pagination": pagination})


async def _require_environment(call: Call, named: list[str]) -> None:
    """Raises Forbidden for an environment that is not the caller's own."""
    own = await call.environment()
    for word in named:
        if word != own.id and type_named(word) != own.type:
            raise Forbidden(
                f"filter[env] is {word[:40]!r}: the key in use reads {own.type} only, take one of that"
            )


def filters(query: QueryParams, now: int, sdk: bool) -> Filters:
    """The filters of a query. Raises InvalidRequest naming an unknown filter or value.

    sdk  whether words are meant as the SDK shows them
    """
    for name in query:
        if name.startswith("filter[") and name not in KNOWN:
            raise InvalidRequest(f"{name[:80]} is not a filter: known are {', '.join(KNOWN)}", name[:80])
    lists = {field: list_values(query, name) for name, field in LISTS.items()}
    created_from, created_to = created_between(query, now)
    is_test = query.get("filter[isTest]")
    if is_test not in (None, "true", "false"):
        raise InvalidRequest(f"filter[isTest] is {is_test[:40]!r}: expected true or false", "filter[isTest]")
    words = list_values(query, "status")
    status = sorted({status for word in words for status in versions.statuses(word, sdk)})
    return Filters(
        status=status,
        batch_id=one_value(query, "filter[batch]"),
        parent_id=one_value(query, "filter[parent]"),
        bulk_id=one_value(query, "filter[bulkAction]"),
        schedule=one_value(query, "filter[schedule]"),
        is_test=None if is_test is None else is_test == "true",
        created_from=created_from,
        created_to=created_to,
        matches_nothing=bool(words and not status) or any(query.get(f"filter[{name}]") for name in NOTHING),
        **lists,
    )


@dataclass(frozen=True, slots=True)
class Cursors:
    """Where a page begins or ends: one of both at most.

    turn  what the cursors of the page are numbered with. The SDK adds a cursor that it follows to those that led to its
          page, and sends both for ever after somebody went back once: the higher number is what was followed
    """

    after: str | None
    before: str | None
    turn: int


def cursors(call: Call) -> Cursors:
    """The page[after] and page[before] of a query. Raises InvalidRequest where both are given, but for the SDK."""
    query = call.request.query_params
    after, after_turn = _numbered(one_value(query, "page[after]"))
    before, before_turn = _numbered(one_value(query, "page[before]"))
    turn = max(after_turn, before_turn) if before is None else max(after_turn, before_turn) + 1
    if not call.sdk:
        if after is not None and before is not None:
            raise InvalidRequest("page[after] and page[before] exclude each other: send one", "page[after]")
        return Cursors(after, before, 0)
    if after is not None and before is not None:
        after, before = (after, None) if after_turn > before_turn else (None, before)
    return Cursors(after, before, turn)


def _numbered(cursor: str | None) -> tuple[str | None, int]:
    id, _, number = (cursor or "").rpartition(".")
    if id and number.isdecimal() and len(number) <= 6:
        return id, int(number)
    return cursor, 0


def list_values(query: QueryParams, name: str) -> list[str]:
    """The values of a filter, which may be given several times, and with commas."""
    values = [value for text in query.getlist(f"filter[{name}]") for value in text.split(",") if value]
    if len(values) > MAX_VALUES:
        raise InvalidRequest(
            f"filter[{name}] has {len(values)} values: at most {MAX_VALUES}", f"filter[{name}]"
        )
    for value in values:
        _refuse_nul(value, f"filter[{name}]")
    return values


def one_value(query: QueryParams, name: str) -> str | None:
    """A parameter of the query."""
    value = query.get(name)
    if value is not None:
        _refuse_nul(value, name)
    return value


def _refuse_nul(value: str, name: str) -> None:
    if "\x00" in value:
        raise InvalidRequest(f"{name} holds a NUL character", name)


def created_between(
    query: Mapping[str, str], now: int, name: str = "filter[createdAt][{}]"
) -> tuple[int | None, int | None]:
    """What filter[createdAt] asks for, in epoch milliseconds. `name` is how its parts are written."""
    since = _moment(query, name.format("from"))
    until = _moment(query, name.format("to"))
    period = query.get(name.format("period"))
    if period is not None:
        try:
            since = max(since or 0, now - duration_ms(period, name.format("period")))
        except HoldfastError as error:
            raise InvalidRequest(str(error), name.format("period")) from None
    return since, until


def _moment(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name)
    if text is None:
        return None
    if text.isdecimal() and len(text) < 16:
        return int(text)
    try:
        return epoch_ms(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        raise InvalidRequest(
            f"{name} is {text[:40]!r}: expected epoch milliseconds or a date", name
        ) from None


ENDPOINTS = (
    Endpoint(
        "GET",
        "/api/v1/runs",
        list_runs,
        "List runs, newest first",
        Access("read", ("runs",), public_keys=True, tokens=True, inside=True),
        answer=answers.RUNS,
        sdk_answer=answers.SDK_RUNS,
        query=PAGED,
    ),
)
