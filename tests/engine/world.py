"""Steps of a timeline: what clients, workers and time do to a store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from clock import Clock
from holdfast.engine import claim as claiming
from holdfast.engine import finish, inspect, operate, upkeep
from holdfast.engine.claim import Claim, Registered, Registering
from holdfast.engine.finish import Answer, Reported
from holdfast.engine.inspect import RunDetails
from holdfast.engine.trigger import NewRun, Triggered, trigger
from holdfast.errors import HoldfastError
from holdfast.model.queue import Lane
from holdfast.model.retry import RetryPolicy
from holdfast.model.run import Run
from holdfast.model.task import QueueSpec, TaskSpec
from holdfast.stores.base import Store
from holdfast.stores.listing import Filters, Page

T = TypeVar("T")
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
        claimed = self.do(claiming.claim, Claim(worker, environment, slots, self._after.get(worker)))
        self._after[worker] = claimed.after
        return list(claimed.runs)

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
