"""Waits that begin and end at the same time, on two connections to PostgreSQL: one of the two sees the other."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import databases
from clock import Clock
from engine.world import World, end_of, until
from holdfast.engine import Engine, NewRun, Registering, operate, upkeep, wait
from holdfast.engine.finish import Reported, report
from holdfast.engine.token import Completion, NewToken, complete, create_tokens
from holdfast.model.run import Run
from holdfast.model.task import TaskSpec
from holdfast.stores import Store, open_store
from holdfast.stores.base import Tx

SECONDS = 20


class Paused:
    """A use case on a connection of its own that stops before its commit."""

    def __init__(self, store: Store, pool: ThreadPoolExecutor, use_case: Any, items: Sequence[Any]) -> None:
        self.tries = 0
        self._done, self._go_on = threading.Event(), threading.Event()

        def run(tx: Tx, given: list[Any]) -> Sequence[Any]:
            self.tries += 1
            results: Sequence[Any] = use_case(tx, given)
            self._done.set()
            assert self._go_on.wait(SECONDS)
            return results

        self._future = pool.submit(store.transact, run, items)

    def stopped(self) -> Paused:
        """When all is written but the commit."""
        assert self._done.wait(SECONDS), "it waits for a lock"
        return self

    @property
    def is_blocked(self) -> bool:
        return not self._done.wait(0.3)

    def commit(self) -> Any:
        self._go_on.set()
        [result] = self._future.result(SECONDS)
        assert self.tries == 1, "there was a conflict"
        return result


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


@pytest.fixture
def server(migrated_postgres_url: str, pool: ThreadPoolExecutor) -> Iterator[Callable[[Any, Any], Paused]]:
    """Begins a use case in another server's transaction."""
    databases.emptied(migrated_postgres_url)
    stores: list[Store] = []

    def begin(use_case: Any, item: Any) -> Paused:
        stores.append(open_store(migrated_postgres_url, clock=CLOCK))
        return Paused(stores[-1], pool, use_case, [item])

    yield begin
    for store in stores:
        store.close()


CLOCK = Clock()


@pytest.fixture
def world(server: Callable[[Any, Any], Paused], migrated_postgres_url: str) -> Iterator[World]:
    store = open_store(migrated_postgres_url, clock=CLOCK)
    yield World(store, CLOCK)
    [stuck] = store.transact(lambda tx, _: [tx.all("stuck_runs")], [None])
    assert stuck == []
    store.close()


Begin = Callable[[Any, Any], Paused]


def family(world: World, children: int = 1) -> tuple[str, Run, list[Run]]:
    """A worker, a running parent, its running children."""
    worker = world.worker("send", "child")
    world.trigger()
    run = world.claim_one(worker)
    world.spawn(worker, run, *["child"] * children)
    return worker, run, world.claim(worker)


def suspension(worker: str, run: Run, *waits: dict[str, Any]) -> Reported:
    said = {"kind": "suspended", "run": run.id, "lease": run.lease, "activeMs": 0, "waits": list(waits)}
    return Reported(worker, "dev", said)


def success(worker: str, run: Run) -> Reported:
    return Reported(worker, "dev", {"kind": "succeeded", "run": run.id, "lease": run.lease, "output": None})


def failure(worker: str, run: Run) -> Reported:
    error = {"type": "STRING_ERROR", "raw": "no"}
    said = {"kind": "failed", "run": run.id, "lease": run.lease, "error": error, "retryDelayMs": None}
    return Reported(worker, "dev", said)


@pytest.mark.parametrize("end", [success, failure])
def test_a_child_that_ends_while_the_wait_begins_sees_the_wait(world: World, server: Begin, end: Any) -> None:
    worker, run, [child] = family(world)
    begins = server(report, suspension(worker, run, end_of(child.id, "last"))).stopped()
    ends = server(report, end(worker, child))
    assert ends.is_blocked
    assert begins.commit().status == "ok"
    assert ends.stopped().commit().status == "ok"
    assert (world.status(run.id), world.waits()) == ("QUEUED", [])


