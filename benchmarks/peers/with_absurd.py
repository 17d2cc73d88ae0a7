"""Absurd: a task of five steps. Its schema comes with the package `absurdctl`, which prepares the database.

python -m benchmarks.peers.with_absurd enqueue N | work
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from absurd_sdk import Absurd, AsyncAbsurd

from benchmarks.peers.marks import ENDED, STARTED, mark

IN_FLIGHT = 100
URL = os.environ["HOLDFAST_BENCH_DATABASE"]


def enqueue(count: int) -> None:
    app = Absurd(URL)
    for _ in range(count):
        app.spawn("five", None, queue="default")


async def nothing() -> None: ...


async def work() -> None:
    app = AsyncAbsurd(URL)

    @app.register_task(name="five")
    async def five(_: Any, context: Any) -> None:
        mark(STARTED)
        for number in range(5):
            await context.step(f"nothing {number}", nothing)
        mark(ENDED)

    await app.start_worker(concurrency=IN_FLIGHT)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["enqueue", count]:
            enqueue(int(count))
        case ["work"]:
            asyncio.run(work())
        case _:
            sys.exit(__doc__)
