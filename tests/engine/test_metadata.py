"""What runs say about themselves while they run: metadata, tags, logs."""

from __future__ import annotations

import json

import pytest

from engine.world import World
from holdfast.engine import operate
from holdfast.errors import InvalidRequest, PayloadTooLarge, Unprocessable

SET = [{"type": "set", "key": "a", "value": 1}]


def metadata(world: World, run_id: str) -> object:
    return json.loads(world.run(run_id).metadata)


def test_a_running_run_changes_its_own_metadata_and_those_of_parent_and_root(world: World) -> None:
    worker = world.worker("send")
    root = world.trigger()
    parent = world.trigger(parent_id=root)
    child = world.trigger(parent_id=parent)
    runs = {run.id: run for run in world.claim(worker)}
    answer = world.report(
        worker,
        runs[child],
        "metadata",
        operations=SET,
        parentOperations=[{"type": "increment", "key": "done", "value": 2}],
        rootOperations=[{"type": "append", "key": "list", "value": "x"}],
    )
    assert answer.status == "ok"
    assert metadata(world, child) == {"a": 1}
    assert metadata(world, parent) == {"done": 2}
    assert metadata(world, root) == {"list": ["x"]}
    assert world.succeed(worker, runs[child]).status == "ok"  # the lease has not moved


def test_in_a_root_run_parent_and_root_mean_itself(world: World) -> None:
    worker = world.worker("send")
    run_id = world.trigger()
    run = world.claim_one(worker)
    increment = [{"type": "increment", "key": "n", "value": 1}]
    world.report(
        worker, run, "metadata", operations=increment, parentOperations=increment, rootOperations=increment
    )
    assert metadata(world, run_id) == {"n": 3}


def test_metadata_of_a_stale_attempt_is_fenced(world: World) -> None:
    worker = world.worker("send")
    run_id = world.trigger()
    run = world.claim_one(worker)
    world.succeed(worker, run)
    for kind, said in (
        ("metadata", {"operations": SET}),
        ("tags", {"tags": ["t"]}),
        ("logs", {"records": []}),
    ):
        assert world.report(worker, run, kind, **said).status == "fenced"
    assert (metadata(world, run_id), world.run(run_id).tags) == ({}, "[]")


def test_metadata_over_its_limit_is_refused_and_the_run_goes_on(world: World) -> None:
    worker = world.worker("send")
    run_id = world.trigger()
    run = world.claim_one(worker)
    big = [{"type": "set", "key": "a", "value": "x" * 300_000}]
    answer = world.report(worker, run, "metadata", operations=[*SET, *big])
    assert (answer.status, metadata(world, run_id)) == ("refused", {})
    assert world.succeed(worker, run).status == "ok"


def test_clients_change_metadata_until_ten_minutes_after_the_end(world: World) -> None:
    worker = world.worker("send")
    run_id = world.trigger()
    assert world.do(operate.change_metadata, operate.ChangeMetadata("dev", run_id, {"b": 2}, SET)) == {
        "b": 2,
        "a": 1,
    }
    world.succeed(worker, world.claim_one(worker))
    world.clock.advance(600_000)
    assert world.do(operate.change_metadata, operate.ChangeMetadata("dev", run_id, {})) == {}
    world.clock.advance(1)
    with pytest.raises(Unprocessable):
        world.do(operate.change_metadata, operate.ChangeMetadata("dev", run_id, {"c": 1}))


def test_a_refused_change_changes_nothing(world: World) -> None:
    run_id = world.trigger()
    with pytest.raises(PayloadTooLarge):
        world.do(operate.change_metadata, operate.ChangeMetadata("dev", run_id, {"a": "x" * 300_000}))
    with pytest.raises(InvalidRequest):
        world.do(operate.change_metadata, operate.ChangeMetadata("dev", run_id, {"a": 1}, [{"type": "no"}]))
    assert metadata(world, run_id) == {}


def test_tags_are_added_up_to_ten(world: World) -> None:
    worker = world.worker("send")
    run_id = world.trigger(tags=["a", "b"])
    run = world.claim_one(worker)
    assert world.report(worker, run, "tags", tags=["b", "c"]).status == "ok"
    assert world.do(operate.add_tags, operate.AddTags("dev", run_id, ["c", "d"])) == 1
    too_many = [f"t{number}" for number in range(7)]
    assert world.report(worker, run, "tags", tags=too_many).status == "refused"
    with pytest.raises(Unprocessable):
        world.do(operate.add_tags, operate.AddTags("dev", run_id, too_many))
    assert json.loads(world.run(run_id).tags) == ["a", "b", "c", "d"]
    assert [run.id for run in world.page(tag=["d"]).runs] == [run_id]
    assert world.page(tag=["t1"]).runs == []


def test_logs_are_kept_in_order_with_their_attempt(world: World) -> None:
    worker = world.worker("send")
    run_id = world.trigger()
    run = world.claim_one(worker)
    records = [
        {"at": world.clock.now - number, "level": "info", "logger": "app", "message": f"line\x00 {number}"}
        for number in range(5)
    ]
    world.report(worker, run, "logs", records=records)
    logs = world.read(lambda tx: tx.all("logs", run_id=run_id, after=0, limit=3))
    assert [log["message"] for log in logs] == ["line 0", "line 1", "line 2"]
    assert {log["attempt"] for log in logs} == {1}
    rest = world.read(lambda tx: tx.all("logs", run_id=run_id, after=logs[-1]["id"], limit=10))
    assert [log["message"] for log in rest] == ["line 3", "line 4"]


def test_a_run_keeps_at_most_ten_thousand_records(world: World) -> None:
    worker = world.worker("send")
    run_id = world.trigger()
    run = world.claim_one(worker)
    record = {"at": 1, "level": "info", "logger": "app", "message": "x"}
    for _ in range(3):
        assert world.report(worker, run, "logs", records=[record] * 4_000).status == "ok"
    logs = world.read(lambda tx: tx.all("logs", run_id=run_id, after=0, limit=20_000))
    assert len(logs) == 10_000
