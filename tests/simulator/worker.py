"""A simulated worker: it follows the worker protocol, dies, freezes, drains, gives up, and hears late."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holdfast.engine import claim as claiming
from holdfast.engine.claim import Claim, Claimed, Registered, Registering, claim, leave, register, renew
from holdfast.engine.finish import Reported, report
from holdfast.engine.trigger import NewRun, trigger
from holdfast.errors import WorkerNotFound
from holdfast.model.error import internal_error
from holdfast.model.task import QueueSpec
from simulator.network import Lost

if TYPE_CHECKING:
    from simulator.world import World

FAILURE = {"type": "BUILT_IN_ERROR", "name": "ValueError", "message": "no"}
RETRY_DELAYS = (None, 0, 500, 5_000, 29_999, 30_000, 60_000)


@dataclass(slots=True)
class Held:
    """A run in this worker's hands."""

    lease: int
    alone: bool
    retry_at: int | None = None  # between two attempts
    reporting: bool = False  # its outcome is on the way
    begun: bool = False  # user code


class Membership:
    """One registration: what the server knows as a worker."""

    def __init__(self, registered: Registered) -> None:
        self.id = registered.worker_id
        self.held: dict[str, Held] = {}
        self.leaving = False
        self.settled = False  # no claim is under way any more, nor will there be one that gives runs
        self.departing = False
        self.awaited: object | None = None  # stands for the claim whose answer it waits for
        self.gone = False

    def stop_claiming(self) -> None:
        """The answer to a claim under way is not waited for: what it gives goes back with the next renewal."""
        self.leaving = True
        self.awaited = None


