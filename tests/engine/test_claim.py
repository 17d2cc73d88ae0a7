"""Who gets which runs: order, limits, pauses, versions."""

from __future__ import annotations

import asyncio

import pytest

from engine.world import LEASE_MS, World, task
from holdfast.engine import Engine
from holdfast.engine import claim as claiming
from holdfast.engine.trigger import NewRun, trigger
from holdfast.engine.upkeep import Due, upkeep
from holdfast.errors import WorkerNotFound
from holdfast.model.task import QueueSpec
from holdfast.stores import open_store


def test_runs_are_claimed_in_order_of_age(world: World) -> None:
    worker = world.worker("send")
    runs = []
    for _ in range(5):
        runs.append(world.trigger())
        world.clock.advance(1)
    assert [run.id for run in world.claim(worker, 3)] == runs[:3]
    assert [run.id for run in world.claim(worker, 3)] == runs[3:]


def test_runs_of_one_millisecond_are_claimed_in_the_order_they_came(world: World) -> None:
    worker = world.worker("send")
    answers = world.store.transact(trigger, [NewRun(environment_id="dev", task="send") for _ in range(20)])
    assert [run.id for run in world.claim(worker, 20)] == [answer.id for answer in answers]


def test_a_priority_counts_as_seconds_of_waiting(world: World) -> None:
    worker = world.worker("send")
    old = world.trigger()
    world.clock.advance(10_000)
    sooner, later = world.trigger(priority=11), world.trigger(priority=9)
    assert [run.id for run in world.claim(worker)] == [sooner, old, later]


def test_a_claim_counts_an_attempt_and_gives_a_new_lease(world: World) -> None:
    worker = world.worker("send")
    run_id = world.trigger()
    before = world.run(run_id)
    [run] = world.claim(worker)
    assert run == world.run(run_id)
    assert (run.status, run.attempt, run.worker_id, run.lease) == ("EXECUTING", 1, worker, before.lease + 1)
    assert (run.started_at, run.attempt_started_at) == (world.clock.now, world.clock.now)
    assert world.attempts(run_id) == [(1, "EXECUTING")]
    assert world.claim(worker) == []


def test_a_worker_gets_only_runs_of_its_tasks_and_environment(world: World) -> None:
    world.worker("other")
    worker = world.worker("send")
    world.trigger("other")
    world.worker("send", environment="prod")
    world.trigger("send", "prod")
    own = world.trigger("send")
    assert [run.id for run in world.claim(worker)] == [own]
    with pytest.raises(WorkerNotFound):
        world.claim(worker, environment="prod")


def test_a_queue_never_runs_more_than_its_limit(world: World) -> None:
    worker = world.worker(task("a", queue="q"), task("b", queue="q"), "c", queues=[QueueSpec("q", 2)])
    for name in ("a", "b") * 3:
        world.trigger(name)
    free = world.trigger("c")
    first = world.claim(worker)
    assert sorted(run.queue for run in first) == ["q", "q", "task/c"]
    assert free in {run.id for run in first}
    assert world.claim(worker) == []
    world.succeed(worker, next(run for run in first if run.queue == "q"))
    assert len(world.claim(worker)) == 1


def test_each_key_of_a_queue_has_its_own_limit(world: World) -> None:
    worker = world.worker(task("a", queue="q"), queues=[QueueSpec("q", 5, 2)])
    for key in "xyz" * 4:
        world.trigger("a", concurrency_key=key)
    keys = [run.concurrency_key for run in world.claim(worker)]
    assert len(keys) == 5
    assert all(keys.count(key) <= 2 for key in "xyz")


def test_a_key_at_its_limit_does_not_hold_back_the_others(world: World) -> None:
    worker = world.worker(task("a", queue="q"), queues=[QueueSpec("q", None, 1)])
    for _ in range(50):
        world.trigger("a", concurrency_key="busy")
    world.clock.advance(1)
    other = world.trigger("a", concurrency_key="quiet")
    assert other in {run.id for run in world.claim(worker)}
    assert world.claim(worker) == []


def test_the_limit_of_the_environment_holds_over_all_queues(world: World) -> None:
    worker = world.worker("a", "b")
    world.read(lambda tx: tx.do("set_environment", id="dev", concurrency_limit=3, paused=0))
    for name in ("a", "b") * 3:
        world.trigger(name)
    runs = world.claim(worker)
    assert len(runs) == 3
    assert world.claim(worker) == []
    world.read(lambda tx: tx.do("set_environment", id="dev", concurrency_limit=1, paused=0))
    world.succeed(worker, runs[0])
    assert world.claim(worker) == []


def test_nothing_is_claimed_from_a_paused_queue_or_environment(world: World) -> None:
    worker = world.worker("a", "b")
    world.trigger("a")
    other = world.trigger("b")
    world.read(lambda tx: tx.do("set_queue_paused", environment_id="dev", name="task/a", paused=1))
    assert [run.id for run in world.claim(worker)] == [other]
    world.read(lambda tx: tx.do("set_queue_paused", environment_id="dev", name="task/a", paused=0))
    world.read(lambda tx: tx.do("set_environment", id="dev", concurrency_limit=10, paused=1))
    assert world.claim(worker) == []
    world.read(lambda tx: tx.do("set_environment", id="dev", concurrency_limit=10, paused=0))
    assert len(world.claim(worker)) == 1


def test_registering_a_queue_again_leaves_it_paused(world: World) -> None:
    worker = world.worker("a", queues=[QueueSpec("task/a", 3)])
    world.trigger("a")
    world.read(lambda tx: tx.do("set_queue_paused", environment_id="dev", name="task/a", paused=1))
    world.worker("a", queues=[QueueSpec("task/a", 5)], fingerprint="new")
    assert world.claim(worker) == []


