"""Who may go next: which queued runs fit under the limits, without I/O.

A lane is a task, a queue and a concurrency key; its runs go in order of score. Lanes share the
limits of their queue, of their queue and key, and of the environment.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from holdfast.model.task import QueueSpec


@dataclass(frozen=True, slots=True)
class Lane:
    task: str
    queue: str
    concurrency_key: str


@dataclass(slots=True)
class Room:
    """Free slots of one environment: what is held now, against the limits in force."""

    environment_limit: int
    queues: Mapping[str, QueueSpec]
    held_total: int
    held_by_queue: Counter[str]
    held_by_key: Counter[tuple[str, str]]

    @classmethod
    def of(cls, limit: int, queues: Iterable[QueueSpec], held: Iterable[tuple[str, str, int]]) -> Room:
        """`held` has (queue, concurrency key, number of runs that hold a slot)."""
        by_queue: Counter[str] = Counter()
        by_key: Counter[tuple[str, str]] = Counter()
        for queue, key, count in held:
            by_queue[queue] += count
            by_key[queue, key] += count
        return cls(limit, {queue.name: queue for queue in queues}, by_queue.total(), by_queue, by_key)

    def free(self, queue: str, key: str) -> int:
        """How many more runs of this queue and key may start now."""
        free = self.environment_limit - self.held_total
        spec = self.queues.get(queue)
        if spec is None:
            return max(0, free)
        if spec.paused:
            return 0
        if spec.concurrency_limit is not None:
            free = min(free, spec.concurrency_limit - self.held_by_queue[queue])
        if spec.per_key_limit is not None and key:
            free = min(free, spec.per_key_limit - self.held_by_key[queue, key])
        return max(0, free)

    def take(self, queue: str, key: str) -> bool:
        """Takes a slot, if there is one."""
        if self.free(queue, key) == 0:
            return False
        self.held_total += 1
        self.held_by_queue[queue] += 1
        self.held_by_key[queue, key] += 1
        return True


@dataclass(frozen=True, slots=True)
class Candidate:
    """A queued run that may be claimed."""

    score: int
    id: str
    queue: str
    concurrency_key: str


def choose(candidates: Sequence[Candidate], room: Room, slots: int) -> list[str]:
    """The ids of at most `slots` candidates that fit, lowest score first and then by age."""
    chosen: list[str] = []
    heap = [(candidate.score, candidate.id, candidate) for candidate in candidates]
    heapq.heapify(heap)
    while heap and len(chosen) < slots:
        candidate = heapq.heappop(heap)[2]
        if room.take(candidate.queue, candidate.concurrency_key):
            chosen.append(candidate.id)
    return chosen


@dataclass(frozen=True, slots=True)
class QueueState:
    """A queue as people see it: what is declared, what is in force, and what goes on in it now."""

    id: str
    name: str
    concurrency_limit: int | None  # as declared
    per_key_limit: int | None
    paused: bool
    override_limit: int | None  # put in the place of the declared one
    overridden_at: int | None
    running: int = 0
    queued: int = 0

    @property
    def limit(self) -> int | None:
        """How many of its runs may hold a slot; None as many as the environment lets."""
        return self.concurrency_limit if self.override_limit is None else self.override_limit
