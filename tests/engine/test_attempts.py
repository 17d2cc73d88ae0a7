"""How attempts end, and what follows: retries, crashes, lost workers, workers that leave."""

from __future__ import annotations

import json

import pytest

from engine.world import BUG, LEASE_MS, World, task
from holdfast.errors import WorkerNotFound
from holdfast.model.retry import RetryPolicy

SEGFAULT = {"type": "INTERNAL_ERROR", "code": "TASK_PROCESS_SIGSEGV", "message": "died"}


def crash(world: World, worker: str, run: object, shared: bool) -> str:
    return world.report(worker, run, "crashed", error=SEGFAULT, shared=shared).status  # type: ignore[arg-type]  # a Run


def test_a_success_ends_the_run_with_its_output(world: World) -> None:
    worker = world.worker("send")
    run_id = world.trigger()
    run = world.claim_one(worker)
    world.clock.advance(5)
    assert world.succeed(worker, run, '{"a":1}').status == "ok"
    after = world.run(run_id)
    assert (after.status, after.output, after.finished_at) == (
        "COMPLETED_SUCCESSFULLY",
        '{"a":1}',
        world.clock.now,
    )
    assert (after.worker_id, after.error, world.attempts(run_id)) == (None, None, [(1, "COMPLETED")])
    assert {f"run:{run_id}", "room:dev"} <= world.wakes


def test_a_report_that_comes_twice_changes_nothing(world: World) -> None:
    worker = world.worker("send")
    run_id = world.trigger()
    run = world.claim_one(worker)
    world.succeed(worker, run, "1")
    after = world.run(run_id)
    assert world.succeed(worker, run, "2").status == "fenced"
    assert world.fail(worker, run, 0).status == "fenced"
    assert world.run(run_id) == after


def test_only_the_worker_that_holds_a_run_can_report_on_it(world: World) -> None:
    worker, other = world.worker("send"), world.worker("send")
    world.trigger()
    run = world.claim_one(worker)
    assert world.succeed(other, run).status == "fenced"
    assert world.fail(other, run, 0).status == "fenced"
    assert world.succeed(worker, run).status == "ok"


def test_an_output_over_its_limit_is_refused_and_can_be_reported_otherwise(world: World) -> None:
    worker = world.worker("send")
    run_id = world.trigger()
    run = world.claim_one(worker)
    answer = world.succeed(worker, run, json.dumps("x" * (10 * 1024 * 1024)))
    assert (answer.status, world.status(run_id)) == ("refused", "EXECUTING")
    assert world.fail(worker, run, None).status == "ok"


def test_a_short_retry_stays_with_its_worker(world: World) -> None:
    worker = world.worker("send")
    run_id = world.trigger()
    run = world.claim_one(worker)
    answer = world.fail(worker, run, 2_000)
    assert (answer.status, answer.attempt, answer.delay_ms) == ("retry", 2, 2_000)
    assert (world.status(run_id), world.run(run_id).worker_id) == ("REATTEMPTING", worker)
    assert world.fail(worker, run, 2_000) == answer  # the first answer may have been lost
    world.after(2_000, worker)
    assert (world.status(run_id), world.claim(worker)) == ("REATTEMPTING", [])
    waiting = world.run(run_id)
    started = world.report(worker, waiting, "started")
    assert (started.status, started.attempt) == ("started", 2)
    assert world.report(worker, waiting, "started") == started
    again = world.run(run_id)
    assert (again.status, again.lease) == ("EXECUTING", started.lease)
    assert world.succeed(worker, run).status == "fenced"
    assert world.succeed(worker, again).status == "ok"
    assert world.attempts(run_id) == [(1, "FAILED"), (2, "COMPLETED")]


def test_a_long_retry_goes_through_the_queue_and_frees_the_slot(world: World) -> None:
    worker = world.worker("send")
    first = world.trigger()
    run = world.claim_one(worker)
    assert world.fail(worker, run, 30_000).status == "ok"
    world.clock.advance(1)
    later = world.trigger()
    assert (world.status(first), world.run(first).worker_id) == ("REATTEMPTING", None)
    assert [run.id for run in world.claim(worker)] == [later]
    world.after(29_998, worker)
    assert world.status(first) == "REATTEMPTING"
    world.after(1, worker)
    world.trigger()
    assert [run.id for run in world.claim(worker, 1)] == [first]  # at its old place
    assert world.run(first).attempt == 2


