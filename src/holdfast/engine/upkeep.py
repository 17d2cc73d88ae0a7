"""Everything that happens because time passed: delays, ttl, retries, waits, ticks, closing, lost workers, retention.

Each is a row with a due time. Any server may run upkeep; two of them do no harm, because every write
is guarded by the lease it was decided on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from holdfast.engine import packet
from holdfast.engine.batch import abort_batches
from holdfast.engine.claim import lose_worker
from holdfast.engine.pin import external_versions
from holdfast.engine.ticks import fire_schedules, forget_refusals
from holdfast.engine.token import time_out_tokens
from holdfast.engine.trigger import read_spec, with_defaults
from holdfast.engine.wait import pass_timers, settle_runs
from holdfast.engine.wake import wake_before_others
from holdfast.model.ids import TIME_LENGTH, base36
from holdfast.model.run import Run, closed, deployed, enqueued, expired, moved, never_deployed
from holdfast.model.status import RunStatus
from holdfast.model.task import TaskSpec, default_queue
from holdfast.stores.base import Tx, batch

S = RunStatus
BATCH = 500
PARKED_BATCH = 200  # engine-semantics, rule R108
SCHEDULES_BATCH = 100
ENTRIES_BATCH = 10_000
REQUESTS_KEPT_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Due:
    """A pass over what is due. Workers are declared lost only when `lose_workers` says so."""

    lose_workers: bool = True
    limit: int = BATCH


@dataclass(frozen=True, slots=True)
class Passed:
    """What a pass did: how many rows it moved, and when the next one is due (epoch ms)."""

    moved: int
    more: bool
    next_due_at: int | None
    bulk_actions: bool = False  # whether there are some to go on with


@dataclass(frozen=True, slots=True)
class Retention:
    """Finished runs older than `keep_ms` are deleted; None keeps them for ever."""

    environment_id: str
    keep_ms: int | None
    limit: int = BATCH


def upkeep(tx: Tx, items: list[Due]) -> list[Passed]:
    """Moves what is due, in one batch."""
    return [_pass(tx, item) for item in items]


def retain(tx: Tx, items: list[Retention]) -> list[int]:
    """Deletes a batch of finished runs and tokens that are older than their retention, of old request keys and of
    one-time tokens that have expired.

    Answers how many runs; `limit` when there may be more, also of anything else.
    Ids sort by creation, so only runs made before the limit are looked at, oldest first.
    """
    deleted = []
    for item in items:
        requests = tx.ids("delete_requests", before=tx.now - REQUESTS_KEPT_MS, limit=item.limit)
        used = tx.ids("delete_used_tokens", before=tx.now, limit=item.limit)
        forget_refusals(tx, item.keep_ms, ENTRIES_BATCH)  # as many as a minute may bring
        runs = 0 if item.keep_ms is None else _delete(tx, item, tx.now - item.keep_ms)
        deleted.append(item.limit if item.limit in (len(requests), len(used)) else runs)
    return deleted


def _delete(tx: Tx, item: Retention, before: int) -> int:
    own = {"environment_id": item.environment_id, "before": before, "limit": item.limit}
    created = base36(max(0, before), TIME_LENGTH)
    members = tx.ids("delete_bulk_members", id_before=f"bulk_{created}", members=ENTRIES_BATCH, **own)
    tx.do("delete_bulk_actions", id_before=f"bulk_{created}", **own)
    # Locked first and deleted by a statement of its own, which sees what began to be used until then: see kept.py.
    if tokens := tx.ids("old_waitpoints", id_before=f"waitpoint_{created}", **own):
        tx.do("delete_waitpoints", ids=batch(tokens))
    entries, runs = [], []
    if old := tx.ids("old_runs", id_before=f"run_{created}", **own):
        entries = tx.ids("delete_journals", ids=batch(old), entries=ENTRIES_BATCH)
        runs = tx.ids("delete_finished", ids=batch(old))
        packet.release(tx, runs)
        tx.do("forget_ticks", runs=batch(runs))
    batches = tx.ids("delete_batches", **own)
    full = ENTRIES_BATCH in (len(entries), len(members)) or item.limit in (len(tokens), len(batches))
    return item.limit if full else len(runs)


def _pass(tx: Tx, item: Due) -> Passed:
    due = tx.runs("due_runs", now=tx.now, limit=item.limit)
    parked = tx.runs("parked_runs", limit=PARKED_BATCH)
    lost = tx.ids("lost_workers", before=tx.now, limit=10) if item.lose_workers else []
    specs, queueless = _specs(tx, [run for run in due if run.status is S.DELAYED], parked)
    externals = _externals(tx, parked)
    before = {run.id: run for run in [*due, *parked]}
    after = {run.id: _due(run, tx.now, specs.get(run.id), run.id in queueless) for run in due}
    for run in parked:
        if run.id not in specs:
            continue  # it was retired meanwhile
        lock = run.version_lock or externals.get((run.environment_id, run.external_deployment or ""))
        after[run.id] = deployed(with_defaults(run, specs[run.id]), lock, tx.now)
    saved = tx.save_runs(before, after.values())
    for worker_id in lost:
        lose_worker(tx, worker_id)
    for run_id in saved:
        _wake(tx, after[run_id])
    settle_runs(tx, [after[run_id] for run_id in saved])
    waits, more_waits = pass_timers(tx, item.limit)
    tokens = time_out_tokens(tx, item.limit)
    batches = abort_batches(tx, item.limit)
    ticks = fire_schedules(tx, SCHEDULES_BATCH)  # last: nothing is waited for while their rows are locked
    more = len(due) == item.limit or len(parked) == PARKED_BATCH or len(lost) == 10
    more = more or more_waits or item.limit in (tokens, batches) or ticks == SCHEDULES_BATCH
    next_due_at, bulk_actions = _next_due(tx, item.lose_workers)
    moved = len(saved) + len(lost) + waits + tokens + batches + ticks
    return Passed(moved, more, next_due_at, bulk_actions)


def _due(run: Run, now: int, spec: TaskSpec | None, queueless: bool) -> Run:
    """What becomes of a run whose time has come.

    spec       of its task, if there is one
    queueless  whether nobody knows its queue
    """
    match run.status:
        case S.DELAYED if spec is not None and not queueless:
            return enqueued(with_defaults(run, spec), now)
        case S.DELAYED:
            return moved(run, S.WAITING_FOR_DEPLOY, now, due_at=None)
        case S.WAITING_FOR_DEPLOY:
            return never_deployed(run, now)
        case S.QUEUED:
            # A started run that was given back keeps no ttl (rule R20); only a first wait can expire.
            return expired(run, now) if run.starts == 0 else replace(run, lease=run.lease + 1, due_at=None)
        case S.REATTEMPTING if run.worker_id is not None:
            return replace(run, due_at=None)  # its worker begins the next attempt, under the same lease
        case S.REATTEMPTING:
            return moved(run, S.QUEUED, now, due_at=None)  # at its old place (rule R26)
        case S.CANCELLED:
            return closed(run, now)
        case _:
            return replace(run, lease=run.lease + 1, due_at=None)


def _specs(
    tx: Tx, delayed: Sequence[Run], parked: Sequence[Run]
) -> tuple[dict[str, TaskSpec], frozenset[str]]:
    """By run, what is known of its task; and the delayed runs whose queue nobody knows.

    A task that the current deployment lacks is only there for runs that belong to a version.
    """
    found: dict[str, TaskSpec] = {}
    queueless: set[str] = set()
    for environment_id, runs in _by_environment([*delayed, *parked]).items():
        own = {"environment_id": environment_id}
        rows = {
            row["id"]: row
            for row in tx.all("task_specs", **own, ids=batch(sorted({run.task for run in runs})))
        }
        for run in runs:
            row = rows.get(run.task)
            if row is not None and (not row["retired"] or run.version_lock or run.external_deployment):
                found[run.id] = read_spec(row["spec"])
    for environment_id, runs in _by_environment(delayed).items():
        names = {run.queue for run in runs if run.queue != default_queue(run.task)}
        if names:
            known = tx.all("known_queues", environment_id=environment_id, names=batch(sorted(names)))
            unknown = names - {row["name"] for row in known}
            queueless |= {run.id for run in runs if run.queue in unknown}
    return found, frozenset(queueless)


def _externals(tx: Tx, parked: Sequence[Run]) -> dict[tuple[str, str], str]:
    """The versions that the parked runs have waited for, by what other systems call them."""
    found: dict[tuple[str, str], str] = {}
    for environment_id, runs in _by_environment(parked).items():
        if ids := sorted({run.external_deployment for run in runs if run.external_deployment}):
            found |= external_versions(tx, environment_id, ids)
    return found


def _by_environment(runs: Sequence[Run]) -> dict[str, list[Run]]:
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.environment_id, []).append(run)
    return groups


def _next_due(tx: Tx, lose_workers: bool) -> tuple[int | None, bool]:
    # A lease that is over and may not be acted on yet would make the next pass due at once, for ever.
    rows = [tx.one("next_due"), tx.one("next_worker_lease") if lose_workers else None]
    at = min((row["at"] for row in rows if row and row["at"] is not None), default=None)
    return at, bool(rows[0] and rows[0]["bulk_actions"])


def _wake(tx: Tx, run: Run) -> None:
    if run.status is S.QUEUED:
        wake_before_others(tx, run.environment_id)
    elif run.is_final:
        tx.wake(f"run:{run.id}")
