"""PostgreSQL goes away and comes back, and servers get into each other's way."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator

import psycopg
import pytest

from holdfast.errors import StoreUnavailable
from holdfast.stores import Store, open_store
from holdfast.stores.base import Tx
from holdfast.stores.notify import EVERYTHING, MAX_PAYLOAD_BYTES, others, payload


@pytest.fixture
def postgres(postgres_url: str) -> Iterator[Store]:
    store = open_store(postgres_url)
    yield store
    store.close()


@pytest.fixture
def administrator(postgres_url: str) -> Iterator[psycopg.Connection[tuple[int]]]:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        yield connection


def process(tx: Tx, _: object = None) -> list[int]:
    return [tx._connection.select("select pg_backend_pid()", {})[0][0]]


def test_a_connection_that_died_while_it_was_idle_is_replaced_unseen(
    postgres: Store, administrator: psycopg.Connection[tuple[int]]
) -> None:
    async def play() -> None:
        for _ in range(2):
            [write] = await postgres.write(process, [None])
            [read] = await postgres.read(process)
            [own] = postgres.transact(process, [None])
            for number in (write, read, own):
                administrator.execute("select pg_terminate_backend(%s, 5000)", (number,))
        assert await postgres.write(process, [None]) != [write]

    asyncio.run(play())


def test_a_connection_that_dies_under_a_transaction_makes_the_call_repeatable(
    postgres: Store, administrator: psycopg.Connection[tuple[int]]
) -> None:
    def die(tx: Tx, _: list[None]) -> list[int]:
        tx.do("set_queue_paused", environment_id="dev", name="q", paused=1)
        administrator.execute("select pg_terminate_backend(%s, 5000)", process(tx))
        tx.do("set_queue_paused", environment_id="dev", name="q", paused=1)
        return [1]

    with pytest.raises(StoreUnavailable):
        postgres.transact(die, [None])
    assert postgres.transact(lambda tx, _: [tx.all("queues", environment_id="dev")], [None]) == [[]]


def test_a_deadlock_is_tried_again_until_both_are_done(postgres: Store) -> None:
    met = threading.Barrier(2)
    tries = {"a": 0, "b": 0}

    def cross(tx: Tx, names: list[str]) -> list[str]:
        [name] = names
        tries[name] += 1
        for queue in sorted("ab", reverse=name == "b"):
            tx.do("set_queue_paused", environment_id="dev", name=queue, paused=1)
            if tries[name] == 1 and queue == name:
                met.wait(10)
        return [name]

    async def play() -> list[list[str]]:
        return await asyncio.gather(postgres.write(cross, ["a"]), postgres.write(cross_too, ["b"]))

    def cross_too(tx: Tx, names: list[str]) -> list[str]:  # another use case, so that the two are not merged
        return cross(tx, names)

    assert asyncio.run(play()) == [["a"], ["b"]]
    assert sorted(tries.values()) == [1, 2]


def test_prepared_statements_that_a_pooler_lost_are_done_without(postgres: Store) -> None:
    def forget(tx: Tx, _: list[None]) -> list[int]:
        tx.one("environment", id="dev")
        if tx._connection.prepare:  # type: ignore[attr-defined]  # of this dialect
            # Past the driver, which would notice.
            tx._connection.raw.pgconn.exec_(b"deallocate all")  # type: ignore[attr-defined]  # of this dialect
        return [len(tx.all("environment", id="dev"))]

    assert postgres.transact(forget, [None]) == [1]
    [prepares] = postgres.transact(lambda tx, _: [tx._connection.prepare], [None])  # type: ignore[attr-defined]  # of this dialect
    assert prepares is False


def test_a_database_that_turned_read_only_is_unavailable(
    postgres: Store, administrator: psycopg.Connection[tuple[int]]
) -> None:
    def write(tx: Tx, _: list[None]) -> list[None]:
        tx._connection.raw.execute("set transaction read only")  # type: ignore[attr-defined]  # of this dialect
        tx.do("set_queue_paused", environment_id="dev", name="q", paused=1)
        return [None]

    with pytest.raises(StoreUnavailable, match="read-only"):
        postgres.transact(write, [None])


def test_a_defect_of_a_statement_is_no_outage(postgres: Store) -> None:
    with pytest.raises(psycopg.errors.UndefinedTable):
        postgres.transact(lambda tx, _: tx._connection.select("select * from nowhere", {}), [None])
    assert postgres.transact(process, [None])


def test_time_is_that_of_the_database(postgres: Store, administrator: psycopg.Connection[tuple[int]]) -> None:
    ask = "select (extract(epoch from clock_timestamp()) * 1000)::bigint"
    [[before]] = administrator.execute(ask).fetchall()
    [now] = postgres.transact(lambda tx, _: [tx.now], [None])
    [[after]] = administrator.execute(ask).fetchall()
    assert before - 1 <= now <= after + 1


def test_a_reader_can_not_write(postgres: Store) -> None:
    def write(tx: Tx) -> None:
        tx.do("set_queue_paused", environment_id="dev", name="q", paused=1)

    with pytest.raises(StoreUnavailable):
        asyncio.run(postgres.read(write))


def test_a_notification_holds_as_much_as_fits() -> None:
    few = {"ready:dev", "run:run_1"}
    assert others("me", payload("me", few)) == set()
    assert others("me", payload("other", few)) == few
    many = {f"run:run_{number:025}" for number in range(5_000)} | {"upkeep"}
    text = payload("other", many)
    assert len(text) <= MAX_PAYLOAD_BYTES
    assert "upkeep" in json.loads(text)
    too_many = {f"worker:worker_{number:025}" for number in range(5_000)}
    assert others("me", payload("other", too_many)) == {EVERYTHING}
    assert others("me", "nonsense") == others("me", "[]") == others("me", "3") == set()
