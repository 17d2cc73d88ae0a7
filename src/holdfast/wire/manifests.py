"""What workers and deployments tell about their tasks, queues and schedules."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field, StringConstraints
from typing_extensions import TypedDict

from holdfast.model.limits import MAX_DURATION_TEXT, MAX_QUEUE_NAME, MAX_TASK_ID, NO_MAX_DURATION

TaskId = Annotated[str, StringConstraints(min_length=1, max_length=MAX_TASK_ID)]
QueueName = Annotated[str, StringConstraints(min_length=1, max_length=MAX_QUEUE_NAME)]
Milliseconds = Annotated[int, Field(ge=0, le=10**12)]


class WireRetry(TypedDict):
    maxAttempts: Annotated[int, Field(ge=1, le=250)]
    factor: Annotated[float, Field(ge=0, le=1_000, allow_inf_nan=False)]
    minTimeoutInMs: Milliseconds
    maxTimeoutInMs: Milliseconds
    randomize: bool


class WireSchedule(TypedDict):
    """When a task runs by itself; see model/schedule.py, which also says what is right."""

    expression: Annotated[str, StringConstraints(max_length=1_024)]
    timezone: Annotated[str, StringConstraints(max_length=256)]
    window: NotRequired[Annotated[str, StringConstraints(max_length=MAX_DURATION_TEXT)]]
    overlap: Literal["allow", "skip"]
    catchUp: Literal["one", "none"]


class WireTask(TypedDict):
    id: TaskId
    retry: NotRequired[WireRetry]
    queue: NotRequired[QueueName]
    maxDuration: NotRequired[Annotated[int, Field(ge=1, le=NO_MAX_DURATION)]]
    ttl: NotRequired[str]
    machine: NotRequired[Annotated[str, StringConstraints(max_length=64)]]
    key: NotRequired[Annotated[str, StringConstraints(max_length=256)]]
    payloadSchema: NotRequired[dict[str, Any]]
    schedule: NotRequired[WireSchedule]


class WireQueue(TypedDict):
    name: QueueName
    concurrencyLimit: NotRequired[Annotated[int, Field(ge=0, le=1_000_000)]]
    perKeyLimit: NotRequired[Annotated[int, Field(ge=0, le=1_000_000)]]
