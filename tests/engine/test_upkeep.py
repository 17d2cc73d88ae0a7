"""What time brings: promotion, retention, waiting calls."""

from __future__ import annotations

import asyncio

import pytest

from clock import Clock
from engine.world import BUG, World, task
from holdfast.engine import Ended, Engine, NewRun, Registering, keeper
from holdfast.engine import upkeep as keeping
from holdfast.engine.batch import NewBatch, create_batches
from holdfast.engine.trigger import trigger
from holdfast.errors import RunNotFound, StoreTooNew, StoreUnavailable
from holdfast.model.task import QueueSpec, TaskSpec
from holdfast.stores import Store, open_store

DAY = 86_400_000


def test_upkeep_says_when_it_is_needed_next(world: World) -> None:
    assert world.do(keeping.upkeep, keeping.Due()).next_due_at is None
    world.register("send")
    assert world.do(keeping.upkeep, keeping.Due()).next_due_at == world.clock.now + 15_000
    world.trigger(delay=10)
    passed = world.do(keeping.upkeep, keeping.Due())
    assert (passed.moved, passed.next_due_at) == (0, world.clock.now + 10_000)


def test_many_due_runs_are_moved_batch_by_batch(world: World) -> None:
    world.worker("send")
    items = [NewRun(environment_id="dev", task="send", delay=1) for _ in range(1_200)]
    world.store.transact(trigger, items)
    world.clock.advance(1_000)
    assert world.do(keeping.upkeep, keeping.Due()).moved == 500
    assert world.upkeep() == 700


def test_many_parked_runs_are_put_in_the_queue_oldest_first(world: World) -> None:
    items = [NewRun(environment_id="dev", task="send") for _ in range(450)]
    answers = world.store.transact(trigger, items)
    worker = world.register("send").worker_id
    assert world.do(keeping.upkeep, keeping.Due()).moved == 200
    assert [run.id for run in world.claim(worker, 500)] == [answer.id for answer in answers[:200]]
    assert world.upkeep() == 250


def test_a_run_that_was_triggered_before_its_task_was_known_obeys_the_limits_of_its_queue(
    world: World,
) -> None:
    parked = [world.trigger("pay", payload='{"tenant":"a"}') for _ in range(3)]
    named = world.trigger("pay", payload='{"tenant":"a"}', queue="other")
    worker = world.worker(
        task("pay", queue="payments", key="tenant"),
        queues=[QueueSpec("payments", per_key_limit=1), QueueSpec("other")],
    )
    world.upkeep()
    assert [(world.run(id).queue, world.run(id).concurrency_key) for id in parked] == [("payments", "a")] * 3
    assert (world.run(named).queue, world.run(named).concurrency_key) == ("other", "")
    assert sorted(run.id for run in world.claim(worker)) == sorted([parked[0], named])


def test_retention_deletes_finished_runs_and_what_belongs_to_them(world: World) -> None:
    worker = world.worker("send")
    old = world.trigger(tags=["t"], idempotency_key="k")
    run = world.claim_one(worker)
    world.report(worker, run, "logs", records=[{"at": 1, "level": "info", "logger": "a", "message": "m"}])
    world.fail(worker, run, 0)
    world.report(worker, world.run(old), "started")
    world.succeed(worker, world.run(old))
    live = world.trigger()
    world.after(DAY, worker)
    recent = world.trigger()
    world.cancel(recent)

    def retain() -> int:
        return int(world.do(keeping.retain, keeping.Retention("dev", DAY)))

    assert retain() == 0
    world.clock.advance(1)
    assert retain() == 1
    with pytest.raises(RunNotFound):
        world.run(old)
    assert {run.id for run in world.page().runs} == {live, recent}
    assert world.read(lambda tx: tx.all("logs", run_id=old, after=0, limit=10)) == []
    assert world.read(lambda tx: tx.attempts(old)) == []
    assert world.triggered(idempotency_key="k").is_cached is False


