"""Queues: what is told about them, pausing, and limits that are overridden while runs are claimed."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from clock import Clock
from engine.world import World, task
from holdfast.engine import queues
from holdfast.engine.queues import ChangeQueue, OneQueue, QueuePage
from holdfast.errors import HoldfastError, InvalidRequest, NotFound
from holdfast.model.queue import QueueState
from holdfast.model.task import QueueSpec
from holdfast.stores import open_store


def change(world: World, name: str, **changes: Any) -> QueueState:
    queue: QueueState = world.do(queues.change, ChangeQueue("dev", name=name, **changes))
    return queue


def queue(world: World, name: str, environment: str = "dev") -> QueueState:
    found: QueueState = world.read(lambda tx: queues.one_queue(tx, OneQueue(environment, name=name)))
    return found


def names(world: World, environment: str = "dev") -> list[str]:
    page: QueuePage = world.read(lambda tx: queues.page(tx, environment, 0, 100))
    assert page.total == len(page.queues)
    return [found.name for found in page.queues]


def test_a_queue_exists_as_soon_as_a_task_that_uses_it_is_registered(world: World) -> None:
    assert names(world) == []
    world.worker("send", task("pay", queue="money"), queues=[QueueSpec("other", 3)])
    assert names(world) == ["money", "other", "task/send"]
    before = queue(world, "task/send").id
    world.worker("send", "more", fingerprint="new")
    assert names(world) == ["money", "other", "task/more", "task/send"]
    assert queue(world, "task/send").id == before
    assert names(world, "prod") == []


def test_a_queue_is_found_by_its_name_and_its_id_in_its_environment_only(world: World) -> None:
    world.worker("send")
    found = queue(world, "task/send")
    by_id = world.read(lambda tx: queues.one_queue(tx, OneQueue("dev", id=found.id)))
    assert by_id == found
    for item in (OneQueue("prod", id=found.id), OneQueue("prod", name="task/send"), OneQueue("dev", id="")):
        with pytest.raises(NotFound):
            world.read(lambda tx, item=item: queues.one_queue(tx, item))


def test_pages_hold_each_queue_once(world: World) -> None:
    world.worker(*(f"t{number}" for number in range(7)))
    seen = []
    for skipped in range(0, 9, 3):
        page = world.read(lambda tx, skipped=skipped: queues.page(tx, "dev", skipped, 3))
        assert page.total == 7
        seen += [found.name for found in page.queues]
    assert seen == [f"task/t{number}" for number in range(7)]


def test_it_tells_what_runs_and_what_waits_now(world: World) -> None:
    worker = world.worker(task("a", queue="q"), task("b", queue="q"), "c", queues=[QueueSpec("q", 2)])
    for name in ("a", "b", "a", "c"):
        world.trigger(name)
    world.trigger("a", delay="1h")
    [first, *_] = [run for run in world.claim(worker) if run.queue == "q"]
    assert (queue(world, "q").running, queue(world, "q").queued) == (2, 1)
    assert (queue(world, "task/c").running, queue(world, "task/c").queued) == (1, 0)
    world.succeed(worker, first)
    assert (queue(world, "q").running, queue(world, "q").queued) == (1, 1)


def test_a_paused_queue_starts_nothing_until_it_is_resumed(world: World) -> None:
    worker = world.worker("send")
    [running] = [world.trigger()]
    [run] = world.claim(worker)
    assert change(world, "task/send", paused=True).paused
    held = world.trigger(ttl="5m")
    kept = world.trigger()
    assert world.claim(worker) == []
    assert world.status(held) == "QUEUED"
    world.succeed(worker, run)
    assert world.status(running) == "COMPLETED_SUCCESSFULLY"
    world.after(5 * 60_000, worker)
    assert world.status(held) == "EXPIRED"
    world.wakes.clear()
    assert not change(world, "task/send", paused=False).paused
    assert "ready:dev" in world.wakes
    assert [run.id for run in world.claim(worker)] == [kept]


def test_an_override_takes_the_place_of_the_declared_limit_until_it_is_reset(world: World) -> None:
    specs = [QueueSpec("task/send", 3)]
    worker = world.worker("send", queues=specs)
    for _ in range(9):
        world.trigger()
    now = change(world, "task/send", limit=5)
    assert (now.limit, now.concurrency_limit, now.override_limit) == (5, 3, 5)
    assert now.overridden_at == world.clock.now
    running = world.claim(worker)
    assert len(running) == 5
    world.worker("send", queues=[QueueSpec("task/send", 4)], fingerprint="new")  # rule R40
    assert queue(world, "task/send").limit == 5
    now = change(world, "task/send", limit=None)
    assert (now.limit, now.override_limit, now.overridden_at) == (4, None, None)
    with pytest.raises(InvalidRequest):
        change(world, "task/send", limit=None)
    assert change(world, "task/send", limit=0).limit == 0


def test_a_limit_below_what_runs_kills_nothing_and_starts_nothing_before_there_is_room(world: World) -> None:
    worker = world.worker("send")
    for _ in range(6):
        world.trigger()
    running = world.claim(worker, 4)
    change(world, "task/send", limit=2)
    assert queue(world, "task/send").running == 4
    for run in running[:2]:
        assert world.claim(worker) == []
        assert world.succeed(worker, run).status == "ok"
    assert world.claim(worker) == []
    world.succeed(worker, running[2])
    assert len(world.claim(worker)) == 1
    assert queue(world, "task/send").running == 2


def test_an_unknown_queue_is_not_found_and_nothing_else_is_changed(world: World) -> None:
    world.worker("send")
    answers = world.store.transact(
        queues.change,
        [ChangeQueue("dev", name="none", paused=True), ChangeQueue("dev", name="task/send", limit=1)],
    )
    assert isinstance(answers[0], NotFound)
    assert isinstance(answers[1], QueueState)
    assert names(world) == ["task/send"]


def test_no_limit_is_exceeded_while_it_is_changed_and_runs_are_claimed(
    world: World, store_url: str, clock: Clock
) -> None:
    """Two connections: one claims and ends runs, the other lowers and raises the limit. Whatever was answered to the
    change holds for the claims that follow it."""
    worker = world.worker("send")
    for _ in range(300):
        world.trigger()
    other = open_store(store_url, clock=clock)
    try:
        turns = threading.Barrier(2, timeout=30)
        limits = [1 + number * 7 % 5 for number in range(30)]
        failures: list[BaseException] = []

        def operate() -> None:
            try:
                for limit in limits:
                    turns.wait()
                    [answer] = other.transact(
                        queues.change, [ChangeQueue("dev", name="task/send", limit=limit)]
                    )
                    assert not isinstance(answer, HoldfastError)
                    turns.wait()
            except BaseException as error:
                failures.append(error)
                turns.abort()

        thread = threading.Thread(target=operate)
        thread.start()
        held: list[Any] = []
        try:
            before = 5
            for limit in limits:
                turns.wait()
                held += world.claim(worker, 3)  # at the same time as the change
                turns.wait()
                assert len(held) <= max(before, limit)
                while len(held) > limit:
                    assert world.claim(worker, 3) == []
                    world.succeed(worker, held.pop())
                held += world.claim(worker, 10)
                assert len(held) == limit == queue(world, "task/send").running
                before = limit
        finally:
            thread.join(30)
        assert failures == []
    finally:
        other.close()


def test_pausing_waits_for_a_claim_under_way_and_holds_for_the_next_one(
    world: World, store_url: str, clock: Clock
) -> None:
    worker = world.worker("send")
    for _ in range(50):
        world.trigger()
    other = open_store(store_url, clock=clock)
    try:
        paused = threading.Event()

        def pause() -> None:
            other.transact(queues.change, [ChangeQueue("dev", name="task/send", paused=True)])
            paused.set()

        thread = threading.Thread(target=pause)
        thread.start()
        claimed = 0
        while not paused.is_set():
            claimed += len(world.claim(worker, 1))
        thread.join(30)
        assert world.claim(worker, 10) == []
        assert queue(world, "task/send").running == claimed
    finally:
        other.close()
