"""What claims may and must give: under the limits, in order, to whom it is for, with its journal."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.engine import claim
from holdfast.errors import HoldfastError, WorkerNotFound
from holdfast.model.run import Run
from holdfast.model.status import RunStatus
from simulator.journals import check_given
from simulator.snapshot import Snapshot
from simulator.violation import require

S = RunStatus


def check_claims(items: Sequence[Any], results: Sequence[Any], before: Snapshot, after: Snapshot) -> None:
    """Raises Violation where a claim gave what it may not, or not what it must."""
    given: set[str] = set()
    for item, result in zip(items, results, strict=True):
        worker = before.workers.get(item.worker_id)
        unknown = worker is None or worker["environment_id"] != item.environment_id
        require(isinstance(result, WorkerNotFound) == unknown, "I3", f"claim of {item.worker_id}: {result}")
        if unknown or worker is None:
            continue
        require(len(result.runs) <= item.slots, "I5", f"{len(result.runs)} runs for {item.slots} slots")
        tasks = json.loads(worker["tasks"])
        for run in result.runs:
            require(run.id not in given, "I3", f"{run.id} was given twice")
            given.add(run.id)
            require(
                run == after.runs[run.id] and run.worker_id == item.worker_id,
                "I3",
                f"{run.id} is not as given",
            )
            require(before.runs[run.id].status is S.QUEUED, "I3", f"{run.id} was not queued")
            require(run.environment_id == item.environment_id, "I25", f"{run.id} is of another environment")
            journal = result.journals.get(run.id)
            if journal is not None:
                check_given(run.id, journal, after)
            require(run.task in tasks, "I11", f"{run.id} went to a worker without {run.task}")
            require(
                _may_run(before.runs[run.id], worker, before), "I16", f"{run.id} belongs to another version"
            )
        told = {run_id for run_id, _ in result.cancelled}
        closing = {
            r.id for r in before.runs.values() if r.worker_id == item.worker_id and r.status is S.CANCELLED
        }
        require(told == closing, "I9", f"{item.worker_id} was told to stop {told}, not {closing}")
    started = {run.id for run in after.runs.values() if run is not before.runs[run.id]}
    require(started == given, "I11", f"started and not told: {sorted(started - given)}")
    for run_id in given:
        _limits(after.runs[run_id], after)
    _order(items, results, before, after, given)


def _may_run(run: Run, worker: Mapping[str, Any], before: Snapshot) -> bool:
    """Whether its version lets a run go to a worker.

    A child goes anywhere when nobody has its task in its version. Where a version is deployed, so does what was begun;
    plain runs go to the deployed one, and workers of others only get what belongs to theirs.
    """
    current = before.current[run.environment_id]
    own = run.version_lock or (None if current is None else run.version)
    if current not in (None, worker["version"]):
        return bool(own == worker["version"])
    return own in (None, worker["version"]) or (
        (run.parent_id is not None or run.version_lock is None)
        and not any(
            other["environment_id"] == run.environment_id
            and other["version"] == own
            and run.task in json.loads(other["tasks"])
            for other in before.workers.values()
        )
    )


def _limits(run: Run, after: Snapshot) -> None:
    held = after.held(run.environment_id)
    limit, paused = after.environments[run.environment_id]
    require(
        not paused and len(held) <= limit,
        "I5",
        f"{len(held)} runs hold slots of {run.environment_id}: {limit}",
    )
    of_queue, per_key, queue_paused = after.queues.get((run.environment_id, run.queue), (None, None, False))
    in_queue = [other for other in held if other.queue == run.queue]
    require(not queue_paused, "I5", f"{run.id} was started in the paused queue {run.queue}")
    require(
        of_queue is None or len(in_queue) <= of_queue,
        "I5",
        f"{len(in_queue)} runs in {run.queue}: {of_queue}",
    )
    of_key = [other for other in in_queue if other.concurrency_key == run.concurrency_key]
    if per_key is not None and run.concurrency_key:
        require(len(of_key) <= per_key, "I5", f"{len(of_key)} runs of key {run.concurrency_key!r}: {per_key}")


def _order(
    items: Sequence[Any], results: Sequence[Any], before: Snapshot, after: Snapshot, given: set[str]
) -> None:
    """Within a lane the first goes first; and who gets nothing must have had no room (I22)."""
    if len(items) != 1 or isinstance(results[0], HoldfastError):
        return
    item, worker = items[0], before.workers[items[0].worker_id]
    tasks = json.loads(worker["tasks"])
    queued = [
        run
        for run in before.runs.values()
        if run.status is S.QUEUED
        and run.environment_id == item.environment_id
        and run.task in tasks
        and _may_run(run, worker, before)
    ]
    lanes = _by_lane(queued)
    for lane in (
        lanes.values() if item.fronts is None else ()
    ):  # else what came before them waits for the next look
        taken = [run.id in given for run in lane]
        require(taken == sorted(taken, reverse=True), "I22", f"out of order: {[run.id for run in lane]}")
    all_lanes = {
        (run.task, run.queue, run.concurrency_key)
        for run in before.runs.values()
        if run.status is S.QUEUED and run.environment_id == item.environment_id
    }
    if item.slots and not given and len(all_lanes) < claim.LANES_PER_CLAIM:
        for lane in lanes.values():
            require(not _fits(lane[0], after), "I22", f"{lane[0].id} could have been started and was not")


def _fits(run: Run, after: Snapshot) -> bool:
    held = after.held(run.environment_id)
    limit, paused = after.environments[run.environment_id]
    of_queue, per_key, queue_paused = after.queues.get((run.environment_id, run.queue), (None, None, False))
    in_queue = [other for other in held if other.queue == run.queue]
    of_key = [other for other in in_queue if other.concurrency_key == run.concurrency_key]
    return (
        not paused
        and not queue_paused
        and len(held) < limit
        and (of_queue is None or len(in_queue) < of_queue)
        and (per_key is None or not run.concurrency_key or len(of_key) < per_key)
    )


def _by_lane(runs: Sequence[Run]) -> dict[tuple[str, str, str], list[Run]]:
    """Queued runs by task, queue and key, in the order in which they go."""
    lanes: dict[tuple[str, str, str], list[Run]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: (run.score, run.id)):
        lanes[run.task, run.queue, run.concurrency_key].append(run)
    return lanes
