"""What workers and deployments tell about the code: its tasks and queues, as the engine takes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from holdfast.errors import InvalidRequest, Unprocessable
from holdfast.model import limits
from holdfast.model.duration import duration_ms
from holdfast.model.retry import DEFAULT_POLICY, RetryPolicy
from holdfast.model.schedule import ScheduleSpec, check
from holdfast.model.task import QueueSpec, TaskSpec, default_queue
from holdfast.server.schemas import checked_schema
from holdfast.wire.manifests import WireQueue, WireSchedule, WireTask

MAX_MANIFEST_BYTES = 32 * 1024 * 1024


def task_specs(tasks: Sequence[WireTask]) -> list[TaskSpec]:
    """Raises InvalidRequest for a task that is there twice (rule R15), or a schema that is none; Unprocessable for a schedule."""
    counts = Counter(task["id"] for task in tasks)
    if twice := sorted(task_id for task_id, count in counts.items() if count > 1):
        raise InvalidRequest(f"tasks holds {twice[0]!r} more than once", "tasks")
    return [_task(task) for task in tasks]


def queue_specs(queues: Sequence[WireQueue]) -> list[QueueSpec]:
    return [
        QueueSpec(queue["name"], queue.get("concurrencyLimit"), queue.get("perKeyLimit")) for queue in queues
    ]


def _task(task: WireTask) -> TaskSpec:
    retry = task.get("retry")
    policy = DEFAULT_POLICY
    if retry is not None:
        policy = RetryPolicy(
            retry["maxAttempts"],
            retry["factor"],
            retry["minTimeoutInMs"],
            retry["maxTimeoutInMs"],
            retry["randomize"],
        )
    duration = task.get("maxDuration")
    ttl = task.get("ttl")
    schema = task.get("payloadSchema")
    schedule = task.get("schedule")
    return TaskSpec(
        task["id"],
        task.get("queue", default_queue(task["id"])),
        policy,
        None if duration is None else max(limits.MIN_MAX_DURATION, duration),
        None if ttl is None else max(0, duration_ms(ttl, f"tasks.{task['id']}.ttl")) or None,
        task.get("machine"),
        task.get("key"),
        checked_schema(schema, f"tasks.{task['id']}.payloadSchema"),
        None if schedule is None else _schedule(task["id"], schedule),
    )


def _schedule(task_id: str, told: WireSchedule) -> ScheduleSpec:
    spec = ScheduleSpec(
        told["expression"], told["timezone"], told.get("window"), told["overlap"], told["catchUp"]
    )
    place = f"tasks.{task_id}.schedule"
    try:
        check(spec)
    except Unprocessable as error:
        raise Unprocessable(f"{place}: {error}", place) from None
    return spec