def test_a_failure_without_a_further_attempt_ends_the_run(world: World) -> None:
    worker = world.worker("send")
    run_id = world.trigger(max_attempts=2)
    world.fail(worker, world.claim_one(worker), 0)
    world.report(worker, world.run(run_id), "started")
    world.fail(worker, world.run(run_id), 0)
    run = world.run(run_id)
    assert (run.status, json.loads(run.error or "")["message"]) == ("COMPLETED_WITH_ERRORS", "boom")
    assert world.attempts(run_id) == [(1, "FAILED"), (2, "FAILED")]


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("MAX_DURATION_EXCEEDED", "TIMED_OUT"),
        ("TASK_INPUT_ERROR", "COMPLETED_WITH_ERRORS"),
        ("COULD_NOT_FIND_TASK", "FAILED_TO_RUN"),
        ("TASK_PROCESS_OOM_KILLED", "CRASHED"),
    ],
)
def test_errors_that_no_attempt_can_mend_end_the_run_at_once(world: World, code: str, status: str) -> None:
    worker = world.worker("send")
    run_id = world.trigger()
    error = {"type": "INTERNAL_ERROR", "code": code, "message": ""}
    world.fail(worker, world.claim_one(worker), 0, error)
    assert (world.status(run_id), world.attempts(run_id)) == (status, [(1, "FAILED")])


def test_an_error_is_kept_only_as_far_as_its_limits(world: World) -> None:
    worker = world.worker("send")
    run_id = world.trigger()
    world.fail(worker, world.claim_one(worker), None, {**BUG, "message": "a\x00" * 20_000})
    error = json.loads(world.run(run_id).error or "")
    assert error["message"] == "a" * 16_384


def test_a_run_that_shared_its_dead_process_loses_no_attempt_and_runs_alone(world: World) -> None:
    worker = world.worker("send")
    run_id = world.trigger()
    assert crash(world, worker, world.claim_one(worker), shared=True) == "ok"
    assert (world.status(run_id), world.run(run_id).alone, world.run(run_id).attempt) == ("QUEUED", True, 0)
    run = world.claim_one(worker)
    assert run.attempt == 1
    crash(world, worker, run, shared=False)
    assert world.status(run_id) == "CRASHED"
    assert world.attempts(run_id) == [(1, "CANCELLED"), (1, "FAILED")]


def test_a_process_that_dies_with_one_run_costs_it_an_attempt_once(world: World) -> None:
    worker = world.worker(task("send", retry=RetryPolicy(3, 2.0, 1_000, 60_000, jitter=False)))
    run_id = world.trigger()
    crash(world, worker, world.claim_one(worker), shared=False)
    run = world.run(run_id)
    assert (run.status, run.alone, run.due_at) == ("REATTEMPTING", True, world.clock.now + 1_000)
    world.after(1_000, worker)
    run = world.claim_one(worker)
    assert run.attempt == 2
    crash(world, worker, run, shared=False)
    assert world.status(run_id) == "CRASHED"


def test_a_crash_after_the_last_attempt_ends_the_run(world: World) -> None:
    worker = world.worker("send")
    run_id = world.trigger(max_attempts=1)
    crash(world, worker, world.claim_one(worker), shared=False)
    assert world.status(run_id) == "CRASHED"


def test_runs_of_a_silent_worker_return_to_their_place_without_losing_an_attempt(world: World) -> None:
    worker = world.worker("send")
    run_id = world.trigger()
    run = world.claim_one(worker)
    world.after(LEASE_MS)
    assert world.status(run_id) == "EXECUTING"
    world.after(1)
    assert (world.status(run_id), world.run(run_id).attempt, world.run(run_id).losses) == ("QUEUED", 0, 1)
    assert world.run(run_id).score == run.score
    with pytest.raises(WorkerNotFound):
        world.renew(worker)
    assert world.succeed(worker, run).status == "fenced"
    other = world.worker("send")
    assert world.claim_one(other).attempt == 1
    assert world.succeed(worker, run).status == "fenced"
    assert world.attempts(run_id) == [(1, "CANCELLED"), (1, "EXECUTING")]


