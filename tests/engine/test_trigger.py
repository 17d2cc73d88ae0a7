"""What a trigger makes: its options, defaults of the task, delays and times to live."""

from __future__ import annotations

import json

import pytest

from engine.world import World, task
from holdfast.engine.trigger import NewRun, trigger
from holdfast.errors import Fenced, HoldfastError, InvalidRequest, PayloadTooLarge, Unprocessable
from holdfast.model.task import QueueSpec

HOUR = 3_600_000


def test_a_run_keeps_what_its_trigger_said(world: World) -> None:
    world.worker("send", queues=[QueueSpec("mail")])
    run = world.run(
        world.trigger(
            payload='{"to":"ä\\u2028"}',
            queue="mail",
            concurrency_key="tenant",
            machine="large-1x",
            max_attempts=7,
            max_duration=60,
            metadata='{"a":1}',
            tags=["x", "y", "x"],
            is_test=True,
            priority=3,
            batch_id="batch_1",
        )
    )
    assert (run.payload, run.queue, run.concurrency_key) == ('{"to":"ä\\u2028"}', "mail", "tenant")
    assert (run.machine, run.max_attempts, run.max_duration) == ("large-1x", 7, 60)
    assert (json.loads(run.metadata), json.loads(run.tags)) == ({"a": 1}, ["x", "y"])
    assert (run.is_test, run.priority, run.batch_id) == (True, 3, "batch_1")
    assert run.score == world.clock.now - 3_000
    assert run.status == "QUEUED"


def test_what_a_trigger_does_not_say_its_task_says(world: World) -> None:
    world.worker(
        task("send", queue="mail", machine="small-2x", max_duration=90, ttl_ms=HOUR, key="order.tenant")
    )
    run = world.run(world.trigger(payload='{"order":{"tenant":"acme"}}'))
    assert (run.queue, run.machine, run.max_duration, run.ttl_ms) == ("mail", "small-2x", 90, HOUR)
    assert run.concurrency_key == "acme"


def test_a_child_knows_its_parent_root_and_depth(world: World) -> None:
    world.worker("send")
    root = world.trigger(tags=["t"], metadata='{"a":1}')
    child = world.trigger(parent_id=root)
    grandchild = world.trigger(parent_id=child)
    run = world.run(grandchild)
    assert (run.parent_id, run.root_id, run.depth) == (child, root, 2)
    assert (run.tags, run.metadata) == ("[]", "{}")
    details = world.details(child)
    assert details.root == details.parent == world.run(root)
    assert [other.id for other in details.children] == [grandchild]


def test_an_unknown_parent_is_refused(world: World) -> None:
    with pytest.raises(Unprocessable, match="no such run"):
        world.trigger(parent_id="run_unknown")


def test_a_child_of_an_attempt_that_lost_its_lease_is_fenced(world: World) -> None:
    worker = world.worker("send")
    parent = world.trigger()
    run = world.claim_one(worker)
    assert world.trigger(parent_id=parent, parent_lease=run.lease)
    world.succeed(worker, run)
    with pytest.raises(Fenced):
        world.trigger(parent_id=parent, parent_lease=run.lease)


def test_one_bad_item_does_not_fail_its_neighbours(world: World) -> None:
    world.worker("send")
    items = [
        NewRun(environment_id="dev", task="send"),
        NewRun(environment_id="dev", task="send", delay="soon"),
        NewRun(environment_id="dev", task="send", tags=[f"t{number}" for number in range(11)]),
        NewRun(environment_id="dev", task="send", payload=json.dumps("x" * (3 * 1024 * 1024))),
        NewRun(environment_id="dev", task=""),
        NewRun(environment_id="dev", task="send", tags=["kept"]),
    ]
    answers = world.store.transact(trigger, items)
    assert [type(answer) for answer in answers if isinstance(answer, HoldfastError)] == [
        InvalidRequest,
        Unprocessable,
        PayloadTooLarge,
        InvalidRequest,
    ]
    assert len(world.page().runs) == 2


@pytest.mark.parametrize(
    ("delay", "wait_ms"),
    [
        ("1h30m", 90 * 60_000),
        (90, 90_000),
        ("2026-11-24T13:00:00Z", HOUR),
        ("2026-11-24T15:00:00+02:00", HOUR),
    ],
)
def test_a_delayed_run_is_queued_when_its_delay_is_over(world: World, delay: object, wait_ms: int) -> None:
    world.worker("send")
    run_id = world.trigger(delay=delay)
    assert world.run(run_id).delayed_until == world.clock.now + wait_ms
    world.after(wait_ms - 1)
    assert world.status(run_id) == "DELAYED"
    world.after(1)
    assert world.status(run_id) == "QUEUED"
    assert world.run(run_id).score == world.clock.now


def test_a_delay_into_the_past_means_now(world: World) -> None:
    world.worker("send")
    assert world.status(world.trigger(delay="2020-01-01T00:00:00Z")) == "QUEUED"


def test_a_run_whose_ttl_passes_before_its_first_claim_expires_without_an_attempt(world: World) -> None:
    world.worker("send")
    run_id = world.trigger(ttl="10m")
    world.after(600_000 - 1)
    assert world.status(run_id) == "QUEUED"
    world.after(1)
    run = world.run(run_id)
    assert run.status == "EXPIRED"
    assert json.loads(run.error or "")["type"] == "STRING_ERROR"
    assert world.attempts(run_id) == []


