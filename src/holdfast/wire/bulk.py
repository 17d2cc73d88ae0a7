"""Bulk actions on the wire (the wire contract, 7.6)."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Field, TypeAdapter
from typing_extensions import TypedDict

from holdfast.model import limits
from holdfast.model.bulk import BulkAction
from holdfast.wire.runs import Flag, Machine, Whole, moment

Word = Annotated[str, Field(max_length=4_096)]
Words = Word | Annotated[list[Word], Field(max_length=100)]
Moment = Annotated[Whole, Field(ge=0, le=10**15)] | Annotated[str, Field(max_length=100)]


class FilteredQueue(TypedDict):
    type: Literal["task", "custom"]
    name: Word


# The filters of the run list, by the SDK's names. Not a class: `from` is no name in Python.
BulkFilter = TypedDict(
    "BulkFilter",
    {
        "status": Words,
        "taskIdentifier": Words,
        "version": Words,
        "tag": Words,
        "machine": Machine | list[Machine],
        "queue": FilteredQueue | Annotated[list[FilteredQueue], Field(max_length=100)],
        "region": Words,
        "batch": Word,
        "schedule": Word,
        "bulkAction": Word,
        "isTest": Flag,
        "from": Moment,
        "to": Moment,
        "period": Word,
    },
    total=False,
)
BulkFilter.__pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[attr-defined]  # read by pydantic


class BulkBody(TypedDict):
    """Either `filter` or `runIds`."""

    action: Literal["cancel", "replay"]
    filter: NotRequired[BulkFilter]
    runIds: NotRequired[
        Annotated[
            list[Annotated[str, Field(min_length=1, max_length=64)]],
            Field(min_length=1, max_length=limits.MAX_BULK_RUNS),
        ]
    ]
    name: NotRequired[Annotated[str, Field(max_length=limits.MAX_BULK_NAME)]]
    targetRegion: NotRequired[Word]


BULK: TypeAdapter[BulkBody] = TypeAdapter(BulkBody)


def bulk_action(action: BulkAction) -> dict[str, Any]:
    """A bulk action as it is told; absent is never null."""
    told: dict[str, Any] = {
        "id": action.id,
        "type": action.type,
        "status": action.status,
        "counts": {"total": action.total, "success": action.success, "failure": action.failure},
        "createdAt": moment(action.created_at),
    }
    if action.name is not None:
        told["name"] = action.name
    if action.completed_at is not None:
        told["completedAt"] = moment(action.completed_at)
    return told
