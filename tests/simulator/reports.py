"""What reports of workers may and must do: outcomes, retries, suspensions, fencing. Entries are in journals.py."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from holdfast.model.error import is_mismatch, may_be_retried, status_of
from holdfast.model.retry import IN_PROCESS_BELOW_MS
from holdfast.model.run import Run
from holdfast.model.status import HELD, RunStatus
from simulator.journals import JOURNALLED
from simulator.oracle import Oracle
from simulator.outputs import check_failure, check_output
from simulator.snapshot import Snapshot
from simulator.violation import require
from simulator.waits import check_suspension, has_resumed

S = RunStatus
STREAMED = ("metadata", "tags", "logs")


def check_reports(
    oracle: Oracle,
    now: int,
    items: Sequence[Any],
    results: Sequence[Any],
    before: Snapshot,
    after: Snapshot,
    made: set[str],
) -> None:
    """Raises Violation when an answer or a change of a run is not what its report calls for."""
    decided: dict[str, str] = {}
    touched: set[str] = set()
    # Successes are taken before the rest, so they go first here too.
    order = sorted(range(len(items)), key=lambda index: items[index].report["kind"] != "succeeded")
    for index in order:
        item, answer = items[index], results[index]
        said = item.report
        run = before.runs.get(said["run"])
        what = f"{said} of {item.worker_id} on {run and (run.status, run.lease, run.worker_id)}: {answer}"
        live = run is not None and run.lease == said["lease"] and run.worker_id == item.worker_id
        if not live or run is None:
            again = None if run is None else _first_answer(run, item)
            if again is None or run is None:
                require(answer.status == "fenced", "I3", f"a stale lease was heard: {what}")
            else:
                told = (answer.status, answer.lease)
                moved = any(
                    (other.report["run"], other.report["lease"]) == (run.id, run.lease) for other in items
                )
                require(
                    told == again or (moved and answer.status == "fenced"),
                    "I11",
                    f"the answer was lost, and is not given again: {what}",
                )
            continue
        if said["kind"] in STREAMED:
            fine = answer.status in ("ok", "refused") if run.status in HELD else answer.status == "fenced"
            require(fine, "I3", what)
            if answer.status == "ok":
                touched |= {run.id, run.parent_id or "", run.root_id or ""}
                if said["kind"] == "tags":
                    require(set(said["tags"]) <= set(json.loads(after.runs[run.id].tags)), "I1", what)
            continue
        if said["kind"] in JOURNALLED:  # see journals.py
            touched.add(run.id)
            continue
        if run.id in decided:
            same = said["kind"] == decided[run.id] and said["kind"] in ("failed", "started")
            require(answer.status == "fenced" or same, "I2", f"heard twice: {what}")
            continue
        if _outcome(oracle, now, run, said, answer, after):
            decided[run.id] = said["kind"]
            touched.add(run.id)
    for run_id, run in after.runs.items():
        old = before.runs.get(run_id)
        require(
            run is old or run_id in touched or run_id in made or has_resumed(old, run),
            "I3",
            f"{run_id} was touched by others' reports",
        )


def _first_answer(run: Run, item: Any) -> tuple[str, int] | None:
    """What the last report was answered, where this is that report once more and its worker needs the answer."""
    said = item.report
    if run.worker_id != item.worker_id or run.lease != said["lease"] + 1:
        return None
    if said["kind"] == "failed" and run.status is S.REATTEMPTING and said["retryDelayMs"] is not None:
        return "retry", run.lease
    return ("started", run.lease) if said["kind"] == "started" and run.status is S.EXECUTING else None


def _outcome(oracle: Oracle, now: int, run: Run, said: Any, answer: Any, snapshot: Snapshot) -> bool:
    """Checks a report under a live lease; whether it moves the run."""
    kind, after = said["kind"], snapshot.runs[run.id]
    what = f"{said} on {run.status} attempt {run.attempt} of {run.max_attempts}: {answer}, {after.status}"
    if run.status is S.CANCELLED:
        require((answer.status == "ok") == (kind == "closed"), "I9", what)
        require(after.finished_at is not None or kind != "closed", "I9", what)
        return bool(kind == "closed")
    match kind:
        case "closed":
            require(answer.status == "refused", "I9", what)
            return False
        case "succeeded" if run.status is S.EXECUTING:
            require(answer.status == "ok" and after.status is S.COMPLETED_SUCCESSFULLY, "I2", what)
            require(after.output == said["output"], "I18", what)
            check_output(after, after.output, snapshot.journals.get(run.id, ()), oracle.outcomes)
        case "suspended" if run.status is S.EXECUTING:
            require(answer.status == "ok", "I7", what)
            check_suspension(oracle, run, said, after, snapshot)
        case "started" if run.status is S.REATTEMPTING:
            require(answer.status == "started" and after.status is S.EXECUTING, "I11", what)
            require((answer.lease, answer.attempt) == (after.lease, after.attempt), "I3", what)
        case "failed" if run.status is S.EXECUTING:
            if is_mismatch(said["error"]):
                parked = after.status is S.WAITING_FOR_DEPLOY and after.attempt == run.attempt - 1
                require(parked and after.worker_id is None and answer.status == "ok", "I16", what)
                oracle.mismatches[run.id] += 1
            else:
                check_failure(run, said["error"], snapshot, oracle.outcomes)
                _failed(oracle, now, run, after, said, answer, what)
        case "crashed":
            _crashed(oracle, now, run, after, said, answer, what)
        case "released":
            require(answer.status == "ok", "I20", what)
            if run.status is S.EXECUTING and said["started"] and run.max_attempts == 1:
                require(after.status is S.CRASHED, "I12", what)
            else:
                require(after.status in (S.QUEUED, S.REATTEMPTING) and after.worker_id is None, "I20", what)
                if run.status is S.EXECUTING:
                    require(after.attempt == run.attempt - 1, "I12", what)
                    oracle.unrecorded[run.id] += not said["started"]
        case _:
            require(answer.status == "fenced", "I3", what)
            return False
    return True


def _failed(oracle: Oracle, now: int, run: Run, after: Run, said: Any, answer: Any, what: str) -> None:
    delay = said["retryDelayMs"]
    oracle.losses[run.id] = 0
    if delay is None or run.attempt >= (run.max_attempts or 1) or not may_be_retried(said["error"]):
        require(answer.status == "ok" and after.status is status_of(said["error"]), "I12", what)
        require(json.loads(after.error or "null") == said["error"], "I18", what)
        return
    require(after.status is S.REATTEMPTING and after.attempt == run.attempt, "I12", what)
    oracle.retry_at[run.id] = (now + delay, oracle.elapsed + delay)
    if delay < IN_PROCESS_BELOW_MS:
        told = (answer.status, answer.lease, answer.attempt, answer.delay_ms)
        require(told == ("retry", after.lease, run.attempt + 1, delay), "I12", what)
        require(after.worker_id == run.worker_id, "I12", what)
    else:
        require(
            answer.status == "ok" and after.worker_id is None and after.due_at == now + delay, "I12", what
        )


def _crashed(oracle: Oracle, now: int, run: Run, after: Run, said: Any, answer: Any, what: str) -> None:
    require(answer.status == "ok" and after.worker_id is None, "I12", what)
    if run.status is S.REATTEMPTING:
        require(after.status in (S.QUEUED, S.REATTEMPTING) and after.attempt == run.attempt, "I12", what)
    elif said["shared"] and not run.alone:
        expected = S.CRASHED if run.max_attempts == 1 else S.QUEUED
        require(after.status is expected, "I12", what)
        require(expected is S.CRASHED or (after.alone and after.attempt == run.attempt - 1), "I12", what)
    elif run.alone or run.attempt >= (run.max_attempts or 1):
        require(after.is_final, "I12", what)
    elif after.status is S.REATTEMPTING:
        oracle.losses[run.id] = 0
        require(after.alone and after.due_at is not None and after.due_at >= now, "I12", what)
        delay = (after.due_at or 0) - now
        oracle.retry_at[run.id] = (now + delay, oracle.elapsed + delay)
    else:  # the task's policy may have fewer attempts than the run was given
        require(after.is_final, "I12", what)
