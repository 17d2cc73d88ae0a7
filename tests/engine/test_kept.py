"""What a run uses and did not make stays while it goes on, however old it is."""

from __future__ import annotations

import json

import pytest

from engine.world import World, end_of
from holdfast.engine.operate import Cancel, cancel
from holdfast.engine.upkeep import Retention, retain
from holdfast.errors import RunNotFound, WaitpointNotFound
from holdfast.model.run import Run

DAY = 86_400_000


def ended(world: World, worker: str, **options: object) -> str:
    """A run of nobody's that is over."""
    run_id = world.trigger("child", **options)
    [run] = world.claim(worker)
    world.succeed(worker, run, '"theirs"')
    return run_id


def user(world: World, worker: str) -> Run:
    world.trigger()
    return world.claim_one(worker)


def sweep(world: World, worker: str) -> None:
    """Retention long after everything so far was over."""
    world.clock.advance(DAY)
    world.renew(worker)
    world.do(retain, Retention("dev", 1_000))


def is_there(world: World, run_id: str) -> bool:
    try:
        world.run(run_id)
    except RunNotFound:
        return False
    return True


@pytest.fixture
def worker(world: World) -> str:
    return world.worker("send", "child")


def test_a_child_that_was_found_by_its_key_stays_for_whoever_found_it(world: World, worker: str) -> None:
    shared, other = ended(world, worker, idempotency_key="k"), ended(world, worker)
    run = user(world, worker)
    assert world.spawn(worker, run, "child", idempotency_key="k") == [{"id": shared, "isCached": True}]
    sweep(world, worker)
    assert (is_there(world, shared), is_there(world, other)) == (True, False)
    world.succeed(worker, run)
    sweep(world, worker)
    assert not is_there(world, shared)


def test_what_a_suspended_run_waits_for_stays_after_its_end(world: World, worker: str) -> None:
    """The parent waits on for others, and asks for this one's result when it goes on."""
    first, second = world.trigger("child"), world.trigger("child", delay="1h")
    run = user_of(world, worker, first)
    world.suspend(worker, run, end_of(first, "failure"), end_of(second, "failure"))
    world.clock.advance(30 * 60_000)
    world.do(retain, Retention("dev", 1_000))
    assert is_there(world, first)
    assert world.status(run.id) == "WAITING_TO_RESUME"


def user_of(world: World, worker: str, other: str) -> Run:
    """A live run, while `other` has ended."""
    world.trigger()
    held = {run.id: run for run in world.claim(worker)}
    world.succeed(worker, held.pop(other))
    [run] = held.values()
    return run


@pytest.mark.parametrize("kind", ["done", "first"])
def test_a_run_whose_end_is_in_a_journal_stays(world: World, worker: str, kind: str) -> None:
    known = ended(world, worker)
    run = user(world, worker)
    entry = {"scope": "", "kind": kind, "name": known, "args": None, "ok": True, "value": None, "ref": known}
    assert world.record(worker, run, entry, first=0).status == "ok"
    assert world.record(worker, run, entry, first=0).status == "ok"
    sweep(world, worker)
    assert is_there(world, known)
    world.succeed(worker, run)
    sweep(world, worker)
    assert not is_there(world, known)


def test_a_run_of_another_environment_is_kept_for_nobody(world: World, worker: str) -> None:
    foreign = world.trigger("child", "prod")
    world.do(cancel, Cancel("prod", foreign, "enough"))
    run = user(world, worker)
    entry = {
        "scope": "",
        "kind": "done",
        "name": "x",
        "args": None,
        "ok": True,
        "value": None,
        "ref": foreign,
    }
    world.record(worker, run, entry, first=0)
    world.clock.advance(DAY)
    world.do(retain, Retention("prod", 1_000))
    with pytest.raises(RunNotFound):
        world.run(foreign, "prod")


def test_tokens_that_were_found_by_their_key_or_waited_for_stay(world: World, worker: str) -> None:
    found, awaited, other = world.token(idempotency_key="k").id, world.token().id, world.token().id
    run = user(world, worker)
    assert json.loads(world.make_token(worker, run, idempotency_key="k").value or "")["id"] == found
    later = world.trigger("child", delay="365d")
    world.suspend(worker, run, end_of(awaited, "last"), end_of(later, "last"))
    for token in (found, awaited, other):
        world.complete(token)
    sweep(world, worker)
    assert world.read_token(found).is_complete
    assert world.read_token(awaited).is_complete
    with pytest.raises(WaitpointNotFound):
        world.read_token(other)
    world.cancel(run.id)
    sweep(world, worker)
    assert world.page_of_tokens() == []


def test_what_is_kept_does_not_keep_retention_from_the_rest(world: World, worker: str) -> None:
    """More of it than fits into one batch stands before what is to go."""
    shared = [ended(world, worker, idempotency_key=f"k{number}") for number in range(3)]
    others = [ended(world, worker) for _ in range(2)]
    run = user(world, worker)
    for number in range(3):
        world.spawn(worker, run, "child", idempotency_key=f"k{number}")
    world.clock.advance(DAY)
    world.renew(worker)
    assert world.do(retain, Retention("dev", 1_000, limit=2)) == 2
    assert [is_there(world, id) for id in (*shared, *others)] == [True] * 3 + [False] * 2
