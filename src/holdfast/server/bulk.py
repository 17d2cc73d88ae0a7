"""Bulk actions: cancel or replay all runs that a filter selects, or that are named (the wire contract, 7.6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import Response

from holdfast.engine import Filters, NewBulkAction
from holdfast.errors import InvalidRequest
from holdfast.model import limits
from holdfast.model.bulk import BulkStatus, BulkType
from holdfast.model.task import default_queue
from holdfast.server.access import Access
from holdfast.server.listing import answer_page, created_between, cursors
from holdfast.server.problems import respond
from holdfast.server.routing import Call, Endpoint, query_number
from holdfast.server.trigger import request_key_of
from holdfast.wire import bulk as wire
from holdfast.wire import versions
from holdfast.wire.answers import ID, MOMENT, TEXT, WHOLE, exactly, page_of

PATH = "/api/v1/bulk-actions"
NOTHING = ("region",)  # what no run has


async def create(call: Call) -> Response:
    body = await call.body(wire.BULK)
    filters = body.get("filter")
    run_ids = body.get("runIds", [])
    if ("filter" in body) is ("runIds" in body):
        raise InvalidRequest("exactly one of filter and runIds must be there", "filter")
    if body["action"] == "cancel" and "targetRegion" in body:
        raise InvalidRequest("targetRegion is for replays: leave it out of a cancel", "targetRegion")
    selected = None
    if filters is not None:
        now = await call.engine.store.read(lambda tx: tx.now)
        selected = selected_by(filters, now, call.sdk)
    item = NewBulkAction(
        environment_id=call.environment_id,
        type=BulkType(body["action"].upper()),
        filters=selected,
        run_ids=sorted(set(run_ids)),
        name=body.get("name"),
        request_key=request_key_of(call.request.headers),
    )
    return respond({"id": await call.engine.create_bulk_action(item)}, 202)


def selected_by(given: Mapping[str, Any], now: int, sdk: bool) -> Filters:
    """The filters of a body. Raises InvalidRequest for an unknown value, and when nothing is filtered by.

    sdk  whether words are meant as the SDK shows them
    """
    if not any(_is_filled(value) for value in given.values()):
        raise InvalidRequest("filter is empty: name at least one thing to filter by", "filter")
    words = _many(given.get("status"))
    status = sorted({status for word in words for status in versions.statuses(word, sdk)})
    queues = given.get("queue", [])
    names = {end: f"filter[createdAt][{end}]" for end in ("from", "to", "period")}
    since, until = created_between(
        {name: str(given[end]) for end, name in names.items() if end in given}, now
    )
    return Filters(
        status=status,
        task=_many(given.get("taskIdentifier")),
        version=_many(given.get("version")),
        machine=_many(given.get("machine")),
        tag=_many(given.get("tag")),
        queue=[
            default_queue(queue["name"]) if queue["type"] == "task" else queue["name"]
            for queue in (queues if isinstance(queues, list) else [queues])
        ],
        batch_id=given.get("batch") or None,
        bulk_id=given.get("bulkAction") or None,
        schedule=given.get("schedule") or None,
        is_test=given.get("isTest"),
        created_from=since,
        created_to=until,
        matches_nothing=bool(words and not status) or any(_is_filled(given.get(name)) for name in NOTHING),
    )


def _is_filled(value: Any) -> bool:
    if isinstance(value, str):
        return bool(value.strip())
    return any(_is_filled(one) for one in value) if isinstance(value, list) else value is not None


def _many(value: str | Sequence[str] | None) -> list[str]:
    values = [] if value is None else [value] if isinstance(value, str) else value
    return [one for one in values if one.strip()]


async def list_bulk_actions(call: Call) -> Response:
    size = query_number(call.request, "page[size]", limits.DEFAULT_PAGE, limits.MAX_PAGE, least=1)
    at = cursors(call)
    page = await call.engine.bulk_page(call.environment_id, size, at.after, at.before)
    return answer_page(
        [wire.bulk_action(action) for action in page.actions], page.next, page.previous, at.turn
    )


async def retrieve(call: Call) -> Response:
    return respond(wire.bulk_action(await call.engine.bulk_action(call.environment_id, call.path("bulk"))))


async def abort(call: Call) -> Response:
    return respond({"id": await call.engine.abort_bulk_action(call.environment_id, call.path("bulk"))})


COUNTS = exactly({"total": WHOLE, "success": WHOLE, "failure": WHOLE})
BULK_ACTION = exactly(
    {
        "id": TEXT,
        "type": {"enum": [str(type) for type in BulkType]},
        "status": {"enum": [str(status) for status in BulkStatus]},
        "counts": COUNTS,
        "createdAt": MOMENT,
    },
    name=TEXT,
    completedAt=MOMENT,
)
# Whoever may write all runs of an environment may do so to many at once.
READ, WRITE = Access("read", ("runs",)), Access("write", ("runs",))
ENDPOINTS = (
    Endpoint("POST", PATH, create, "Cancel or replay many runs", WRITE, wire.BULK, ID, status=202),
    Endpoint(
        "GET",
        PATH,
        list_bulk_actions,
        "List bulk actions, newest first",
        READ,
        answer=page_of(BULK_ACTION),
        query=("page[size]", "page[after]", "page[before]"),
    ),
    Endpoint("GET", f"{PATH}/{{bulk}}", retrieve, "Read a bulk action", READ, answer=BULK_ACTION),
    Endpoint("POST", f"{PATH}/{{bulk}}/abort", abort, "Stop a bulk action", WRITE, answer=ID),
)
