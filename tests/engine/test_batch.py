"""Batches: filled by index however often an item is sent, sealed when full, aborted when never full (rules R86 to R94)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from engine.world import World, task
from holdfast.engine import Engine, once
from holdfast.engine.batch import (
    BatchFound,
    CreatedBatch,
    NewBatch,
    create_batches,
    ended_runs,
    found_batch,
    open_batch,
)
from holdfast.engine.batch_item import Line, Placed, Refusal, place_items
from holdfast.engine.once import OneTime
from holdfast.engine.trigger import NewRun
from holdfast.engine.upkeep import Due, Retention, retain, upkeep
from holdfast.errors import BatchNotFound, HoldfastError, InvalidRequest, Unprocessable
from holdfast.model.batch import Batch, batch_status
from holdfast.stores import open_store

MINUTE = 60_000
DAY = 86_400_000
SCHEMA = json.dumps({"type": "integer"})


def created(world: World, count: int = 5, **asked: Any) -> CreatedBatch:
    asked.setdefault("environment_id", "dev")
    made: CreatedBatch = world.do(create_batches, NewBatch(run_count=count, **asked))
    return made


def line(batch_id: str, index: int, environment: str = "dev", **options: Any) -> Line:
    options.setdefault("task", "send")
    run = NewRun(environment_id=environment, batch_id=batch_id, payload=str(index), **options)
    return Line(environment_id=environment, batch_id=batch_id, index=index, task=options["task"], run=run)


def refused_line(batch_id: str, index: int, code: str, text: str = "no", **fields: Any) -> Line:
    refusal: Refusal = {"error": text, "code": code}
    return Line(environment_id="dev", batch_id=batch_id, index=index, task="send", run=refusal, **fields)


def place(world: World, *lines: Line) -> list[Placed]:
    """What became of lines, none of which may be refused."""
    answers = world.store.transact(place_items, list(lines))
    for answer in answers:
        assert isinstance(answer, Placed), answer
    return [answer for answer in answers if isinstance(answer, Placed)]


def send(world: World, batch_id: str, indexes: Sequence[int]) -> tuple[int, int, bool]:
    """What a stream would be answered: how many were new, how many were known, and whether it is sealed."""
    answers = place(world, *(line(batch_id, index) for index in indexes))
    new = sum(answer.is_new for answer in answers)
    return new, len(answers) - new, answers[-1].batch.sealed_at is not None


def found(world: World, batch_id: str) -> BatchFound:
    answer: BatchFound = world.read(lambda tx: found_batch(tx, "dev", batch_id))
    return answer


def status(world: World, batch_id: str) -> str:
    answer = found(world, batch_id)
    return str(batch_status(answer.batch, answer.items))


def runs_of(world: World, batch_id: str) -> list[str | None]:
    return [item.run_id for item in found(world, batch_id).items]


def test_a_stream_that_broke_after_three_of_five_is_repeated_from_the_start(world: World) -> None:
    """Scenario 19 of the engine semantics."""
    batch = created(world).batch
    assert send(world, batch.id, range(3)) == (3, 0, False)
    assert send(world, batch.id, range(5)) == (2, 3, True)
    assert [world.run(run or "").payload for run in runs_of(world, batch.id)] == ["0", "1", "2", "3", "4"]
    assert len(world.page(size=100).runs) == 5
    assert send(world, batch.id, range(5)) == (0, 5, True)
    assert len(world.page(size=100).runs) == 5


def test_items_come_in_any_order_and_are_read_in_that_of_their_indexes(world: World) -> None:
    batch = created(world).batch
    assert send(world, batch.id, [4, 2, 4]) == (2, 1, False)
    assert send(world, batch.id, [3, 0, 1]) == (3, 0, True)
    assert [item.index for item in found(world, batch.id).items] == [0, 1, 2, 3, 4]
    assert [world.run(run or "").payload for run in runs_of(world, batch.id)] == ["0", "1", "2", "3", "4"]


def test_an_index_again_with_other_content_makes_nothing(world: World) -> None:
    batch = created(world, 1).batch
    [first] = place(world, line(batch.id, 0))
    [again] = place(world, line(batch.id, 0, task="other"))
    assert (again.run_id, again.is_new) == (first.run_id, False)
    assert [run.task for run in world.page().runs] == ["send"]


def test_a_batch_is_complete_when_every_run_has_ended_well_or_not(world: World) -> None:
    worker = world.worker()
    batch = created(world, 2).batch
    assert status(world, batch.id) == "PROCESSING"
    send(world, batch.id, [0])
    first = world.claim_one(worker)
    world.succeed(worker, first, '"a"')
    assert status(world, batch.id) == "PROCESSING"  # an item is still to come
    send(world, batch.id, [1])
    assert status(world, batch.id) == "PROCESSING"
    world.fail(worker, world.claim_one(worker), None)
    assert status(world, batch.id) == "COMPLETED"
    results = world.read(lambda tx: ended_runs(tx, "dev", batch.id))
    assert [str(run.status) for run in results] == ["COMPLETED_SUCCESSFULLY", "COMPLETED_WITH_ERRORS"]


def test_results_come_in_the_order_of_the_items(world: World) -> None:
    """Rule R92."""
    worker = world.worker()
    batch = created(world, 3).batch
    send(world, batch.id, [2, 1, 0])
    runs = {run.payload: run for run in world.claim(worker)}
    world.succeed(worker, runs["2"])
    assert [run.payload for run in world.read(lambda tx: ended_runs(tx, "dev", batch.id))] == ["2"]
    world.succeed(worker, runs["0"])
    world.succeed(worker, runs["1"])
    assert [run.payload for run in world.read(lambda tx: ended_runs(tx, "dev", batch.id))] == ["0", "1", "2"]


def test_one_key_twice_in_a_batch_is_one_run_at_both_indexes(world: World) -> None:
    earlier = world.trigger(idempotency_key="old")
    batch = created(world, 4).batch
    place(world, line(batch.id, 0, idempotency_key="k"), line(batch.id, 1, idempotency_key="k"))
    answers = place(world, line(batch.id, 2, idempotency_key="k"), line(batch.id, 3, idempotency_key="old"))
    assert all(answer.is_new and answer.is_cached for answer in answers)
    runs = runs_of(world, batch.id)
    assert runs[0] == runs[1] == runs[2]
    assert runs[3] == earlier
    assert answers[-1].batch.sealed_at is not None
    listed = [run.id for run in world.page(batch_id=batch.id).runs]
    assert listed == sorted({str(run) for run in runs}, reverse=True)


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        ({"tags": [str(number) for number in range(11)]}, "BATCH_ITEM_COULD_NOT_TRIGGER", "11 tags"),
        ({"task": "typed", "payload_type": None}, "BATCH_ITEM_COULD_NOT_TRIGGER", "integer"),
        ({"version_lock": "20200101.1"}, "BATCH_ITEM_COULD_NOT_TRIGGER", "20200101.1"),
    ],
)
def test_an_item_that_can_not_be_triggered_is_a_run_that_has_failed(
    world: World, options: dict[str, Any], code: str, text: str
) -> None:
    """Rule R94; the others are not affected."""
    world.worker(task("typed", payload_schema=SCHEMA), "send")
    batch = created(world, 3).batch
    bad = line(batch.id, 1, **options)
    if options.get("task") == "typed":
        bad = Line(
            environment_id="dev",
            batch_id=batch.id,
            index=1,
            task="typed",
            run=NewRun(environment_id="dev", batch_id=batch.id, task="typed", payload='"x"'),
        )
    answers = place(world, line(batch.id, 0), bad, line(batch.id, 2))
    failed = world.run(answers[1].run_id or "")
    assert (str(failed.status), failed.batch_id, failed.finished_at) == (
        "FAILED_TO_RUN",
        batch.id,
        world.clock.now,
    )
    error = json.loads(failed.error or "")
    assert (error["type"], error["code"]) == ("INTERNAL_ERROR", code)
    assert text in error["message"]
    assert [str(world.status(run or "")) for run in runs_of(world, batch.id)] == [
        "QUEUED",
        "FAILED_TO_RUN",
        "QUEUED",
    ]
    [again] = place(world, line(batch.id, 1))
    assert (again.run_id, again.is_new) == (failed.id, False)


def test_an_item_too_large_says_so(world: World) -> None:
    batch = created(world, 1).batch
    [answer] = place(world, refused_line(batch.id, 0, "payload_too_large", "3 GB"))
    assert json.loads(world.run(answer.run_id or "").error or "") == {
        "type": "INTERNAL_ERROR",
        "code": "PAYLOAD_TOO_LARGE",
        "message": "3 GB",
    }
    assert status(world, batch.id) == "COMPLETED"


def test_items_that_never_became_runs_are_told(world: World) -> None:
    """A batch in one call answers refusals in their place, and keeps them."""
    worker = world.worker()
    opens = NewBatch(environment_id="dev", run_count=2)

    def sent(batch_id: str, *refused: int) -> list[Line]:
        lines = []
        for index in range(2):
            own: Any = {"failed": False, "opens": opens}
            run: Any = NewRun(environment_id="dev", task="send", batch_id=batch_id)
            if index in refused:
                run = {"error": "no", "code": "unprocessable", "param": "task"}
            lines.append(
                Line(environment_id="dev", batch_id=batch_id, index=index, task="send", run=run, **own)
            )
        return lines

    first = place(world, *sent("batch_a", 1))
    assert first[1].run_id is None
    assert status(world, "batch_a") == "PROCESSING"
    world.succeed(worker, world.claim_one(worker))
    assert status(world, "batch_a") == "PARTIAL_FAILED"
    again = place(world, *sent("batch_a"))
    assert [(one.run_id, one.refusal, one.is_new) for one in again] == [
        (first[0].run_id, None, False),
        (None, {"error": "no", "code": "unprocessable", "param": "task"}, False),
    ]
    place(world, *sent("batch_b", 0, 1))
    assert status(world, "batch_b") == "ABORTED"
    assert found(world, "batch_b").batch.sealed_at is not None


def test_lines_for_what_is_no_open_batch_are_refused(world: World) -> None:
    batch = created(world, 2).batch
    answers = world.store.transact(
        place_items,
        [line(batch.id, 0), line(batch.id, 2), line("batch_x", 0), line(batch.id, 1, environment="prod")],
    )
    assert isinstance(answers[0], Placed)
    for answer in answers[1:]:
        assert isinstance(answer, Unprocessable)
    assert "2 items" in str(answers[1])
    assert len(world.page().runs) == 1
    with pytest.raises(BatchNotFound):
        world.read(lambda tx: found_batch(tx, "prod", batch.id))


def test_a_batch_that_is_never_full_is_aborted_after_half_an_hour(world: World) -> None:
    """Rule R91; the runs that it has go on."""
    worker = world.worker()
    batch = created(world, 3, key="k").batch
    send(world, batch.id, [0])
    sealed = created(world, 1).batch
    send(world, sealed.id, [0])
    world.after(30 * MINUTE - 1, worker)
    assert status(world, batch.id) == "PROCESSING"
    passed = world.do(upkeep, Due(lose_workers=False))
    assert passed.next_due_at == world.clock.now + 1
    world.after(1, worker)
    assert status(world, batch.id) == "ABORTED"
    assert found(world, batch.id).batch.aborted_at == world.clock.now
    with pytest.raises(Unprocessable, match="aborted"):
        world.do(place_items, line(batch.id, 1))
    assert [str(world.status(run or "")) for run in runs_of(world, batch.id)] == ["QUEUED"]
    assert found(world, sealed.id).batch.aborted_at is None
    assert created(world, 3, key="k").batch.id != batch.id  # its key is free again


def test_a_key_finds_its_batch_which_is_cached_when_it_is_full(world: World) -> None:
    first = created(world, 2, key="k", tasks=["b", "a", "b"], key_shown="the words")
    assert not first.is_cached
    again = created(world, 2, key="k", tasks=["a", "b"])
    assert (again.batch.id, again.is_cached) == (first.batch.id, False)  # its items are still wanted
    send(world, first.batch.id, [0, 1])
    last = created(world, 2, key="k", tasks=["a", "b"])
    assert (last.batch.id, last.is_cached, last.batch.key_shown) == (first.batch.id, True, "the words")
    for other in (
        created(world, 2, key="k", tasks=["a"]),
        created(world, 2, key="l", tasks=["a", "b"]),
        created(world, 2, key="k", tasks=["a", "b"], environment_id="prod"),
    ):
        assert other.batch.id != first.batch.id
    world.clock.advance(30 * DAY)
    assert created(world, 2, key="k", tasks=["a", "b"]).batch.id != first.batch.id


def test_the_lifetime_of_a_key_may_be_shorter(world: World) -> None:
    first = created(world, 1, key="k", key_ttl="60s").batch.id
    send(world, first, [0])
    world.clock.advance(59_999)
    assert created(world, 1, key="k").batch.id == first
    world.clock.advance(1)
    assert created(world, 1, key="k").batch.id != first
    with pytest.raises(HoldfastError):
        created(world, 1, key="other", key_ttl="soon")
    with pytest.raises(InvalidRequest):
        created(world, 1, key="a\x00b")


def test_a_repeated_request_finds_its_batch(world: World) -> None:
    first = created(world, 2, id="batch_derived")
    again = created(world, 2, id="batch_derived")
    assert (first.batch, first.is_cached) == (again.batch, again.is_cached)
    assert not again.is_cached


def test_runs_of_a_batch_have_its_parent(world: World) -> None:
    parent = world.trigger()
    batch = created(world, 2, parent_id=parent).batch
    assert batch.parent_id == parent
    answers = place(
        world, line(batch.id, 0, parent_id=parent), refused_line(batch.id, 1, "payload_too_large")
    )
    assert [world.run(answer.run_id or "").parent_id for answer in answers] == [parent, parent]
    for asked in ({"parent_id": "run_x"}, {"parent_id": parent, "environment_id": "prod"}):
        with pytest.raises(Unprocessable, match="parentRunId"):
            created(world, 2, **asked)


def test_a_one_time_token_makes_one_batch_and_fills_no_other(world: World) -> None:
    token = OneTime("digest", world.clock.now + DAY)
    other = created(world, 1).batch.id
    first = created(world, 1, once=token, id="batch_derived").batch.id
    assert created(world, 1, once=token, id="batch_derived").batch.id == first  # its request repeated
    with pytest.raises(Unprocessable, match="already been used"):
        created(world, 1, once=token)
    assert world.read(lambda tx: open_batch(tx, "dev", first, token)).id == first
    with pytest.raises(Unprocessable, match="one-time"):
        world.read(lambda tx: open_batch(tx, "dev", other, token))
    assert world.read(lambda tx: once.used_by(tx, token)) == first


def test_a_one_time_token_that_finds_an_open_batch_may_fill_it(world: World) -> None:
    first, second, third = (OneTime(name, world.clock.now + DAY) for name in ("first", "second", "third"))
    batch = created(world, 1, key="k", once=first).batch.id
    for token in (second, second):
        assert created(world, 1, key="k", once=token).batch.id == batch
        assert world.read(lambda tx, token=token: open_batch(tx, "dev", batch, token)).id == batch
    with pytest.raises(Unprocessable, match="already been used"):
        created(world, 1, key="other", once=second)
    send(world, batch, [0])
    assert created(world, 1, key="k", once=third).is_cached  # nothing to bring, so it is not used up
    assert created(world, 1, key="other", once=third).batch.id != batch


def test_retention_deletes_a_batch_with_the_last_of_its_runs(world: World) -> None:
    worker = world.worker()
    batch = created(world, 2).batch.id
    send(world, batch, [0, 1])
    first, second = world.claim(worker)
    world.succeed(worker, first)
    empty = created(world, 1).batch.id
    world.after(31 * MINUTE, worker)

    def kept(hours: int) -> list[bool]:
        world.do(retain, Retention("dev", hours * 60 * MINUTE))
        known = []
        for batch_id in (batch, empty):
            try:
                found(world, batch_id)
            except BatchNotFound:
                known.append(False)
            else:
                known.append(True)
        return known

    assert kept(1) == [True, True]
    world.after(DAY, worker)
    assert kept(1) == [True, False]
    assert runs_of(world, batch) == [first.id, second.id]
    assert status(world, batch) == "PROCESSING"
    world.succeed(worker, second)
    assert status(world, batch) == "COMPLETED"  # the first run is gone, and had ended
    world.after(2 * 60 * MINUTE)
    assert kept(1) == [False, False]


async def _both(url: str, clock: Any) -> tuple[list[list[Any]], list[list[Any]], Batch]:
    """Two servers send all of a batch at the same time, in chunks; then both create it by the same key."""
    stores = [open_store(url, clock=clock) for _ in range(2)]
    try:
        engines = [Engine(store) for store in stores]
        batch = (await engines[0].create_batch(NewBatch(environment_id="dev", run_count=200))).batch

        async def stream(engine: Engine, indexes: Sequence[int]) -> list[Any]:
            answers: list[Any] = []
            for start in range(0, 200, 20):
                lines = [line(batch.id, index) for index in indexes[start : start + 20]]
                answers += await engine.place_items(lines)
            return answers

        forwards, backwards = list(range(200)), list(reversed(range(200)))
        answers = await asyncio.gather(
            stream(engines[0], forwards), stream(engines[1], backwards), stream(engines[1], forwards)
        )
        new = NewBatch(environment_id="dev", run_count=1, key="k")
        made = await asyncio.gather(*(engines[n % 2].create_batch(new) for n in range(10)))
        return list(answers), [[one.batch.id for one in made]], (await engines[0].batch("dev", batch.id))
    finally:
        for store in stores:
            store.close()


def test_streams_at_the_same_time_make_each_index_exactly_once(world: World, store_url: str) -> None:
    answers, [made], batch = asyncio.run(_both(store_url, world.clock))
    placed = [one for stream in answers for one in stream]
    assert all(isinstance(one, Placed) for one in placed)
    assert sum(one.is_new for one in placed) == 200
    assert (batch.arrived, batch.sealed_at is not None) == (200, True)
    runs = runs_of(world, batch.id)
    assert len(set(runs)) == 200
    assert [world.run(run or "").payload for run in runs] == [str(index) for index in range(200)]
    assert len(set(made)) == 1
