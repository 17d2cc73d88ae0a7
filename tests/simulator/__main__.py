"""`python -m simulator --seeds 10000`: many seeds, on all cores; `--seed N`: one, with its timeline."""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

from simulator.stores import opener
from simulator.world import Result, simulate

CHUNK = 25


def main() -> int:
    parser = argparse.ArgumentParser(prog="simulator", description=__doc__)
    parser.add_argument("--seeds", type=int, default=300, help="how many")
    parser.add_argument("--start", type=int, default=0, help="the first one")
    parser.add_argument("--seed", type=int, help="this one only, with everything that happens")
    parser.add_argument("--store", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--url", help="of an empty PostgreSQL database, whose content is deleted")
    parser.add_argument("--jobs", type=int, default=2, help="processes; PostgreSQL takes one")
    given = parser.parse_args()
    if given.seed is not None:
        result = simulate(given.seed, opener(given.store, given.url), keep_timeline=True)
        show(result)
        return int(result.failure is not None)
    with mapped(given.jobs if given.store == "sqlite" else 1) as each:
        return count(given, each)


def count(given: argparse.Namespace, each: object) -> int:
    chunks = [
        (given.store, given.url, range(start, min(start + CHUNK, given.start + given.seeds)))
        for start in range(given.start, given.start + given.seeds, CHUNK)
    ]
    began, done, failed = time.monotonic(), 0, []
    statuses: Counter[str] = Counter()
    for results in each(some_seeds, chunks):  # type: ignore[operator]  # map of a pool, or the builtin
        for result in results:
            done += 1
            statuses.update({str(status): number for status, number in result.statuses.items()})
            if result.failure is not None:
                failed.append(result)
                print(f"\nseed {result.seed}: {result.failure}")
        speed = done / (time.monotonic() - began)
        print(f"\r{done:>7} of {given.seeds} seeds, {len(failed)} failed, {speed:.0f}/s ", end="", flush=True)
    print()
    print("moves seen: " + ", ".join(f"{status} {number}" for status, number in sorted(statuses.items())))
    if failed:
        show(min(failed, key=lambda result: len(result.timeline)))
        print(f"failed: {' '.join(str(result.seed) for result in failed)}")
    print(f"{done - len(failed)} passed, {len(failed)} failed")
    return int(bool(failed))


def some_seeds(chunk: tuple[str, str | None, range]) -> list[Result]:
    """The results of a few seeds, in a process of its own."""
    store, url, seeds = chunk
    return [simulate(seed, opener(store, url)) for seed in seeds]


def show(result: Result) -> None:
    for line in result.timeline:
        print(line)
    print(f"seed {result.seed}: {result.failure or 'everything held'}")
    print(f"options: {result.options}")
    print(f"again: PYTHONPATH=tests python -m simulator --seed {result.seed}")


@contextmanager
def mapped(jobs: int) -> Iterator[object]:
    if jobs < 2:
        yield map
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield pool.map


if __name__ == "__main__":
    random.seed(0)
    sys.exit(main())
