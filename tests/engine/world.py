"""Steps of a timeline: what clients, workers and time do to a store."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from clock import Clock
from holdfast.engine import claim as claiming
from holdfast.engine import finish, inspect, journal, operate, upkeep
from holdfast.engine.claim import Claim, Claimed, Registered, Registering
from holdfast.engine.finish import Answer, Reported
from holdfast.engine.inspect import RunDetails
from holdfast.engine.journal import JournalPage
from holdfast.engine.token import Completion, Created, NewToken, complete, create_tokens
from holdfast.engine.trigger import NewRun, Triggered, trigger
from holdfast.errors import HoldfastError
from holdfast.model.queue import Lane
from holdfast.model.retry import RetryPolicy
from holdfast.model.run import Run
from holdfast.model.task import QueueSpec, TaskSpec
from holdfast.model.wait import Waitpoint
from holdfast.stores.base import Store
from holdfast.stores.listing import Filters, Page, TokenFilters

T = TypeVar("T")


def step(name: str = "s", value: str | None = "1", ok: bool = True, **fields: Any) -> dict[str, Any]:
    """An entry of a step."""
    told = {"scope": "", "kind": "step", "name": name, "args": None, "ok": ok, "value": value, "ref": None}
    return {**told, **fields}


def until(at: int, wake: str = "any", **more: Any) -> dict[str, Any]:
    """A wait for a time."""
    return {"on": "time", "dueAt": at, "wake": wake, **more}


def end_of(target: str, wake: str = "any", **more: Any) -> dict[str, Any]:
    """A wait for a run or a token."""
    kind = "token" if target.startswith("waitpoint_") else "run"
    return {"on": kind, "id": target, "wake": wake, **more}


LEASE_MS = 15_000
BUG = {"type": "BUILT_IN_ERROR", "name": "ValueError", "message": "boom", "stackTrace": ""}


def task(name: str, **options: Any) -> TaskSpec:
    """A task whose retries do not jitter."""
    options.setdefault("retry", RetryPolicy(jitter=False))
    return TaskSpec(name, options.pop("queue", f"task/{name}"), **options)


class World:
    """A store with the steps of a timeline; a step that is refused raises."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.store = store
        self.clock = clock
        self.wakes: set[str] = set()
        self._after: dict[str, Lane | None] = {}
        store.on_wake = self.wakes.update

    def do(self, use_case: Any, item: Any) -> Any:
        [answer] = self.store.transact(use_case, [item])
        if isinstance(answer, HoldfastError):
            raise answer
        return answer

    def read(self, query: Any) -> Any:
        return self.store.transact(lambda tx, _: [query(tx)], [None])[0]

    # Clients

    def trigger(self, task: str = "send", environment: str = "dev", **options: Any) -> str:
        return self.triggered(task, environment, **options).id

    def triggered(self, task: str = "send", environment: str = "dev", **options: Any) -> Triggered:
        answer: Triggered = self.do(trigger, NewRun(environment_id=environment, task=task, **options))
        return answer

    def run(self, run_id: str, environment: str = "dev") -> Run:
        run: Run = self.read(lambda tx: inspect.one_run(tx, environment, run_id))
        return run

    def status(self, run_id: str) -> str:
        return str(self.run(run_id).status)

    def details(self, run_id: str) -> RunDetails:
        details: RunDetails = self.read(lambda tx: inspect.details(tx, "dev", run_id))
        return details

    def attempts(self, run_id: str) -> list[tuple[int, str]]:
        return [(attempt.number, str(attempt.status)) for attempt in self.details(run_id).attempts]

    def cancel(self, run_id: str) -> Run:
        run: Run = self.do(operate.cancel, operate.Cancel("dev", run_id))
        return run

    def replay(self, run_id: str, **changes: Any) -> str:
        triggered: Triggered = self.do(operate.replay, operate.Replay("dev", run_id, changes))
        return triggered.id

    def reschedule(self, run_id: str, delay: Any) -> Run:
        run: Run = self.do(operate.reschedule, operate.Reschedule("dev", run_id, delay))
        return run

    def page(
        self, size: int = 10, after: str | None = None, before: str | None = None, **filters: Any
    ) -> Page:
        page: Page = self.read(lambda tx: inspect.page(tx, "dev", Filters(**filters), size, after, before))
        return page

    # Workers

    def register(
        self,
        *tasks: TaskSpec | str,
        queues: Sequence[QueueSpec] = (),
        environment: str = "dev",
        fingerprint: str = "code",
        replaces: str | None = None,
    ) -> Registered:
        specs = [spec if isinstance(spec, TaskSpec) else task(spec) for spec in tasks or ("send",)]
        item = Registering(environment, "host", fingerprint, specs, queues, LEASE_MS, replaces)
        registered: Registered = self.do(claiming.register, item)
        return registered

    def worker(self, *tasks: TaskSpec | str, **options: Any) -> str:
        """Registers a worker and puts the runs that waited for it in the queue."""
        worker_id = self.register(*tasks, **options).worker_id
        self.upkeep()
        return worker_id

    def renew(self, worker: str, environment: str = "dev") -> None:
        self.do(claiming.renew, (worker, environment, LEASE_MS))

    def claim(self, worker: str, slots: int = 10, environment: str = "dev") -> list[Run]:
        return list(self.claimed(worker, slots, environment).runs)

    def claimed(self, worker: str, slots: int = 10, environment: str = "dev") -> Claimed:
        claimed: Claimed = self.do(claiming.claim, Claim(worker, environment, slots, self._after.get(worker)))
        self._after[worker] = claimed.after
        return claimed

    def claim_one(self, worker: str) -> Run:
        [run] = self.claim(worker, 1)
        return run

    def to_stop(self, worker: str) -> list[str]:
        claimed = self.do(claiming.claim, Claim(worker, "dev", 0))
        return [run_id for run_id, _ in claimed.cancelled]

    def report(self, worker: str, run: Run, kind: str, **said: Any) -> Answer:
        said = {"kind": kind, "run": run.id, "lease": run.lease, **said}
        answer: Answer = self.do(finish.report, Reported(worker, run.environment_id, said))
        return answer

    def succeed(self, worker: str, run: Run, output: str | None = "null") -> Answer:
        return self.report(worker, run, "succeeded", output=output)

    def fail(self, worker: str, run: Run, delay_ms: int | None, error: Any = BUG) -> Answer:
        return self.report(worker, run, "failed", error=error, retryDelayMs=delay_ms)

    def leave(self, worker: str) -> None:
        self.do(claiming.leave, (worker, "dev"))

    # Durable execution

    def record(self, worker: str, run: Run, *entries: Mapping[str, Any], first: int | None = None) -> Answer:
        """Reports journal entries: the next ones, unless `first` says otherwise."""
        first = self.run(run.id, run.environment_id).entries if first is None else first
        return self.report(worker, run, "entries", first=first, entries=list(entries))

    def spawn(
        self, worker: str, run: Run, *tasks: str, first: int | None = None, **options: Any
    ) -> list[dict[str, Any]]:
        """Triggers children of a run, and records that; what each was answered."""
        return list(json.loads(self.spawned(worker, run, *tasks, first=first, **options).value or ""))

    def spawned(self, worker: str, run: Run, *tasks: str, first: int | None = None, **options: Any) -> Answer:
        first = self.run(run.id).entries if first is None else first
        items = [
            NewRun(environment_id=run.environment_id, task=name, parent_id=run.id, **options)
            for name in tasks
        ]
        said = {"scope": "", "name": "children", "args": None}
        return self.report(worker, run, "triggers", first=first, items=items, **said)

    def make_token(self, worker: str, run: Run, first: int | None = None, **asked: Any) -> Answer:
        """Makes a token, and records that."""
        first = self.run(run.id).entries if first is None else first
        new = NewToken(environment_id=run.environment_id, run_id=run.id, **asked)
        said = {"scope": "", "name": "token", "args": None, "sign": lambda id, now: {"url": f"/{id}"}}
        return self.report(worker, run, "token", first=first, new=new, **said)

    def suspend(self, worker: str, run: Run, *waits: Mapping[str, Any], active_ms: int = 0) -> Answer:
        return self.report(worker, run, "suspended", activeMs=active_ms, waits=list(waits))

    def journal(self, run_id: str, environment: str = "dev") -> list[dict[str, Any]]:
        page: JournalPage = self.read(lambda tx: journal.page(tx, environment, run_id, -1, 10_000))
        return list(page.entries)

    def token(self, environment: str = "dev", **asked: Any) -> Created:
        created: Created = self.do(create_tokens, NewToken(environment_id=environment, **asked))
        return created

    def complete(self, token_id: str, output: str = "null", environment: str = "dev") -> None:
        self.do(complete, Completion(environment, token_id, output))

    def read_token(self, token_id: str, environment: str = "dev") -> Waitpoint:
        [token] = self.read(lambda tx: inspect.tokens(tx, environment, [token_id]))
        assert isinstance(token, Waitpoint)
        return token

    def page_of_tokens(self, environment: str = "dev", **filters: Any) -> list[str]:
        """The ids of the tokens that fit, newest first."""
        page = self.read(lambda tx: inspect.tokens_page(tx, environment, TokenFilters(**filters), 100))
        return [token.id for token in page.tokens]

    def waits(self) -> list[tuple[Any, ...]]:
        """(run, what for, wake) of all waits there are."""
        rows = self.read(
            lambda tx: tx.select("select run_id, coalesce(target, 'time'), wake from waits order by 1, 2", {})
        )
        return list(rows)

    # Time

    def upkeep(self, lose_workers: bool = True) -> int:
        """Passes until nothing is due; answers how many rows moved."""
        moved = 0
        while True:
            passed = self.do(upkeep.upkeep, upkeep.Due(lose_workers))
            moved += passed.moved
            if not passed.more:
                return moved

    def after(self, ms: int, *alive: str) -> None:
        """Moves the clock on and does what is due then; the workers `alive` have renewed."""
        self.clock.advance(ms)
        for worker in alive:
            self.renew(worker)
        self.upkeep()
