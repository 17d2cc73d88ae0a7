"""Suspend runs until what they wait for has ended, and resume them.

A suspended run has rows in `waits`, nobody else has. They are written and deleted only under the lock of
their run, so who ends what is waited for locks the waiting runs before it touches their waits.

A wait that begins while its target ends must be seen by one of the two. The one that begins it locks the
target (shared) and then looks; the one that ends it has its lock and then looks for waits. Both hold other
locks meanwhile, and would sooner or later wait for each other in a ring. So the one that begins never waits: a
target that is locked by somebody is looked at again a moment later, by upkeep (`LOOK_AGAIN_MS`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from holdfast.engine.kept import keep
from holdfast.engine.wake import wake_after_attempt, wake_before_others
from holdfast.model.run import Run, resumed, suspended
from holdfast.model.status import FINAL, RunStatus
from holdfast.model.wait import Ended, Wait, Wake, distinct, is_token, resumes
from holdfast.stores.base import Tx, batch

LOOK_AGAIN_MS = 50


@dataclass(frozen=True, slots=True)
class Suspension:
    """A run, locked and EXECUTING, that is to be suspended."""

    run: Run
    active_ms: int
    waits: Sequence[Wait]


@dataclass(frozen=True, slots=True)
class Targets:
    """What is known of runs and tokens: the environment of each, and whether it failed if it has ended.

    busy    being written by somebody else just now
    owners  the run that made it
    """

    ended: Mapping[str, tuple[str, bool | None]]
    busy: frozenset[str]
    owners: Mapping[str, str | None] = field(default_factory=dict)

    def failed(self, target: str, environment_id: str) -> bool | None:
        """None while it goes on. What does not exist here, or not any more, counts as failed."""
        if target in self.busy:
            return None
        environment, failed = self.ended.get(target, ("", True))
        return failed if environment == environment_id else True


def suspend(tx: Tx, asked: Sequence[Suspension]) -> None:
    """Suspends runs. One whose wait is over already goes to the queue at once.

    Takes locks that others wait for, so no other lock may be taken after it.
    """
    uses = [(wait.target, one.run.id) for one in asked for wait in one.waits if wait.target is not None]
    known = _look(tx, {target for target, _ in uses})
    keep(tx, ((target, run_id) for target, run_id in uses if known.owners.get(target) != run_id))
    before = {one.run.id: one.run for one in asked}
    after: list[Run] = []
    rows: list[list[Any]] = []
    for one in asked:
        run = suspended(one.run, one.active_ms, tx.now)
        ended: list[Ended] = []
        left: list[Wait] = []
        for wait in distinct(one.waits):
            over = _over(wait, run, known, tx.now)
            if over is not None:
                ended.append(over)
            elif wait.target in known.busy:
                left.append(replace(wait, due_at=tx.now + LOOK_AGAIN_MS))
            else:
                left.append(wait)
        if not left or resumes(ended, {wait.part for wait in left}):
            run = resumed(run, tx.now)
        else:
            rows += [
                [run.id, wait.part, number, wait.target, wait.due_at, wait.wake]
                for number, wait in enumerate(left)
            ]
            if any(wait.due_at is not None for wait in left):
                tx.wake("upkeep")
        after.append(run)
        wake_after_attempt(tx, run)
    tx.save_runs(before, after)
    if rows:
        tx.do("add_waits", waits=batch(rows))


def settle(tx: Tx, ended: Mapping[str, bool]) -> None:
    """Resumes whoever waited for these runs and tokens, which have ended; True for those that failed."""
    waiting = tx.ids("waits_on", targets=batch(sorted(ended))) if ended else []
    if not waiting:
        return
    runs = _suspended(tx.runs("runs_for_update", ids=batch(sorted(waiting))))
    rows = tx.all("end_waits", targets=batch(sorted(ended)), runs=batch(runs)) if runs else []
    _resume(tx, runs, rows, ended)


def settle_runs(tx: Tx, runs: Iterable[Run]) -> None:
    """The same for those of the runs that have ended."""
    settle(tx, {run.id: run.status is not RunStatus.COMPLETED_SUCCESSFULLY for run in runs if run.is_final})


def pass_timers(tx: Tx, limit: int) -> tuple[int, bool]:
    """Ends waits whose time has come; how many there were, and whether there may be more."""
    due = tx.all("due_waits", now=tx.now, limit=limit)
    if not due:
        return 0, False
    runs = _suspended(tx.runs("suspended_runs", ids=batch(sorted({row["run_id"] for row in due}))))
    if not runs:
        return 0, False
    rows = tx.all("end_due_waits", runs=batch(runs), now=tx.now)
    again = [row for row in due if row["target"] is not None and row["run_id"] in runs]
    failed = _look_again(tx, runs, again, rows) if again else {}
    _resume(tx, runs, rows, failed)
    return len(rows) + len(again), len(due) == limit


def forget_waits(tx: Tx, runs: Iterable[Run]) -> None:
    """Deletes what these runs, which are locked, waited for."""
    if ids := [run.id for run in runs if run.status is RunStatus.WAITING_TO_RESUME]:
        tx.do("delete_waits", runs=batch(ids))


def _over(wait: Wait, run: Run, known: Targets, now: int) -> Ended | None:
    if wait.target is None:
        return Ended(wait.part, wait.wake) if wait.due_at is not None and wait.due_at <= now else None
    failed = known.failed(wait.target, run.environment_id)
    return None if failed is None else Ended(wait.part, wait.wake, failed)


def _look(tx: Tx, targets: set[str]) -> Targets:
    """Locks what is to be waited for, unless somebody else has, and tells which of it has ended."""
    if not targets:
        return Targets({}, frozenset())
    runs = sorted(target for target in targets if not is_token(target))
    tokens = sorted(target for target in targets if is_token(target))
    rows: list[dict[str, Any]] = []
    for statement, unlocked, ids in (
        ("wait_on_runs", "run_states", runs),
        ("wait_on_waitpoints", "waitpoints_by_id", tokens),
    ):
        found = tx.all(statement, ids=batch(ids)) if ids else []
        rows += found
        if missing := sorted(set(ids) - {row["id"] for row in found}):
            rows += [{"id": row["id"], "status": None} for row in tx.all(unlocked, ids=batch(missing))]
    busy = frozenset(row["id"] for row in rows if row["status"] is None)
    known = {
        row["id"]: (row["environment_id"], has_failed(row["status"])) for row in rows if row["id"] not in busy
    }
    return Targets(known, busy, {row["id"]: row["owner"] for row in rows if row["id"] not in busy})


def _look_again(
    tx: Tx, runs: Mapping[str, Run], again: Sequence[Mapping[str, Any]], rows: list[dict[str, Any]]
) -> dict[str, bool]:
    """Looks at targets that were busy when the wait for them began. Adds the waits that are over to `rows`."""
    known = _look(tx, {row["target"] for row in again})
    over: dict[str, bool] = {}
    for run_id, run in runs.items():
        own = {row["target"] for row in again if row["run_id"] == run_id}
        found = {target: known.failed(target, run.environment_id) for target in own}
        ended = {target: failed for target, failed in found.items() if failed is not None}
        over |= ended
        for targets, look_at in (
            (known.busy & own, tx.now + LOOK_AGAIN_MS),
            (own - known.busy - set(ended), None),
        ):
            if targets:
                tx.do("look_later", targets=batch(sorted(targets)), runs=batch([run_id]), due_at=look_at)
        if ended:
            rows += tx.all("end_waits", targets=batch(sorted(ended)), runs=batch([run_id]))
    return over


def _resume(
    tx: Tx, runs: Mapping[str, Run], rows: Sequence[Mapping[str, Any]], failed: Mapping[str, bool]
) -> None:
    """Resumes those of the runs that go on after these waits have ended."""
    ended: dict[str, list[Ended]] = {}
    for row in rows:
        over = Ended(row["part"], Wake(row["wake"]), failed.get(row["target"], False))
        ended.setdefault(row["run_id"], []).append(over)
    if not ended:
        return
    parts = sorted({(row["run_id"], row["part"]) for row in rows})
    waiting: dict[str, set[int]] = {}
    for row in tx.all("parts_waiting", parts=batch(parts)):
        waiting.setdefault(row["run_id"], set()).add(row["part"])
    after = [
        resumed(runs[run_id], tx.now)
        for run_id, own in ended.items()
        if resumes(own, waiting.get(run_id, frozenset()))
    ]
    if not after:
        return
    tx.do("delete_waits", runs=batch(sorted(run.id for run in after)))
    tx.save_runs(runs, after)
    for run in after:
        wake_before_others(tx, run.environment_id)


def _suspended(runs: Iterable[Run]) -> dict[str, Run]:
    return {run.id: run for run in runs if run.status is RunStatus.WAITING_TO_RESUME}


def has_failed(status: str) -> bool | None:
    """Whether a run or token in this status failed; None while it goes on."""
    if status in ("COMPLETED", RunStatus.COMPLETED_SUCCESSFULLY):
        return False
    return True if status == "TIMED_OUT" or status in FINAL else None