@pytest.mark.parametrize("end", [success, failure])
def test_a_wait_that_begins_while_the_child_ends_does_not_wait_for_it_and_finds_out_later(
    world: World, server: Begin, end: Any
) -> None:
    worker, run, [child] = family(world)
    ends = server(report, end(worker, child)).stopped()
    begins = server(report, suspension(worker, run, end_of(child.id, "last"))).stopped()
    assert begins.commit().status == "ok"
    assert world.status(run.id) == "WAITING_TO_RESUME"
    world.after(wait.LOOK_AGAIN_MS, worker)
    assert world.status(run.id) == "WAITING_TO_RESUME"  # it is still being written
    assert ends.commit().status == "ok"
    world.after(wait.LOOK_AGAIN_MS, worker)
    assert (world.status(run.id), world.waits()) == ("QUEUED", [])


def test_the_last_two_children_end_at_once(world: World, server: Begin) -> None:
    worker, run, [first, second] = family(world, 2)
    world.suspend(worker, run, end_of(first.id, "last"), end_of(second.id, "last"))
    one = server(report, success(worker, first)).stopped()
    other = server(report, failure(worker, second))
    assert other.is_blocked  # by the parent
    one.commit()
    other.stopped().commit()
    assert (world.status(run.id), world.waits()) == ("QUEUED", [])


def test_a_time_and_a_child_end_the_wait_at_once(world: World, server: Begin) -> None:
    worker, run, [child] = family(world)
    world.suspend(worker, run, end_of(child.id), until(CLOCK.now + 10))
    CLOCK.advance(10)
    timer = server(upkeep.upkeep, upkeep.Due(lose_workers=False)).stopped()
    ends = server(report, success(worker, child))
    assert ends.is_blocked
    timer.commit()
    assert ends.stopped().commit().status == "ok"
    resumed = world.run(run.id)
    assert (resumed.status, world.waits()) == ("QUEUED", [])
    assert resumed.lease == run.lease + 2  # suspended and resumed, once


def test_a_child_that_ends_while_its_family_is_cancelled_was_cancelled(world: World, server: Begin) -> None:
    worker, run, [child, _] = family(world, 2)
    world.suspend(worker, run, end_of(child.id, "last"))
    cancels = server(operate.cancel, operate.Cancel("dev", run.id)).stopped()
    ends = server(report, success(worker, child))
    assert ends.is_blocked
    cancels.commit()
    assert ends.stopped().commit().status == "fenced"
    assert (world.status(run.id), world.status(child.id), world.waits()) == ("CANCELLED", "CANCELLED", [])