def test_retention_says_that_there_is_more_of_whatever_it_deletes(world: World) -> None:
    """Else a table would grow for ever that more comes to in a minute than a pass deletes."""

    def passes(keep_ms: int | None) -> list[int]:
        answers = [3]
        while answers[-1] == 3:
            answers.append(world.do(keeping.retain, keeping.Retention("dev", keep_ms, limit=3)))
        return answers[1:]

    for number in range(7):
        world.trigger(request_key=f"r{number}", delay="365d")
        world.complete(world.token().id)
        world.do(create_batches, NewBatch(environment_id="dev", run_count=1))
    world.clock.advance(DAY)
    world.upkeep()  # batches that never got their items are given up
    world.clock.advance(DAY)
    assert passes(None) == [3, 3, 0]
    assert passes(DAY // 2) == [3, 3, 0]
    assert world.page_of_tokens() == []


def test_retention_of_one_environment_leaves_the_others_alone(world: World) -> None:
    run_id = world.trigger("send", "prod")
    world.clock.advance(DAY)
    assert world.do(keeping.retain, keeping.Retention("dev", 0)) == 0
    assert world.run(run_id, "prod").status == "WAITING_FOR_DEPLOY"


def test_a_waiting_claim_is_woken_by_a_trigger(store: Store) -> None:
    async def play() -> None:
        engine = Engine(store)
        registered = await engine.register(Registering("dev", "w", "f", [TaskSpec("send", "q")], [], 15_000))
        claim = asyncio.create_task(engine.claim(registered.worker_id, "dev", 5, 30_000))
        await asyncio.sleep(0)
        [made] = await engine.trigger([NewRun(environment_id="dev", task="send")])
        claimed = await asyncio.wait_for(claim, 10)
        assert [run.id for run in claimed.runs] == [made.id]
        wait = asyncio.create_task(engine.finished("dev", [made.id], wait_ms=30_000))
        await asyncio.sleep(0)
        [run] = claimed.runs
        said = {"kind": "failed", "run": run.id, "lease": run.lease, "error": BUG, "retryDelayMs": None}
        [answer] = await engine.report(registered.worker_id, "dev", [said])
        assert answer.status == "ok"
        ended = await asyncio.wait_for(wait, 10)
        assert ([run.id for run in ended.runs], ended.pending) == ([made.id], [])
        await engine.leave(registered.worker_id, "dev")

    asyncio.run(play())


def test_a_server_that_stops_answers_those_who_wait(store: Store) -> None:
    async def play() -> None:
        engine = Engine(store)
        [made] = await engine.trigger([NewRun(environment_id="dev", task="send")])
        wait = asyncio.create_task(engine.finished("dev", [made.id], wait_ms=60_000))
        await asyncio.sleep(0)
        engine.stop_waiting()
        assert await asyncio.wait_for(wait, 10) == Ended([], [], [made.id])

    asyncio.run(play())


async def queued_by(keeping: asyncio.Task[None], engine: Engine, run_id: str, stop: asyncio.Event) -> None:
    """Until upkeep has queued the run, and then has stopped."""
    async with asyncio.timeout(10):
        while (await engine.run("dev", run_id)).status != "QUEUED":
            await asyncio.sleep(0.01)
    stop.set()
    await asyncio.wait_for(keeping, 10)


def test_the_upkeep_of_a_server_queues_what_is_due_until_it_is_stopped(store: Store, clock: Clock) -> None:
    async def play() -> None:
        engine = Engine(store)
        await engine.register(Registering("dev", "w", "f", [TaskSpec("send", "q")], [], 15_000))
        [made] = await engine.trigger([NewRun(environment_id="dev", task="send", delay=3)])
        stop = asyncio.Event()
        keeping = asyncio.create_task(engine.run_upkeep(stop))
        clock.advance(3_000)
        await queued_by(keeping, engine, made.id, stop)

    asyncio.run(play())


@pytest.mark.parametrize(
    "error", [StoreUnavailable("away"), StoreTooNew("0099_new"), RuntimeError("a defect")]
)
@pytest.mark.parametrize("call", ["read", "write"])
def test_upkeep_goes_on_after_whatever_went_wrong(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch, call: str, error: Exception
) -> None:
    """Also where it only looked at the time: nothing but this would queue what is due."""

    async def play() -> None:
        engine = Engine(store)
        await engine.register(Registering("dev", "w", "f", [TaskSpec("send", "q")], [], 15_000))
        [made] = await engine.trigger([NewRun(environment_id="dev", task="send", delay=3)])
        stop, raised = asyncio.Event(), asyncio.Event()

        async def away(*_: object) -> object:
            raised.set()
            raise error

        with monkeypatch.context() as patched:
            patched.setattr(store, call, away)
            keeping = asyncio.create_task(engine.run_upkeep(stop))
            await asyncio.wait_for(raised.wait(), 10)
            await asyncio.sleep(0)
        clock.advance(3_000)
        await queued_by(keeping, engine, made.id, stop)

    asyncio.run(play())


def test_a_defect_of_retention_stops_nothing_else_and_is_told_once_a_minute(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor does it let a lost worker keep its runs."""

    def broken(*_: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(keeping, "retain", broken)

    async def play() -> None:
        engine = Engine(store, lease_ms=30)
        registered = await engine.register(Registering("dev", "w", "f", [TaskSpec("send", "q")], [], 30))
        [made] = await engine.trigger([NewRun(environment_id="dev", task="send")])
        await engine.claim(registered.worker_id, "dev", 1)
        clock.advance(60_000)
        for _ in range(10):
            engine.keeper.retention_at = 0.0
            assert await engine.upkeep() <= 1.0
            await asyncio.sleep(0.01)
        assert (await engine.run("dev", made.id)).status != "EXECUTING"

    asyncio.run(play())
    assert [record.message for record in caplog.records] == [
        "what is old could not be deleted; it is tried again in a minute"
    ]


def test_a_defect_that_lasts_is_told_once_a_minute(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keeper, "POLL_SECONDS", 0.001)
    raised: list[None] = []

    async def play() -> None:
        engine = Engine(store)
        stop = asyncio.Event()

        async def broken(*_: object) -> object:
            raised.append(None)
            raise RuntimeError("a defect")

        monkeypatch.setattr(store, "write", broken)
        keeping = asyncio.create_task(engine.run_upkeep(stop))
        async with asyncio.timeout(10):
            while len(raised) < 5:
                await asyncio.sleep(0.01)
        stop.set()
        await asyncio.wait_for(keeping, 10)

    asyncio.run(play())
    assert [record.message for record in caplog.records] == ["upkeep failed; it is tried again in a second"]


def test_another_server_is_woken(postgres_url: str) -> None:
    """Over NOTIFY; without it the claim would be answered by polling, after most of a second."""

    async def play() -> None:
        stores = [open_store(postgres_url) for _ in range(2)]
        near, far = (Engine(store) for store in stores)
        heard: list[set[str]] = []
        stores[0].on_wake = heard.append
        registered = await near.register(Registering("dev", "w", "f", [TaskSpec("send", "q")], [], 15_000))
        async with asyncio.timeout(10):
            while {"*"} not in heard:  # now it listens
                await asyncio.sleep(0.01)
            [made] = await far.trigger([NewRun(environment_id="dev", task="send")])
            while {"ready:dev"} not in heard:
                await asyncio.sleep(0.01)
        claimed = await near.claim(registered.worker_id, "dev", 1)
        assert [run.id for run in claimed.runs] == [made.id]
        for store in stores:
            store.close()

    asyncio.run(play())
