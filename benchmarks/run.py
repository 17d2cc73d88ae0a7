"""`make bench`: every measurement on both stores, with its ratio to what the store itself can do.

    python benchmarks/run.py [--quick] [PART ...] [SQLite|PostgreSQL ...]

    throughput triggers http batches latency memory growth lists   one by one, or all of them
    workflows steps journal                          durable execution
    sleepers                                         100,000 runs asleep: only when it is named, it takes minutes
    --workflows N, --entries N, --sleepers N         sizes of the last four

Prints Markdown tables. The machine may be noisy: a row is the median of its rounds, stores take turns, and
the ratios are between numbers of the same call.
"""

from __future__ import annotations

import argparse
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

from benchmarks import batches, durable, engine, limit, lists, product  # noqa: E402  # the path is set just above
from benchmarks.machine import STORES, median, say  # noqa: E402

T = TypeVar("T")
HISTORY = (100_000, 1_000_000)
PARTS = [
    "throughput",
    "triggers",
    "http",
    "batches",
    "latency",
    "memory",
    "growth",
    "workflows",
    "steps",
    "journal",
    "lists",
    "sleepers",
]


def main() -> None:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("words", nargs="*", metavar="PART or store")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--workflows", type=int)
    parser.add_argument("--entries", type=int)
    parser.add_argument("--sleepers", type=int)
    options = parser.parse_args()
    if unknown := set(options.words) - {*PARTS, *STORES}:
        parser.error(f"no such part or store: {', '.join(sorted(unknown))}")
    quick = options.quick
    stores = [name for name in STORES if name in options.words] or list(STORES)
    parts = [part for part in PARTS if part in options.words] or [
        part for part in PARTS if part != "sleepers"
    ]
    rounds = 1 if quick else 3
    print(f"{platform.machine()}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}")
    limits = {
        name: _with_database(name, limit.measure)
        for name in stores
        if not {"throughput", "triggers", "workflows"}.isdisjoint(parts)
    }
    measures: dict[str, Callable[[], None]] = {
        "throughput": lambda: _throughput(stores, limits, rounds),
        "triggers": lambda: _triggers(stores, limits, HISTORY[:1] if quick else HISTORY),
        "http": lambda: _over_http(stores),
        "batches": lambda: _batches(stores),
        "latency": lambda: _latency(stores),
        "memory": lambda: _memory(stores),
        "growth": lambda: _growth(stores, 20_000 if quick else 200_000),
        "workflows": lambda: _workflows(
            stores, limits, rounds, options.workflows or (500 if quick else 3_000)
        ),
        "steps": lambda: _steps(stores),
        "lists": lambda: _lists(stores, HISTORY[0] if quick else HISTORY[-1]),
        "journal": lambda: _journal(stores, options.entries or (1_000 if quick else 10_000)),
        "sleepers": lambda: _sleepers(stores, options.sleepers or (2_000 if quick else 100_000)),
    }
    for part in parts:
        measures[part]()


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
    rows = [(name, *(f"{rate:,.0f} ({p99:.1f})" for rate, p99 in found[name].values())) for name in stores]
    say(
        "W2: single triggers a second over HTTP (p99 in ms)",
        ("store", "1 connection", "64 connections"),
        *rows,
    )


def _lists(stores: list[str], long: int) -> None:
    rows: list[tuple[object, ...]] = []
    for name in stores:
        found = _with_database(name, lambda url: lists.measure(url, (1_000, long)))
        rows += [
            (name, page, f"{few:.2f}", f"{many:.2f}", f"{many / few:.2f}")
            for page, (few, many) in found.items()
        ]
    say(
        "Milliseconds of a page of 100 runs",
        ("store", "filter", "of 1,000 runs", f"of {long:,}", "ratio"),
        *rows,
    )


def _batches(stores: list[str]) -> None:
    found = {name: _with_database(name, batches.measure) for name in stores}
    rows = [(name, *(f"{ms:.0f}" for ms in found[name].values())) for name in stores]
    say("Milliseconds of a batch of 1,000 over HTTP", ("store", *found[stores[0]]), *rows)


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


def _workflows(stores: list[str], limits: dict[str, limit.Limit], rounds: int, count: int) -> None:
    found: dict[str, list[dict[str, float]]] = {name: [] for name in stores}
    for _ in range(rounds):
        for name in stores:
            found[name].append(_with_database(name, lambda url: durable.workflows(url, count)))
    rows = []
    for name in stores:
        middle = {key: median([one[key] for one in found[name]]) for key in found[name][0]}
        rate = middle["workflows/s"]
        # What the rows of one workflow cost by bare SQL: its insert, claim and finish, and five inserts for the steps.
        bare = 1 / (6 / limits[name].insert + 1 / limits[name].life_cycle)
        rows.append(
            (
                name,
                f"{rate:,.0f}",
                f"{5 * rate:,.0f}",
                f"{rate / bare:.2f}",
                *(f"{middle[f'{part} us']:,.0f}" for part in durable.PARTS),
            )
        )
    say(
        f"W4: workflows of five recorded steps a second, {durable.IN_FLIGHT} in flight",
        (
            "store",
            "workflows/s",
            "steps/s",
            "ratio to bare SQL",
            "server CPU us/workflow",
            "supervisor",
            "executors",
        ),
        *rows,
    )


def _steps(stores: list[str]) -> None:
    rows = []
    for name in stores:
        p50, p99 = _with_database(name, durable.steps)
        rows.append((name, f"{p50:.2f}", f"{p99:.2f}"))
    say("Milliseconds of one recorded step, idle", ("store", "p50", "p99"), *rows)


def _journal(stores: list[str], count: int) -> None:
    rows = []
    for name in stores:
        found = _with_database(name, lambda url: durable.long_journal(url, count))
        rows.append(
            (
                name,
                f"{found['recorded']:.1f}",
                f"{found['replay']:.2f}",
                f"{found['after due']:.2f}",
                f"{found['bytes']:.0f}",
            )
        )
    say(
        f"A run with a journal of {count:,} entries",
        (
            "store",
            "seconds to record, one by one",
            "to replay",
            "from due to going on",
            "bytes on disk an entry, without its value",
        ),
        *rows,
    )


def _sleepers(stores: list[str], count: int) -> None:
    rows = []
    for name in stores:
        found = _with_database(name, lambda url: durable.sleepers(url, count))
        rows.append(
            (
                name,
                f"{found['asleep/s']:,.0f}",
                *(f"{found[f'{part} before']:.0f} / {found[f'{part} after']:.0f}" for part in durable.PARTS),
                f"{found['held']:.0f}",
                f"{found['resumed in']:.1f}",
                f"{found['resumed/s']:,.0f}",
            )
        )
    say(
        f"{count:,} runs asleep, {count // 10:,} of them until the same moment",
        (
            "store",
            "fall asleep/s",
            "server MB before / after",
            "supervisor",
            "executors",
            "places held",
            "seconds until those that were due had ended",
            "resumed/s",
        ),
        *rows,
    )


def _with_database(name: str, measure: Callable[[str], T]) -> T:
    with STORES[name]() as url:
        return measure(url)


if __name__ == "__main__":
    main()