def test_a_family_that_is_cancelled_while_a_child_ends_does_not_get_in_its_way(
    world: World, server: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child has its own lock and comes for its parent's, while the cancel wants both."""
    worker, run, [child] = family(world)
    world.suspend(worker, run, end_of(child.id, "last"))
    ended, go_on = threading.Event(), threading.Event()
    sound = wait.settle

    def settle(tx: Tx, of: Any) -> None:
        if of and not ended.is_set():
            ended.set()
            assert go_on.wait(SECONDS)
        sound(tx, of)

    monkeypatch.setattr("holdfast.engine.finish.settle", settle)
    ends = server(report, success(worker, child))
    assert ended.wait(SECONDS)
    cancels = server(operate.cancel, operate.Cancel("dev", run.id))
    assert cancels.is_blocked
    go_on.set()
    assert ends.stopped().commit().status == "ok"
    assert cancels.stopped().commit().status == "CANCELLED"
    assert (world.status(child.id), world.waits()) == ("COMPLETED_SUCCESSFULLY", [])


def test_two_runs_begin_to_wait_for_each_other_and_for_their_children(world: World, server: Begin) -> None:
    worker, run, [child] = family(world)
    second, other, [its_child] = family(world)
    one = server(report, suspension(worker, run, end_of(other.id), end_of(its_child.id))).stopped()
    two = server(report, suspension(second, other, end_of(run.id), end_of(child.id)))
    assert two.is_blocked  # by the lock on its own run, before it takes another one
    one.commit()
    two.stopped().commit()
    world.after(wait.LOOK_AGAIN_MS, worker, second)
    assert len(world.waits()) == 4
    world.succeed(worker, child)
    world.succeed(second, its_child)
    assert [world.status(id) for id in (run.id, other.id)] == ["QUEUED", "QUEUED"]


def test_a_token_that_is_completed_while_the_wait_begins_sees_the_wait(world: World, server: Begin) -> None:
    worker, run, _ = family(world)
    token = world.token().id
    begins = server(report, suspension(worker, run, end_of(token))).stopped()
    completes = server(complete, Completion("dev", token, "1"))
    assert completes.is_blocked
    begins.commit()
    assert completes.stopped().commit() is None
    assert world.status(run.id) == "QUEUED"


def test_a_wait_that_begins_while_the_token_is_completed_finds_out_later(world: World, server: Begin) -> None:
    worker, run, _ = family(world)
    token = world.token().id
    completes = server(complete, Completion("dev", token, "1")).stopped()
    server(report, suspension(worker, run, end_of(token))).stopped().commit()
    completes.commit()
    assert world.status(run.id) == "WAITING_TO_RESUME"
    world.after(wait.LOOK_AGAIN_MS, worker)
    assert world.status(run.id) == "QUEUED"


def test_a_token_is_completed_and_times_out_at_once(world: World, server: Begin) -> None:
    worker, run, _ = family(world)
    token = world.token(timeout="30s").id
    world.suspend(worker, run, end_of(token))
    CLOCK.advance(30_000)
    completes = server(complete, Completion("dev", token, "1")).stopped()
    timer = server(upkeep.upkeep, upkeep.Due(lose_workers=False)).stopped()
    timer.commit()
    completes.commit()
    assert (world.read_token(token).status, world.status(run.id)) == ("COMPLETED", "QUEUED")


def test_two_servers_make_one_token_for_a_key(world: World, server: Begin) -> None:
    item = NewToken(environment_id="dev", idempotency_key="k")
    one = server(create_tokens, item).stopped()
    other = server(create_tokens, item)
    assert other.is_blocked
    made = one.commit()
    found = other.stopped().commit()
    assert (made.is_cached, found.is_cached, found.id) == (False, True, made.id)


def test_a_report_that_comes_twice_at_once_is_written_once(world: World, server: Begin) -> None:
    worker, run, _ = family(world)
    entry = {"scope": "", "kind": "step", "name": "s", "args": None, "ok": True, "value": "1", "ref": None}
    said = {"kind": "entries", "run": run.id, "lease": run.lease, "first": 1, "entries": [entry]}
    one = server(report, Reported(worker, "dev", said)).stopped()
    other = server(report, Reported(worker, "dev", said))
    assert other.is_blocked
    assert one.commit().status == other.stopped().commit().status == "ok"
    assert world.run(run.id).entries == len(world.journal(run.id)) == 2


def old_run(world: World, worker: str, key: str) -> str:
    """A run of nobody's that retention may take."""
    run_id = world.trigger("child", idempotency_key=key)
    [run] = world.claim(worker)
    world.succeed(worker, run)
    world.after(10_000, worker)
    return run_id


def found_by_key(world: World, worker: str, run: Run, key: str) -> Reported:
    new = NewRun(environment_id="dev", task="child", parent_id=run.id, idempotency_key=key)
    said = {"kind": "triggers", "run": run.id, "lease": run.lease, "first": 0, "items": [new]}
    return Reported(worker, "dev", {**said, "scope": "", "name": "children", "args": None})


def test_retention_leaves_what_somebody_begins_to_use(world: World, server: Begin) -> None:
    worker = world.worker("send", "child")
    old = old_run(world, worker, "k")
    world.trigger()
    run = world.claim_one(worker)
    uses = server(report, found_by_key(world, worker, run, "k")).stopped()
    keeps = server(upkeep.retain, upkeep.Retention("dev", 1_000)).stopped()
    assert keeps.commit() == 0
    assert old in uses.commit().value
    assert world.do(upkeep.retain, upkeep.Retention("dev", 1_000)) == 0
    assert world.status(old) == "COMPLETED_SUCCESSFULLY"


def test_retention_that_has_locked_a_run_sees_who_began_to_use_it_before(
    world: World, server: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first statement looked before the other committed; what it deletes is asked for anew."""
    worker = world.worker("send", "child")
    old = old_run(world, worker, "k")
    world.trigger()
    run = world.claim_one(worker)
    uses = server(report, found_by_key(world, worker, run, "k")).stopped()
    sound = Tx.ids

    def ids(tx: Tx, statement: str, **parameters: Any) -> list[str]:
        if statement != "old_runs":
            return sound(tx, statement, **parameters)
        found = sound(tx, statement, **parameters)
        assert found == []  # the other holds it
        uses.commit()
        return [old]  # as if it had been locked in the moment after that commit

    monkeypatch.setattr(Tx, "ids", ids)
    assert server(upkeep.retain, upkeep.Retention("dev", 1_000)).stopped().commit() == 0
    assert world.status(old) == "COMPLETED_SUCCESSFULLY"


def test_who_begins_to_use_what_is_being_deleted_does_not_wait_for_it(world: World, server: Begin) -> None:
    worker = world.worker("send", "child")
    old = old_run(world, worker, "k")
    world.trigger()
    run = world.claim_one(worker)
    keeps = server(upkeep.retain, upkeep.Retention("dev", 1_000)).stopped()
    uses = server(report, found_by_key(world, worker, run, "k")).stopped()
    assert keeps.commit() == 1
    assert old in uses.commit().value  # it is gone, as it would be a moment later without the key


def test_a_token_that_times_out_while_it_is_found_is_kept_all_the_same(world: World, server: Begin) -> None:
    worker = world.worker("send")
    token = world.token(idempotency_key="k", timeout=1).id
    world.trigger()
    run = world.claim_one(worker)
    world.clock.advance(1_000)
    ends = server(upkeep.upkeep, upkeep.Due()).stopped()
    assert json.loads(world.make_token(worker, run, idempotency_key="k").value or "")["id"] == token
    assert ends.commit().moved == 1
    world.after(10_000, worker)
    world.do(upkeep.retain, upkeep.Retention("dev", 1_000))
    assert world.read_token(token).is_complete


def test_two_servers_under_load_forget_no_parent(migrated_postgres_url: str) -> None:
    """Parents of three levels that wait for all of theirs, four workers on two servers, everything at once."""
    databases.emptied(migrated_postgres_url)

    async def play() -> set[str]:
        stores = [open_store(migrated_postgres_url) for _ in range(2)]
        engines = [Engine(store) for store in stores]
        stop = asyncio.Event()
        keeping = [asyncio.create_task(engine.run_upkeep(stop)) for engine in engines]
        roots = await engines[0].trigger([NewRun(environment_id="dev", task="t") for _ in range(25)])
        ids = [root.id for root in roots]  # type: ignore[union-attr]  # none is refused

        async def work(number: int) -> None:
            engine = engines[number % 2]
            registering = Registering("dev", "w", "f", [TaskSpec("t", "q")], [], 60_000)
            worker = (await engine.register(registering)).worker_id
            while not stop.is_set():
                claimed = await engine.claim(worker, "dev", 20, 200)
                said = [one for run in claimed.runs for one in acts(run)]
                answers = await engine.report(worker, "dev", said) if said else []
                assert {answer.status for answer in answers} <= {"ok"}
                waits = []
                for one, answer in zip(said, answers, strict=True):
                    if one["kind"] == "triggers":
                        children = [end_of(child["id"], "last") for child in json.loads(answer.value or "")]
                        waits.append({**one, "kind": "suspended", "activeMs": 0, "waits": children})
                answers = await engine.report(worker, "dev", waits) if waits else []
                assert {answer.status for answer in answers} <= {"ok"}

        workers = [asyncio.create_task(work(number)) for number in range(4)]
        left = ids
        async with asyncio.timeout(60):
            while left:
                left = (await engines[0].finished("dev", left, wait_ms=1_000)).pending
        stop.set()
        await asyncio.gather(*keeping, *workers)
        found = await engines[0].store.read(lambda tx: tx.select("select distinct status from runs", {}))
        for store in stores:
            store.close()
        return {row[0] for row in found}

    def acts(run: Run) -> list[dict[str, Any]]:
        head = {"run": run.id, "lease": run.lease}
        if run.resumes or run.depth == 2:
            return [{**head, "kind": "succeeded", "output": "1"}]
        items = [NewRun(environment_id="dev", task="t", parent_id=run.id) for _ in range(3)]
        entry = {"scope": "", "name": "t", "args": None, "first": 0, "items": items}
        return [{**head, **entry, "kind": "triggers"}]

    assert asyncio.run(play()) == {"COMPLETED_SUCCESSFULLY"}
