"""What makes a trigger bad, told without the engine's help."""

from __future__ import annotations

from holdfast.engine.trigger import NewRun
from simulator.snapshot import Snapshot

KEY_LIFETIME_MS = 30 * 86_400_000
REQUEST_LIFETIME_MS = 3_600_000
UNREADABLE = "soon"  # as a delay or a ttl
NOBODY = "run_nobody"  # as a parent
NO_VERSION = "19990101.1"


def is_bad(item: NewRun, before: Snapshot) -> bool:
    """Whether the item must be refused."""
    parent = None if item.parent_id is None else before.runs.get(item.parent_id)
    no_parent = item.parent_id is not None and (
        parent is None or parent.environment_id != item.environment_id
    )
    return (
        no_parent
        or UNREADABLE in (item.delay, item.ttl)
        or len(set(item.tags)) > 10
        or _is_bad_lock(item, before)
        or item.task == ""
        or item.idempotency_key == ""
    )


def has_queue(item: NewRun, before: Snapshot) -> bool:
    """Whether its queue is there: a run that names another one waits for it (engine rule R13)."""
    named = item.queue is not None and item.queue != f"task/{item.task}"
    return not named or (item.environment_id, item.queue) in before.queues


def _is_bad_lock(item: NewRun, before: Snapshot) -> bool:
    if item.version_lock is None:
        return False
    version = before.versions.get((item.environment_id, item.version_lock))
    if version is None:
        return True
    tasks, queues = version
    return item.queue is not None and item.task in tasks and item.queue not in queues
