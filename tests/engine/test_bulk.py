"""Actions on many runs: each member is acted on once, whatever happens between two commits."""

from __future__ import annotations

import asyncio
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from clock import Clock
from engine.world import World
from holdfast.engine import Engine, NewBulkAction, NewRun, bulk
from holdfast.engine import upkeep as keeping
from holdfast.engine.bulk import Abort, Chunk
from holdfast.engine.trigger import trigger
from holdfast.errors import BulkActionNotFound, HoldfastError
from holdfast.model.bulk import BulkAction, BulkType
from holdfast.model.status import RunStatus
from holdfast.stores import Store, open_store
from holdfast.stores.listing import Filters

DAY = 86_400_000
CANCEL, REPLAY = BulkType.CANCEL, BulkType.REPLAY


def begin(world: World, type: BulkType, run_ids: Any = (), **filters: Any) -> str:
    item = NewBulkAction("dev", type, Filters(**filters) if filters else None, run_ids)
    bulk_id: str = world.do(bulk.create, item)
    return bulk_id


def goes_on(world: World, looked_at: int = 3, acted_on: int = 2) -> bool:
    """One chunk; whether there was something to go on with."""
    advanced: bool = world.do(bulk.advance, Chunk(looked_at, acted_on))
    return advanced


def ends(world: World) -> None:
    while goes_on(world):
        pass


def read(world: World, bulk_id: str, environment: str = "dev") -> BulkAction:
    action: BulkAction = world.read(lambda tx: bulk.one(tx, environment, bulk_id))
    return action


def counts(world: World, bulk_id: str) -> tuple[str, int, int, int]:
    action = read(world, bulk_id)
    return action.status, action.total, action.success, action.failure


def members(world: World, bulk_id: str) -> list[str]:
    return [run.id for run in world.page(100, bulk_id=bulk_id).runs][::-1]


def test_all_runs_that_a_filter_selects_are_cancelled_and_nothing_else(world: World) -> None:
    asked = [world.trigger(tags=["old"]) for _ in range(7)]
    others = [world.trigger(tags=["new"]), world.trigger()]
    elsewhere = world.trigger(environment="prod", tags=["old"])
    bulk_id = begin(world, CANCEL, tag=["old"])
    ends(world)
    assert counts(world, bulk_id) == ("COMPLETED", 7, 7, 0)
    assert read(world, bulk_id).completed_at == world.clock.now
    assert {world.status(run) for run in asked} == {"CANCELLED"}
    assert "CANCELLED" not in {world.status(run) for run in others}
    assert world.run(elsewhere, "prod").status != "CANCELLED"
    assert members(world, bulk_id) == asked


def test_descendants_of_members_are_cancelled_and_are_no_members(world: World) -> None:
    worker = world.worker("send")
    parent = world.trigger(tags=["old"])
    held = world.claim_one(worker)
    child = world.triggered(parent_id=held.id).id
    bulk_id = begin(world, CANCEL, tag=["old"])
    ends(world)
    assert (world.status(parent), world.status(child)) == ("CANCELLED", "CANCELLED")
    assert members(world, bulk_id) == [parent]
    world.report(worker, world.run(parent), "closed")


def test_replays_keep_payload_and_tags_and_are_no_members_themselves(world: World) -> None:
    world.worker("send")
    asked = [
        world.trigger(tags=["again"], payload=json.dumps({"n": n}), metadata='{"a":1}') for n in range(5)
    ]
    bulk_id = begin(world, REPLAY, tag=["again"])
    ends(world)
    assert counts(world, bulk_id) == ("COMPLETED", 5, 5, 0)
    assert members(world, bulk_id) == asked
    runs = [run for run in world.page(100, tag=["again"]).runs if run.id not in asked]
    assert sorted((run.payload or "", run.metadata, run.replay_of or "") for run in runs) == [
        (json.dumps({"n": n}), '{"a":1}', asked[n]) for n in range(5)
    ]


