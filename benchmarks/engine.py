"""The engine without HTTP: triggers, claims beside history, bytes on disk."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from benchmarks.machine import median
from holdfast.engine import Engine, NewRun, Registering
from holdfast.model.task import TaskSpec
from holdfast.stores import open_store
from holdfast.stores.base import Store

NOOP = NewRun(environment_id="dev", task="noop", payload='{"number":1}')


async def ready(store: Store) -> tuple[Engine, str]:
    engine = Engine(store, lease_ms=3_600_000)
    spec = TaskSpec("noop", "task/noop")
    registered = await engine.register(Registering("dev", "bench", "bench", [spec], [], 3_600_000))
    return engine, registered.worker_id


async def sequential_triggers(engine: Engine, count: int = 2_000) -> float:
    begun = time.perf_counter()
    for _ in range(count):
        await engine.trigger([NOOP])
    return count / (time.perf_counter() - begun)


async def concurrent_triggers(engine: Engine, callers: int = 100, each: int = 200) -> float:
    async def caller() -> None:
        for _ in range(each):
            await engine.trigger([NOOP])

    begun = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return callers * each / (time.perf_counter() - begun)


async def batch_triggers(engine: Engine, batches: int = 30) -> float:
    items = [NOOP] * 1_000
    begun = time.perf_counter()
    for _ in range(batches):
        await engine.trigger(items)
    return batches * 1_000 / (time.perf_counter() - begun)


async def drain(engine: Engine, worker_id: str, slots: int = 500) -> int:
    """Claims and finishes until nothing is queued."""
    total = 0
    while runs := (await engine.claim(worker_id, "dev", slots)).runs:
        await finish(engine, worker_id, [(run.id, run.lease) for run in runs])
        total += len(runs)
    return total


async def finish(engine: Engine, worker_id: str, runs: list[tuple[str, int]]) -> None:
    reports = [{"kind": "succeeded", "run": run_id, "lease": lease, "output": "1"} for run_id, lease in runs]
    await engine.report(worker_id, "dev", reports)


async def claim_cost(engine: Engine, worker_id: str, rounds: int = 40, slots: int = 50) -> float:
    """Median milliseconds of one claim of `slots` runs."""
    times = []
    for _ in range(rounds):
        await engine.trigger([NOOP] * slots)
        begun = time.perf_counter()
        claimed = await engine.claim(worker_id, "dev", slots)
        times.append((time.perf_counter() - begun) * 1_000)
        await finish(engine, worker_id, [(run.id, run.lease) for run in claimed.runs])
    return median(times)


async def fill(engine: Engine, worker_id: str, count: int) -> None:
    """`count` finished runs."""
    for _ in range(0, count, 5_000):
        for _ in range(5):
            await engine.trigger([NOOP] * 1_000)
        await drain(engine, worker_id, 1_000)


def disk_bytes(store: Store) -> int:
    if store.url.startswith("sqlite"):
        path = Path(store.url.removeprefix("sqlite:///"))
        return sum(
            os.stat(file).st_size for file in path.parent.glob(path.name + "*") if ".bare" not in file.name
        )
    import psycopg

    with psycopg.connect(store.url) as database:
        row = database.execute("select pg_total_relation_size('runs')").fetchone()
        return int(row[0]) if row else 0


async def measure(url: str, history: tuple[int, ...]) -> dict[str, float]:
    """All of it for one store: rates a second, milliseconds, bytes."""
    store = open_store(url)
    try:
        engine, worker_id = await ready(store)
        found: dict[str, float] = {}
        found["claim, no history (ms)"] = await claim_cost(engine, worker_id)
        found["sequential"] = await sequential_triggers(engine)
        found["concurrent"] = await concurrent_triggers(engine)
        found["batch"] = await batch_triggers(engine)
        begun = time.perf_counter()
        drained = await drain(engine, worker_id)
        found["claim and finish"] = drained / (time.perf_counter() - begun)
        found["bytes"] = disk_bytes(store) / (drained + 2_000)
        done = drained
        for count in history:
            await fill(engine, worker_id, max(0, count - done))
            done = max(done, count)
            found[f"claim, {count:,} finished (ms)"] = await claim_cost(engine, worker_id)
        return found
    finally:
        store.close()