def test_a_run_that_is_locked_to_a_version_waits_for_a_worker_of_it(world: World) -> None:
    old = world.register("send", fingerprint="old")
    new = world.register("send", fingerprint="new")
    locked, free = world.trigger(version_lock=old.version), world.trigger()
    assert [run.id for run in world.claim(new.worker_id)] == [free]
    [run] = world.claim(old.worker_id)
    assert (run.id, run.version) == (locked, old.version)


def test_a_child_goes_to_another_version_when_nobody_has_its_task_in_its_own(world: World) -> None:
    old = world.register("parent", "child", fingerprint="old")
    world.trigger("parent")
    [parent] = world.claim(old.worker_id)
    world.register("parent", fingerprint="old")  # has the version, but not the task
    new = world.register("child", fingerprint="new")
    child = world.trigger("child", parent_id=parent.id, version_lock=old.version)
    alone = world.trigger("child", version_lock=old.version)
    assert world.claim(new.worker_id) == []
    world.leave(old.worker_id)
    assert [run.id for run in world.claim(new.worker_id)] == [child]
    assert world.run(alone).status == "QUEUED"


def test_a_claim_says_whether_limits_may_be_why_it_gives_nothing(world: World) -> None:
    worker = world.worker("a", "b", queues=[QueueSpec("task/a", 1)])
    world.worker("other")
    assert not world.claimed(worker).limited, "nothing is queued"
    world.trigger("other")
    assert not world.claimed(worker).limited, "what is queued is for others"
    world.trigger("a"), world.trigger("a")
    [running] = world.claim(worker)
    assert world.claimed(worker).limited, "the queue is full"
    world.succeed(worker, running)
    world.read(lambda tx: tx.do("set_environment", id="dev", concurrency_limit=1, paused=0))
    assert world.claim(worker)
    world.trigger("b")
    assert world.claimed(worker).limited, "the environment is full"
    world.read(lambda tx: tx.do("set_environment", id="dev", concurrency_limit=9, paused=1))
    assert world.claimed(worker).limited, "the environment is paused"


def test_many_lanes_each_get_their_turn(world: World) -> None:
    worker = world.worker(task("a", queue="q"))
    items = [NewRun(environment_id="dev", task="a", concurrency_key=f"k{number:03}") for number in range(450)]
    world.store.transact(trigger, items)
    claimed = [run for _ in range(50) for run in world.claim(worker, 25)]
    assert len({run.concurrency_key for run in claimed}) == 450


def test_lanes_are_put_in_order_byte_by_byte(world: World) -> None:
    worker = world.worker(task("a", queue="q"))
    for key in ("b", "B", "ä", "_", "a-b", "ab", "😀", "Z"):
        world.trigger("a", concurrency_key=key)
    rows = world.read(
        lambda tx: tx.all("lanes", environment_id="dev", task="", queue="", concurrency_key="", limit=100)
    )
    keys = [row["concurrency_key"] for row in rows]
    assert keys == sorted(keys, key=lambda key: key.encode())
    assert len(keys) == 8
    assert len(world.claim(worker)) == 8


def test_a_claim_without_slots_only_tells_what_to_stop(world: World) -> None:
    worker = world.worker("send")
    run_id = world.trigger()
    world.claim(worker)
    world.trigger()
    world.cancel(run_id)
    assert world.claim(worker, 0) == []
    assert world.to_stop(worker) == [run_id]
    world.after(20_000, worker)
    assert world.to_stop(worker) == []


def test_a_worker_that_is_gone_can_not_claim(world: World) -> None:
    worker = world.worker("send")
    world.leave(worker)
    with pytest.raises(WorkerNotFound):
        world.claim(worker)


def test_a_worker_that_leaves_or_is_lost_while_it_claims_leaves_nothing_behind(
    store_url: str, world: World
) -> None:
    async def race(engines: list[Engine], number: int) -> None:
        near, far = engines
        worker = world.register("send").worker_id
        await near.trigger([NewRun(environment_id="dev", task="send") for _ in range(3)])
        claims = [near.claim(worker, "dev", 2) for _ in range(2)]
        if number % 2:
            gone = far.leave(worker, "dev")
        else:
            world.clock.advance(LEASE_MS + 1)
            gone = far.store.write(upkeep, [Due()])
        answers = await asyncio.gather(*claims, gone, return_exceptions=True)
        assert all(
            not isinstance(answer, Exception) or isinstance(answer, WorkerNotFound) for answer in answers
        )

    async def play() -> None:
        stores = [open_store(store_url, clock=world.clock) for _ in range(2)]
        engines = [Engine(store) for store in stores]
        for number in range(30):
            await race(engines, number)
            world.upkeep()
            assert world.read(lambda tx: tx.all("stuck_runs")) == []
        for store in stores:
            store.close()

    asyncio.run(play())


def test_a_claim_that_begins_at_the_fronts_finds_what_came_before_them_once_they_have_nothing(
    world: World,
) -> None:
    worker = world.worker("send", "other")
    first = world.trigger()
    swept = world.do(claiming.claim, claiming.Claim(worker, "dev", 1))
    assert ([run.id for run in swept.runs], swept.swept) == ([first], True)

    urgent, later, elsewhere = world.trigger(priority=60), world.trigger(), world.trigger("other")
    ahead = world.do(claiming.claim, claiming.Claim(worker, "dev", 10, fronts=swept.fronts))
    assert ([run.id for run in ahead.runs], ahead.swept) == ([later], False)
    rest = world.do(claiming.claim, claiming.Claim(worker, "dev", 10, fronts=ahead.fronts))
    assert ([run.id for run in rest.runs], rest.swept) == ([urgent, elsewhere], True)
