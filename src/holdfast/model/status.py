"""The thirteen statuses of a run and the moves between them. The table is the state machine."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class RunStatus(StrEnum):
    QUEUED = "QUEUED"  # waiting for a worker
    DELAYED = "DELAYED"  # before its delay is over
    WAITING_FOR_DEPLOY = "WAITING_FOR_DEPLOY"  # no registered version has its task
    EXECUTING = "EXECUTING"  # an attempt holds a lease
    REATTEMPTING = "REATTEMPTING"  # between two attempts
    WAITING_TO_RESUME = "WAITING_TO_RESUME"  # suspended; holds no worker and no slot
    COMPLETED_SUCCESSFULLY = "COMPLETED_SUCCESSFULLY"
    COMPLETED_WITH_ERRORS = "COMPLETED_WITH_ERRORS"  # user code failed for the last time
    CANCELLED = "CANCELLED"
    CRASHED = "CRASHED"  # its process died, or its worker was lost too often
    FAILED_TO_RUN = "FAILED_TO_RUN"  # it could not be started
    TIMED_OUT = "TIMED_OUT"  # an attempt took longer than its maximum duration
    EXPIRED = "EXPIRED"  # its ttl passed before it was started


S = RunStatus

MOVES: Mapping[RunStatus, frozenset[RunStatus]] = {
    S.QUEUED: frozenset({S.EXECUTING, S.CANCELLED, S.EXPIRED, S.WAITING_FOR_DEPLOY, S.FAILED_TO_RUN}),
    S.DELAYED: frozenset({S.QUEUED, S.WAITING_FOR_DEPLOY, S.CANCELLED}),
    S.WAITING_FOR_DEPLOY: frozenset({S.QUEUED, S.DELAYED, S.EXPIRED, S.CANCELLED}),
    S.EXECUTING: frozenset(
        {
            S.QUEUED,  # given back without losing an attempt
            S.REATTEMPTING,
            S.WAITING_TO_RESUME,
            S.WAITING_FOR_DEPLOY,  # its journal asks for other code
            S.COMPLETED_SUCCESSFULLY,
            S.COMPLETED_WITH_ERRORS,
            S.CANCELLED,
            S.CRASHED,
            S.FAILED_TO_RUN,
            S.TIMED_OUT,
        }
    ),
    S.REATTEMPTING: frozenset({S.EXECUTING, S.QUEUED, S.CANCELLED}),
    S.WAITING_TO_RESUME: frozenset({S.QUEUED, S.CANCELLED}),
    S.COMPLETED_SUCCESSFULLY: frozenset(),
    S.COMPLETED_WITH_ERRORS: frozenset(),
    S.CANCELLED: frozenset(),
    S.CRASHED: frozenset(),
    S.FAILED_TO_RUN: frozenset(),
    S.TIMED_OUT: frozenset(),
    S.EXPIRED: frozenset(),
}

FINAL = frozenset(status for status, following in MOVES.items() if not following)
ACTIVE = frozenset(RunStatus) - FINAL

# A run in one of these may hold a worker, and while it does, it holds a slot.
HELD = frozenset({S.EXECUTING, S.REATTEMPTING})

# Ended like this, a run gives its idempotency key back (engine rules R81, R82).
FREES_KEY = frozenset({S.COMPLETED_WITH_ERRORS, S.CRASHED, S.FAILED_TO_RUN, S.TIMED_OUT, S.EXPIRED})


class AttemptStatus(StrEnum):
    EXECUTING = "EXECUTING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"  # also: its process died, its worker was lost, its time was over
    CANCELLED = "CANCELLED"  # the run was cancelled, or the attempt was handed back unfinished


ATTEMPT_OF: Mapping[RunStatus, AttemptStatus] = {
    S.EXECUTING: AttemptStatus.EXECUTING,
    S.COMPLETED_SUCCESSFULLY: AttemptStatus.COMPLETED,
    S.COMPLETED_WITH_ERRORS: AttemptStatus.FAILED,
    S.CRASHED: AttemptStatus.FAILED,
    S.FAILED_TO_RUN: AttemptStatus.FAILED,
    S.TIMED_OUT: AttemptStatus.FAILED,
    S.CANCELLED: AttemptStatus.CANCELLED,
}
