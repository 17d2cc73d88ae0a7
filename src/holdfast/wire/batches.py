"""Batches on the wire (the wire contract, 4.2 to 4.6)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, NotRequired

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from holdfast.model.batch import Batch, BatchItem, BatchStatus, batch_status
from holdfast.model.limits import MAX_BATCH
from holdfast.wire.answers import FLAG, MOMENT, RESULT, TEXT, TEXTS, WHOLE, exactly, list_of
from holdfast.wire.runs import BatchItem as LegacyItem
from holdfast.wire.runs import Flag, KeyOptions, Name, Text, TriggerOptions, Whole, moment


class CreateBatchBody(TypedDict):
    """Phase 1: a batch whose items come later, by index."""

    runCount: Annotated[Whole, Field(ge=1, le=MAX_BATCH)]
    taskIdentifiers: NotRequired[Annotated[list[Name], Field(max_length=MAX_BATCH)]]
    parentRunId: NotRequired[Text]
    resumeParentOnCompletion: NotRequired[Flag]
    idempotencyKey: NotRequired[Annotated[str, Field(min_length=1, max_length=2_048)]]
    idempotencyKeyOptions: NotRequired[KeyOptions]


class ItemLine(TypedDict):
    """Phase 2: a line of the stream."""

    index: Annotated[Whole, Field(ge=0)]
    task: Name
    payload: NotRequired[Any]
    options: NotRequired[TriggerOptions | None]


class LegacyBatchBody(TypedDict):
    """`items` may be 1 to 500."""

    items: list[LegacyItem]
    parentRunId: NotRequired[Text]
    resumeParentOnCompletion: NotRequired[Flag]


CREATE_BATCH: TypeAdapter[CreateBatchBody] = TypeAdapter(CreateBatchBody)
ITEM_LINE: TypeAdapter[ItemLine] = TypeAdapter(ItemLine)
LEGACY_BATCH: TypeAdapter[LegacyBatchBody] = TypeAdapter(LegacyBatchBody)

CREATED = exactly({"id": TEXT, "runCount": WHOLE, "isCached": FLAG}, idempotencyKey=TEXT)
_REFUSED: dict[str, Any] = {
    "type": "object",
    "properties": {"error": TEXT, "code": TEXT},
    "required": ["error", "code"],
}
TRIGGERED_BATCH = exactly(
    {"batchId": TEXT, "runs": list_of({"anyOf": [exactly({"id": TEXT, "isCached": FLAG}), _REFUSED]})}
)
ARRIVED = exactly(
    {
        "id": TEXT,
        "itemsAccepted": WHOLE,
        "itemsDeduplicated": WHOLE,
        "sealed": FLAG,
        "enqueuedCount": WHOLE,
        "expectedCount": WHOLE,
        "runCount": WHOLE,
    }
)
_BATCH: dict[str, Any] = {
    "id": TEXT,
    "status": {"enum": [str(status) for status in BatchStatus]},
    "createdAt": MOMENT,
    "updatedAt": MOMENT,
    "runCount": WHOLE,
    "runs": TEXTS,
}
_ERRORS = list_of(exactly({"index": WHOLE, "taskIdentifier": TEXT, "error": TEXT, "errorCode": TEXT}))
BATCH = exactly(
    {**_BATCH, "processing": exactly({"errors": _ERRORS}, completedAt=MOMENT)},
    idempotencyKey=TEXT,
    processingCompletedAt=MOMENT,
)
OLD_BATCH = exactly(_BATCH, idempotencyKey=TEXT)
BATCH_RESULTS = exactly({"id": TEXT, "items": list_of(RESULT)})


def created(batch: Batch, is_cached: bool) -> dict[str, Any]:
    answer: dict[str, Any] = {"id": batch.id, "runCount": batch.run_count, "isCached": is_cached}
    return answer if batch.key_shown is None else answer | {"idempotencyKey": batch.key_shown}


def arrived(batch: Batch, accepted: int, deduplicated: int) -> dict[str, Any]:
    """What a stream of items is answered."""
    return {
        "id": batch.id,
        "itemsAccepted": accepted,
        "itemsDeduplicated": deduplicated,
        "sealed": batch.sealed_at is not None,
        "enqueuedCount": batch.arrived,
        "expectedCount": batch.run_count,
        "runCount": batch.run_count,
    }


def without_processing(batch: Batch, items: Sequence[BatchItem]) -> dict[str, Any]:
    """A batch as the older route answers it."""
    touched = [item.run_updated_at for item in items if item.run_updated_at is not None]
    answer: dict[str, Any] = {
        "id": batch.id,
        "status": batch_status(batch, items),
        "createdAt": moment(batch.created_at),
        "updatedAt": moment(max([batch.updated_at, *touched])),
        "runCount": batch.run_count,
        "runs": [item.run_id for item in items if item.run_id is not None],
    }
    if batch.key_shown is not None:
        answer["idempotencyKey"] = batch.key_shown
    return answer


def with_processing(batch: Batch, items: Sequence[BatchItem]) -> dict[str, Any]:
    """A batch, with what became of the items that never became runs."""
    processing: dict[str, Any] = {"errors": [_error(item) for item in items if item.error is not None]}
    answer = without_processing(batch, items)
    done_at = batch.sealed_at if batch.sealed_at is not None else batch.aborted_at
    if done_at is not None:
        processing["completedAt"] = answer["processingCompletedAt"] = moment(done_at)
    return answer | {"processing": processing}


def _error(item: BatchItem) -> dict[str, Any]:
    said = json.loads(item.error or "{}")
    return {
        "index": item.index,
        "taskIdentifier": item.task,
        "error": said["error"],
        "errorCode": said["code"],
    }