def test_runs_that_come_later_are_no_members(world: World) -> None:
    early = [world.trigger() for _ in range(4)]
    bulk_id = begin(world, CANCEL, task=["send"])
    goes_on(world)
    late = world.trigger()
    ends(world)
    assert members(world, bulk_id) == early
    assert world.status(late) != "CANCELLED"


@pytest.mark.parametrize("chunks", range(6))
def test_a_crash_between_two_commits_repeats_and_forgets_nothing(
    store_url: str, clock: Clock, chunks: int
) -> None:
    first = open_store(store_url, clock=clock)
    world = World(first, clock)
    asked = [world.trigger(tags=["again"]) for _ in range(5)]
    bulk_id = begin(world, REPLAY, tag=["again"])
    for _ in range(chunks):
        goes_on(world)
    with pytest.raises(
        ZeroDivisionError
    ):  # in the middle of a chunk: as if the process had died before the commit
        first.transact(lambda tx, items: [bulk.advance(tx, items), 1 // 0], [Chunk(3, 2)])
    first.close()

    second = open_store(store_url, clock=clock)
    world = World(second, clock)
    ends(world)
    assert counts(world, bulk_id) == ("COMPLETED", 5, 5, 0)
    made = [run.replay_of for run in world.page(100).runs if run.replay_of is not None]
    assert sorted(made) == asked
    second.close()


def test_two_servers_go_on_with_the_same_actions_and_replay_each_member_once(
    store_url: str, clock: Clock
) -> None:
    stores = [open_store(store_url, clock=clock) for _ in range(2)]
    world = World(stores[0], clock)
    asked = [world.trigger(tags=["again"]) for _ in range(30)]
    actions = [begin(world, REPLAY, tag=["again"]) for _ in range(3)]

    def serve(store: Store) -> None:
        quiet = 0
        while quiet < 3:  # what the other one holds is passed over
            [advanced] = store.transact(bulk.advance, [Chunk(7, 3)])
            quiet = 0 if advanced else quiet + 1

    with ThreadPoolExecutor() as threads:
        list(threads.map(serve, stores))
    ends(world)
    assert [counts(world, bulk_id) for bulk_id in actions] == [("COMPLETED", 30, 30, 0)] * 3
    made = [run.replay_of for run in world.page(1_000).runs if run.replay_of is not None]
    assert sorted(made) == sorted(asked * 3)
    for store in stores:
        store.close()


def test_what_is_named_and_does_not_exist_counts_as_a_failure(world: World) -> None:
    run, elsewhere = world.trigger(), world.trigger(environment="prod")
    bulk_id = begin(world, CANCEL, sorted(["run_nobody", elsewhere, run]))
    assert counts(world, bulk_id) == ("PENDING", 3, 0, 0)
    ends(world)
    assert counts(world, bulk_id) == ("COMPLETED", 3, 1, 2)
    assert world.status(run) == "CANCELLED"
    assert world.run(elsewhere, "prod").status != "CANCELLED"
    assert members(world, bulk_id) == [run]


def test_an_ended_run_is_cancelled_with_success_and_stays_as_it_is(world: World) -> None:
    worker = world.worker("send")
    run = world.trigger()
    world.succeed(worker, world.claim_one(worker))
    bulk_id = begin(world, CANCEL, [run])
    ends(world)
    assert counts(world, bulk_id) == ("COMPLETED", 1, 1, 0)
    assert world.status(run) == "COMPLETED_SUCCESSFULLY"


def test_an_action_on_nothing_is_complete(world: World) -> None:
    bulk_id = begin(world, CANCEL, tag=["nobody"])
    nothing = begin(world, CANCEL, matches_nothing=True)
    ends(world)
    assert counts(world, bulk_id) == counts(world, nothing) == ("COMPLETED", 0, 0, 0)


def test_an_aborted_action_stops_before_its_next_chunk_and_stays_so(world: World) -> None:
    runs = [world.trigger() for _ in range(6)]
    bulk_id = begin(world, CANCEL, runs)
    goes_on(world)
    assert world.do(bulk.abort, Abort("dev", bulk_id)) == bulk_id
    aborted_at = world.clock.now
    world.clock.advance(1_000)
    assert not goes_on(world)
    assert world.do(bulk.abort, Abort("dev", bulk_id)) == bulk_id
    assert counts(world, bulk_id) == ("ABORTED", 6, 2, 0)
    assert read(world, bulk_id).completed_at == aborted_at
    assert [world.status(run) == "CANCELLED" for run in runs] == [True, True, False, False, False, False]


def test_aborting_what_has_completed_changes_nothing(world: World) -> None:
    bulk_id = begin(world, CANCEL, [world.trigger()])
    ends(world)
    before = read(world, bulk_id)
    world.clock.advance(1_000)
    world.do(bulk.abort, Abort("dev", bulk_id))
    assert read(world, bulk_id) == before


def test_an_action_of_another_environment_does_not_exist(world: World) -> None:
    bulk_id = begin(world, CANCEL, [world.trigger()])
    with pytest.raises(BulkActionNotFound):
        world.do(bulk.abort, Abort("prod", bulk_id))
    with pytest.raises(BulkActionNotFound):
        read(world, bulk_id, "prod")
    assert read(world, bulk_id).status == "PENDING"


def test_every_filter_selects_as_it_does_in_lists(world: World) -> None:
    worker = world.worker("send", "mail")
    done = world.trigger(tags=["a"])
    world.succeed(worker, world.claim_one(worker))
    version = world.run(done).version
    plain = world.trigger("mail", queue="slow", machine="micro", is_test=True)
    delayed = world.trigger(delay="1h", tags=["b"], batch_id="batch_1")
    child = world.trigger(parent_id=plain)
    earlier = begin(world, CANCEL, [delayed])
    world.do(bulk.abort, Abort("dev", earlier))
    world.clock.advance(1)
    world.trigger("mail", tags=["c"])
    for filters, expected in (
        ({"status": [RunStatus.COMPLETED_SUCCESSFULLY]}, [done]),
        ({"status": [RunStatus.DELAYED, RunStatus.COMPLETED_SUCCESSFULLY]}, [done, delayed]),
        ({"task": ["send"]}, [done, delayed, child]),
        ({"version": [version]}, [done]),
        ({"machine": ["micro"]}, [plain]),
        ({"queue": ["slow"]}, [plain]),
        ({"tag": ["a", "b"]}, [done, delayed]),
        ({"tag": ["a", "b"], "task": ["mail"]}, []),
        ({"batch_id": "batch_1"}, [delayed]),
        ({"parent_id": plain}, [child]),
        ({"bulk_id": earlier}, [delayed]),
        ({"is_test": True}, [plain]),
        ({"created_to": world.clock.now - 1}, [done, plain, delayed, child]),
        ({"created_from": world.clock.now - 1, "created_to": world.clock.now - 1, "task": ["mail"]}, [plain]),
    ):
        bulk_id = begin(world, REPLAY, **filters)
        while read(world, bulk_id).scan_until is not None:
            goes_on(world)
        found = members(world, bulk_id)
        assert found == expected == [run.id for run in world.page(100, **filters).runs][::-1], filters
        world.do(bulk.abort, Abort("dev", bulk_id))


def test_actions_take_turns_so_that_a_long_one_does_not_hold_up_a_short_one(world: World) -> None:
    runs = [world.trigger() for _ in range(10)]
    long = begin(world, REPLAY, runs[:9])
    short = begin(world, REPLAY, runs[9:])
    assert goes_on(world)
    assert goes_on(world)
    assert counts(world, long) == ("PENDING", 9, 2, 0)
    assert counts(world, short) == ("COMPLETED", 1, 1, 0)


def test_large_payloads_make_small_chunks(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "PAYLOADS", 100)
    runs = [world.trigger(payload=json.dumps("x" * 60)) for _ in range(3)]
    bulk_id = begin(world, REPLAY, runs)
    goes_on(world, acted_on=10)
    assert counts(world, bulk_id) == ("PENDING", 3, 1, 0)
    ends(world)
    assert counts(world, bulk_id) == ("COMPLETED", 3, 3, 0)


def test_the_same_request_again_makes_no_second_action(world: World) -> None:
    item = NewBulkAction("dev", CANCEL, None, [world.trigger()], request_key="k")
    other = NewBulkAction("prod", CANCEL, None, ["run_x"], request_key="k")
    first = world.do(bulk.create, item)
    assert world.do(bulk.create, item) == first
    assert world.store.transact(bulk.create, [item, other])[0] == first
    assert len(world.read(lambda tx: bulk.page(tx, "dev", 10, None, None)).actions) == 1


def test_pages_of_actions_are_newest_first(world: World) -> None:
    made = [begin(world, CANCEL, ["run_x"]) for _ in range(5)]

    def page(size: int, after: str | None = None, before: str | None = None) -> Any:
        return world.read(lambda tx: bulk.page(tx, "dev", size, after, before))

    first = page(2)
    assert ([one.id for one in first.actions], first.next, first.previous) == (made[:2:-1], made[3], None)
    last = page(10, after=made[3])
    assert ([one.id for one in last.actions], last.next, last.previous) == (made[2::-1], None, made[2])
    back = page(2, before=made[1])
    assert ([one.id for one in back.actions], back.next, back.previous) == (made[3:1:-1], made[2], made[3])
    with pytest.raises(HoldfastError, match="begin again"):
        page(2, after="bulk_other")


def test_retention_forgets_ended_actions_with_their_members(world: World) -> None:
    old = begin(world, CANCEL, [f"run_{n}" for n in range(7)])
    ends(world)
    world.clock.advance(10 * DAY)
    pending = begin(world, CANCEL, ["run_x"])
    world.clock.advance(10 * DAY)
    while world.do(keeping.retain, keeping.Retention("dev", 5 * DAY, limit=3)) == 3:
        pass
    world.do(keeping.retain, keeping.Retention("dev", 5 * DAY, limit=3))
    with pytest.raises(BulkActionNotFound):
        read(world, old)
    assert read(world, pending).status == "PENDING"
    world.do(bulk.abort, Abort("dev", pending))


@pytest.mark.parametrize("members", [2_500])
def test_upkeep_carries_an_action_out_and_does_what_is_due_in_between(
    store: Store, clock: Clock, members: int
) -> None:
    async def exercise() -> None:
        engine = Engine(store)
        items = [NewRun(environment_id="dev", task="t", tags=["x"]) for _ in range(members)]
        store.transact(trigger, items)
        bulk_id = await engine.create_bulk_action(
            NewBulkAction("dev", CANCEL, Filters(tag=["x"]), name="all")
        )
        passes = 0
        [delayed] = await engine.trigger([NewRun(environment_id="dev", task="t", delay=1)])
        clock.advance(1_000)
        while (await engine.bulk_action("dev", bulk_id)).status == "PENDING":
            assert await engine.upkeep() == 0.0, "there is more to do"
            passes += 1
            assert (await engine.run("dev", delayed.id)).status == "WAITING_FOR_DEPLOY"  # type: ignore[union-attr]
        assert passes > members // bulk.ACTED_ON
        found = await engine.bulk_action("dev", bulk_id)
        assert (found.total, found.success, found.failure) == (members, members, 0)
        assert await engine.upkeep() > 0

    asyncio.run(exercise())


def test_a_defect_of_an_action_does_not_stop_upkeep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(tx: Any, items: Any) -> Any:
        raise ZeroDivisionError

    async def exercise() -> None:
        store = open_store(f"sqlite:///{tmp_path}/holdfast.db", clock=Clock())
        engine = Engine(store)
        await engine.create_bulk_action(NewBulkAction("dev", CANCEL, None, ["run_x"]))
        with monkeypatch.context() as patched:
            patched.setattr(bulk, "advance", fails)
            assert await engine.upkeep() > 0
        assert await engine.upkeep() == 0.0
        store.close()

    with caplog.at_level(logging.ERROR, "holdfast.engine"):
        asyncio.run(exercise())
    assert "tried again" in caplog.text
