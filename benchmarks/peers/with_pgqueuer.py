"""PgQueuer: no-op jobs, dequeued in batches of 500 (by default 10).

python -m benchmarks.peers.with_pgqueuer prepare | enqueue N | work
"""

from __future__ import annotations

import os
import sys
from collections.abc import Coroutine
from datetime import timedelta

import asyncpg
import uvloop
from pgqueuer import AsyncpgDriver, AsyncpgPoolDriver, Job, PgQueuer, Queries

from benchmarks.peers.marks import ENDED, mark

BATCH = 500
URL = os.environ["HOLDFAST_BENCH_DATABASE"]


async def prepare() -> None:
    connection = await asyncpg.connect(URL)
    await Queries(AsyncpgDriver(connection)).install()
    await connection.close()


async def enqueue(count: int) -> None:
    connection = await asyncpg.connect(URL)
    queries = Queries(AsyncpgDriver(connection))
    for first in range(0, count, 1_000):
        size = min(1_000, count - first)
        await queries.enqueue(["noop"] * size, [b"1"] * size, [0] * size)
    await connection.close()


async def work() -> None:
    async with asyncpg.create_pool(URL, min_size=4, max_size=10) as pool:
        queuer = PgQueuer(AsyncpgPoolDriver(pool))

        @queuer.entrypoint("noop")
        async def noop(_: Job) -> None:
            mark(ENDED)

        await queuer.run(batch_size=BATCH, dequeue_timeout=timedelta(seconds=30))


def main() -> Coroutine[None, None, None]:
    match sys.argv[1:]:
        case ["prepare"]:
            return prepare()
        case ["enqueue", count]:
            return enqueue(int(count))
        case ["work"]:
            return work()
    sys.exit(__doc__)


if __name__ == "__main__":
    uvloop.run(main())
