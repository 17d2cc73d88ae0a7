"""Which runs use which objects, on both stores: an object is never deleted under a run that uses it."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from clock import Clock
from engine.world import World, task
from holdfast.engine.packet import (
    AGAIN_MS,
    UNUSED_MS,
    Sweep,
    add_packets,
    condemn,
    delete_packets,
    runs_of_packet,
    usable,
    use,
)
from holdfast.engine.trigger import NewRun, trigger
from holdfast.engine.upkeep import Retention, retain
from holdfast.errors import Unprocessable
from holdfast.model.packet import STORE
from holdfast.stores import Store, open_store
from holdfast.stores.base import Tx

DAY = 86_400_000


def stored(name: str, **options: Any) -> dict[str, Any]:
    return {"payload": name, "payload_type": STORE, **options}


def test_a_packet_that_no_run_uses_is_condemned_once_its_time_has_come(world: World) -> None:
    world.do(add_packets, "dev/a")
    world.clock.advance(UNUSED_MS - 1)
    assert world.do(condemn, Sweep()) == []
    world.clock.advance(1)
    assert world.do(condemn, Sweep()) == ["dev/a"]
    with pytest.raises(Unprocessable):
        world.trigger(**stored("a"))
    with pytest.raises(Unprocessable):
        world.do(add_packets, "dev/a")
    world.do(delete_packets, "dev/a")
    world.do(add_packets, "dev/a")
    world.trigger(**stored("a"))


def test_a_deletion_that_was_not_confirmed_is_tried_again(world: World) -> None:
    world.do(add_packets, "dev/a")
    world.clock.advance(UNUSED_MS)
    assert world.do(condemn, Sweep()) == ["dev/a"]
    assert world.do(condemn, Sweep()) == []
    world.clock.advance(AGAIN_MS)
    assert world.do(condemn, Sweep()) == ["dev/a"]


def test_a_packet_in_use_is_looked_at_again_when_its_last_run_is_deleted(world: World) -> None:
    worker = world.worker()
    world.do(add_packets, "dev/a")
    first, second = world.trigger(**stored("a")), world.trigger(**stored("a"))
    users = {run.id for run in world.read(lambda tx: runs_of_packet(tx, "dev/a", 10))}
    assert users == {first, second}
    with pytest.raises(Unprocessable):
        world.do(add_packets, "dev/a")
    world.clock.advance(UNUSED_MS)
    assert world.do(condemn, Sweep()) == []
    for run in world.claim(worker):
        world.succeed(worker, run)
    world.clock.advance(1)
    world.do(retain, Retention("dev", 0, limit=1))
    assert world.do(condemn, Sweep()) == []
    world.do(retain, Retention("dev", 0, limit=1))
    assert world.do(condemn, Sweep()) == ["dev/a"]
    assert world.read(lambda tx: runs_of_packet(tx, "dev/a", 10)) is None


def test_a_packet_is_of_one_environment(world: World) -> None:
    world.do(add_packets, "dev/a")
    with pytest.raises(Unprocessable):
        world.trigger(environment="prod", **stored("a"))


def test_a_refused_or_cached_trigger_uses_nothing(world: World) -> None:
    world.do(add_packets, "dev/a")
    world.do(add_packets, "dev/b")
    first = world.trigger(**stored("a", idempotency_key="k"))
    assert world.triggered(**stored("b", idempotency_key="k")).is_cached
    assert world.read(lambda tx: runs_of_packet(tx, "dev/b", 10)) == []
    assert [run.id for run in world.read(lambda tx: runs_of_packet(tx, "dev/a", 10))] == [first]


def test_what_was_seen_in_a_packet_counts_for_schema_and_key(world: World) -> None:
    spec = task("send", key="tenant", payload_schema='{"type":"object"}')
    world.register(spec)
    world.do(add_packets, "dev/a")
    seen = world.trigger(**stored("a", content={"tenant": "t1"}))
    assert world.run(seen).concurrency_key == "t1"
    unseen = world.trigger(**stored("a"))
    assert world.run(unseen).concurrency_key == ""
    with pytest.raises(Unprocessable):
        world.trigger(**stored("a", content=[1]))


@pytest.mark.parametrize("store_url", ["postgres"], indirect=True)  # SQLite has one writer: they never meet
def test_a_run_that_begins_to_use_a_packet_comes_before_or_after_its_deletion(
    world: World, store: Store, store_url: str, clock: Clock
) -> None:
    """Two connections: one has locked the packet for a new run, the other one looks for what nobody uses."""
    world.do(add_packets, "dev/a")
    clock.advance(UNUSED_MS)
    locked, looked = threading.Event(), threading.Event()

    def slowly(tx: Tx, items: list[NewRun]) -> list[Any]:
        assert usable(tx, ["dev/a"]) == {"dev/a"}
        locked.set()
        assert looked.wait(20)
        return trigger(tx, items)

    item = NewRun(environment_id="dev", task="send", **stored("a"))
    made: list[Any] = []
    thread = threading.Thread(target=lambda: made.extend(store.transact(slowly, [item])))
    thread.start()
    other = open_store(store_url, clock=clock)
    try:
        assert locked.wait(20)
        assert other.transact(condemn, [Sweep()]) == [[]]
        looked.set()
        thread.join()
        assert other.transact(condemn, [Sweep()]) == [[]]
    finally:
        looked.set()
        thread.join()
        other.close()
    assert [run.id for run in world.read(lambda tx: runs_of_packet(tx, "dev/a", 10))] == [made[0].id]


def test_using_twice_is_using_once(world: World) -> None:
    world.do(add_packets, "dev/a")
    for _ in range(2):
        world.store.transact(lambda tx, _: [use(tx, [("dev/a", "run_1"), ("dev/a", "run_1")])], [None])
