"""One simulated world: its nodes, its clock, its store, from the first step to the last run drained."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from holdfast.engine.claim import Claimed
from holdfast.engine.trigger import Triggered
from holdfast.model.ids import Ids
from holdfast.model.status import RunStatus
from holdfast.stores.base import Store, UseCase
from simulator.client import Client, Server
from simulator.deployer import Deployer
from simulator.drain import drain
from simulator.network import Lost, Network, Node
from simulator.options import ENVIRONMENTS, Options, draw, in_force
from simulator.oracle import Oracle
from simulator.rules import Rules
from simulator.timeline import Timeline
from simulator.violation import Violation
from simulator.worker import Worker

BEGINNING = 1_900_000_000_000
SWEEP_MS = 1_000
LAST_LEASE_MS = 60_000
OpenStore = Callable[[Callable[[], int], Ids], Store]  # (clock, ids) -> an empty, migrated store


@dataclass(slots=True)
class Result:
    """What became of a seed; `failure` is None when everything held."""

    seed: int
    failure: str | None = None
    options: Options | None = None
    timeline: Sequence[str] = ()
    statuses: Counter[RunStatus] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)


class World:
    def __init__(self, seed: int, open_store: OpenStore, keep_timeline: bool) -> None:
        self.random = random.Random(seed)
        random.seed(seed)  # the engine's jitter
        self.options = draw(self.random)
        self.now = BEGINNING
        self.step = 0
        self.timeline = Timeline(keep_timeline)
        self.oracle = Oracle(Rules())
        self.store = open_store(lambda: self.now, Ids(random.Random(seed)))
        self.network = Network(
            self.random, self.store, self.oracle, self.timeline, self.options.faults, self.options.merges
        )
        self.lanes: dict[tuple[int, str], Any] = {}  # what each server remembers of each worker
        self.looks = 0  # grows with every commit that puts a run before others
        self._fronts: dict[str, tuple[int, int, Any]] = {}  # when all was looked at, looks, where lines began
        self.store.on_wake = self._woken
        self.run_ids: list[str] = []
        self.ending = False
        self._requests = 0
        self._names = 0
        self.workers = [
            Worker(self, self._name("worker"), "prod" if number == 3 else "dev", 0, None)
            for number in range(self.options.workers)
        ]
        self.clients = [Client(self, self._name("client")) for _ in range(2)]
        self.servers = [Server(self, self._name("server")) for _ in range(2)]
        self.deployer = Deployer(self, seed)

    def run(self) -> None:
        """Raises Violation."""
        self.deployer.arrive()
        self.oracle.now_before = self.oracle.read(self.store)
        for step in range(self.options.steps):
            self.step = step
            self.timeline.step, self.timeline.now = self.step, self.now
            choice = self.random.random()
            if choice < 0.12:
                self.random.choice(self.clients).act()
            elif choice < 0.45 and self.workers:
                self.random.choice(self.workers).act()
            elif choice < 0.55:
                self.random.choice(self.servers).act()
            self.deployer.act()
            self.network.deliver()
            if choice > 0.8:
                self.pass_time(self.random.choice(self.options.delays))
            if self.options.clock_jumps and self.random.random() < 0.02:
                self.now += self.random.choice([-3_600_000, -1_000, 3_600_000])
        drain(self)

    @property
    def lease_ms(self) -> int:
        """Of workers; long at the end, so that time may pass quickly while they live."""
        return LAST_LEASE_MS if self.ending else self.options.lease_ms

    def pass_time(self, ms: int) -> None:
        self.now += ms
        self.oracle.elapsed += ms

    def replace(self, worker: Worker, known_dead: str | None) -> None:
        """A worker is gone; another one comes in its place, which may know whom it replaces."""
        self.workers.remove(worker)
        if self.ending:
            return
        code = worker.code + self.random.choice([0, 0, 1])
        foreign = self.random.random() < 0.05
        environment = ENVIRONMENTS[worker.environment_id == "dev"] if foreign else worker.environment_id
        self.workers.append(Worker(self, self._name("worker"), environment, code, known_dead))

    def call_until_answered(
        self,
        node: Node,
        use_case: UseCase[Any, Any],
        items: Sequence[Any],
        then: Callable[[Sequence[Any]], None] | None = None,
    ) -> None:
        """Sends a call that may be repeated, until there is an answer."""

        def answered(results: Any) -> None:
            if isinstance(results, Lost):
                self.network.send(node, use_case, items, answered)
            elif then is not None:
                then(results)

        self.network.send(node, use_case, items, answered)

    def request_key(self) -> str:
        self._requests += 1
        return f"request-{self._requests}"

    def made(self, results: Sequence[Any]) -> None:
        """Somebody was told of these runs."""
        self.run_ids += [one.id for one in results if isinstance(one, Triggered) and not one.is_cached]

    def some_run(self, recent: int = 0) -> str:
        return self.random.choice(self.run_ids[-recent:])

    def some_ancestor(self) -> str:
        """A run with descendants that go on, as far as there is one."""
        runs = self.oracle.now_before.runs.values()
        roots = sorted({run.root_id for run in runs if run.root_id and not run.is_final})
        return self.random.choice(roots) if roots else self.some_run()

    def fronts(self, environment_id: str) -> Any:
        """Where lines began a moment ago, as a server passes it to a claim."""
        swept_at, looks, fronts = self._fronts.get(environment_id, (0, -1, None))
        fresh = looks == self.looks and self.oracle.elapsed - swept_at < SWEEP_MS
        return fronts if fresh and self.options.fronts else None

    def remember(self, environment_id: str, claimed: Claimed, looks: int) -> None:
        """What a server learns of an answer to a claim; `looks` is from before it."""
        if claimed.swept:
            self._fronts[environment_id] = (self.oracle.elapsed, looks, claimed.fronts)
        elif claimed.runs and environment_id in self._fronts:
            swept_at, known, _ = self._fronts[environment_id]
            if known == looks:
                self._fronts[environment_id] = (swept_at, looks, claimed.fronts)

    def _woken(self, topics: set[str]) -> None:
        self.looks += any(topic.startswith("front:") for topic in topics)

    def delayed(self) -> list[str]:
        """Runs of dev that wait for their time, in the order of a repeatable draw."""
        runs = self.oracle.now_before.runs.values()
        found = [run.id for run in runs if run.status is RunStatus.DELAYED and run.environment_id == "dev"]
        return self.random.choices(found, k=2) if found else []

    def versions(self) -> list[str]:
        workers = self.oracle.now_before.workers.values()
        return sorted({worker["version"] for worker in workers})

    def _name(self, kind: str) -> str:
        self._names += 1
        return f"{kind}-{self._names}"


def simulate(seed: int, open_store: OpenStore, keep_timeline: bool = False) -> Result:
    """Runs a seed. A failure is run once more, to keep its timeline."""
    world = World(seed, open_store, keep_timeline)
    failure = None
    try:
        with in_force(world.options):
            world.run()
    except Violation as violation:
        failure = str(violation)
    except Exception as error:  # the engine itself broke: as much a failure as a broken rule
        failure = f"{type(error).__name__}: {error}"
        if keep_timeline:
            world.timeline.lines += _traceback(error)
    finally:
        world.store.close()
    if failure is not None and not keep_timeline:
        return simulate(seed, open_store, keep_timeline=True)
    return Result(
        seed, failure, world.options, world.timeline.lines, world.oracle.statuses, world.oracle.calls
    )


def _traceback(error: Exception) -> list[str]:
    import traceback

    return "".join(traceback.format_exception(error)).splitlines()
