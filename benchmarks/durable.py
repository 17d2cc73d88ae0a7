"""Durable execution: the whole product with workflows, sleepers and long journals."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.machine import asking, cpu_seconds, memory_mb, percentile
from benchmarks.product import Product, product

TASKS = str(Path(__file__).with_name("workflows.py"))
IN_FLIGHT = 100
PARTS = ("server", "supervisor", "executors")
UNFINISHED = "select count(*) from runs where finished_at is null"
ASLEEP = "select count(*) from runs where status = 'WAITING_TO_RESUME'"
HOLDING = "select count(*) from runs where status in ('EXECUTING', 'REATTEMPTING')"


def workflows(url: str, count: int = 3_000) -> dict[str, float]:
    """W4: workflows of five steps a second; a driver keeps 100 of them unfinished."""
    with _with_worker(url) as running, asking(url) as ask:
        before = _cpu(running)
        begun = time.perf_counter()
        triggered = unfinished = 0
        while triggered < count or unfinished:
            if (more := min(IN_FLIGHT - unfinished, count - triggered)) > 0:
                running.trigger_many("five", [None] * more)
                triggered += more
            time.sleep(0.01)
            unfinished = int(ask(UNFINISHED))
        seconds = time.perf_counter() - begun
        after = _cpu(running)
    costs = {f"{part} us": (after[part] - before[part]) / count * 1e6 for part in PARTS}
    return {"workflows/s": count / seconds, **costs}


def queued_workflows(url: str, count: int) -> float:
    """W4 as queues are compared: all enqueued before a worker with 100 places starts; workflows a second."""
    with _with_worker(url) as running, asking(url) as ask:
        running.stop_worker()
        for first in range(0, count, 1_000):
            running.trigger_many("five", [None] * min(1_000, count - first))
        running.start_worker(TASKS, IN_FLIGHT)
        _until(lambda: ask(UNFINISHED) == 0)
        span = ask("select max(finished_at) - min(started_at) from runs where batch_id is not null")
    return count / (span / 1_000)


def steps(url: str, count: int = 200, runs: int = 3) -> tuple[float, float]:
    """Milliseconds of one step of a run that is alone on an idle machine: p50, p99."""
    with _with_worker(url) as running:
        found: list[float] = []
        for _ in range(runs):
            times = running.result(running.trigger("timed", count))
            assert isinstance(times, list)
            found += times
        return percentile(found, 0.5), percentile(found, 0.99)


def long_journal(url: str, count: int = 10_000) -> dict[str, float]:
    """A run with `count` steps is suspended and resumed: seconds, and bytes on disk for an entry beyond its value."""
    with _with_worker(url) as running, asking(url) as ask:
        size = (
            "select page_count * page_size from pragma_page_count, pragma_page_size"
            if url.startswith("sqlite")
            else "select pg_total_relation_size('journal')"
        )
        before = ask(size)
        begun = time.perf_counter()
        run_id = running.trigger("long", count)
        _until(lambda: ask(ASLEEP) == 1, within=count / 20 + 60)
        recorded = time.perf_counter() - begun
        bytes_each = (ask(size) - before) / count - len("null")
        found = running.result(run_id)
        assert isinstance(found, dict)
        return {"recorded": recorded, "bytes": bytes_each, **found}


def sleepers(url: str, count: int = 100_000) -> dict[str, float]:
    """`count` runs asleep, a tenth of them until the same moment.

    MB of server, supervisor and executors before and after, places held by sleepers, and seconds from that
    moment until the last of those that were due has finished.
    """
    due_count = count // 10
    with _with_worker(url) as running, asking(url) as ask:
        before = _memory(running)
        begun = time.perf_counter()
        _trigger(running, "asleep", count - due_count, 86_400.0)
        _until(lambda: ask(ASLEEP) == count - due_count, within=count / 100 + 60, every=0.5)
        rate = (count - due_count) / (time.perf_counter() - begun)
        due = time.time() + 15 + 2 * due_count / rate
        _trigger(running, "until", due_count, due)
        _until(lambda: ask(ASLEEP) == count, every=0.5)
        spare = due - time.time()
        if spare < 1:
            raise RuntimeError(f"the last runs fell asleep only {spare:.1f} s before they were due")
        held, after = ask(HOLDING), _memory(running)
        time.sleep(max(0.0, due - time.time()))
        _until(lambda: ask(ASLEEP) == count - due_count and ask(HOLDING) == 0, every=0.5)
        resumed = ask("select max(finished_at) from runs where task = 'until'") / 1_000 - due
    return {
        "asleep/s": rate,
        **{f"{part} before": megabytes for part, megabytes in before.items()},
        **{f"{part} after": megabytes for part, megabytes in after.items()},
        "held": held,
        "resumed in": resumed,
        "resumed/s": due_count / resumed,
    }


@contextmanager
def _with_worker(url: str) -> Iterator[Product]:
    """A product with a worker that has run a workflow already."""
    with product(url) as running:
        running.start_worker(TASKS, IN_FLIGHT)
        running.result(running.trigger("five", None))
        yield running


def _trigger(running: Product, task: str, count: int, payload: object) -> None:
    for first in range(0, count, 1_000):
        running.trigger_many(task, [payload] * min(1_000, count - first))


def _until(reached: Callable[[], bool], within: float = 600, every: float = 0.05) -> None:
    deadline = time.monotonic() + within
    while not reached():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not reached within {within:.0f} s")
        time.sleep(every)


def _cpu(running: Product) -> dict[str, float]:
    assert running.worker is not None
    executors = running.worker.children(recursive=True)
    parts = cpu_seconds(running.server), cpu_seconds(running.worker), sum(map(cpu_seconds, executors))
    return dict(zip(PARTS, parts, strict=True))


def _memory(running: Product) -> dict[str, float]:
    assert running.worker is not None
    executors = running.worker.children(recursive=True)
    parts = memory_mb(running.server), memory_mb(running.worker), memory_mb(*executors)
    return dict(zip(PARTS, parts, strict=True))
