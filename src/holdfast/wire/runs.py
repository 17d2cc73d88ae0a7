"""Runs on the wire: the run structure, and the bodies of the routes about runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NotRequired

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, TypeAdapter
from typing_extensions import TypedDict

from holdfast.model.limits import MAX_IDEMPOTENCY_KEY
from holdfast.model.packet import JSON, STORE, projection
from holdfast.model.run import Attempt, Run
from holdfast.model.status import RunStatus

Text = Annotated[str, Field(max_length=4_096)]
# Strict: "3" is no number and "yes" no boolean (the wire contract, 4.1.1).
Whole = Annotated[int, Field(strict=True)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Flag = Annotated[bool, Field(strict=True)]


def _moment_text(value: Any) -> Any:
    """A date as the number that JavaScript has for it, epoch milliseconds; what is too small for one is left for refusal."""
    is_date = isinstance(value, int) and 10**11 <= value < 10**14
    return moment(value) if is_date else value


Delay = Annotated[Text, BeforeValidator(_moment_text)]
Ttl = Text | Annotated[Whole, Field(ge=0, le=10**12)]
Name = Annotated[str, Field(min_length=1, max_length=128)]
Machine = Literal["micro", "small-1x", "small-2x", "medium-1x", "medium-2x", "large-1x", "large-2x"]


class QueueName(TypedDict):
    name: Name


class KeyOptions(TypedDict):
    """The words an idempotency key was made of, for display: of many only the first are kept."""

    key: NotRequired[Annotated[str, AfterValidator(lambda text: text[:MAX_IDEMPOTENCY_KEY])]]
    scope: NotRequired[Text]


class Gate(TypedDict):
    """A further queue that must have room."""

    queue: Name
    concurrencyKey: NotRequired[Name]


class Debounce(TypedDict):
    """Triggers of one key that become one run."""

    key: Annotated[str, Field(min_length=1, max_length=512)]
    delay: Text
    mode: NotRequired[Literal["leading", "trailing"]]
    maxDelay: NotRequired[Text]


LimitName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,122}$")]


class TriggerOptions(TypedDict, total=False):
    """Options of a trigger, as the wire contract names them; unknown ones are ignored."""

    queue: QueueName
    concurrency: Annotated[list[LimitName], Field(max_length=2)]
    gates: Annotated[list[Gate], Field(max_length=3)]
    debounce: Debounce
    concurrencyKey: Text | Whole | Number
    delay: Delay
    ttl: Ttl
    idempotencyKey: Annotated[str, Field(max_length=2_048)]
    idempotencyKeyTTL: Text
    idempotencyKeyOptions: KeyOptions
    machine: Machine
    maxAttempts: Annotated[Whole, Field(ge=1, le=250)]
    maxDuration: Annotated[Number, Field(ge=0)]
    metadata: Any
    metadataType: Text
    payloadType: Text
    payloadSize: Annotated[Whole, Field(ge=0)]
    region: Text
    tags: Text | list[str]
    test: Flag
    priority: Annotated[Number, Field(ge=-(10**9), le=10**9)]
    parentRunId: Text
    resumeParentOnCompletion: Flag
    lockToVersion: Text
    externalDeploymentId: Text | None


class TriggerBody(TypedDict):
    payload: NotRequired[Any]
    options: NotRequired[TriggerOptions | None]


class BatchItem(TypedDict):
    task: Name
    payload: NotRequired[Any]
    options: NotRequired[TriggerOptions | None]


class BatchBody(TypedDict):
    """`items` may be 1 to 1,000."""

    items: list[BatchItem]


class UncheckedBatch(TypedDict):
    """A batch before its items are looked at: one of the wrong shape is refused alone."""

    items: list[Any]


class ReplayBody(TypedDict, total=False):
    """What a replay changes of the run it repeats. Unknown keys are refused (the wire contract, 4.9)."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]  # read by pydantic, no field

    payload: Any
    payloadType: Literal["application/json", "application/super+json"]
    metadata: dict[str, Any]
    tags: Text | list[str]
    queue: Name
    concurrencyKey: Text | Whole | Number
    machine: Machine
    version: Text
    region: Text
    delay: Delay
    ttl: Ttl
    idempotencyKey: Annotated[str, Field(max_length=2_048)]
    idempotencyKeyTTL: Text
    maxAttempts: Annotated[Whole, Field(ge=1, le=250)]
    maxDuration: Annotated[Number, Field(ge=0)]
    priority: Annotated[Number, Field(ge=-(10**9), le=10**9)]


class RescheduleBody(TypedDict):
    delay: Delay


class ResetKeyBody(TypedDict):
    taskIdentifier: Name


class TagsBody(TypedDict):
    tags: Text | list[str]


class MetadataBody(TypedDict, total=False):
    metadata: dict[str, Any]
    operations: list[dict[str, Any]]
    parentOperations: list[dict[str, Any]]
    rootOperations: list[dict[str, Any]]


