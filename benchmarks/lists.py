"""A page of the list of runs, behind a short history and a long one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import closing

import httpx2

from benchmarks.engine import ready
from benchmarks.machine import median
from holdfast.engine import NewRun
from holdfast.server import create_app
from holdfast.stores import open_store

KEY = "tr_dev_0123456789abcdef"
ROUNDS = 50
# A tag of every second run, one of every tenth, and a filter that no index has.
PAGES = {
    "common tag": {"filter[tag]": "common"},
    "other tag": {"filter[tag]": "tenth"},
    "both tags": {"filter[tag]": "common,tenth"},
    "tag and status": {"filter[tag]": "common", "filter[status]": "QUEUED"},
    "no filter": {},
}


def measure(url: str, history: Sequence[int]) -> dict[str, list[float]]:
    """Milliseconds of a page of 100, behind so many runs: {page: [one for each length of the history]}."""
    return asyncio.run(_measure(url, history))


async def _measure(url: str, history: Sequence[int]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in PAGES}
    with closing(open_store(url)) as store:
        engine, _ = await ready(store)
        transport = httpx2.ASGITransport(create_app(engine, {KEY: "dev"}))
        headers = {"authorization": f"Bearer {KEY}", "x-trigger-api-version": "2025-07-16"}
        async with httpx2.AsyncClient(
            transport=transport, base_url="http://bench", headers=headers
        ) as client:
            there = 0
            for count in history:
                while there < count:
                    await engine.trigger([_run(number) for number in range(there, there + 1_000)])
                    there += 1_000
                for name, query in PAGES.items():
                    found[name].append(await _page(client, query))
    return found


def _run(number: int) -> NewRun:
    tags = ["common"] if number % 2 == 0 else []
    return NewRun(
        environment_id="dev",
        task="noop",
        payload='{"number":1}',
        tags=[*tags, "tenth"] if number % 10 == 3 else tags,
    )


async def _page(client: httpx2.AsyncClient, query: dict[str, str]) -> float:
    times = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        answer = await client.get("/api/v1/runs", params={**query, "page[size]": "100"})
        times.append((time.perf_counter() - begun) * 1_000)
        assert len(answer.json()["data"]) == 100
    return median(times)
