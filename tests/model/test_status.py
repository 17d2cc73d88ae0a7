"""The table of moves."""

from __future__ import annotations

from collections import deque

import pytest

from holdfast.model.error import NEVER_RETRIED, internal_error, may_be_retried, status_of, string_error
from holdfast.model.status import ACTIVE, ATTEMPT_OF, FINAL, FREES_KEY, HELD, MOVES, RunStatus

S = RunStatus


def test_nothing_leaves_a_final_status() -> None:
    assert {
        S.COMPLETED_SUCCESSFULLY,
        S.COMPLETED_WITH_ERRORS,
        S.CANCELLED,
        S.CRASHED,
        S.FAILED_TO_RUN,
        S.TIMED_OUT,
        S.EXPIRED,
    } == FINAL
    assert all(not MOVES[status] for status in FINAL)


def test_every_status_has_its_moves_and_is_reached_from_a_beginning() -> None:
    assert set(MOVES) == set(RunStatus)
    reached, waiting = set(), deque([S.QUEUED, S.DELAYED, S.WAITING_FOR_DEPLOY])
    while waiting:
        status = waiting.popleft()
        if status not in reached:
            reached.add(status)
            waiting.extend(MOVES[status])
    assert reached == set(RunStatus)


@pytest.mark.parametrize("status", sorted(ACTIVE))
def test_every_active_run_can_be_cancelled_and_can_end(status: RunStatus) -> None:
    assert S.CANCELLED in MOVES[status]
    assert status not in MOVES[status]


def test_only_runs_in_a_worker_hold_a_slot() -> None:
    assert {S.EXECUTING, S.REATTEMPTING} == HELD
    assert all(S.EXECUTING in MOVES[status] or status is S.EXECUTING for status in HELD)


def test_a_key_is_freed_by_failures_only() -> None:
    assert FREES_KEY < FINAL
    assert {S.COMPLETED_SUCCESSFULLY, S.CANCELLED} == FINAL - FREES_KEY


def test_every_status_with_an_attempt_says_how_it_stands() -> None:
    assert FINAL - {S.EXPIRED} | {S.EXECUTING} == set(ATTEMPT_OF)


@pytest.mark.parametrize(
    ("error", "status", "again"),
    [
        (string_error("x"), S.COMPLETED_WITH_ERRORS, True),
        ({"type": "BUILT_IN_ERROR", "name": "ValueError"}, S.COMPLETED_WITH_ERRORS, True),
        (internal_error("TASK_INPUT_ERROR", ""), S.COMPLETED_WITH_ERRORS, False),
        (internal_error("MAX_DURATION_EXCEEDED", ""), S.TIMED_OUT, False),
        (internal_error("TASK_PROCESS_SIGSEGV", ""), S.CRASHED, True),
        (internal_error("COULD_NOT_FIND_TASK", ""), S.FAILED_TO_RUN, False),
        (internal_error("A_CODE_OF_TOMORROW", ""), S.FAILED_TO_RUN, True),
    ],
)
def test_an_error_decides_the_status_and_whether_to_try_again(
    error: dict[str, str], status: RunStatus, again: bool
) -> None:
    assert (status_of(error), may_be_retried(error)) == (status, again)


def test_codes_that_are_never_retried_have_a_final_status() -> None:
    assert {status_of(internal_error(code, "")) for code in NEVER_RETRIED} <= FINAL
