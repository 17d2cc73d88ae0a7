"""Filters of runs: their names and types, in lists and in bulk actions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypedDict

from holdfast.errors import InvalidRequest
from holdfast.sdk.options import duration_on_wire
from holdfast.sdk.resources.base import epoch_ms, texts

if TYPE_CHECKING:
    from typing import TypeAlias

    Several: TypeAlias = str | Sequence[str]
else:
    Several = Any

# The names of filters that take several values, and of those that take one.
SEVERAL = {
    "status": "status",
    "task": "taskIdentifier",
    "tag": "tag",
    "queue": "queue",
    "version": "version",
    "machine": "machine",
    "region": "region",
}
ONE = {"batch": "batch", "schedule": "schedule", "bulk_action": "bulkAction", "parent": "parent"}
TASK_QUEUE = "task/"


class BulkFilters(TypedDict, total=False):
    """What selects the runs of a bulk action. Different filters narrow together, values of one widen.

    status                    words of the thirteen, such as "QUEUED"
    task, version, machine    of the task's id, the version of the code, the size
    tag                       any of these, exactly
    queue                     by name; the queue of a task is "task/<id>"
    batch, bulk_action        ids
    schedule                  the id of the schedule that made them
    region                    of what this release has none of: nothing is selected
    is_test                   only tests, or none of them
    created_from, created_to  both inclusive
    period                    created in the last so much: a `timedelta`, seconds, or text such as "1h"
    """

    status: Several
    task: Several
    tag: Several
    queue: Several
    version: Several
    machine: Several
    region: Several
    batch: str
    schedule: str
    bulk_action: str
    is_test: bool
    created_from: datetime
    created_to: datetime
    period: timedelta | float | str


class RunFilters(BulkFilters, total=False):
    """As BulkFilters, for lists.

    parent  the id of the run that triggered them
    """

    parent: str


def in_query(filters: Mapping[str, Any]) -> dict[str, str]:
    """Filters as the query of a list. Raises TypeError for an unknown name, InvalidRequest for a value."""
    query: dict[str, str] = {}
    for name, value in _given(filters, RunFilters):
        if name in SEVERAL:
            values = texts(value, name)
            if comma := next((one for one in values if "," in one), None):
                raise InvalidRequest(
                    f"{name} holds {comma!r}: in a list commas part values, and so none may hold one", name
                )
            query[f"filter[{SEVERAL[name]}]"] = ",".join(values)
        elif name in ONE:
            query[f"filter[{ONE[name]}]"] = texts(value, name)[0]
        elif name == "is_test":
            query["filter[isTest]"] = "true" if value else "false"
        elif name == "period":
            query["filter[createdAt][period]"] = duration_on_wire(value, name)
        else:
            end = name.removeprefix("created_")
            query[f"filter[createdAt][{end}]"] = str(epoch_ms(value, name))
    return query


def in_body(filters: Mapping[str, Any]) -> dict[str, Any]:
    """Filters as the body of a bulk action. Raises as `in_query`; here values may hold commas."""
    body: dict[str, Any] = {}
    for name, value in _given(filters, BulkFilters):
        if name == "queue":
            body["queue"] = [
                {"type": "task", "name": one.removeprefix(TASK_QUEUE)}
                if one.startswith(TASK_QUEUE)
                else {"type": "custom", "name": one}
                for one in texts(value, name)
            ]
        elif name in SEVERAL:
            body[SEVERAL[name]] = texts(value, name)
        elif name in ONE:
            body[ONE[name]] = texts(value, name)[0]
        elif name == "is_test":
            body["isTest"] = bool(value)
        elif name == "period":
            body["period"] = duration_on_wire(value, name)
        else:
            body[name.removeprefix("created_")] = epoch_ms(value, name)
    return body


def _given(filters: Mapping[str, Any], known: type[Any]) -> list[tuple[str, Any]]:
    """Those that are not None."""
    for name in filters:
        if name not in known.__annotations__:
            raise TypeError(f"there is no filter {name!r}; there are {', '.join(known.__annotations__)}")
    return [(name, value) for name, value in filters.items() if value is not None]
