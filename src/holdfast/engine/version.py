"""Versions of the code: which one a worker or a deployment has, and what becomes known of its tasks and queues."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from holdfast.engine.schedules import declare_schedules
from holdfast.model.task import QueueSpec, TaskSpec, default_queue
from holdfast.model.version import next_version, version_order
from holdfast.stores.base import Tx, batch


def version_of_code(
    tx: Tx,
    environment_id: str,
    fingerprint: str,
    tasks: Sequence[TaskSpec],
    queues: Sequence[QueueSpec],
    *,
    any_age: bool,
) -> str:
    """The version of this code: that of its deployment, else the one it had before, else a new one.

    any_age  whether it may have had it long ago. Without deployments the newest registration wins, so code that comes
             back is a new version; with them a version is what was deployed, and comes back as that.

    `lock_versions` must have been called.
    """
    specs = sorted((task.as_stored() for task in tasks), key=lambda task: str(task["id"]))
    mark = hashlib.sha256(f"{fingerprint}\n{json.dumps(specs)}".encode()).hexdigest()
    known = tx.one("versions_of_code", environment_id=environment_id, fingerprint=mark)
    if known is not None and (known["deployed"] or any_age):
        return str(known["version"])
    rows = tx.all("latest_versions", environment_id=environment_id)
    rows.sort(key=lambda row: version_order(row["version"]), reverse=True)
    if rows and rows[0]["fingerprint"] == mark:
        return str(rows[0]["version"])
    version = next_version(rows[0]["version"] if rows else None, tx.now)
    names = {queue.name for queue in queues} | {task.queue for task in tasks}
    tx.do(
        "add_version",
        environment_id=environment_id,
        version=version,
        fingerprint=mark,
        tasks=batch(sorted({task.id for task in tasks})),
        queues=batch(sorted(names | {default_queue(task.id) for task in tasks})),
        now=tx.now,
    )
    return version


def declare(
    tx: Tx, environment_id: str, version: str, tasks: Sequence[TaskSpec], queues: Sequence[QueueSpec]
) -> None:
    """These tasks and queues are the environment's from now on."""
    for task in tasks:
        spec = json.dumps(task.as_stored())
        tx.do("save_task", environment_id=environment_id, id=task.id, version=version, spec=spec)
    _add_queues(tx, environment_id, tasks, queues)
    for queue in queues:
        tx.do(
            "save_queue",
            environment_id=environment_id,
            name=queue.name,
            id=tx.new_id("queue"),
            concurrency_limit=queue.concurrency_limit,
            per_key_limit=queue.per_key_limit,
        )
    declare_schedules(tx, environment_id, tasks)


def announce(
    tx: Tx, environment_id: str, version: str, tasks: Sequence[TaskSpec], queues: Sequence[QueueSpec]
) -> None:
    """There are such tasks and queues in a version that is not current: what the current one says about them stays.

    A queue that it has no word for has no limit until it is promoted, but it is there.
    """
    for task in tasks:
        spec = json.dumps(task.as_stored())
        tx.do("announce_task", environment_id=environment_id, id=task.id, version=version, spec=spec)
    _add_queues(tx, environment_id, tasks, queues)


def _add_queues(tx: Tx, environment_id: str, tasks: Sequence[TaskSpec], queues: Sequence[QueueSpec]) -> None:
    for name in sorted({task.queue for task in tasks} | {queue.name for queue in queues}):
        tx.do("add_queue", environment_id=environment_id, name=name, id=tx.new_id("queue"))
