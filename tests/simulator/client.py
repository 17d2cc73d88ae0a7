"""Simulated clients and servers: triggers, cancels, changes of limits, upkeep, walks through pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdfast.engine import inspect, operate
from holdfast.engine.token import Completion, NewToken, complete, create_tokens
from holdfast.engine.trigger import NewRun, trigger
from holdfast.engine.upkeep import Due, Retention, retain, upkeep
from holdfast.errors import InvalidRequest
from holdfast.stores.base import Tx
from holdfast.stores.listing import Filters
from simulator.admission import NO_VERSION, NOBODY, UNREADABLE
from simulator.network import Lost
from simulator.options import ENVIRONMENTS
from simulator.violation import require

if TYPE_CHECKING:
    from simulator.world import World

BAD = (
    {"delay": UNREADABLE},
    {"ttl": UNREADABLE},
    {"tags": [f"t{n}" for n in range(11)]},
    {"parent_id": NOBODY},
)
UNDECLARED = "undeclared"  # a queue that nobody registers
BAD = (*BAD, {"version_lock": NO_VERSION}, {"task": ""}, {"idempotency_key": ""})


class Server:
    """Runs upkeep, on and off."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.alive = True
        self.frozen = False

    def act(self) -> None:
        options, random = self.world.options, self.world.random
        if options.keep_ms is not None and random.random() < 0.2:
            items = [Retention(environment, options.keep_ms) for environment in ENVIRONMENTS]
            self.world.network.send(self, retain, items)
        else:
            self.world.network.send(self, upkeep, [Due(random.random() < 0.8, options.upkeep_limit)])


