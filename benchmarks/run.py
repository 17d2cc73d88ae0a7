"""`make bench`: every measurement on both stores, with its ratio to what the store itself can do.

    python benchmarks/run.py [--quick] [SQLite|PostgreSQL ...]

Prints Markdown tables. The machine may be noisy: a row is the median of its rounds, stores take turns, and
the ratios are between numbers of the same call.
"""

from __future__ import annotations

import asyncio
import platform
import sqlite3
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
warnings.filterwarnings("ignore", category=UserWarning, module="platformdirs")

from benchmarks import engine, limit, product  # noqa: E402  # the path is set just above
from benchmarks.machine import STORES, median, say  # noqa: E402

T = TypeVar("T")
HISTORY = (100_000, 1_000_000)


def main() -> None:
    arguments = sys.argv[1:]
    quick = "--quick" in arguments
    stores = [name for name in STORES if name in arguments] or list(STORES)
    rounds = 1 if quick else 3
    print(f"{platform.machine()}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}")
    limits = {name: _with_database(name, limit.measure) for name in stores}
    _throughput(stores, limits, rounds)
    _triggers(stores, limits, HISTORY[:1] if quick else HISTORY)
    _over_http(stores)
    _latency(stores)
    _memory(stores)
    _growth(stores, 20_000 if quick else 200_000)


def _throughput(stores: list[str], limits: dict[str, limit.Limit], rounds: int) -> None:
    found: dict[str, list[dict[str, float]]] = {name: [] for name in stores}
    for _ in range(rounds):
        for name in stores:
            found[name].append(_with_database(name, product.throughput))
    rows: list[tuple[object, ...]] = []
    for name in stores:
        middle = {key: median([one[key] for one in found[name]]) for key in found[name][0]}
        bare = limits[name].life_cycle
        rows.append(
            (
                name,
                f"{middle['runs/s']:,.0f}",
                f"{bare:,.0f}",
                f"{middle['runs/s'] / bare:.2f}",
                *(f"{middle[f'{part} us/run']:.0f}" for part in ("server", "supervisor", "executors")),
            )
        )
    say(
        "W1: no-op runs a second, whole product, one worker",
        (
            "store",
            "runs/s",
            "bare SQL claims and finishes/s",
            "ratio",
            "server CPU us/run",
            "supervisor",
            "executors",
        ),
        *rows,
    )


def _triggers(stores: list[str], limits: dict[str, limit.Limit], history: tuple[int, ...]) -> None:
    found = {
        name: _with_database(name, lambda url: asyncio.run(engine.measure(url, history))) for name in stores
    }
    rows = []
    for name in stores:
        one = found[name]
        rows.append(
            (
                name,
                f"{one['sequential']:,.0f}",
                f"{one['concurrent']:,.0f}",
                f"{one['batch']:,.0f}",
                f"{one['batch'] / limits[name].insert:.2f}",
                f"{one['claim and finish']:,.0f}",
                f"{one['bytes']:,.0f}",
            )
        )
    say(
        "W2: triggers a second in the engine; runs claimed and finished a second; bytes on disk for a finished run",
        (
            "store",
            "one caller",
            "100 callers",
            "batches of 1,000",
            "ratio to bare inserts",
            "claim + finish",
            "bytes",
        ),
        *rows,
    )
    columns = [key for key in found[stores[0]] if key.startswith("claim, ")]
    rows = [
        (
            name,
            *(
                f"{found[name][key]:.2f} ({found[name][key] / found[name][columns[0]]:.2f}x)"
                for key in columns
            ),
        )
        for name in stores
    ]
    say("Milliseconds of a claim of 50 runs, and the ratio to an empty database", ("store", *columns), *rows)


def _over_http(stores: list[str]) -> None:
    found = {name: _with_database(name, product.http_triggers) for name in stores}
    rows = [(name, *(f"{rate:,.0f}" for rate in found[name].values())) for name in stores]
    say("W2: single triggers a second over HTTP", ("store", "1 connection", "64 connections"), *rows)


def _latency(stores: list[str]) -> None:
    rows = []
    for name in stores:
        p50, p99 = _with_database(name, product.latency)
        rows.append((name, f"{p50:.1f}", f"{p99:.1f}"))
    say("W3: milliseconds from trigger to the task's first line, idle", ("store", "p50", "p99"), *rows)


def _memory(stores: list[str]) -> None:
    rows = []
    for name in stores:
        rest, executors, added = _with_database(name, product.memory)
        rows.append((name, f"{rest:.0f}", f"{executors:.0f}", f"{added:.1f}"))
    say(
        "MB of memory (proportional set size)",
        ("store", "server + supervisor at rest", "executors at rest", "server, for 10,000 more queued runs"),
        *rows,
    )


def _growth(stores: list[str], count: int) -> None:
    rows = []
    for name in stores:
        early, late = _with_database(name, lambda url: product.growth(url, count))
        rows.append((name, f"{early:.0f}", f"{late:.0f}"))
    say(
        "MB of server and supervisor while runs go through",
        ("store", f"after {count // 10:,} runs", f"after {count:,} runs"),
        *rows,
    )


def _with_database(name: str, measure: Callable[[str], T]) -> T:
    with STORES[name]() as url:
        return measure(url)


if __name__ == "__main__":
    main()
