"""Batches of 1,000 over HTTP: in one call, and in two phases by a stream of lines."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

from benchmarks.machine import median
from benchmarks.product import Product, product

COUNT = 1_000
LINES = [json.dumps({"index": n, "task": "noop", "payload": n}).encode() + b"\n" for n in range(COUNT)]
PIECE = 200  # lines; in a piece of the faster stream


def measure(url: str, rounds: int = 10) -> dict[str, float]:
    """Milliseconds of a batch, by how it is sent; and of reading one."""
    with product(url) as running:
        running.register()
        batch = two_phases(running, PIECE)

        def read() -> None:
            running.client.get(f"/api/v2/batches/{batch}").raise_for_status()

        ways: dict[str, Callable[[], object]] = {
            "one call": lambda: running.trigger_many("noop", range(COUNT)),
            f"stream, {PIECE} lines a piece": lambda: two_phases(running, PIECE),
            "stream, a line a piece": lambda: two_phases(running, 1),
            "read": read,
        }
        found: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way, do in ways.items():
                begun = time.perf_counter()
                do()
                found[way].append((time.perf_counter() - begun) * 1_000)
        return {way: median(times) for way, times in found.items()}


def two_phases(running: Product, piece: int) -> str:
    """Makes a batch of COUNT no-op runs; its id."""

    def body() -> Iterator[bytes]:
        for start in range(0, COUNT, piece):
            yield b"".join(LINES[start : start + piece])

    made = running.client.post("/api/v3/batches", json={"runCount": COUNT}).raise_for_status().json()
    answer = running.client.post(
        f"/api/v3/batches/{made['id']}/items",
        content=body(),
        headers={"Content-Type": "application/x-ndjson"},
    )
    assert answer.raise_for_status().json()["itemsAccepted"] == COUNT, answer.text
    return str(made["id"])
