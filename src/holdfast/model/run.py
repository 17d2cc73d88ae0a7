"""A run as the engine keeps it, and what becomes of it: each function is one move, without I/O.

`lease` is the fencing token. It grows whenever the right to act for the run changes hands: at a
claim, at every report that ends an attempt, at a cancel, when a worker is lost. Whoever reports
with an older number changes nothing.

The attempt under way lives in the row itself; only attempts that were followed by another one are
kept in a table of their own. So a run that succeeds at once, which most do, costs one row.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from holdfast.errors import HoldfastError
from holdfast.model.error import RunError, internal_error, may_be_retried, status_of, string_error, trimmed
from holdfast.model.ids import attempt_id
from holdfast.model.limits import MAX_ATTEMPTS, MAX_LOSSES
from holdfast.model.retry import IN_PROCESS_BELOW_MS
from holdfast.model.status import ATTEMPT_OF, FINAL, HELD, MOVES, AttemptStatus, RunStatus

S = RunStatus

# After a cancel the worker has this long to stop the process; then the run counts as closed
# (invariant I9). A worker that can not be reached is given its lease on top.
CLOSING_MS = 10_000


@dataclass(frozen=True, slots=True)
class Run:
    """One row. Times are epoch milliseconds of the store's clock; JSON is kept as text."""

    id: str
    environment_id: str
    status: RunStatus
    lease: int
    task: str
    version: str | None  # of the code; set by the first claim
    version_lock: str | None  # the only version that may run it
    queue: str
    concurrency_key: str  # "" when there is none
    priority: int  # seconds
    score: int  # lower goes first: milliseconds of queueing minus priority
    attempt: int  # counted attempts, from 1; 0 before the first
    starts: int  # every start, counted or not; numbers the attempt ids
    losses: int  # attempts lost in a row without the run's fault
    alone: bool  # shared a process that died: must run in one of its own
    max_attempts: int | None  # None until the first claim, unless the trigger said so
    max_duration: int | None  # seconds for one attempt
    machine: str | None
    worker_id: str | None  # who holds it; kept while a cancelled run is closing
    is_test: bool
    ttl_ms: int | None
    due_at: int | None  # when upkeep looks at it: end of delay, ttl, retry, closing
    delayed_until: int | None
    created_at: int
    updated_at: int
    started_at: int | None
    finished_at: int | None
    attempt_started_at: int | None
    idempotency_key: str | None
    parent_id: str | None
    root_id: str | None
    depth: int
    batch_id: str | None
    replay_of: str | None
    tags: str  # JSON list
    metadata: str  # JSON object
    error: str | None  # JSON object, see model/error.py
    payload: str | None  # JSON
    output: str | None  # JSON
    entries: int = 0  # of its journal
    journal_bytes: int = 0  # of their values
    suspended: bool = False  # from a suspension until the claim that resumes it: the attempt goes on
    resumes: int = 0  # of the attempt under way
    active_ms: int = 0  # of the attempt under way, before its suspensions
    operations: int = 0  # how many of its code's changes to metadata and tags are written
    payload_type: str | None = None  # of the payload's text; None is application/json
    output_type: str | None = None
    idempotency_key_shown: str | None = None  # what the user wrote, where `idempotency_key` is a hash of it
    external_deployment: str | None = None  # what other systems call the deployment that is to run it
    ttl_shown: str | None = None  # as the caller wrote it, where that was text

    @property
    def is_final(self) -> bool:
        return self.status in FINAL

    @property
    def holds_slot(self) -> bool:
        return self.worker_id is not None and self.status in HELD


@dataclass(frozen=True, slots=True)
class Attempt:
    """One start of a run, as answered in `attempts`."""

    id: str
    run_id: str
    number: int
    status: AttemptStatus
    started_at: int
    completed_at: int | None
    error: str | None


class IllegalMove(HoldfastError):
    """The table of moves has no such move: a defect of the engine, never of a user."""

    code = "illegal_move"


def moved(run: Run, status: RunStatus, now: int, **changes: Any) -> Run:
    """`run` in `status`, under a new lease number. Raises IllegalMove."""
    if status not in MOVES[run.status]:
        raise IllegalMove(f"run {run.id} can not go from {run.status} to {status}")
    return replace(run, status=status, lease=run.lease + 1, updated_at=now, **changes)


def ended(
    run: Run, status: RunStatus, now: int, error: RunError | None = None, output: str | None = None
) -> Run:
    """`run` in a final status."""
    return moved(
        run,
        status,
        now,
        worker_id=None,
        suspended=False,
        due_at=None,
        finished_at=now,
        error=None if error is None else json.dumps(trimmed(error)),
        output=output,
    )


