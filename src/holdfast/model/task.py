"""What a worker tells about its tasks and queues when it registers, as the engine keeps it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from holdfast.model.retry import DEFAULT_POLICY, RetryPolicy
from holdfast.model.schedule import ScheduleSpec


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """A registered task: the defaults of its runs, and the schema of its payload."""

    id: str
    queue: str
    retry: RetryPolicy = DEFAULT_POLICY
    max_duration: int | None = None  # seconds
    ttl_ms: int | None = None
    machine: str | None = None
    key: str | None = None  # path into the payload, such as "order.tenant"
    payload_schema: str | None = None  # JSON Schema as text
    schedule: ScheduleSpec | None = None

    def as_stored(self) -> dict[str, Any]:
        """Its JSON object, without what it says nothing about: a field that it gets one day changes nothing of it."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class QueueSpec:
    """A queue: how many of its runs may hold a slot, in total and for each concurrency key."""

    name: str
    concurrency_limit: int | None = None
    per_key_limit: int | None = None
    paused: bool = False


def default_queue(task_id: str) -> str:
    return f"task/{task_id}"
