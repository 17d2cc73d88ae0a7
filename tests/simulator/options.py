"""What a seed decides before anything happens: sizes, odd parameters, how much goes wrong."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from holdfast.engine import claim, journal, upkeep
from holdfast.model import limits, run
from holdfast.model.retry import RetryPolicy
from holdfast.model.task import QueueSpec, TaskSpec, default_queue

ENVIRONMENTS = ("dev", "prod")


@dataclass(frozen=True, slots=True)
class Options:
    """Everything is drawn from the seed, so that rare paths are common in some of them."""

    steps: int
    workers: int
    slots: int
    lease_ms: int
    faults: float  # chance that a call goes wrong on its way
    merges: float  # chance that waiting calls are merged into one commit
    deaths: float  # chance that an act of a worker is to die, freeze or drain
    lanes_per_claim: int
    upkeep_limit: int
    parked_batch: int
    max_losses: int
    max_slots: int
    keep_ms: int | None  # retention
    delays: tuple[int, ...]  # by how much the clock moves, milliseconds
    tasks: tuple[TaskSpec, ...]
    queues: tuple[QueueSpec, ...]
    other_queues: tuple[QueueSpec, ...]  # the same with other limits, as other code declares them
    clock_jumps: bool  # back and forth, by up to an hour
    trouble: float  # chance that an act of an executor is to fail or to die
    fronts: bool  # whether claims begin where lines began a moment ago
    inline_bytes: int  # of journals in an answer to a claim
    page_entries: int  # of a journal
    mismatches: bool  # whether every third version of the code does not fit journals


def draw(source: random.Random) -> Options:
    """The options of a seed."""
    return Options(
        steps=source.choice([80, 120, 160, 240]),
        workers=source.randint(1, 4),
        slots=source.randint(1, 6),
        lease_ms=source.choice([200, 3_000, 15_000, 15_000]),
        faults=source.choice([0.0, 0.05, 0.15, 0.3]),
        merges=source.choice([0.0, 0.3, 0.7]),
        deaths=source.choice([0.0, 0.02, 0.08]),
        lanes_per_claim=source.choice([1, 2, 3, 200, 200]),
        upkeep_limit=source.choice([1, 2, 500, 500]),
        parked_batch=source.choice([1, 200]),
        max_losses=source.choice([2, 3, 10]),
        max_slots=source.choice([1, 10_000]),
        keep_ms=source.choice([None, None, 60_000]),
        delays=source.choice(
            [(0, 0, 1, 5, 50), (0, 1, 50, 500, 1_000, 5_000), (0, 50, 1_000, 20_000, 120_000)]
        ),
        tasks=tuple(_task(source, name) for name in ("alpha", "beta", "gamma")),
        queues=_queues(source),
        other_queues=_queues(source),
        clock_jumps=source.random() < 0.2,
        trouble=source.choice([0.0, 0.02, 0.1]),
        fronts=source.random() < 0.5,
        inline_bytes=source.choice([0, 1_000, 16 * 1024 * 1024, 16 * 1024 * 1024]),
        page_entries=source.choice([1, 3, 10_000]),
        mismatches=source.random() < 0.3,
    )


@contextmanager
def in_force(options: Options) -> Iterator[None]:
    """The engine with the odd parameters of a seed."""
    places: list[tuple[Any, str, Any]] = [
        (claim, "LANES_PER_CLAIM", options.lanes_per_claim),
        (upkeep, "PARKED_BATCH", options.parked_batch),
        (run, "MAX_LOSSES", options.max_losses),
        (limits, "MAX_SLOTS", options.max_slots),
        (journal, "INLINE_BYTES", options.inline_bytes),
        (journal, "PAGE_ENTRIES", options.page_entries),
    ]
    saved = [(module, name, getattr(module, name)) for module, name, _ in places]
    for module, name, value in places:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in saved:
            setattr(module, name, value)


def _queues(source: random.Random) -> tuple[QueueSpec, ...]:
    return tuple(
        QueueSpec(name, source.choice([None, 0, 1, 1, 2, 5]), source.choice([None, None, 1, 2]))
        for name in ("narrow", "wide")
    )


def _task(source: random.Random, name: str) -> TaskSpec:
    policy = RetryPolicy(
        max_attempts=source.choice([1, 2, 3, 3, 5]),
        factor=2.0,
        min_delay_ms=source.choice([0, 100, 1_000, 40_000]),
        max_delay_ms=60_000,
        jitter=source.random() < 0.5,
    )
    return TaskSpec(
        id=name,
        queue=source.choice([default_queue(name), "narrow", "wide"]),
        retry=policy,
        max_duration=source.choice([None, 60]),
        ttl_ms=source.choice([None, None, None, 2_000]),
        key=source.choice([None, None, "tenant"]),
    )
