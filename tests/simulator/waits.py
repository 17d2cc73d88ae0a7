"""What must be true of suspended runs: they hold nothing, miss no end, and resume once, for a reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holdfast.model.run import Run
from holdfast.model.status import RunStatus
from simulator.snapshot import Snapshot
from simulator.violation import require

if TYPE_CHECKING:
    from simulator.oracle import Oracle

S = RunStatus


@dataclass(frozen=True, slots=True)
class Awaited:
    """One wait, as its worker reported it."""

    part: int
    wake: str
    target: str | None
    due_at: int | None


def awaited(said: Mapping[str, Any]) -> list[Awaited]:
    return [Awaited(one["group"], one["wake"], one.get("id"), one.get("dueAt")) for one in said["waits"]]


def check_waits(oracle: Oracle, name: str, before: Snapshot, after: Snapshot) -> None:
    """After whatever call. What a run asked for is remembered here, not read from the store."""
    for run_id, rows in after.waits.items():
        run = after.runs.get(run_id)
        waits = run is not None and run.status is S.WAITING_TO_RESUME
        require(waits, "I11", f"{run_id} is {run and run.status} and waits for {rows}")
    for run_id in sorted(after.changed):
        run, old = after.runs[run_id], before.runs.get(run_id)
        if old is not None and old.status is S.WAITING_TO_RESUME and run.status is not old.status:
            if run.status is S.QUEUED:
                require(run.suspended, "I12", f"{run_id} does not go on with its attempt: {run}")
                _resumed(oracle, run, oracle.waits[run_id], after)
            del oracle.waits[run_id]
    ended = any(after.runs[run_id].is_final for run_id in after.changed) or len(after.runs) < len(before.runs)
    if ended or after.waits != before.waits or after.tokens != before.tokens:
        for run_id in oracle.waits:
            _suspended(oracle, after.runs[run_id], after)


def has_resumed(old: Run | None, run: Run) -> bool:
    """Whether a suspended run goes on, which any call may cause that ends something."""
    return old is not None and old.status is S.WAITING_TO_RESUME and run.status is S.QUEUED


def check_suspension(oracle: Oracle, run: Run, said: Any, after: Run, snapshot: Snapshot) -> None:
    """A report "suspended" under the live lease."""
    where = f"{run.id} suspended with {said['waits']} is {after.status}"
    require(after.status in (S.WAITING_TO_RESUME, S.QUEUED) and after.suspended, "I7", where)
    require(after.worker_id is None, "I5", f"{where}: {after.worker_id} holds it")
    same = (after.attempt, after.starts) == (run.attempt, run.starts)
    require(same and after.attempt_started_at == run.attempt_started_at, "I12", f"{where}: counted")
    if after.status is S.QUEUED:
        _resumed(oracle, after, awaited(said), snapshot)
    else:
        oracle.waits[run.id] = awaited(said)


def _suspended(oracle: Oracle, run: Run, after: Snapshot) -> None:
    rows = after.waits.get(run.id, ())
    asked = oracle.waits[run.id]
    holds_nothing = rows and run.worker_id is None and run.suspended and not run.holds_slot
    require(holds_nothing, "I11", f"{run.id} waits for {rows} of {asked}")
    left = set()
    for row in rows:
        same = [one for one in asked if one.part == row.part and one.target == row.target]
        if row.target is None:
            same = [one for one in same if one.due_at == row.due_at]
        require(same, "I7", f"{run.id}: nobody asked for {row}")
        ended = row.target is not None and _ended(row.target, after) is not None
        require(not ended, "I7", f"{run.id} waits for {row}, and its target has ended")
        left.add((row.part, row.target or row.due_at))
    over = [one for one in asked if (one.part, one.target or one.due_at) not in left]
    for one in over:
        require(
            _is_over(oracle, one, after),
            "I7",
            f"{run.id} does not wait for {one} any more, and it is not over",
        )
    parts = {part for part, _ in left}
    require(
        not _goes_on(over, parts, after),
        "I7",
        f"{run.id} waits for {rows}: it should go on after {over} of {asked}",
    )


def _resumed(oracle: Oracle, run: Run, asked: Sequence[Awaited], after: Snapshot) -> None:
    over = [one for one in asked if _is_over(oracle, one, after)]
    parts = {one.part for one in asked if one not in over}
    require(_goes_on(over, parts, after), "I7", f"{run.id} goes on after {over} of {asked}")


def _goes_on(over: Sequence[Awaited], waiting: set[int], after: Snapshot) -> bool:
    """Whether one of these ends wakes the run; `waiting` are the parts that are not over."""
    for one in over:
        failed = one.target is not None and _ended(one.target, after) is True
        if one.wake == "any" or (one.wake == "failure" and failed) or one.part not in waiting:
            return True
    return False


def _is_over(oracle: Oracle, one: Awaited, after: Snapshot) -> bool:
    if one.target is None:
        return one.due_at is not None and one.due_at <= oracle.latest
    return _ended(one.target, after) is not None


def _ended(target: str, after: Snapshot) -> bool | None:
    """Whether a run or token failed; None while it goes on. What is not there any more has failed."""
    if target.startswith("waitpoint"):
        token = after.tokens.get(target)
        if token is None or token.status == "TIMED_OUT":
            return True
        return None if token.status == "WAITING" else False
    run = after.runs.get(target)
    if run is None:
        return True
    return run.status is not S.COMPLETED_SUCCESSFULLY if run.is_final else None
