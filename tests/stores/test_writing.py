"""What every store promises about transactions: together or not at all, and never at the cost of a neighbour."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from clock import Clock
from holdfast.engine import Engine, NewRun, Registering
from holdfast.errors import StoreUnavailable
from holdfast.model.task import QueueSpec, TaskSpec
from holdfast.stores import Store, open_store
from holdfast.stores.base import Tx


def pause(tx: Tx, names: list[str]) -> list[str]:
    """A use case that leaves a trace of each item, and fails for one named "bad"."""
    for name in names:
        tx.do("set_queue_paused", environment_id="dev", name=name, paused=1)
        tx.wake(name)
    if "bad" in names:
        raise ValueError("bad")
    return [f"{name} of {len(names)}" for name in names]


def traces(store: Store) -> set[str]:
    [rows] = store.transact(lambda tx, _: [tx.all("queues", environment_id="dev")], [None])
    return {row["name"] for row in rows}


def test_a_transaction_that_raises_leaves_nothing(store: Store) -> None:
    woken: list[set[str]] = []
    store.on_wake = woken.append
    with pytest.raises(ValueError, match="bad"):
        store.transact(pause, ["a", "bad"])
    assert (traces(store), woken) == (set(), [])
    assert store.transact(pause, ["a", "b"]) == ["a of 2", "b of 2"]
    assert (traces(store), woken) == ({"a", "b"}, [{"a", "b"}])


def test_calls_that_wait_together_become_one_and_get_their_own_results(store: Store) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def block(tx: Tx, items: list[None]) -> list[None]:
        begun.set()
        assert go_on.wait(10)
        return items

    async def play() -> list[Any]:
        blockers = [asyncio.create_task(store.write(block, [None]))]
        await asyncio.to_thread(begun.wait, 10)
        for _ in range(2 if store.dialect == "postgres" else 0):  # one for each further writer
            begun.clear()
            blockers.append(asyncio.create_task(store.write(block, [None])))
            await asyncio.to_thread(begun.wait, 10)
        calls = [asyncio.create_task(store.write(pause, [f"n{number}"])) for number in range(20)]
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.gather(*blockers)
        return await asyncio.gather(*calls)

    results = [result for [result] in asyncio.run(play())]
    assert [result.split()[0] for result in results] == [f"n{number}" for number in range(20)]
    assert "n0 of 20" in results or store.dialect == "postgres"
    assert traces(store) == {f"n{number}" for number in range(20)}


def test_a_call_that_raises_does_not_fail_those_that_were_merged_with_it(store: Store) -> None:
    async def play() -> Sequence[Any]:
        names = ["a", "bad", "b", "bad", "c"] * 4
        return await asyncio.gather(*(store.write(pause, [name]) for name in names), return_exceptions=True)

    results = asyncio.run(play())
    assert [isinstance(result, ValueError) for result in results] == [False, True, False, True, False] * 4
    assert traces(store) == {"a", "b", "c"}


def test_a_reader_sees_what_was_answered_before(store: Store) -> None:
    async def play() -> None:
        for number in range(20):
            await store.write(pause, [f"q{number}"])
            rows = await store.read(lambda tx: tx.all("queues", environment_id="dev"))
            assert len(rows) == number + 1

    asyncio.run(play())


def test_the_clock_stands_still_within_a_transaction(store: Store, clock: Clock) -> None:
    def ask(tx: Tx, _: list[None]) -> list[tuple[int, int]]:
        before = tx.now
        clock.advance(5)
        return [(before, tx.now)]

    start = clock.now
    assert store.transact(ask, [None]) == [(start, start)]
    assert store.transact(lambda tx, _: [tx.now], [None]) == [start + 5]


def test_a_closed_store_says_so(store_url: str) -> None:
    store = open_store(store_url)

    async def play() -> None:
        calls = [asyncio.create_task(store.write(pause, [f"n{number}"])) for number in range(5)]
        await asyncio.sleep(0)
        await asyncio.to_thread(store.close)
        assert len(await asyncio.gather(*calls)) == 5
        with pytest.raises(StoreUnavailable):
            await store.write(pause, ["late"])
        await asyncio.to_thread(store.close)  # again

    asyncio.run(play())


def test_text_of_every_kind_comes_back_as_it_was(store: Store) -> None:
    from engine.world import World

    world = World(store, Clock())
    for text in (
        '"',
        "\\",
        "{}",
        "{a,b}",
        "NULL",
        "'",
        "%s",
        ":name",
        "a\nb\tc",
        "ä😀\u2028",
        '","',
        "\\u0041",
        "\x01",
    ):
        run = world.run(world.trigger(concurrency_key=text, payload=text, tags=[text], queue="q" + text))
        assert (run.concurrency_key, run.payload, run.queue) == (text, text, "q" + text)
        assert [found.id for found in world.page(tag=[text]).runs] == [run.id]


def test_two_servers_that_claim_at_once_never_exceed_a_limit_nor_share_a_run(
    store_url: str, store: Store
) -> None:
    async def play() -> tuple[list[str], int]:
        stores = [open_store(store_url) for _ in range(2)]
        engines = [Engine(store) for store in stores]
        queues = [QueueSpec("q", 7, 3)]
        workers = [
            (
                await engine.register(Registering("dev", "w", "f", [TaskSpec("send", "q")], queues, 60_000))
            ).worker_id
            for engine in engines
            for _ in range(2)
        ]
        await engines[0].trigger(
            [
                NewRun(environment_id="dev", task="send", concurrency_key=f"k{number % 4}")
                for number in range(40)
            ]
        )
        done: list[str] = []
        most = 0

        async def work(number: int) -> None:
            nonlocal most
            engine, worker = engines[number // 2], workers[number]
            while len(done) < 40:
                claimed = await engine.claim(worker, "dev", 5)
                held = await engine.store.read(lambda tx: tx.all("held", environment_id="dev"))
                most = max(most, sum(row["held"] for row in held))
                assert all(row["held"] <= 3 for row in held)
                done.extend(run.id for run in claimed.runs)
                await engine.report(
                    worker,
                    "dev",
                    [
                        {"kind": "succeeded", "run": run.id, "lease": run.lease, "output": None}
                        for run in claimed.runs
                    ],
                )

        async with asyncio.timeout(30):
            await asyncio.gather(*(work(number) for number in range(4)))
        for store in stores:
            store.close()
        return done, most

    done, most = asyncio.run(play())
    assert len(done) == len(set(done)) == 40
    assert most <= 7
