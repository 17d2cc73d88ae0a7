"""Queues on the wire (the wire contract, 7.2)."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from holdfast.model.limits import MAX_QUEUE_LIMIT
from holdfast.model.queue import QueueState
from holdfast.wire.runs import Whole, moment

TASK_QUEUE = "task/"
Type = Literal["id", "task", "custom"]


class PauseBody(TypedDict):
    type: NotRequired[Type]
    action: Literal["pause", "resume"]


class OverrideBody(TypedDict):
    type: NotRequired[Type]
    concurrencyLimit: Annotated[Whole, Field(ge=0, le=MAX_QUEUE_LIMIT)]


class ResetBody(TypedDict):
    type: NotRequired[Type]


PAUSE: TypeAdapter[PauseBody] = TypeAdapter(PauseBody)
OVERRIDE: TypeAdapter[OverrideBody] = TypeAdapter(OverrideBody)
RESET: TypeAdapter[ResetBody] = TypeAdapter(ResetBody)


def queue_item(queue: QueueState) -> dict[str, Any]:
    """A queue. That of a task goes by the name of its task; a limit of null is that of the environment."""
    return {
        "id": queue.id,
        "name": queue.name.removeprefix(TASK_QUEUE),
        "type": "task" if queue.name.startswith(TASK_QUEUE) else "custom",
        "running": queue.running,
        "queued": queue.queued,
        "paused": queue.paused,
        "concurrencyLimit": queue.limit,
        "concurrency": {
            "current": queue.limit,
            "base": queue.concurrency_limit,
            "override": queue.override_limit,
            "overriddenAt": moment(queue.overridden_at),
            "overriddenBy": None,
        },
    }