class Client:
    """A program or a person with a secret key."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.alive = True
        self.frozen = False
        self.walk: Walk | None = None

    def act(self) -> None:
        deed = self.world.random.choices(
            [
                self._trigger,
                self._cancel,
                self._replay,
                self._reschedule,
                self._tag,
                self._metadata,
                self._limits,
                self._walk,
                self.complete,
                self._token,
            ],
            [8, 2, 1, 1, 1, 1, 1, 2, 3, 1],
        )[0]
        deed()

    def new_run(self, environment_id: str) -> NewRun:
        random = self.world.random
        options: dict[str, Any] = {}
        if random.random() < 0.35:
            options["idempotency_key"] = f"key-{random.randrange(4)}"
            options["idempotency_key_ttl"] = random.choice([None, "1s", "5s", "1h"])
        if random.random() < 0.25:
            options["delay"] = random.choice(["1s", "10s", "2m", 0])
        if random.random() < 0.2:
            options["ttl"] = random.choice(["1s", "30s", 0])
        if random.random() < 0.3:
            options["priority"] = random.choice([-3, 1, 5])
        if random.random() < 0.3:
            options["queue"] = random.choice(["narrow", "wide", UNDECLARED])
        if random.random() < 0.4:
            options["concurrency_key"] = random.choice(["a", "b", "c", "*"])
        if random.random() < 0.3:
            options["max_attempts"] = random.choice([1, 2, 4])
        if random.random() < 0.25 and self.world.run_ids:
            options["parent_id"] = self.world.some_run(recent=4)
        if random.random() < 0.08 and self.world.versions():
            options["version_lock"] = random.choice(self.world.versions())
        if random.random() < 0.4:
            options["request_key"] = self.world.request_key()
        if random.random() < 0.08:
            options |= random.choice(BAD)
        task = random.choice(
            [*(task.id for task in self.world.options.tasks), "nobody-has-it"][
                : 4 if random.random() < 0.2 else 3
            ]
        )
        payload = random.choice([None, '{"tenant": "x"}', '{"tenant": 7}', "[1]"])
        return NewRun(**{"environment_id": environment_id, "task": task, "payload": payload, **options})

    def _environment(self) -> str:
        return "dev" if self.world.random.random() < 0.8 else "prod"

    def _trigger(self) -> None:
        random = self.world.random
        environment = self._environment()
        items = [self.new_run(environment) for _ in range(random.choice([1, 1, 1, 2, 5, 8]))]

        def answered(results: Any) -> None:
            if isinstance(results, Lost):
                if random.random() < 0.7:
                    self.world.network.send(self, trigger, items, answered)
                return
            self.world.made(results)

        self.world.network.send(self, trigger, items, answered)

    def _cancel(self) -> None:
        if self.world.run_ids:
            run_id = self.world.some_ancestor() if self.world.random.random() < 0.4 else self.world.some_run()
            item = operate.Cancel(self._environment(), run_id)
            self.world.call_until_answered(self, operate.cancel, [item])

    def _replay(self) -> None:
        if self.world.run_ids:
            self.world.network.send(
                self, operate.replay, [operate.Replay(self._environment(), self.world.some_run(), {})]
            )

    def _reschedule(self) -> None:
        for run_id in self.world.delayed()[:2]:
            delay = self.world.random.choice(["2s", "1m", "5m"])
            self.world.network.send(self, operate.reschedule, [operate.Reschedule("dev", run_id, delay)])

    def _tag(self) -> None:
        if self.world.run_ids:
            tags = [f"tag-{self.world.random.randrange(20)}"]
            item = operate.AddTags(self._environment(), self.world.some_run(), tags)
            self.world.network.send(self, operate.add_tags, [item])

    def _metadata(self) -> None:
        if self.world.run_ids:
            operations = [{"type": "append", "key": "list", "value": self.world.random.randrange(9)}]
            item = operate.ChangeMetadata(
                self._environment(), self.world.some_run(), operations=operations, root_operations=operations
            )
            self.world.network.send(self, operate.change_metadata, [item])

    def complete(self) -> None:
        """Completes a token, mostly one that waits."""
        random, tokens = self.world.random, self.world.oracle.now_before.tokens
        waiting = [token.id for token in tokens.values() if token.status == "WAITING"]
        if ids := waiting if waiting and random.random() < 0.7 else list(tokens):
            output = random.choice(["7", "8", '"text"', '{"a": 1}'])
            id = random.choice(ids)
            environment = self._environment() if random.random() < 0.1 else tokens[id].environment_id
            item = Completion(environment, id, output)
            self.world.call_until_answered(self, complete, [item])

    def _token(self) -> None:
        random = self.world.random
        item = NewToken(
            environment_id=self._environment(),
            timeout=random.choice([None, "1s", "1h", UNREADABLE]),
            idempotency_key=random.choice([None, "token-1", "token-2"]),
            idempotency_key_ttl=random.choice([None, "1s"]),
        )
        self.world.network.send(self, create_tokens, [item])

    def _limits(self) -> None:
        random = self.world.random
        item: dict[str, Any]
        if random.random() < 0.5:
            limit, paused = random.choice([0, 1, 2, 5, 1_000]), int(random.random() < 0.2)
            item = {"id": self._environment(), "concurrency_limit": limit, "paused": paused}
            self.world.network.send(self, set_environment, [item])
        else:
            queue = random.choice(["narrow", "wide", "task/alpha"])
            item = {
                "environment_id": self._environment(),
                "name": queue,
                "paused": int(random.random() < 0.3),
            }
            self.world.network.send(self, set_queue_paused, [item])

    def _walk(self) -> None:
        if self.walk is None or self.walk.done:
            self.walk = Walk(self.world, self._environment())
        self.walk.step()


class Walk:
    """A walk through all pages of a list, while others write (I10)."""

    def __init__(self, world: World, environment_id: str) -> None:
        self.world = world
        self.environment_id = environment_id
        self.size = world.random.randint(1, 5)
        self.backwards = world.random.random() < 0.5
        self.cursor: str | None = None
        self.seen: list[str] = []
        self.done = False
        self.there = set(self._all())
        if self.backwards and self.there:
            self.cursor = min(self.there)
            self.seen.append(self.cursor)

    def step(self) -> None:
        """The next page; after the last one, what was seen is compared with what there was."""
        after, before = (None, self.cursor) if self.backwards else (self.cursor, None)

        def read(tx: Tx, _: list[None]) -> list[Any]:
            try:
                return [inspect.page(tx, self.environment_id, Filters(), self.size, after, before)]
            except InvalidRequest as error:
                return [error]

        [page] = self.world.store.transact(read, [None])
        if isinstance(page, InvalidRequest):  # retention has deleted the run at the cursor
            require(
                self.cursor is None or self.cursor not in self._all(), "I10", f"cursor {self.cursor}: {page}"
            )
            self.done = True
            return
        ids = [run.id for run in page.runs]
        self.seen += reversed(ids) if self.backwards else ids
        self.cursor = page.previous if self.backwards else page.next
        if self.cursor is None:
            self.done = True
            left = self.there & set(self._all())
            require(len(self.seen) == len(set(self.seen)), "I10", f"seen twice: {self.seen}")
            require(left <= set(self.seen), "I10", f"not seen: {sorted(left - set(self.seen))}")

    def _all(self) -> list[str]:
        runs = self.world.oracle.now_before.runs.values()
        return [run.id for run in runs if run.environment_id == self.environment_id]


def set_environment(tx: Tx, items: list[dict[str, Any]]) -> list[None]:
    """Changes limits of environments."""
    for item in items:
        tx.do("set_environment", **item)
    return [None] * len(items)


def set_queue_paused(tx: Tx, items: list[dict[str, Any]]) -> list[None]:
    """Pauses and resumes queues."""
    for item in items:
        tx.do("set_queue_paused", **item)
    return [None] * len(items)