class Worker:
    """A process on some host. `code` decides its fingerprint, and so its version."""

    def __init__(self, world: World, name: str, environment_id: str, code: int, replaces: str | None) -> None:
        self.world = world
        self.name = name
        self.environment_id = environment_id
        self.code = code
        self.replaces = replaces
        self.tasks = [task for task in world.options.tasks if world.random.random() < 0.7] or [
            world.options.tasks[0]
        ]
        self.alive = True
        self.frozen = False
        self.thaws_at = 0
        self.draining = False
        self.joining = False
        self.rejoining = False  # a claim's answer was lost: it does not know what it was given
        self.deaths = world.options.deaths
        self.declares_limits = True
        self.memberships: list[Membership] = []

    @property
    def current(self) -> Membership | None:
        """The registration that claims."""
        return next((one for one in self.memberships if not one.leaving and not one.gone), None)

    def act(self) -> None:
        """One thing that a worker does."""
        random = self.world.random
        if self.frozen:
            if self.world.step < self.thaws_at:
                return
            self.frozen = False
        if random.random() < self.deaths and self._fate():
            return
        if (self.current is None or self.rejoining) and not self.draining:
            self._join()
        self.memberships = [one for one in self.memberships if not one.gone]
        for membership in self.memberships:
            self._work(membership)
        if self.draining and not self.memberships:
            self.alive = False
            self.world.replace(self, None)

    def _fate(self) -> bool:
        random = self.world.random
        fate = random.choice(["die", "die", "freeze", "freeze", "drain", "recode", "give up"])
        self.world.timeline.add(self.name, fate)
        if fate == "die":
            self.alive = False
            known = self.current.id if self.current and random.random() < 0.6 else None
            self.world.replace(self, known)
        elif fate == "freeze":
            self.frozen = True
            self.thaws_at = self.world.step + random.randint(2, 40)
        elif fate == "drain":
            self.draining = True
            for membership in self.memberships:
                membership.stop_claiming()
            return False
        elif fate == "give up":  # its renewals were late by its own clock; the server may still wait for them
            if self.current is not None:
                self._abandoned(self.current)
        else:  # its files have changed: a new version
            self.code += 1
            for membership in self.memberships:
                membership.stop_claiming()
            return False
        return True

    def _join(self) -> None:
        if self.joining:
            return
        self.joining = True
        options = self.world.options
        queues = options.queues if self.world.random.random() < 0.7 else options.other_queues
        if not self.declares_limits:
            queues = tuple(QueueSpec(queue.name) for queue in queues)
        fingerprint = f"code-{self.code}"
        item = Registering(
            self.environment_id, self.name, fingerprint, self.tasks, queues, options.lease_ms, self.replaces
        )
        self.world.network.send(self, register, [item], self._joined)

    def _joined(self, results: Any) -> None:
        self.joining = False
        if not isinstance(results, Lost):  # else it registers again; the first one is never heard of
            self.replaces = None
            self.rejoining = False
            for former in self.memberships:
                former.stop_claiming()
            self.memberships.append(Membership(results[0]))

    def _work(self, membership: Membership) -> None:
        random = self.world.random
        if membership.leaving and membership.awaited is None:
            membership.settled = True
        if random.random() < 0.5:
            self._renew(membership)
        free = self.world.options.slots - len(membership.held)
        if membership.leaving:
            free = 0
            if membership.settled and not membership.held:
                self._depart(membership)
                return
            if self.draining and random.random() < 0.5:
                self._release(membership)
                return
        if membership.awaited is None and random.random() < 0.7:
            awaited = membership.awaited = object()
            place = (random.randrange(2), membership.id)  # which server it reaches
            item = Claim(membership.id, self.environment_id, free, self.world.lanes.get(place))

            def answered(results: Any) -> None:
                if membership.awaited is awaited:
                    membership.awaited = None
                    self._claimed(membership, place, free, results)

            self.world.network.send(self, claim, [item], answered)
        idle = [run_id for run_id, held in membership.held.items() if not held.reporting]
        if idle:
            self._run(membership, random.sample(idle, random.randint(1, len(idle))))

    def _renew(self, membership: Membership, then: Callable[[], None] | None = None) -> None:
        """A heartbeat. The server renews first; then, where the worker said what it holds, takes the rest back."""
        network, server = self.world.network, self.world.random.choice(self.world.servers)
        held = sorted(membership.held) if membership.settled else None

        def renewed(results: Any) -> None:
            if isinstance(results, Lost):
                membership.departing = False
            elif isinstance(results[0], WorkerNotFound):
                self._abandoned(membership)
            elif held is not None:
                network.send(server, claiming.give_back_unknown, [(membership.id, held)], given_back)

        def given_back(results: Any) -> None:
            if isinstance(results, Lost):
                membership.departing = False
            elif then is not None:
                then()

        network.send(
            self, renew, [(membership.id, self.environment_id, self.world.options.lease_ms)], renewed
        )

    def _depart(self, membership: Membership) -> None:
        """Leaves, after what no claim has brought it was given back."""
        if membership.departing:
            return
        membership.departing = True

        def left(results: Any) -> None:
            membership.departing = False
            if not isinstance(results, Lost):
                membership.gone = True

        item = (membership.id, self.environment_id)
        self._renew(membership, lambda: self.world.network.send(self, leave, [item], left))

    def _abandoned(self, membership: Membership) -> None:
        """Declared lost. Some workers hear it too late and go on reporting what they hold."""
        if membership is self.current:
            self.replaces = membership.id
        if self.world.random.random() < 0.3 and membership.held:
            self._run(membership, list(membership.held))
        membership.gone = True

    def _claimed(self, membership: Membership, place: tuple[int, str], slots: int, results: Any) -> None:
        if isinstance(results, Lost):
            self.rejoining = self.rejoining or slots > 0  # it may hold runs unknowingly
            return
        answer: Claimed | WorkerNotFound = results[0]
        if isinstance(answer, WorkerNotFound):
            self._abandoned(membership)
            return
        self.world.lanes[place] = answer.after
        for run in answer.runs:
            membership.held[run.id] = Held(run.lease, run.alone)
        for run_id, lease in answer.cancelled:
            membership.held.pop(run_id, None)
            self._report(membership, [{"kind": "closed", "run": run_id, "lease": lease}])

    def _run(self, membership: Membership, run_ids: list[str]) -> None:
        random = self.world.random
        if random.random() < 0.15:
            self._executor_dies(membership, run_ids)
            return
        reports = []
        for run_id in run_ids:
            held = membership.held[run_id]
            if held.retry_at is not None:
                if held.retry_at <= self.world.oracle.elapsed:
                    held.reporting = True
                    reports.append({"kind": "started", "run": run_id, "lease": held.lease})
                continue
            held.begun = True
            deed = random.choice(["go on", "go on", "stream", "child", "succeed", "succeed", "fail"])
            if deed == "stream":
                reports.append(self._streamed(run_id, held))
            elif deed == "child":
                self._child(run_id, held)
            elif deed != "go on":
                held.reporting = True
                reports.append(self._outcome(run_id, held, deed == "succeed"))
        if reports:
            self._report(membership, reports)

    def _outcome(self, run_id: str, held: Held, succeeds: bool) -> dict[str, Any]:
        random = self.world.random
        if succeeds:
            output = json.dumps(random.randrange(1_000))
            return {"kind": "succeeded", "run": run_id, "lease": held.lease, "output": output}
        codes = ["MAX_DURATION_EXCEEDED", "COULD_NOT_FIND_TASK", "TASK_RUN_UNCAUGHT_EXCEPTION"]
        error = FAILURE if random.random() < 0.8 else internal_error(random.choice(codes), "no")
        delay = random.choice(RETRY_DELAYS)
        return {"kind": "failed", "run": run_id, "lease": held.lease, "error": error, "retryDelayMs": delay}

    def _streamed(self, run_id: str, held: Held) -> dict[str, Any]:
        random = self.world.random
        said: dict[str, Any] = {"run": run_id, "lease": held.lease}
        kind = random.choice(["metadata", "tags", "logs"])
        if kind == "metadata":
            operation = [{"type": "increment", "key": "count", "value": 1}]
            said |= {"operations": operation}
            said |= (
                {"parentOperations": operation} if random.random() < 0.5 else {"rootOperations": operation}
            )
        elif kind == "tags":
            said["tags"] = [f"tag-{random.randrange(20)}"]
        else:
            record = {"at": self.world.now, "level": "INFO", "logger": "simulated", "message": "hello"}
            said["records"] = [record]
        return {"kind": kind, **said}

    def _child(self, run_id: str, held: Held) -> None:
        random = self.world.random
        child = NewRun(
            environment_id=self.environment_id,
            task=random.choice(self.world.options.tasks).id,
            payload="{}",
            parent_id=run_id,
            parent_lease=held.lease,
            request_key=self.world.request_key(),
        )
        self.world.call_until_answered(self, trigger, [child], self.world.made)

    def _executor_dies(self, membership: Membership, run_ids: list[str]) -> None:
        reports = []
        error = internal_error("TASK_PROCESS_EXITED_WITH_NON_ZERO_CODE", "exit 1")
        for run_id in run_ids:
            held = membership.held[run_id]
            held.reporting = True
            shared = len(run_ids) > 1 and (not held.alone or self.world.random.random() < 0.2)
            said = {"kind": "crashed", "run": run_id, "lease": held.lease, "error": error, "shared": shared}
            reports.append(said)
        self._report(membership, reports)

    def _release(self, membership: Membership) -> None:
        reports = []
        for run_id, held in membership.held.items():
            if not held.reporting:
                held.reporting = True
                said = {"kind": "released", "run": run_id, "lease": held.lease, "started": held.begun}
                reports.append(said)
        if reports:
            self._report(membership, reports)

    def _report(self, membership: Membership, reports: list[dict[str, Any]]) -> None:
        items = [Reported(membership.id, self.environment_id, said) for said in reports]

        def answered(results: Any) -> None:
            if isinstance(results, Lost):
                self.world.network.send(self, report, items, answered)
                return
            for said, answer in zip(reports, results, strict=True):
                self._heard(membership, said, answer)

        self.world.network.send(self, report, items, answered)

    def _heard(self, membership: Membership, said: dict[str, Any], answer: Any) -> None:
        held = membership.held.get(said["run"])
        if held is None or held.lease != said["lease"] or said["kind"] == "closed":
            return
        if answer.status == "retry":
            held.lease, held.reporting = answer.lease, False
            held.retry_at = self.world.oracle.elapsed + answer.delay_ms
            held.begun = False
        elif answer.status == "started":
            held.lease, held.retry_at, held.reporting, held.begun = answer.lease, None, False, True
        elif answer.status == "fenced" or said["kind"] not in ("metadata", "tags", "logs"):
            del membership.held[said["run"]]
