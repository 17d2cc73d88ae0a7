"""What becomes of a run: each move by itself, without a store."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.model.error import internal_error, string_error
from holdfast.model.queue import Candidate, Room, choose
from holdfast.model.run import (
    IllegalMove,
    Run,
    after_crash,
    after_failure,
    after_lost_worker,
    after_release,
    cancelled,
    closed,
    deployed,
    enqueued,
    expired,
    moved,
)
from holdfast.model.status import FINAL, MOVES, RunStatus
from holdfast.model.task import QueueSpec

S = RunStatus
ERROR = string_error("boom")
EMPTY: dict[str, Any] = {field.name: None for field in fields(Run)}


def run(status: RunStatus = S.EXECUTING, **values: Any) -> Run:
    """A run that a worker executes for the first time."""
    return Run(
        **EMPTY
        | {"id": "run_1", "environment_id": "dev", "task": "send", "queue": "q", "concurrency_key": ""}
        | {"lease": 2, "attempt": 1, "starts": 1, "losses": 0, "alone": False, "max_attempts": 3, "score": 5}
        | {"priority": 0, "worker_id": "w", "attempt_started_at": 10, "created_at": 0, "updated_at": 10}
        | {"status": status, "tags": "[]", "metadata": "{}", "depth": 0, "is_test": False}
        | values
    )


@pytest.mark.parametrize("status", list(RunStatus))
def test_a_move_that_the_table_does_not_have_is_a_defect(status: RunStatus) -> None:
    for target in RunStatus:
        if target in MOVES[status]:
            assert moved(run(status), target, 20).status is target
        else:
            with pytest.raises(IllegalMove):
                moved(run(status), target, 20)


outcomes = st.sampled_from(
    [
        lambda one: after_failure(one, ERROR, 0, 20)[0],
        lambda one: after_failure(one, ERROR, None, 20)[0],
        lambda one: after_failure(one, ERROR, 60_000, 20)[0],
        lambda one: after_failure(one, internal_error("MAX_DURATION_EXCEEDED", ""), 0, 20)[0],
        lambda one: after_crash(one, ERROR, 100, True, 20)[0],
        lambda one: after_crash(one, ERROR, 100, False, 20)[0],
        lambda one: after_crash(one, ERROR, None, False, 20)[0],
        lambda one: after_lost_worker(one, 20)[0],
        lambda one: after_release(one, 20, True)[0],
        lambda one: after_release(one, 20, False)[0],
    ]
)


@given(
    outcomes,
    st.integers(1, 250),
    st.integers(0, 9),
    st.booleans(),
    st.sampled_from([None, 1, 2, 3, 250]),
)
def test_whatever_ends_an_attempt_the_lease_moves_on_and_the_run_has_one_reason_to_move(
    outcome: Any, attempt: int, losses: int, alone: bool, max_attempts: int | None
) -> None:
    before = run(attempt=attempt, losses=losses, alone=alone, max_attempts=max_attempts)
    after = outcome(before)
    assert after.lease > before.lease
    assert (after.status in FINAL) == (after.finished_at is not None)
    if after.status in FINAL:
        assert (after.worker_id, after.due_at) == (None, None)
    elif after.status is S.QUEUED:
        assert (after.worker_id, after.attempt, after.score) == (None, before.attempt - 1, before.score)
    else:
        assert after.status is S.REATTEMPTING
        assert after.due_at is not None
        assert after.attempt == before.attempt


@pytest.mark.parametrize(("external", "status"), [(None, S.QUEUED), ("build-7", S.DELAYED)])
def test_who_waited_for_its_time_before_its_task_does_not_wait_for_it_again(
    external: str | None, status: RunStatus
) -> None:
    """Also when the clock has stepped back since; who waits for a deployment has its time still before it."""
    parked = run(
        S.WAITING_FOR_DEPLOY,
        worker_id=None,
        starts=0,
        attempt=0,
        delayed_until=1_000,
        external_deployment=external,
    )
    assert deployed(parked, None, 500).status is status
    assert deployed(parked, None, 1_000).status is S.QUEUED


def test_a_cancelled_run_closes_once() -> None:
    closing = cancelled(run(), "why", 20)
    assert (closing.status, closing.finished_at, closing.worker_id) == (S.CANCELLED, None, "w")
    done = closed(closing, 30)
    assert (done.finished_at, done.worker_id, done.due_at, done.lease) == (30, None, None, closing.lease + 1)
    assert cancelled(run(S.QUEUED, worker_id=None), "why", 20).finished_at == 20


def test_the_place_in_the_queue_is_taken_when_it_is_entered() -> None:
    delayed = run(S.DELAYED, worker_id=None, starts=0, priority=2, ttl_ms=50, due_at=20)
    queued = enqueued(delayed, 20_000)
    assert (queued.score, queued.due_at) == (18_000, 20_050)
    assert enqueued(replace(delayed, ttl_ms=None), 20_000).due_at is None
    assert expired(queued, 30_000).status is S.EXPIRED


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from("ab"), st.sampled_from(["", "x", "y"])), max_size=30
    ),
    st.integers(0, 20),
    st.integers(0, 20),
    st.none() | st.integers(0, 5),
    st.none() | st.integers(0, 5),
)
def test_what_is_chosen_fits_under_every_limit_and_nothing_that_fits_is_left(
    found: list[tuple[int, str, str]], slots: int, limit: int, queue_limit: int | None, key_limit: int | None
) -> None:
    candidates = [
        Candidate(score, f"r{index:02}", queue, key) for index, (score, queue, key) in enumerate(found)
    ]
    by_id = {candidate.id: candidate for candidate in candidates}
    room = Room.of(limit, [QueueSpec("a", queue_limit, key_limit)], [])
    chosen = [by_id[run_id] for run_id in choose(candidates, room, slots)]
    assert len(chosen) == len(set(chosen)) <= min(slots, limit)
    assert chosen == sorted(chosen, key=lambda one: (one.score, one.id))
    own = [one for one in chosen if one.queue == "a"]
    assert queue_limit is None or len(own) <= queue_limit
    for key in "xy":
        assert key_limit is None or sum(one.concurrency_key == key for one in own) <= key_limit
    if len(chosen) < slots:
        left = set(candidates) - set(chosen)
        assert all(room.free(one.queue, one.concurrency_key) == 0 for one in left)
