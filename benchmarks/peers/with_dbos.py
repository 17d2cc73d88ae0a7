"""DBOS Transact: a workflow of five steps on a queue.

    python -m benchmarks.peers.with_dbos prepare | enqueue N | work [sync|async]

The queue is polled every 20 ms: by default DBOS looks once a second.
"""

from __future__ import annotations

import os
import sys
import threading

from dbos import DBOS, DBOSClient

from benchmarks.peers.marks import ENDED, STARTED, mark

IN_FLIGHT = 100
QUEUE = "bench"
URL = os.environ["HOLDFAST_BENCH_DATABASE"].replace("postgresql://", "postgresql+psycopg://", 1)


@DBOS.step()
def nothing() -> None: ...


@DBOS.step()
async def nothing_async() -> None: ...


@DBOS.workflow(name="sync")
def five() -> None:
    mark(STARTED)
    for _ in range(5):
        nothing()
    mark(ENDED)


@DBOS.workflow(name="async")
async def five_async() -> None:
    mark(STARTED)
    for _ in range(5):
        await nothing_async()
    mark(ENDED)


def launch() -> None:
    DBOS(
        config={
            "name": "bench",
            "system_database_url": URL,
            "log_level": "WARNING",
            "application_version": "1",
        }
    )
    DBOS.launch()
    DBOS.register_queue(
        QUEUE, worker_concurrency=IN_FLIGHT, polling_interval_sec=0.02, on_conflict="always_update"
    )


def enqueue(count: int, workflow: str) -> None:
    client = DBOSClient(system_database_url=URL, application_name="bench")
    for _ in range(count):
        client.enqueue({"workflow_name": workflow, "queue_name": QUEUE, "app_version": "1"})
    client.destroy()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["prepare"]:
            launch()
            DBOS.destroy()
        case ["enqueue", count, flavour]:
            enqueue(int(count), flavour)
        case ["work"]:
            launch()
            threading.Event().wait()
        case _:
            sys.exit(__doc__)
