"""Schedules: make, list, read, change, switch on and off, delete (the wire contract, 7.1)."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from holdfast.engine.schedules import ChangeSchedule, NewSchedule, OneSchedule
from holdfast.model import limits
from holdfast.model.schedule import Schedule, ScheduleSpec
from holdfast.server.access import Access, Thing
from holdfast.server.problems import respond
from holdfast.server.routing import Call, Endpoint, query_number
from holdfast.wire import schedules as wire
from holdfast.wire.answers import (
    FLAG,
    GENERATOR,
    ID,
    MOMENT,
    TEXT,
    exactly,
    list_of,
    offset_page_of,
    or_null,
)
from holdfast.wire.credentials import TYPES

PATH = "/api/v1/schedules"
MAX_OFFSET_PAGE = 1_000_000


async def create(call: Call) -> Response:
    """The one with the same key is changed instead, and keeps its id."""
    body = await call.body(wire.NEW_SCHEDULE)
    item = NewSchedule(
        environment_id=call.environment_id,
        task=body["task"],
        spec=_spec(body),
        deduplication_key=body["deduplicationKey"],
        external_id=body.get("externalId"),
    )
    return await _told(call, await call.engine.save_schedule(item))


async def list_schedules(call: Call) -> Response:
    number = query_number(call.request, "page", 1, MAX_OFFSET_PAGE, least=1)
    size = query_number(call.request, "perPage", limits.DEFAULT_PAGE, limits.MAX_PAGE, least=1)
    page = await call.engine.schedules_page(call.environment_id, (number - 1) * size, size)
    environment = await call.environment()
    pagination = {"currentPage": number, "totalPages": -(-page.total // size), "count": page.total}
    data = [wire.schedule_item(schedule, environment) for schedule in page.schedules]
    return respond({"data": data, "pagination": pagination})


async def retrieve(call: Call) -> Response:
    return await _told(call, await call.engine.schedule(call.environment_id, call.path("schedule")))


async def update(call: Call) -> Response:
    body = await call.body(wire.SCHEDULE)
    item = ChangeSchedule(
        environment_id=call.environment_id,
        id=call.path("schedule"),
        task=body["task"],
        spec=_spec(body),
        external_id=body.get("externalId"),
    )
    return await _told(call, await call.engine.change_schedule(item))


async def activate(call: Call) -> Response:
    return await _told(call, await call.engine.set_schedule_active(_which(call), True))


async def deactivate(call: Call) -> Response:
    return await _told(call, await call.engine.set_schedule_active(_which(call), False))


async def delete(call: Call) -> Response:
    which = _which(call)
    await call.engine.delete_schedule(which)
    return respond({"id": which.id})


def _which(call: Call) -> OneSchedule:
    return OneSchedule(call.environment_id, call.path("schedule"))


def _spec(body: wire.ScheduleBody) -> ScheduleSpec:
    return ScheduleSpec(body["cron"], body.get("timezone", "UTC"), body.get("window"))


async def _told(call: Call, schedule: Schedule) -> Response:
    return respond(wire.schedule_item(schedule, await call.environment()))


async def _this_schedule(call: Call) -> list[Thing]:
    return [("schedules", call.path("schedule"))]


READ, WRITE = Access("read", ("schedules",)), Access("write", ("schedules",))
READ_ONE, WRITE_ONE = (Access(action, ("schedules",), _this_schedule) for action in ("read", "write"))
ENVIRONMENT = exactly({"id": TEXT, "type": {"enum": list(TYPES.values())}})
ITEM: dict[str, Any] = exactly(
    {
        "id": TEXT,
        "type": {"enum": ["DECLARATIVE", "IMPERATIVE"]},
        "task": TEXT,
        "active": FLAG,
        "generator": GENERATOR,
        "timezone": TEXT,
        "environments": list_of(ENVIRONMENT),
        "lastTick": or_null(exactly({"at": MOMENT}, runId=TEXT, refusal=TEXT)),
    },
    deduplicationKey=TEXT,
    externalId=TEXT,
    window=TEXT,
    nextRun=MOMENT,
    nextRunEffectiveAt=MOMENT,
)

ENDPOINTS = (
    Endpoint(
        "POST", PATH, create, "Make a schedule, or change the one of the key", WRITE, wire.NEW_SCHEDULE, ITEM
    ),
    Endpoint(
        "GET",
        PATH,
        list_schedules,
        "List schedules",
        READ,
        answer=offset_page_of(ITEM),
        query=("page", "perPage"),
    ),
    Endpoint("GET", f"{PATH}/{{schedule}}", retrieve, "Read a schedule", READ_ONE, answer=ITEM),
    Endpoint(
        "PUT",
        f"{PATH}/{{schedule}}",
        update,
        "Put other values into a schedule",
        WRITE_ONE,
        wire.SCHEDULE,
        ITEM,
    ),
    Endpoint(
        "POST", f"{PATH}/{{schedule}}/activate", activate, "Let a schedule run again", WRITE_ONE, answer=ITEM
    ),
    Endpoint(
        "POST", f"{PATH}/{{schedule}}/deactivate", deactivate, "Pause a schedule", WRITE_ONE, answer=ITEM
    ),
    Endpoint("DELETE", f"{PATH}/{{schedule}}", delete, "Delete a schedule", WRITE_ONE, answer=ID),
)
