"""Queues: list, read, pause and resume, override and reset their limits (the wire contract, 7.2)."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from holdfast.engine.queues import ChangeQueue, OneQueue
from holdfast.errors import InvalidRequest, NotFound
from holdfast.model import limits
from holdfast.server.access import Access
from holdfast.server.problems import respond
from holdfast.server.routing import Call, Endpoint, query_number
from holdfast.wire import queues as wire
from holdfast.wire.answers import FLAG, MOMENT, TEXT, WHOLE, exactly, offset_page_of, or_null

TYPES = ("id", "task", "custom")
MAX_OFFSET_PAGE = 1_000_000


async def list_queues(call: Call) -> Response:
    number = query_number(call.request, "page", 1, MAX_OFFSET_PAGE, least=1)
    size = query_number(call.request, "perPage", limits.DEFAULT_PAGE, limits.MAX_PAGE, least=1)
    page = await call.engine.queues_page(call.environment_id, (number - 1) * size, size)
    pagination = {"currentPage": number, "totalPages": -(-page.total // size), "count": page.total}
    return respond({"data": [wire.queue_item(queue) for queue in page.queues], "pagination": pagination})


async def retrieve(call: Call) -> Response:
    kind = call.request.query_params.get("type", "id")
    if kind not in TYPES:
        raise InvalidRequest(f"type is {kind[:40]!r}: expected one of {', '.join(TYPES)}", "type")
    queue = await call.engine.queue(OneQueue(call.environment_id, **_which(call, kind)))
    return respond(wire.queue_item(queue))


async def pause(call: Call) -> Response:
    body = await call.body(wire.PAUSE)
    which = _which(call, body.get("type", "id"))
    return await _changed(call, ChangeQueue(call.environment_id, **which, paused=body["action"] == "pause"))


async def override(call: Call) -> Response:
    body = await call.body(wire.OVERRIDE)
    which = _which(call, body.get("type", "id"))
    return await _changed(call, ChangeQueue(call.environment_id, **which, limit=body["concurrencyLimit"]))


async def reset(call: Call) -> Response:
    body = await call.body(wire.RESET, empty={})
    which = _which(call, body.get("type", "id"))
    return await _changed(call, ChangeQueue(call.environment_id, **which, limit=None))


async def _changed(call: Call, change: ChangeQueue) -> Response:
    return respond(wire.queue_item(await call.engine.change_queue(change)))


def _which(call: Call, kind: str) -> dict[str, Any]:
    """The id or the name that stands in the path. The SDK writes a slash as %2F before it encodes all of it."""
    text = call.path("queue").replace("%2F", "/").replace("%2f", "/")
    match kind:
        case "id":
            return {"id": text}
        case "task":
            return {"name": f"{wire.TASK_QUEUE}{text}"}
        case _:
            if text.startswith(wire.TASK_QUEUE):  # it is one of a task, and goes by that name
                raise NotFound(f"Queue not found: {text!r}")
            return {"name": text}


READ = Access("read", ("queues",), tokens=True)
LIST = Access("read", ("queues",))
WRITE = Access("write", ("queues",))
LIMIT = or_null(WHOLE)
ITEM = exactly(
    {
        "id": TEXT,
        "name": TEXT,
        "type": {"enum": ["task", "custom"]},
        "running": WHOLE,
        "queued": WHOLE,
        "paused": FLAG,
        "concurrencyLimit": LIMIT,
        "concurrency": exactly(
            {
                "current": LIMIT,
                "base": LIMIT,
                "override": LIMIT,
                "overriddenAt": or_null(MOMENT),
                "overriddenBy": or_null(TEXT),
            }
        ),
    }
)
PAGE = offset_page_of(ITEM)

ENDPOINTS = (
    Endpoint(
        "GET", "/api/v1/queues", list_queues, "List queues", LIST, answer=PAGE, query=("page", "perPage")
    ),
    Endpoint("GET", "/api/v1/queues/{queue}", retrieve, "Read a queue", READ, answer=ITEM, query=("type",)),
    Endpoint(
        "POST", "/api/v1/queues/{queue}/pause", pause, "Pause or resume a queue", WRITE, wire.PAUSE, ITEM
    ),
    Endpoint(
        "POST",
        "/api/v1/queues/{queue}/concurrency/override",
        override,
        "Put another limit in the place of a queue's own",
        WRITE,
        wire.OVERRIDE,
        ITEM,
    ),
    Endpoint(
        "POST",
        "/api/v1/queues/{queue}/concurrency/reset",
        reset,
        "Put a queue's own limit in force again",
        WRITE,
        wire.RESET,
        ITEM,
        body_optional=True,
    ),
)
