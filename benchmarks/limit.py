"""What the store itself can do: rows inserted, claimed and finished by bare SQL in batches.

Every ratio of the other measurements is to this, measured in the same call.
"""

from __future__ import annotations

import json
import sqlite3
import time
from dataclasses import dataclass

ROWS = 20_000
BATCH = 500


@dataclass(frozen=True, slots=True)
class Limit:
    """Rows a second."""

    insert: float
    claim: float
    finish: float

    @property
    def life_cycle(self) -> float:
        """Claim and finish of a row that is there, which is what W1 times."""
        return 1 / (1 / self.claim + 1 / self.finish)


TABLE = """create table bare (id text primary key, status text not null, score bigint not null,
           worker text, payload text, output text, started_at bigint, finished_at bigint)"""
INDEX = "create index bare_ready on bare (score, id) where status = 'QUEUED'"


def measure(url: str) -> Limit:
    return _sqlite(url.removeprefix("sqlite:///") + ".bare") if url.startswith("sqlite") else _postgres(url)


def _sqlite(path: str) -> Limit:
    database = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode = wal", "synchronous = full"):
        database.execute(f"pragma {pragma}")
    database.execute(TABLE)
    database.execute(INDEX)

    def insert(first: int) -> None:
        database.execute("begin immediate")
        database.executemany(
            "insert into bare (id, status, score, payload) values (?, 'QUEUED', ?, '{}')",
            [(name(number), number) for number in range(first, first + BATCH)],
        )
        database.execute("commit")

    def claim(_: int) -> None:
        database.execute("begin immediate")
        database.execute(
            "update bare set status = 'EXECUTING', worker = 'w', started_at = 1 where id in "
            "(select id from bare where status = 'QUEUED' order by score, id limit ?) returning id, payload",
            (BATCH,),
        ).fetchall()
        database.execute("commit")

    def finish(first: int) -> None:
        database.execute("begin immediate")
        database.executemany(
            "update bare set status = 'DONE', worker = null, output = '{}', finished_at = 2 where id = ?",
            [(name(number),) for number in range(first, first + BATCH)],
        )
        database.execute("commit")

    limit = Limit(_rate(insert), _rate(claim), _rate(finish))
    database.close()
    return limit


def _postgres(url: str) -> Limit:
    import psycopg

    with psycopg.connect(url, autocommit=True) as database:
        database.execute("drop table if exists bare")
        database.execute(TABLE)
        database.execute(INDEX)

        def insert(first: int) -> None:
            numbers = list(range(first, first + BATCH))
            database.execute(
                "insert into bare (id, status, score, payload) select i, 'QUEUED', n, '{}' "
                "from unnest(%s::text[], %s::int[]) as new (i, n)",
                ([name(number) for number in numbers], numbers),
            )

        def claim(_: int) -> None:
            database.execute(
                "update bare set status = 'EXECUTING', worker = 'w', started_at = 1 where id in (select id from bare "
                "where status = 'QUEUED' order by score, id limit %s for update skip locked) returning id, payload",
                (BATCH,),
            ).fetchall()

        def finish(first: int) -> None:
            database.execute(
                "update bare set status = 'DONE', worker = null, output = '{}', finished_at = 2 "
                "from jsonb_array_elements(%s::jsonb) as c where id = c ->> 0",
                (json.dumps([[name(number)] for number in range(first, first + BATCH)]),),
            )

        limit = Limit(_rate(insert), _rate(claim), _rate(finish))
        database.execute("drop table bare")
    return limit


def name(number: int) -> str:
    """An id like those of runs."""
    return f"run_0mwu2ypjp0000{number:012x}"


def _rate(step: object) -> float:
    assert callable(step)
    begun = time.perf_counter()
    for first in range(0, ROWS, BATCH):
        step(first)
    return ROWS / (time.perf_counter() - begun)
