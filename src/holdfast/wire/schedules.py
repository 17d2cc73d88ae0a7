"""Schedules on the wire (the wire contract, 7.1)."""

from __future__ import annotations

from typing import Annotated, Any, NotRequired

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from holdfast.model.environment import Environment
from holdfast.model.limits import MAX_DEDUPLICATION_KEY, MAX_SCHEDULE_EXTERNAL_ID
from holdfast.model.schedule import Schedule, description
from holdfast.wire.credentials import TYPES
from holdfast.wire.runs import Name, Text, moment

ExternalId = Annotated[str, Field(max_length=MAX_SCHEDULE_EXTERNAL_ID)]


class ScheduleBody(TypedDict):
    """All of a schedule: what is left out is not kept, a time zone that is left out is UTC."""

    task: Name
    cron: Text
    timezone: NotRequired[Text]
    window: NotRequired[Text]
    externalId: NotRequired[ExternalId]


class NewScheduleBody(ScheduleBody):
    """A schedule with this key is changed, where there is one in the project."""

    deduplicationKey: Annotated[str, Field(min_length=1, max_length=MAX_DEDUPLICATION_KEY)]


SCHEDULE: TypeAdapter[ScheduleBody] = TypeAdapter(ScheduleBody)
NEW_SCHEDULE: TypeAdapter[NewScheduleBody] = TypeAdapter(NewScheduleBody)


def schedule_item(schedule: Schedule, environment: Environment) -> dict[str, Any]:
    """A schedule. Without `nextRun` while it is not active; `lastTick` is null until the first one."""
    told: dict[str, Any] = {
        "id": schedule.id,
        "type": schedule.type,
        "task": schedule.task,
        "active": schedule.active,
        "generator": generator(schedule),
        "timezone": schedule.timezone,
        "environments": [{"id": environment.id, "type": TYPES[environment.type]}],
        "lastTick": _last_tick(schedule),
    }
    optional = {
        "deduplicationKey": schedule.deduplication_key,
        "externalId": schedule.external_id,
        "window": schedule.spread_window,
        "nextRun": moment(schedule.tick_at) if schedule.active else None,
        "nextRunEffectiveAt": moment(schedule.due_at) if schedule.active else None,
    }
    return told | {name: value for name, value in optional.items() if value is not None}


def schedule_of_run(schedule: Schedule) -> dict[str, Any]:
    """The schedule that made a run, as `runs.retrieve` of the SDK reads it (4.7)."""
    told: dict[str, Any] = {"id": schedule.id, "generator": generator(schedule)}
    optional = {"externalId": schedule.external_id, "deduplicationKey": schedule.deduplication_key}
    return told | {name: value for name, value in optional.items() if value is not None}


def generator(schedule: Schedule) -> dict[str, Any]:
    expression = schedule.expression
    return {"type": "CRON", "expression": expression, "description": description(expression)}


def _last_tick(schedule: Schedule) -> dict[str, Any] | None:
    """The latest tick that made a run or was refused, and why it was."""
    if schedule.last_tick_at is None:
        return None
    told = {"at": moment(schedule.last_tick_at)}
    optional = {"runId": schedule.last_tick_run_id, "refusal": schedule.last_tick_refusal}
    return told | {name: value for name, value in optional.items() if value is not None}
