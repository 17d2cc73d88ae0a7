"""Suspended runs hold nothing, and go on when what they wait for has ended (invariant I7)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from engine.world import LEASE_MS, World, end_of, step, task, until
from holdfast.engine import wait
from holdfast.engine.finish import report
from holdfast.engine.reporting import Reported
from holdfast.engine.trigger import NewRun, trigger
from holdfast.engine.upkeep import Due, Retention, retain, upkeep
from holdfast.model.run import Run
from holdfast.model.task import QueueSpec

CRASH = {"type": "INTERNAL_ERROR", "code": "TASK_PROCESS_SIGSEGV", "message": "no"}


def parent(world: World, worker: str, *tasks: str, **options: Any) -> tuple[Run, list[str]]:
    """A running parent and the ids of its children."""
    world.trigger()
    run = world.claim_one(worker)
    return run, [one["id"] for one in world.spawn(worker, run, *tasks, **options)]


def test_a_suspended_run_holds_no_worker_and_no_slot_and_keeps_its_attempt(world: World) -> None:
    worker = world.worker(task("send", queue="q"), queues=[QueueSpec("q", 1)])
    run_id = world.trigger()
    run = world.claim_one(worker)
    other = world.trigger()
    assert world.claim(worker) == []
    world.clock.advance(500)
    assert world.suspend(worker, run, until(world.clock.now + 60_000), active_ms=400).status == "ok"
    waiting = world.run(run_id)
    assert (waiting.status, waiting.worker_id, waiting.suspended, waiting.active_ms) == (
        "WAITING_TO_RESUME",
        None,
        True,
        400,
    )
    assert waiting.lease > run.lease
    assert world.attempts(run_id) == [(1, "EXECUTING")]
    assert [one.id for one in world.claim(worker)] == [other]


def test_a_resumed_run_goes_on_with_its_attempt_at_its_old_place(world: World) -> None:
    worker = world.worker()
    run_id = world.trigger()
    run = world.claim_one(worker)
    world.record(worker, run, step("a"))
    world.suspend(worker, run, until(world.clock.now + 60_000), active_ms=400)
    later = world.trigger()
    world.after(59_999, worker)
    assert world.status(run_id) == "WAITING_TO_RESUME"
    world.after(1, worker)
    assert (world.status(run_id), world.waits()) == ("QUEUED", [])
    assert world.attempts(run_id) == [(1, "EXECUTING")]
    claimed = world.claimed(worker)
    assert [one.id for one in claimed.runs] == [run_id, later]
    again = claimed.runs[0]
    assert (again.attempt, again.starts, again.resumes, again.suspended, again.active_ms) == (
        1,
        1,
        1,
        False,
        400,
    )
    assert (again.started_at, again.attempt_started_at) == (run.started_at, run.attempt_started_at)
    assert again.lease > run.lease
    assert [entry["name"] for entry in claimed.journals[run_id]] == ["a"]
    assert world.record(worker, run, step("late")).status == "fenced"
    world.succeed(worker, again)
    assert world.attempts(run_id) == [(1, "COMPLETED")]


def test_another_worker_and_version_may_resume(world: World) -> None:
    old = world.worker(fingerprint="old")
    run_id = world.trigger()
    run = world.claim_one(old)
    world.suspend(old, run, until(world.clock.now + 60_000))
    world.leave(old)
    new = world.worker(fingerprint="new")
    world.after(60_000, new)
    again = world.claim_one(new)
    assert (again.id, again.worker_id, again.attempt) == (run_id, new, 1)
    assert again.version != run.version


def test_a_suspension_that_is_reported_again_is_fenced_and_changes_nothing(world: World) -> None:
    worker = world.worker()
    world.trigger()
    run = world.claim_one(worker)
    world.suspend(worker, run, until(world.clock.now + 60_000))
    before = (world.run(run.id), world.waits())
    assert world.suspend(worker, run, until(world.clock.now + 1)).status == "fenced"
    assert (world.run(run.id), world.waits()) == before
    for kind, said in (
        ("succeeded", {"output": "1"}),
        ("failed", {"error": CRASH, "retryDelayMs": None}),
        ("crashed", {"error": CRASH, "shared": False}),
        ("released", {"started": True}),
    ):
        assert world.report(worker, run, kind, **said).status == "fenced"
    assert world.run(run.id) == before[0]


ENDS: dict[str, Callable[[World, str, str], None]] = {
    "COMPLETED_SUCCESSFULLY": lambda world, worker, _: ok(world.succeed(worker, world.claim_one(worker))),
    "COMPLETED_WITH_ERRORS": lambda world, worker, _: ok(world.fail(worker, world.claim_one(worker), None)),
    "TIMED_OUT": lambda world, worker, _: ok(
        world.fail(
            worker,
            world.claim_one(worker),
            None,
            {"type": "INTERNAL_ERROR", "code": "MAX_DURATION_EXCEEDED", "message": "no"},
        )
    ),
    "CRASHED": lambda world, worker, _: crash(world, worker),
    "CANCELLED": lambda world, _, child: cancel(world, child),
    "EXPIRED": lambda world, worker, _: world.after(60_000, worker),
    "lost": lambda world, _, child: lose(world),
    "released": lambda world, _, child: let_go(world),
}


def ok(answer: Any) -> None:
    assert answer.status == "ok"


def crash(world: World, worker: str) -> None:
    for _ in range(2):
        run = world.claim_one(worker)
        world.report(worker, run, "crashed", error=CRASH, shared=False)
        world.after(120_000, worker)


def cancel(world: World, child: str) -> None:
    world.cancel(child)


def lose(world: World) -> None:
    other = world.worker("child")
    world.claim_one(other)
    world.after(LEASE_MS + 1)


def let_go(world: World) -> None:
    other = world.worker("child")
    world.claim_one(other)
    world.leave(other)


@pytest.mark.parametrize("wake", ["any", "failure", "last"])
@pytest.mark.parametrize("end", ENDS)
def test_the_end_of_a_child_resumes_its_parent_in_the_same_transaction(
    world: World, end: str, wake: str
) -> None:
    once = end in ("lost", "released")
    worker = world.worker("send", "child")
    options: dict[str, Any] = {"ttl": "60s"} if end == "EXPIRED" else {}
    run, [child] = parent(world, worker, "child", **options, max_attempts=1 if once else None)
    world.suspend(worker, run, end_of(child, wake))
    assert world.waits() == [(run.id, child, wake)]
    before = world.run(run.id)
    world.wakes.clear()
    ENDS[end](world, worker, child)
    assert world.status(child) == ("CRASHED" if once else end)
    assert (world.status(run.id), world.waits()) == ("QUEUED", [])
    assert (world.run(run.id).score, world.run(run.id).lease) == (before.score, before.lease + 1)
    assert {"front:dev", "ready:dev"} <= world.wakes


def test_a_cancelled_child_that_is_still_closing_has_ended(world: World) -> None:
    worker = world.worker("send", "child")
    run, [child] = parent(world, worker, "child")
    world.suspend(worker, run, end_of(child))
    world.claim_one(worker)
    world.cancel(child)
    assert (world.run(child).finished_at, world.status(run.id)) == (None, "QUEUED")


def test_a_retry_of_a_child_is_no_end(world: World) -> None:
    worker = world.worker("send", "child")
    run, [child] = parent(world, worker, "child")
    world.suspend(worker, run, end_of(child))
    assert world.fail(worker, world.claim_one(worker), 1_000).status == "retry"
    assert world.status(run.id) == "WAITING_TO_RESUME"


def test_what_ended_before_the_wait_began_resumes_at_once(world: World) -> None:
    worker = world.worker("send", "child")
    run, [child] = parent(world, worker, "child")
    world.succeed(worker, world.claim_one(worker))
    assert world.suspend(worker, run, end_of(child, "last")).status == "ok"
    resumed = world.run(run.id)
    assert (resumed.status, resumed.suspended, resumed.worker_id) == ("QUEUED", True, None)
    assert world.waits() == []
    assert world.claim_one(worker).resumes == 1


def test_what_ends_in_the_call_that_begins_the_wait_resumes_at_once(world: World) -> None:
    worker = world.worker("send", "child")
    run, [child] = parent(world, worker, "child")
    held = world.claim_one(worker)
    said = [
        {"kind": "suspended", "run": run.id, "lease": run.lease, "activeMs": 0, "waits": [end_of(child)]},
        {"kind": "succeeded", "run": child, "lease": held.lease, "output": "1"},
    ]
    answers = world.store.transact(report, [Reported(worker, "dev", one) for one in said])
    assert [answer.status for answer in answers] == ["ok", "ok"]
    assert (world.status(run.id), world.waits()) == ("QUEUED", [])


@pytest.mark.parametrize("target", ["run_unknown", "waitpoint_unknown", "other environment", "other token"])
def test_what_does_not_exist_here_is_not_waited_for(world: World, target: str) -> None:
    worker = world.worker()
    if target == "other environment":
        target = world.trigger("send", "prod")
    elif target == "other token":
        target = world.token("prod").id
    world.trigger()
    run = world.claim_one(worker)
    world.suspend(worker, run, end_of(target, "failure"), until(world.clock.now + 9_000, "last"))
    assert world.status(run.id) == "QUEUED"


def test_a_time_in_the_past_resumes_at_once(world: World) -> None:
    worker = world.worker()
    world.trigger()
    run = world.claim_one(worker)
    world.suspend(worker, run, until(world.clock.now - 1))
    assert world.status(run.id) == "QUEUED"


def test_any_end_resumes_and_the_other_waits_are_forgotten(world: World) -> None:
    worker = world.worker("send", "child")
    run, children = parent(world, worker, "child", "child", "child")
    world.suspend(worker, run, *(end_of(child) for child in children), until(world.clock.now + 60_000))
    world.succeed(worker, world.claim_one(worker))
    assert (world.status(run.id), world.waits()) == ("QUEUED", [])
    again = world.claim_one(worker)
    assert again.id == run.id
    for child in world.claim(worker):
        world.succeed(worker, child)
    world.after(60_000, worker)
    assert world.run(run.id) == again


def test_only_the_last_end_resumes_who_waits_for_all(world: World) -> None:
    worker = world.worker("send", "child")
    run, children = parent(world, worker, *["child"] * 4)
    world.suspend(worker, run, *(end_of(child, "last") for child in children))
    held = world.claim(worker)
    for child in held[:-1]:
        world.fail(worker, child, None)
        assert world.status(run.id) == "WAITING_TO_RESUME"
    world.succeed(worker, held[-1])
    assert world.status(run.id) == "QUEUED"


def test_a_failure_resumes_who_waits_for_one_or_for_all(world: World) -> None:
    worker = world.worker("send", "child")
    for failing in (True, False):
        run, children = parent(world, worker, *["child"] * 3)
        world.suspend(worker, run, *(end_of(child, "failure") for child in children))
        first, second, third = world.claim(worker)
        world.succeed(worker, first)
        assert world.status(run.id) == "WAITING_TO_RESUME"
        if failing:
            world.fail(worker, second, None)
        else:
            world.succeed(worker, second)
            world.succeed(worker, third)
        assert (world.status(run.id), world.waits()) == ("QUEUED", [])
        world.succeed(worker, world.claim_one(worker))
        if failing:
            world.succeed(worker, third)


def test_all_that_end_in_one_call_are_the_last(world: World) -> None:
    worker = world.worker("send", "child")
    run, children = parent(world, worker, *["child"] * 5)
    world.suspend(worker, run, *(end_of(child, "last") for child in children))
    said = [
        {"kind": "succeeded", "run": child.id, "lease": child.lease, "output": None}
        for child in world.claim(worker)
    ]
    world.store.transact(report, [Reported(worker, "dev", one) for one in said])
    assert world.status(run.id) == "QUEUED"


def test_branches_that_wait_for_all_of_theirs_do_not_wait_for_one_another(world: World) -> None:
    worker = world.worker("send", "child")
    run, [first, second] = parent(world, worker, "child", "child")
    token = world.token().id
    waits = [
        end_of(first, "last", group=0),
        end_of(second, "last", group=1),
        end_of(token, "last", group=1),
        end_of(first, "last", group=1),
    ]
    world.suspend(worker, run, *waits)
    held = {one.id: one for one in world.claim(worker)}
    world.succeed(worker, held[second])
    assert world.status(run.id) == "WAITING_TO_RESUME"
    world.succeed(worker, held[first])
    assert world.status(run.id) == "QUEUED"


def test_a_run_may_be_awaited_twice_at_once(world: World) -> None:
    """One idempotency key in two places of a batch: both are the same run (engine rule R60)."""
    worker = world.worker("send", "child")
    world.trigger()
    run = world.claim_one(worker)
    first, second = world.spawn(worker, run, "child", "child", idempotency_key="k")
    assert second == {"id": first["id"], "isCached": True}
    world.suspend(worker, run, end_of(first["id"], "last"), end_of(second["id"], "last"))
    assert len(world.waits()) == 1
    world.succeed(worker, world.claim_one(worker))
    assert world.status(run.id) == "QUEUED"


def test_a_batch_of_runs_that_are_cached_and_have_ended_resumes_at_once(world: World) -> None:
    worker = world.worker("send", "child")
    ended = [world.trigger("child", idempotency_key=f"k{number}") for number in range(3)]
    for child in world.claim(worker):
        world.succeed(worker, child)
    world.trigger()
    run = world.claim_one(worker)
    told = [world.spawn(worker, run, "child", idempotency_key=f"k{number}")[0] for number in range(3)]
    assert told == [{"id": id, "isCached": True} for id in ended]
    world.suspend(worker, run, *(end_of(id, "last") for id in ended))
    assert world.status(run.id) == "QUEUED"


def test_two_parents_wait_for_one_run(world: World) -> None:
    worker = world.worker("send", "child")
    shared = world.trigger("child", delay=60)
    for _ in range(2):
        world.trigger()
    runs = world.claim(worker)
    for run in runs:
        assert world.spawn(worker, run, "child", delay=60)
        world.suspend(worker, run, end_of(shared))
    world.cancel(shared)
    assert [world.status(run.id) for run in runs] == ["QUEUED", "QUEUED"]


def test_a_parent_waits_for_a_child_in_its_own_queue_of_one(world: World) -> None:
    """Engine semantics, seed 3: no deadlock, since waiting holds no slot."""
    own = {"queue": "q"}
    worker = world.worker(task("send", **own), task("child", **own), queues=[QueueSpec("q", 1)])
    run, [child] = parent(world, worker, "child")
    assert world.claim(worker) == []
    world.suspend(worker, run, end_of(child))
    world.succeed(worker, world.claim_one(worker), '"done"')
    world.succeed(worker, world.claim_one(worker))
    assert world.status(run.id) == "COMPLETED_SUCCESSFULLY"


def test_a_child_that_expires_resumes_its_parent_without_an_attempt(world: World) -> None:
    """Engine semantics, seed 1."""
    worker = world.worker("send")
    world.register("child")
    run, [child] = parent(world, worker, "child", ttl="1s")
    world.suspend(worker, run, end_of(child))
    world.after(1_000, worker)
    assert (world.status(child), world.attempts(child), world.status(run.id)) == ("EXPIRED", [], "QUEUED")


def test_a_cancelled_parent_takes_its_family_along_and_leaves_no_waits(world: World) -> None:
    """Engine semantics, seed 7: the fire-and-forget ones, too."""
    worker = world.worker("send", "child", "grandchild")
    run, [child, forgotten] = parent(world, worker, "child", "child")
    held = {one.id: one for one in world.claim(worker)}
    [grandchild] = world.spawn(worker, held[child], "grandchild")
    world.suspend(worker, held[child], end_of(grandchild["id"]))
    world.suspend(worker, run, end_of(child))
    cancelled = world.cancel(run.id)
    assert (cancelled.status, cancelled.finished_at, cancelled.suspended) == (
        "CANCELLED",
        world.clock.now,
        False,
    )
    assert world.attempts(run.id) == [(1, "CANCELLED")]
    family = [run.id, child, forgotten, grandchild["id"]]
    assert [world.status(one) for one in family] == ["CANCELLED"] * 4
    assert world.waits() == []
    assert world.to_stop(worker) == [forgotten]
    assert world.claim(worker) == []


def test_a_cancelled_run_that_was_resumed_and_not_yet_claimed_ends_at_once(world: World) -> None:
    worker = world.worker()
    world.trigger()
    run = world.claim_one(worker)
    world.suspend(worker, run, until(world.clock.now))
    assert world.status(run.id) == "QUEUED"
    world.cancel(run.id)
    assert world.attempts(run.id) == [(1, "CANCELLED")]
    assert world.run(run.id).finished_at == world.clock.now


def test_a_cancel_of_one_child_leaves_the_others_to_be_waited_for(world: World) -> None:
    worker = world.worker("send", "child")
    run, [first, second] = parent(world, worker, "child", "child")
    world.suspend(worker, run, end_of(first, "last"), end_of(second, "last"))
    world.cancel(first)
    assert world.waits() == [(run.id, second, "last")]
    world.cancel(second)
    assert world.status(run.id) == "QUEUED"


def test_a_resumed_run_whose_worker_is_lost_starts_again(world: World) -> None:
    """Engine semantics, seed 12: from the top, with its journal; nothing is left of the wait."""
    worker = world.worker()
    run_id = world.trigger(max_attempts=3)
    run = world.claim_one(worker)
    world.record(worker, run, step("a"))
    world.suspend(worker, run, until(world.clock.now), active_ms=700)
    world.claim_one(worker)
    world.after(LEASE_MS + 1)
    back = world.run(run_id)
    assert (back.status, back.suspended, back.active_ms, back.attempt, back.entries) == (
        "QUEUED",
        False,
        0,
        0,
        1,
    )
    other = world.worker()
    again = world.claim_one(other)
    assert (again.attempt, again.starts, again.resumes) == (1, 2, 0)
    assert world.attempts(run_id) == [(1, "CANCELLED"), (1, "EXECUTING")]


def test_a_resumed_run_never_expires(world: World) -> None:
    worker = world.worker()
    run_id = world.trigger(ttl="60s")
    run = world.claim_one(worker)
    world.suspend(worker, run, until(world.clock.now + 1_000))
    world.after(1_000, worker)
    world.after(10 * 60_000, worker)
    assert world.status(run_id) == "QUEUED"


def test_timers_that_came_due_during_a_downtime_end_at_once(world: World) -> None:
    worker = world.worker()
    for _ in range(30):
        world.trigger()
    runs = world.claim(worker, 30)
    for number, run in enumerate(runs):
        world.suspend(worker, run, until(world.clock.now + 1_000 * (number + 1), "last"))
    world.clock.advance(7 * 86_400_000)
    world.renew(worker)
    assert world.upkeep() == 30
    assert {world.status(run.id) for run in runs} == {"QUEUED"}


def test_upkeep_comes_when_the_next_wait_is_due(world: World) -> None:
    worker = world.worker()
    world.trigger()
    run = world.claim_one(worker)
    world.wakes.clear()
    world.suspend(worker, run, until(world.clock.now + 4_000))
    assert "upkeep" in world.wakes
    assert world.do(upkeep, Due(lose_workers=False)).next_due_at == world.clock.now + 4_000


def test_ten_thousand_children_resume_their_parent_once(world: World) -> None:
    count, worker = 10_000, world.worker("send", "child")
    world.trigger()
    run = world.claim_one(worker)
    world.read(lambda tx: tx.do("set_environment", id="dev", concurrency_limit=count * 2, paused=0))
    children: list[str] = []
    for _ in range(10):
        items = [NewRun(environment_id="dev", task="child", parent_id=run.id) for _ in range(count // 10)]
        children += [answer.id for answer in world.store.transact(trigger, items)]  # type: ignore[union-attr]  # none is refused
    world.suspend(worker, run, *(end_of(child, "last") for child in children))
    done = 0
    while held := world.claim(worker, 1_000):
        assert world.status(run.id) == "WAITING_TO_RESUME"
        said = [
            {"kind": "succeeded", "run": child.id, "lease": child.lease, "output": None} for child in held
        ]
        world.store.transact(report, [Reported(worker, "dev", one) for one in said])
        done += len(held)
        if done == count:
            break
    assert (done, world.status(run.id), world.waits()) == (count, "QUEUED", [])
    assert world.claim_one(worker).resumes == 1


def test_what_is_busy_when_a_wait_begins_is_looked_at_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On PostgreSQL a target that somebody writes to is passed over: here it always is, at first."""
    sound = wait._look
    busy = {"until": 2}

    def look(tx: Any, targets: set[str]) -> wait.Targets:
        if busy["until"] and targets:
            busy["until"] -= 1
            return wait.Targets({}, frozenset(targets))
        return sound(tx, targets)

    monkeypatch.setattr(wait, "_look", look)
    worker = world.worker("send", "child")
    run, [child, other] = parent(world, worker, "child", "child")
    world.succeed(worker, world.claim_one(worker))
    world.suspend(worker, run, end_of(child, "last"), end_of(other, "last"))
    assert world.status(run.id) == "WAITING_TO_RESUME"
    world.after(wait.LOOK_AGAIN_MS, worker)  # still busy
    assert [row[1] for row in world.waits()] == sorted([child, other])
    world.after(wait.LOOK_AGAIN_MS, worker)
    assert [row[1] for row in world.waits()] == [other]
    rows = world.read(lambda tx: tx.select("select due_at from waits", {}))
    assert [tuple(row) for row in rows] == [(None,)]
    world.succeed(worker, world.claim_one(worker))
    assert world.status(run.id) == "QUEUED"


def test_retention_keeps_the_children_of_a_run_that_goes_on(world: World) -> None:
    worker = world.worker("send", "child")
    run, [child, _] = parent(world, worker, "child", "child")
    for one in world.claim(worker):
        world.succeed(worker, one, '"kept"')
    world.suspend(worker, run, until(world.clock.now + 60 * 86_400_000))
    world.clock.advance(50 * 86_400_000)
    world.renew(worker)
    assert world.do(retain, Retention("dev", 30 * 86_400_000)) == 0
    assert world.run(child).output == '"kept"'
    world.after(10 * 86_400_000, worker)
    world.succeed(worker, world.claim_one(worker))
    assert world.do(retain, Retention("dev", 30 * 86_400_000)) == 2
    assert len(json.loads(world.journal(run.id)[0]["value"])) == 2
