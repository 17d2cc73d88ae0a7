"""One run for an idempotency key (invariant I6, engine rules R79 to R87)."""

from __future__ import annotations

import asyncio

import pytest

from engine.world import World
from holdfast.engine import Engine, NewRun
from holdfast.engine.operate import ResetKey, reset_keys
from holdfast.engine.trigger import trigger
from holdfast.errors import InvalidRequest, NotFound, Unprocessable
from holdfast.model.status import RunStatus
from holdfast.stores import open_store

DAY = 86_400_000


def test_a_second_trigger_finds_the_run_of_the_first(world: World) -> None:
    first = world.triggered(idempotency_key="k")
    second = world.triggered(idempotency_key="k", payload="2")
    assert (second.id, first.is_cached, second.is_cached) == (first.id, False, True)


def test_a_key_belongs_to_its_task_and_environment(world: World) -> None:
    runs = {
        world.trigger("send", idempotency_key="k"),
        world.trigger("other", idempotency_key="k"),
        world.trigger("send", "prod", idempotency_key="k"),
    }
    assert len(runs) == 3


@pytest.mark.parametrize("end", ["succeeded", "cancelled", "executing"])
def test_a_run_that_lives_succeeded_or_was_cancelled_keeps_its_key(world: World, end: str) -> None:
    worker = world.worker("send")
    run_id = world.trigger(idempotency_key="k")
    if end == "cancelled":
        world.cancel(run_id)
    else:
        run = world.claim_one(worker)
        if end == "succeeded":
            world.succeed(worker, run)
    assert world.triggered(idempotency_key="k").id == run_id


@pytest.mark.parametrize("end", ["COMPLETED_WITH_ERRORS", "CRASHED", "TIMED_OUT", "EXPIRED", "FAILED_TO_RUN"])
def test_a_run_that_failed_gives_its_key_back(world: World, end: str) -> None:
    worker = world.worker("send")
    run_id = world.trigger(idempotency_key="k", ttl=60)
    if end == "EXPIRED":
        world.after(60_000)
    else:
        code = {"CRASHED": "TASK_PROCESS_SIGSEGV", "TIMED_OUT": "MAX_DURATION_EXCEEDED"}.get(end)
        code = "COULD_NOT_FIND_TASK" if end == "FAILED_TO_RUN" else code
        error = {"type": "INTERNAL_ERROR", "code": code} if code else {"type": "STRING_ERROR", "raw": "no"}
        world.fail(worker, world.claim_one(worker), None, error)
    assert world.status(run_id) == end
    again = world.triggered(idempotency_key="k")
    assert (again.id != run_id, again.is_cached) == (True, False)
    assert world.triggered(idempotency_key="k").id == again.id


def test_a_key_lives_thirty_days_unless_its_trigger_says_otherwise(world: World) -> None:
    month, hour = (
        world.trigger(idempotency_key="month"),
        world.trigger(idempotency_key="hour", idempotency_key_ttl="1h"),
    )
    world.clock.advance(3_600_000 - 1)
    assert world.trigger(idempotency_key="hour") == hour
    world.clock.advance(1)
    assert world.trigger(idempotency_key="hour") != hour
    world.clock.advance(30 * DAY - 3_600_001)
    assert world.trigger(idempotency_key="month") == month
    world.clock.advance(1)
    assert world.trigger(idempotency_key="month") != month


@pytest.mark.parametrize("ttl", ["", "1w", "1h30m", "soon", "1.5h"])
def test_a_lifetime_that_can_not_be_read_is_refused(world: World, ttl: str) -> None:
    with pytest.raises(Unprocessable):
        world.trigger(idempotency_key="k", idempotency_key_ttl=ttl)


def test_an_empty_key_is_refused(world: World) -> None:
    with pytest.raises(InvalidRequest):
        world.trigger(idempotency_key="")


def test_items_of_one_batch_share_a_key(world: World) -> None:
    item = NewRun(environment_id="dev", task="send", idempotency_key="k")
    answers = world.store.transact(trigger, [item, item, NewRun(environment_id="dev", task="send")])
    assert answers[0].id == answers[1].id != answers[2].id
    assert [answer.is_cached for answer in answers] == [False, True, False]


def test_a_batch_finds_the_run_of_an_earlier_trigger_and_frees_the_key_of_a_failed_one(world: World) -> None:
    worker = world.worker("send")
    kept = world.trigger(idempotency_key="kept")
    world.succeed(worker, world.claim_one(worker))
    failed = world.trigger(idempotency_key="failed")
    world.fail(worker, world.claim_one(worker), None)
    items = [NewRun(environment_id="dev", task="send", idempotency_key=key) for key in ("kept", "failed")]
    answers = world.store.transact(trigger, items)
    assert (answers[0].id, answers[0].is_cached) == (kept, True)
    assert (answers[1].id != failed, answers[1].is_cached) == (True, False)


def test_a_key_that_is_given_back_leaves_its_run(world: World) -> None:
    run_id = world.trigger(idempotency_key="k")
    freed = world.read(lambda tx: tx.ids("release_key", environment_id="dev", task="send", key="k"))
    assert freed == [run_id]
    assert world.trigger(idempotency_key="k") != run_id
    assert world.status(run_id) == "WAITING_FOR_DEPLOY"


def test_concurrent_triggers_on_two_servers_make_one_run(store_url: str, world: World) -> None:
    async def race() -> set[str]:
        stores = [open_store(store_url, clock=world.clock) for _ in range(2)]
        engines = [Engine(store) for store in stores]
        item = NewRun(environment_id="dev", task="send", idempotency_key="k")
        answers = await asyncio.gather(*(engines[number % 2].trigger([item]) for number in range(10)))
        for store in stores:
            store.close()
        created = [answer for [answer] in answers if not answer.is_cached]
        assert len(created) == 1
        return {answer.id for [answer] in answers}

    assert len(asyncio.run(race())) == 1
    assert len(world.page().runs) == 1


def test_a_key_that_is_reset_is_free_and_its_run_goes_on(world: World) -> None:
    first = world.trigger(idempotency_key="k")
    other_task = world.trigger(task="other", idempotency_key="k")
    assert world.store.transact(reset_keys, [ResetKey("dev", "send", "k")]) == ["k"]
    assert world.run(first).status is RunStatus.WAITING_FOR_DEPLOY
    second = world.trigger(idempotency_key="k")
    assert second != first
    assert world.trigger(task="other", idempotency_key="k") == other_task


def test_a_key_that_nobody_holds_can_not_be_reset(world: World) -> None:
    world.trigger(idempotency_key="k")
    refused = world.store.transact(
        reset_keys,
        [ResetKey("dev", "send", "none"), ResetKey("dev", "other", "k"), ResetKey("prod", "send", "k")],
    )
    assert [type(answer) for answer in refused] == [NotFound] * 3
    [again] = world.store.transact(reset_keys, [ResetKey("dev", "send", "k")])
    assert again == "k"