def enqueued(run: Run, now: int) -> Run:
    """`run` in the queue for the first time: its place is taken and its ttl starts now (rule R19).

    One that was started before keeps its place, and never expires (rule R20).
    """
    if run.starts:
        return moved(run, S.QUEUED, now, due_at=None)
    return moved(
        run,
        S.QUEUED,
        now,
        score=now - run.priority * 1_000,
        due_at=None if run.ttl_ms is None else now + run.ttl_ms,
    )


def last_attempt(run: Run, error: RunError | None, status: AttemptStatus, now: int) -> Attempt:
    """The record of the attempt under way, for a run that will have another one."""
    return Attempt(
        attempt_id(run.id, run.starts),
        run.id,
        run.attempt,
        status,
        run.attempt_started_at or now,
        now,
        None if error is None else json.dumps(trimmed(error)),
    )


def current_attempt(run: Run) -> Attempt | None:
    """The attempt under way or the one that ended the run; None before the first and between two."""
    status = AttemptStatus.EXECUTING if run.suspended else ATTEMPT_OF.get(run.status)
    if run.attempt_started_at is None or status is None:
        return None
    return Attempt(
        attempt_id(run.id, run.starts),
        run.id,
        run.attempt,
        status,
        run.attempt_started_at,
        None if status is AttemptStatus.EXECUTING else run.finished_at or run.updated_at,
        run.error,
    )


def after_failure(run: Run, error: RunError, delay_ms: int | None, now: int) -> tuple[Run, Attempt | None]:
    """What becomes of a run whose attempt failed: another attempt after `delay_ms`, or the end.

    None as delay means that the worker decided against another attempt. A short delay keeps the
    worker; a long one goes through the queue.
    """
    if run.attempt >= MAX_ATTEMPTS:
        text = f"the run had {MAX_ATTEMPTS} attempts, which is the most a run may have"
        return ended(run, S.CRASHED, now, internal_error("TASK_RUN_CRASHED", text)), None
    if delay_ms is None or run.attempt >= (run.max_attempts or 1) or not may_be_retried(error):
        return ended(run, status_of(error), now, error), None
    attempt = last_attempt(run, error, AttemptStatus.FAILED, now)
    again = moved(
        run, S.REATTEMPTING, now, due_at=now + delay_ms, losses=0, attempt_started_at=None, active_ms=0
    )
    return (again if delay_ms < IN_PROCESS_BELOW_MS else replace(again, worker_id=None)), attempt


def after_crash(
    run: Run, error: RunError, delay_ms: int | None, shared: bool, now: int
) -> tuple[Run, Attempt | None]:
    """What becomes of a run whose process died under it.

    shared    other runs were in that process, so nobody knows which one killed it: no attempt is
              lost, and each runs alone next time; said of one that was to run alone it does not count
    delay_ms  of the run's retry policy, None after the last attempt

    A run that dies again in a process of its own ends CRASHED.
    """
    if run.status is S.REATTEMPTING:
        return given_back(run, now, alone=run.alone), None
    if shared and not run.alone:
        if run.max_attempts == 1:
            return lost_for_good(run, "its process died together with other runs", now), None
        attempt = last_attempt(run, error, AttemptStatus.CANCELLED, now)
        return given_back(run, now, alone=True), attempt
    if run.alone or delay_ms is None or run.attempt >= (run.max_attempts or 1) or not may_be_retried(error):
        status = status_of(error)
        return ended(run, S.CRASHED if status is S.COMPLETED_WITH_ERRORS else status, now, error), None
    attempt = last_attempt(run, error, AttemptStatus.FAILED, now)
    back = moved(
        run,
        S.REATTEMPTING,
        now,
        worker_id=None,
        alone=True,
        due_at=now + delay_ms,
        losses=0,
        attempt_started_at=None,
        active_ms=0,
    )
    return back, attempt


def after_lost_worker(run: Run, now: int) -> tuple[Run, Attempt | None]:
    """What becomes of a run whose worker went silent: it returns to its place, no attempt counted.

    Ten losses in a row end it, and so does the first one where `max_attempts` is 1: who asked for
    a single attempt would rather lose it than see it twice (invariant I12).
    """
    if run.status is S.REATTEMPTING:
        return given_back(run, now, alone=run.alone), None
    if run.max_attempts == 1:
        return lost_for_good(run, "its worker went silent", now), None
    if run.losses + 1 >= MAX_LOSSES:
        text = f"its worker was lost {MAX_LOSSES} times in a row; the run may be what kills it"
        return ended(run, S.CRASHED, now, internal_error("TASK_RUN_STALLED_EXECUTING", text)), None
    error = internal_error("TASK_RUN_STALLED_EXECUTING", "the worker went silent; the attempt does not count")
    attempt = last_attempt(run, error, AttemptStatus.CANCELLED, now)
    return replace(given_back(run, now, alone=run.alone), losses=run.losses + 1), attempt


