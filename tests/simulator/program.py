"""What the code of each run does: a little program, drawn from its run id, and what it must give.

It depends on nothing else, as real code must not: whoever executes it, however often, asks for the
same operations in the same order.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from holdfast.engine.trigger import NewRun
from simulator.admission import UNREADABLE

TASKS = ("alpha", "beta", "gamma")
DEEPEST = 2  # runs at this depth have no children
LENGTHS = ((0, 0, 0, 1, 2, 2, 3), (0, 0, 0, 1, 1, 2))  # by depth, in parts
RESUMING = ("failure", "failure", "last", "any")


@dataclass(frozen=True, slots=True)
class Step:
    """Fails as often as `fails` says, each time ending an attempt, or once, and the code goes on (`caught`)."""

    name: str
    fails: int = 0
    caught: bool = False

    def value(self, run_id: str) -> str:
        return f"{self.name} of {run_id[-8:]}"


@dataclass(frozen=True, slots=True)
class Sleep:
    name: str
    ms: int


@dataclass(frozen=True, slots=True)
class Spawn:
    """Triggers children, in one entry; each is what a NewRun has beyond its parent."""

    name: str
    children: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Join:
    """Waits for all children of a Spawn: one after another, or together and woken as `wake` says.

    raises  a child that failed fails the attempt, and is triggered anew by the next one
    """

    name: str
    of: str
    wake: str | None
    raises: bool


@dataclass(frozen=True, slots=True)
class Both:
    """Waits for all children of two Spawns at once, in two branches that are woken differently."""

    name: str
    of: tuple[str, str]


@dataclass(frozen=True, slots=True)
class First:
    """Waits for whichever of the children of a Spawn ends first, perhaps for a time only."""

    name: str
    of: str
    within: int | None


@dataclass(frozen=True, slots=True)
class NewOne:
    """Makes a token, or finds the one that holds its key."""

    name: str
    timeout: str | None
    key: str | None
    schema: str | None


@dataclass(frozen=True, slots=True)
class Await:
    """Waits for a token."""

    name: str
    of: str


@dataclass(frozen=True, slots=True)
class Count:
    """Changes the run's metadata."""

    name: str


Operation = Step | Sleep | Spawn | Join | Both | First | NewOne | Await | Count
Truth = Callable[[str], list[Any]]  # what became of a run or token, in short


@lru_cache(maxsize=4_096)
def program_of(run_id: str, task: str, depth: int) -> tuple[Operation, ...]:
    """The operations of a run's code, in order."""
    source = random.Random(f"{task} {run_id}")
    found: list[Operation] = []
    for number in range(source.choice(LENGTHS[depth] if depth < DEEPEST else (0, 0, 0, 1))):
        found += _part(source, str(number), depth)
    return tuple(found)


def summary(id: str, status: str, output: str | None) -> list[Any]:
    """What a result adds to the output of who waited for it."""
    return [id[-8:], status, zlib.crc32((output or "").encode()) if status.startswith("COMPLETED") else 0]


def bad_child() -> dict[str, Any]:
    """A child that is refused."""
    return {"task": TASKS[0], "tags": tuple(f"t{n}" for n in range(11))}


def child(options: dict[str, Any], environment_id: str, parent_id: str, lease: int) -> NewRun:
    """What a worker sends for a child."""
    return NewRun(environment_id=environment_id, parent_id=parent_id, parent_lease=lease, **options)


def _part(source: random.Random, name: str, depth: int) -> list[Operation]:
    kinds = ["step", "step", "sleep", "token", "count"]
    if depth < DEEPEST:
        kinds += ["one", "all", "all", "first", "both"][depth:]
    kind = source.choice(kinds)
    match kind:
        case "step":
            fails = source.choice([0, 0, 0, 1, 2])
            return [Step(f"step-{name}", fails, caught=not fails and source.random() < 0.2)]
        case "sleep":
            ms = source.choice([0, 50, 1_000, 10_000, 120_000, 3_600_000])
            return [Sleep(f"sleep-{name}", ms)]
        case "count":
            return [Count(f"count-{name}")]
        case "token":
            timeout = source.choice([None, None, "1s", "10s", "1h", UNREADABLE if name == "2" else "1m"])
            key = source.choice([None, None, "token-1", "token-2"])
            schema = source.choice([None, None, '{"type": "integer"}'])
            between = [Step(f"step-{name}")] if source.random() < 0.3 else []
            return [
                NewOne(f"token-{name}", timeout, key, schema),
                *between,
                Await(f"await-{name}", f"token-{name}"),
            ]
        case "both":
            names = (f"left-{name}", f"right-{name}")
            return [
                *(Spawn(one, _children(source, depth, source.randint(1, 2), False)) for one in names),
                Both(f"both-{name}", names),
            ]
    size = {"one": 1, "first": 2}.get(kind) or source.choice([2, 2, 2, 3])
    spawn = Spawn(f"spawn-{name}", _children(source, depth, size, name == "0"))
    between = [Step(f"step-{name}")] if source.random() < 0.3 else []
    if kind == "first":
        return [
            spawn,
            *between,
            First(f"first-{name}", spawn.name, source.choice([None, None, 1_000, 60_000])),
        ]
    wake = None if kind == "one" or source.random() < 0.2 else source.choice(RESUMING)
    return [spawn, *between, Join(f"join-{name}", spawn.name, wake, raises=source.random() < 0.4)]


def _children(source: random.Random, depth: int, count: int, keyed: bool) -> tuple[dict[str, Any], ...]:
    children = []
    for _ in range(count):
        options: dict[str, Any] = {"task": source.choice(TASKS), "payload": '{"tenant": "x"}'}
        # Keys are of one depth, so that nobody waits for who waits for it, and of one Spawn in a program.
        if keyed and source.random() < 0.4:
            options["idempotency_key"] = f"depth-{depth + 1}-{source.randrange(3)}"
            options["idempotency_key_ttl"] = source.choice([None, "5s"])
        if source.random() < 0.1:
            options["delay"] = source.choice(["1s", "10s"])
        if source.random() < 0.15:
            options["ttl"] = "1s"
        if source.random() < 0.3:
            options["queue"] = source.choice(["narrow", "wide"])
        if source.random() < 0.3:
            options["max_attempts"] = source.choice([1, 2])
        children.append(options)
    if source.random() < 0.08:
        children[-1] = bad_child()
    return tuple(children)