class ResultsBody(TypedDict):
    """Wait for several runs and tokens at once, for 1 to 1,000 of them; see `POST /api/v1/runs/results`."""

    runs: NotRequired[Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=1_000)]]
    tokens: NotRequired[Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=1_000)]]
    waitMs: NotRequired[Annotated[Whole, Field(ge=0, le=30_000)]]


TRIGGER: TypeAdapter[TriggerBody] = TypeAdapter(TriggerBody)
BATCH: TypeAdapter[BatchBody] = TypeAdapter(BatchBody)
UNCHECKED_BATCH: TypeAdapter[UncheckedBatch] = TypeAdapter(UncheckedBatch)
BATCH_ITEM: TypeAdapter[BatchItem] = TypeAdapter(BatchItem)
REPLAY: TypeAdapter[ReplayBody] = TypeAdapter(ReplayBody)
RESCHEDULE: TypeAdapter[RescheduleBody] = TypeAdapter(RescheduleBody)
RESET_KEY: TypeAdapter[ResetKeyBody] = TypeAdapter(ResetKeyBody)
TAGS: TypeAdapter[TagsBody] = TypeAdapter(TagsBody)
METADATA: TypeAdapter[MetadataBody] = TypeAdapter(MetadataBody)
RESULTS: TypeAdapter[ResultsBody] = TypeAdapter(ResultsBody)


def moment(ms: int | None) -> str | None:
    """An epoch millisecond in ISO 8601, UTC, such as "2026-11-24T02:00:00.000Z"."""
    if ms is None:
        return None
    return datetime.fromtimestamp(ms / 1_000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def list_item(run: Run) -> dict[str, Any]:
    """A run in a list: the run structure without payload, output, relations and attempts."""
    return {
        "id": run.id,
        "status": run.status,
        "taskIdentifier": run.task,
        "version": run.version,
        "createdAt": moment(run.created_at),
        "updatedAt": moment(run.updated_at),
        "startedAt": moment(run.started_at),
        "finishedAt": moment(run.finished_at),
        "isTest": run.is_test,
        "tags": json.loads(run.tags),
        "metadata": json.loads(run.metadata),
    }


def full_run(
    run: Run,
    attempts: Sequence[Attempt],
    root: Run | None = None,
    parent: Run | None = None,
    children: Sequence[Run] = (),
    *,
    urls: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The run structure, exactly. `output` is present only when the run completed successfully.

    urls  presigned ones of a payload or output in the object store, which stand in their place
    """
    urls = urls or {}
    answer = list_item(run)
    if run.payload_type == STORE:
        if "payload" in urls:
            answer["payloadPresignedUrl"] = urls["payload"]
    else:
        answer["payload"] = None if run.payload is None else projection(run.payload, run.payload_type)
    if run.output_type == STORE:
        if "output" in urls:
            answer["outputPresignedUrl"] = urls["output"]
    elif run.status is RunStatus.COMPLETED_SUCCESSFULLY:
        answer["output"] = None if run.output is None else projection(run.output, run.output_type)
    answer["relatedRuns"] = {
        "root": None if root is None else list_item(root),
        "parent": None if parent is None else list_item(parent),
        "children": [list_item(child) for child in children],
    }
    answer["attempts"] = [
        {
            "id": attempt.id,
            "status": attempt.status,
            "startedAt": moment(attempt.started_at),
            "completedAt": moment(attempt.completed_at),
            "error": None if attempt.error is None else json.loads(attempt.error),
        }
        for attempt in attempts
    ]
    order = [
        "id",
        "status",
        "taskIdentifier",
        "version",
        "createdAt",
        "updatedAt",
        "startedAt",
        "finishedAt",
        "isTest",
        "payload",
        "payloadPresignedUrl",
        "output",
        "outputPresignedUrl",
        "tags",
        "metadata",
        "relatedRuns",
        "attempts",
    ]
    return {key: answer[key] for key in order if key in answer}


def result(run: Run) -> dict[str, Any]:
    """A finished run's outcome: `output` is JSON text, `error` as recorded (the wire contract, 4.8)."""
    return outcome(run.id, run.task, run.status, run.output, run.error, run.output_type)


def outcome(
    id: str, task: str, status: str, output: str | None, error: str | None, output_type: str | None = None
) -> dict[str, Any]:
    """The same of its parts. The output of application/store is the name of an object."""
    head = {"id": id, "taskIdentifier": task, "status": status}
    if status == RunStatus.COMPLETED_SUCCESSFULLY:
        written = output if output is not None else "null"
        return {"ok": True, **head, "output": written, "outputType": output_type or JSON}
    told = json.loads(error) if error else {"type": "STRING_ERROR", "raw": "the run failed"}
    return {"ok": False, **head, "error": told}