def test_a_worker_that_renews_is_not_lost(world: World) -> None:
    worker = world.worker("send")
    run_id = world.trigger()
    world.claim(worker)
    for _ in range(5):
        world.after(LEASE_MS, worker)
    assert world.status(run_id) == "EXECUTING"


def test_workers_are_not_lost_while_nobody_could_renew(world: World) -> None:
    worker = world.worker("send")
    run_id = world.trigger()
    world.claim(worker)
    world.clock.advance(10 * LEASE_MS)
    world.upkeep(lose_workers=False)
    assert world.status(run_id) == "EXECUTING"
    world.renew(worker)
    world.upkeep()
    assert world.status(run_id) == "EXECUTING"


def test_ten_losses_in_a_row_end_a_run(world: World) -> None:
    run_id = world.trigger()
    for losses in range(1, 11):
        worker = world.worker("send")
        world.claim_one(worker)
        world.after(LEASE_MS + 1)
        assert world.run(run_id).losses == losses % 10 or world.status(run_id) == "CRASHED"
    assert world.status(run_id) == "CRASHED"
    assert "10 times in a row" in json.loads(world.run(run_id).error or "")["message"]


def test_a_failure_between_them_begins_the_count_of_losses_anew(world: World) -> None:
    run_id = world.trigger()
    for _ in range(9):
        worker = world.worker("send")
        world.claim_one(worker)
        world.after(LEASE_MS + 1)
    worker = world.worker("send")
    world.fail(worker, world.claim_one(worker), 30_000)
    assert world.run(run_id).losses == 0


def test_a_run_with_a_single_attempt_is_lost_with_its_worker(world: World) -> None:
    worker = world.worker("send")
    run_id = world.trigger(max_attempts=1)
    world.claim(worker)
    world.after(LEASE_MS + 1)
    assert world.status(run_id) == "CRASHED"
    assert "lost" in json.loads(world.run(run_id).error or "")["message"]


def test_a_worker_that_leaves_gives_its_runs_back(world: World) -> None:
    worker = world.worker("send")
    run_id = world.trigger()
    world.claim(worker)
    world.leave(worker)
    run = world.run(run_id)
    assert (run.status, run.attempt, run.losses, run.worker_id) == ("QUEUED", 0, 0, None)
    with pytest.raises(WorkerNotFound):
        world.leave(worker)


def test_a_run_that_was_not_begun_is_released_even_with_a_single_attempt(world: World) -> None:
    worker = world.worker("send")
    first, second = world.trigger(max_attempts=1), world.trigger(max_attempts=1)
    runs = {run.id: run for run in world.claim(worker)}
    world.report(worker, runs[first], "released", started=False)
    world.report(worker, runs[second], "released", started=True)
    assert (world.status(first), world.status(second)) == ("QUEUED", "CRASHED")
    assert world.attempts(first) == []


def test_a_retry_is_never_early_when_its_worker_is_lost(world: World) -> None:
    worker = world.worker("send")
    run_id = world.trigger()
    world.fail(worker, world.claim_one(worker), 29_000)
    world.after(LEASE_MS + 1)
    assert (world.status(run_id), world.run(run_id).worker_id) == ("REATTEMPTING", None)
    other = world.worker("send")
    world.after(29_000 - LEASE_MS - 2, other)
    assert world.claim(other) == []
    world.after(1, other)
    assert world.claim_one(other).attempt == 2


def test_a_worker_that_replaces_a_dead_one_takes_its_runs_back_at_once(world: World) -> None:
    worker = world.worker("send")
    run_id = world.trigger()
    world.claim(worker)
    other = world.worker("send", replaces=worker)
    assert world.status(run_id) == "QUEUED"
    assert [run.id for run in world.claim(other)] == [run_id]
    with pytest.raises(WorkerNotFound):
        world.renew(worker)


def test_a_run_may_have_250_attempts_and_no_more(world: World) -> None:
    worker = world.worker(task("send", retry=RetryPolicy(max_attempts=10_000)))
    run_id = world.trigger()
    run = world.claim_one(worker)
    for _ in range(249):
        world.fail(worker, run, 0)
        world.report(worker, world.run(run_id), "started")
        run = world.run(run_id)
    assert run.attempt == 250
    world.fail(worker, run, 0)
    assert world.status(run_id) == "CRASHED"
    assert len(world.attempts(run_id)) == 250