def after_release(run: Run, now: int, started: bool) -> tuple[Run, Attempt | None]:
    """What becomes of a run that its worker hands back while it shuts down: no attempt counted."""
    if run.status is S.REATTEMPTING:
        return given_back(run, now, alone=run.alone), None
    if started and run.max_attempts == 1:
        return lost_for_good(run, "its worker shut down", now), None
    error = internal_error("TASK_EXECUTION_ABORTED", "the worker shut down; the attempt does not count")
    attempt = last_attempt(run, error, AttemptStatus.CANCELLED, now) if started else None
    return given_back(run, now, alone=run.alone), attempt


def given_back(run: Run, now: int, alone: bool) -> Run:
    """`run` back in the queue at its old place, its attempt under way not counted.

    One whose worker was sleeping the delay before the next attempt waits for the rest of it: a retry
    is never early (invariant I12).
    """
    if run.status is S.REATTEMPTING and run.due_at is not None and run.due_at > now:
        return replace(run, lease=run.lease + 1, worker_id=None, updated_at=now)
    attempt = run.attempt - 1 if run.status is S.EXECUTING else run.attempt
    return moved(
        run,
        S.QUEUED,
        now,
        worker_id=None,
        due_at=None,
        attempt=attempt,
        alone=alone,
        attempt_started_at=None,
        active_ms=0,
    )


def suspended(run: Run, active_ms: int, now: int) -> Run:
    """`run` while it waits: it holds no worker and no slot, and its attempt is still under way."""
    return moved(run, S.WAITING_TO_RESUME, now, worker_id=None, suspended=True, active_ms=active_ms)


def resumed(run: Run, now: int) -> Run:
    """A suspended run whose wait is over, in the queue at its old place."""
    return moved(run, S.QUEUED, now)


def after_mismatch(run: Run, error: RunError, now: int) -> tuple[Run, Attempt]:
    """What becomes of a run whose code asked for something else than its journal holds.

    Nothing was done, so no attempt is counted; it waits for another version of its task.
    """
    attempt = last_attempt(run, error, AttemptStatus.FAILED, now)
    parked = moved(
        run,
        S.WAITING_FOR_DEPLOY,
        now,
        worker_id=None,
        due_at=None,
        attempt=run.attempt - 1,
        losses=0,
        attempt_started_at=None,
        active_ms=0,
    )
    return parked, attempt


def lost_for_good(run: Run, how: str, now: int) -> Run:
    text = f"{how}, and the run may be attempted only once: lost"
    return ended(run, S.CRASHED, now, internal_error("TASK_RUN_CRASHED", text))


def cancelled(run: Run, reason: str, now: int) -> Run:
    """`run` CANCELLED at once. While a worker still holds its process it is closing: no finish time."""
    error = json.dumps(internal_error("TASK_RUN_CANCELLED", reason))
    if run.holds_slot:
        return moved(run, S.CANCELLED, now, due_at=now + CLOSING_MS, error=error)
    return moved(
        run,
        S.CANCELLED,
        now,
        worker_id=None,
        suspended=False,
        due_at=None,
        finished_at=now,
        error=error,
    )


def closed(run: Run, now: int) -> Run:
    """A cancelled run whose process is known to be gone."""
    return replace(run, lease=run.lease + 1, worker_id=None, due_at=None, finished_at=now, updated_at=now)


def deployed(run: Run, version_lock: str | None, now: int) -> Run:
    """A run that waited for a deployment, on its way; one that is to start later goes on waiting for its time.

    It is free of the version that it did not fit, and belongs to the one that `version_lock` names.
    """
    run = replace(run, version=None, version_lock=version_lock)
    # Any other run has waited for its time before it waited for its task, also when the clock has stepped back since.
    awaited = run.external_deployment is not None and not run.starts
    if awaited and run.delayed_until is not None and run.delayed_until > now:
        return moved(run, S.DELAYED, now, due_at=run.delayed_until)
    return enqueued(run, now)


def never_deployed(run: Run, now: int) -> Run:
    """A run whose deployment did not come in time."""
    text = f"EXTERNAL_DEPLOYMENT_NOT_FOUND: nobody has deployed {run.external_deployment!r} in time"
    return ended(run, S.EXPIRED, now, string_error(text))


def expired(run: Run, now: int) -> Run:
    return ended(run, S.EXPIRED, now, string_error("Run expired because the TTL was reached"))
