"""Queues: look at them, pause them, put other limits in the place of the declared ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from holdfast.engine.wake import wake_before_others
from holdfast.errors import HoldfastError, InvalidRequest, NotFound
from holdfast.model.queue import QueueState
from holdfast.stores.base import Tx, batch


class Unchanged(Enum):
    UNCHANGED = "unchanged"


UNCHANGED = Unchanged.UNCHANGED


@dataclass(frozen=True, slots=True)
class OneQueue:
    """A queue that is named, by its id or by its name."""

    environment_id: str
    id: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class ChangeQueue(OneQueue):
    """What is to change. `limit` overrides the declared one; None puts that in force again."""

    paused: bool | Unchanged = UNCHANGED
    limit: int | Unchanged | None = UNCHANGED


@dataclass(frozen=True, slots=True)
class QueuePage:
    """A page of queues, in the order of their names, and how many there are on all pages."""

    queues: Sequence[QueueState]
    total: int


def change(tx: Tx, items: list[ChangeQueue]) -> list[QueueState | HoldfastError]:
    """Changes queues; answers each as it is afterwards, NotFound, or InvalidRequest where nothing was overridden.

    Waits for the claims of the environment that are under way, and those that follow see the change: once it is
    answered, no run starts in a paused queue, or over a new limit. What runs goes on.
    """
    answers: list[QueueState | HoldfastError] = [NotFound()] * len(items)
    # One environment after another in one order, as claims do.
    for index in sorted(range(len(items)), key=lambda index: items[index].environment_id):
        item = items[index]
        tx.do("lock_environment", id=item.environment_id)
        try:
            found = _row(tx, item)
        except NotFound as error:
            answers[index] = error
            continue
        own = {"environment_id": item.environment_id, "name": found["name"]}
        if item.limit is None and found["override_limit"] is None:
            answers[index] = InvalidRequest(f"queue {found['name']}: its limit is not overridden", "queue")
            continue
        if item.paused is not UNCHANGED:
            tx.do("set_queue_paused", paused=int(item.paused), **own)
        if item.limit is not UNCHANGED:
            at = None if item.limit is None else tx.now
            tx.do("override_queue", override_limit=item.limit, overridden_at=at, **own)
        wake_before_others(tx, item.environment_id)
        answers[index] = one_queue(tx, item)
    return answers


def one_queue(tx: Tx, item: OneQueue) -> QueueState:
    """Raises NotFound for a queue that this environment does not have."""
    [queue] = _counted(tx, item.environment_id, [_row(tx, item)])
    return queue


def page(tx: Tx, environment_id: str, skipped: int, limit: int) -> QueuePage:
    """At most `limit` queues after the first `skipped` ones."""
    rows = tx.all("queues_page", environment_id=environment_id, skipped=skipped, limit=limit)
    total = tx.one("count_queues", environment_id=environment_id)
    assert total is not None
    return QueuePage(_counted(tx, environment_id, rows), total["queues"])


def _row(tx: Tx, item: OneQueue) -> dict[str, Any]:
    own = {"environment_id": item.environment_id}
    if item.id is not None:
        found = tx.one("queue_of_id", id=item.id, **own)
    else:
        found = tx.one("queue_of_name", name=item.name, **own)
    if found is None or found["id"] is None:
        raise NotFound(f"Queue not found: {item.id or item.name!r}")
    return found


def _counted(tx: Tx, environment_id: str, rows: Sequence[dict[str, Any]]) -> list[QueueState]:
    queues = [QueueState(**row | {"paused": bool(row["paused"])}) for row in rows]
    own = {"environment_id": environment_id}
    held, waiting = tx.together(
        [("held", own), ("queued", {**own, "names": batch([queue.name for queue in queues])})]
    )
    running: Counter[str] = Counter()
    for row in held:
        running[row["queue"]] += row["held"]
    queued = {row["queue"]: row["queued"] for row in waiting}
    return [replace(queue, running=running[queue.name], queued=queued.get(queue.name, 0)) for queue in queues]