def test_a_ttl_starts_when_the_delay_is_over(world: World) -> None:
    world.worker("send")
    run_id = world.trigger(delay="1h", ttl=60)
    world.after(HOUR)
    assert world.status(run_id) == "QUEUED"
    world.after(60_000)
    assert world.status(run_id) == "EXPIRED"


def test_a_ttl_starts_when_a_worker_with_the_task_comes(world: World) -> None:
    run_id = world.trigger("later", ttl=60)
    world.after(HOUR)
    assert world.status(run_id) == "WAITING_FOR_DEPLOY"
    world.worker("later")
    assert world.status(run_id) == "QUEUED"
    world.after(60_000)
    assert world.status(run_id) == "EXPIRED"


def test_a_ttl_ends_with_the_first_claim(world: World) -> None:
    worker = world.worker("send")
    run_id = world.trigger(ttl=20)
    world.claim(worker)
    world.after(10_000, worker)
    world.after(15_000, worker)
    assert world.status(run_id) == "EXECUTING"
    world.leave(worker)
    world.after(HOUR)
    assert world.status(run_id) == "QUEUED"


@pytest.mark.parametrize("ttl", [0, -5])
def test_a_ttl_of_zero_or_less_overrides_the_one_of_the_task(world: World, ttl: int) -> None:
    world.worker(task("send", ttl_ms=1_000))
    run_id = world.trigger(ttl=ttl)
    world.after(HOUR)
    assert world.status(run_id) == "QUEUED"


def test_a_payload_that_breaks_the_schema_of_its_task_is_refused(world: World) -> None:
    world.worker(task("send", payload_schema='{"type":"object","properties":{"to":{"type":"string"}}}'))
    with pytest.raises(Unprocessable, match=r"payload\.to"):
        world.trigger(payload='{"to":1}')
    assert world.trigger(payload='{"to":"a"}')


def test_a_lock_to_an_unknown_version_is_refused(world: World) -> None:
    version = world.register("send").version
    assert world.run(world.trigger(version_lock=version)).version_lock == version
    with pytest.raises(Unprocessable, match="no such version"):
        world.trigger(version_lock="20200101.1")


def test_a_request_that_is_sent_again_gets_the_first_answer(world: World) -> None:
    world.worker("send")
    first = world.triggered(request_key="r1")
    assert world.triggered(request_key="r1") == first
    assert world.trigger(request_key="r2") != first.id
    assert len(world.page().runs) == 2


def test_replay_repeats_what_was_asked_for_and_not_how_it_went(world: World) -> None:
    worker = world.worker("send", queues=[QueueSpec("mail")])
    old = world.trigger(
        payload="[1]", tags=["t"], queue="mail", concurrency_key="k", machine="large-1x", is_test=True,
        metadata='{"a":1}', max_attempts=9, ttl=60, idempotency_key="k", priority=5,
    )  # fmt: skip
    world.fail(worker, world.claim_one(worker), None)
    run = world.run(world.replay(old))
    before = world.run(old)
    copied = ("task", "payload", "tags", "queue", "concurrency_key", "machine", "is_test", "metadata")
    assert [getattr(run, name) for name in copied] == [getattr(before, name) for name in copied]
    assert (run.replay_of, run.status, run.attempt) == (old, "QUEUED", 0)
    assert (run.max_attempts, run.ttl_ms, run.idempotency_key, run.priority) == (None, None, None, 0)
    assert world.run(world.replay(old, payload="2")).payload == "2"


def test_a_delayed_run_can_be_moved_both_ways(world: World) -> None:
    world.worker("send")
    run_id = world.trigger(delay="1h")
    world.reschedule(run_id, "2h")
    world.after(HOUR)
    assert world.status(run_id) == "DELAYED"
    world.reschedule(run_id, "1m")
    world.after(60_000)
    assert world.status(run_id) == "QUEUED"
    with pytest.raises(InvalidRequest, match="only a DELAYED run"):
        world.reschedule(run_id, "1h")


def test_a_version_counts_up_within_its_day_and_stays_for_the_same_code(world: World) -> None:
    assert world.register("send", fingerprint="a").version == "20261124.1"
    assert world.register("send", fingerprint="a").version == "20261124.1"
    assert world.register("send", "more", fingerprint="a").version == "20261124.2"
    for number in range(3, 12):
        assert world.register("send", fingerprint=f"f{number}").version == f"20261124.{number}"
    assert world.register("send", fingerprint="a", environment="prod").version == "20261124.1"
    world.after(24 * HOUR)
    assert world.register("send", fingerprint="b").version == "20261125.1"


def test_a_run_of_a_task_that_nobody_registered_waits_for_it(world: World) -> None:
    world.worker("send")
    run_id, delayed = world.trigger("later"), world.trigger("later", delay="1m")
    assert world.status(run_id) == "WAITING_FOR_DEPLOY"
    world.after(60_000)
    assert world.status(delayed) == "WAITING_FOR_DEPLOY"
    worker = world.worker(task("later", max_duration=77), fingerprint="new")
    assert {run.id for run in world.claim(worker)} == {run_id, delayed}
    assert (world.run(run_id).max_duration, world.run(run_id).max_attempts) == (77, 3)
