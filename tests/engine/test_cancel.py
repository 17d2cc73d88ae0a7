"""A cancel is obeyed (invariant I9)."""

from __future__ import annotations

import asyncio
import json

import pytest

from engine.world import LEASE_MS, World
from holdfast.engine import Engine, NewRun
from holdfast.errors import Fenced, RunNotFound
from holdfast.model.run import Run


def test_a_waiting_run_is_cancelled_at_once(world: World) -> None:
    world.worker("send")
    for run_id in (world.trigger(), world.trigger(delay="1h"), world.trigger("nobody")):
        run = world.cancel(run_id)
        assert (run.status, run.finished_at) == ("CANCELLED", world.clock.now)
        assert json.loads(run.error or "")["code"] == "TASK_RUN_CANCELLED"
        assert world.attempts(run_id) == []
    world.after(7_200_000)
    assert world.claim(world.worker("send")) == []


def test_a_running_run_is_cancelled_and_closing_until_its_worker_says_that_it_stopped(world: World) -> None:
    worker = world.worker("send")
    run_id = world.trigger()
    world.claim(worker)
    run = world.cancel(run_id)
    assert (run.status, run.finished_at, run.worker_id) == ("CANCELLED", None, worker)
    assert f"worker:{worker}" in world.wakes
    assert world.to_stop(worker) == [run_id]
    world.clock.advance(500)
    assert world.report(worker, run, "closed").status == "ok"
    assert world.run(run_id).finished_at == world.clock.now
    assert (world.to_stop(worker), world.attempts(run_id)) == ([], [(1, "CANCELLED")])


def test_whatever_the_attempt_still_reports_a_cancelled_run_stays_cancelled(world: World) -> None:
    worker = world.worker("send")
    run_id = world.trigger()
    run = world.claim_one(worker)
    world.cancel(run_id)
    assert world.succeed(worker, run).status == "fenced"
    assert world.fail(worker, run, 0).status == "fenced"
    closing = world.run(run_id)
    assert world.succeed(worker, closing).status == "fenced"
    assert world.fail(worker, closing, 0).status == "fenced"
    assert (world.status(run_id), world.run(run_id).output) == ("CANCELLED", None)


def test_a_cancelled_run_counts_as_closed_when_its_worker_does_not_answer(world: World) -> None:
    worker = world.worker("send")
    silent, dead = world.trigger(), world.trigger()
    world.claim(worker)
    world.cancel(silent)
    world.after(9_999, worker)
    assert world.run(silent).finished_at is None
    world.after(1, worker)
    assert world.run(silent).finished_at == world.clock.now
    world.cancel(dead)
    world.clock.advance(1)
    world.leave(worker)
    assert world.run(dead).finished_at == world.clock.now


def test_a_closing_run_holds_no_slot(world: World) -> None:
    worker = world.worker("send")
    world.read(lambda tx: tx.do("set_environment", id="dev", concurrency_limit=1, paused=0))
    first, second = world.trigger(), world.trigger()
    world.claim(worker)
    world.cancel(first)
    assert [run.id for run in world.claim(worker)] == [second]


def test_descendants_are_cancelled_too_also_below_a_run_that_ended(world: World) -> None:
    worker = world.worker("send")
    root = world.trigger()
    child = world.trigger(parent_id=root)
    done = world.trigger(parent_id=root)
    grandchild, delayed = world.trigger(parent_id=done), world.trigger(parent_id=child, delay="1h")
    other = world.trigger()
    for run in world.claim(worker, 3):
        if run.id == done:
            world.succeed(worker, run)
    world.cancel(root)
    assert {world.status(run) for run in (root, child, grandchild, delayed)} == {"CANCELLED"}
    assert (world.status(done), world.status(other)) == ("COMPLETED_SUCCESSFULLY", "QUEUED")
    assert set(world.to_stop(worker)) == {root, child}


def test_a_cancelled_child_leaves_its_parent_running(world: World) -> None:
    worker = world.worker("send")
    parent = world.trigger()
    world.claim(worker)
    world.cancel(world.trigger(parent_id=parent))
    assert world.status(parent) == "EXECUTING"


def test_cancelling_a_run_that_ended_changes_nothing(world: World) -> None:
    worker = world.worker("send")
    run_id = world.trigger()
    world.succeed(worker, world.claim_one(worker))
    before = world.run(run_id)
    assert world.cancel(run_id) == before == world.run(run_id)
    waiting = world.trigger()
    assert world.cancel(waiting) == world.cancel(waiting)
    with pytest.raises(RunNotFound):
        world.cancel("run_unknown")


def test_a_run_between_two_attempts_is_cancelled(world: World) -> None:
    worker = world.worker("send")
    near, far = world.trigger(), world.trigger()
    runs = {run.id: run for run in world.claim(worker)}
    world.fail(worker, runs[near], 1_000)
    world.fail(worker, runs[far], 60_000)
    waiting = world.run(near)
    assert world.cancel(near).finished_at is None
    assert world.cancel(far).finished_at == world.clock.now
    assert world.report(worker, waiting, "started").status == "fenced"
    world.after(LEASE_MS + 1)
    assert world.run(near).finished_at is not None


def test_no_child_of_a_running_attempt_survives_the_cancel_of_its_family(world: World) -> None:
    engine = Engine(world.store)
    worker = world.worker("send")

    async def race(root: str, parent: Run) -> list[str]:
        item = NewRun(environment_id="dev", task="send", parent_id=parent.id, parent_lease=parent.lease)
        calls = [engine.trigger([item]) for _ in range(6)]
        before, after = calls[:3], calls[3:]
        *answers, _ = await asyncio.gather(*before, engine.cancel("dev", root), *after, asyncio.sleep(0))
        made = [answer for answer in answers if isinstance(answer, list)]
        return [answer.id for [answer] in made if not isinstance(answer, Fenced)]

    for _ in range(20):
        root = world.trigger(delay="1h")
        world.trigger(parent_id=root)
        parent = world.claim_one(worker)
        children = asyncio.run(race(root, parent))
        assert {world.status(run_id) for run_id in (root, parent.id, *children)} == {"CANCELLED"}
