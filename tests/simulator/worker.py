"""A simulated worker: it follows the worker protocol, dies, freezes, drains, gives up, and hears late."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from holdfast.engine import claim as claiming
from holdfast.engine.claim import Claim, Claimed, Registering, claim, leave, register, renew
from holdfast.errors import WorkerNotFound
from holdfast.model.task import QueueSpec
from holdfast.wire.journal import entry
from simulator.executor import Executor
from simulator.membership import Held, Membership
from simulator.network import Lost

if TYPE_CHECKING:
    from simulator.world import World


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
        self.slots = world.options.slots
        self.declares_limits = True
        self.memberships: list[Membership] = []
        self.executor = Executor(world, self)

    @property
    def is_broken(self) -> bool:
        """Whether its code does something else than what is recorded of runs that others began."""
        return self.world.options.mismatches and self.code % 3 == 2 and not self.world.ending

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
            self.environment_id,
            self.name,
            fingerprint,
            self.tasks,
            queues,
            self.world.lease_ms,
            self.replaces,
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
        free = self.slots - len(membership.held)
        if membership.leaving:
            free = 0
            if membership.settled and not membership.held:
                self._depart(membership)
                return
            if self.draining and random.random() < 0.5:
                self.executor.release(membership)
                return
        if membership.awaited is None and random.random() < 0.7:
            awaited = membership.awaited = object()
            place = (random.randrange(2), membership.id)  # which server it reaches
            looks, fronts = self.world.looks, self.world.fronts(self.environment_id)
            item = Claim(membership.id, self.environment_id, free, self.world.lanes.get(place), fronts)

            def answered(results: Any) -> None:
                if membership.awaited is awaited:
                    membership.awaited = None
                    self._claimed(membership, place, free, looks, results)

            self.world.network.send(self, claim, [item], answered)
        idle = [run_id for run_id, held in membership.held.items() if not held.reporting]
        if idle:
            self.executor.run(membership, random.sample(idle, random.randint(1, len(idle))))

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

        network.send(self, renew, [(membership.id, self.environment_id, self.world.lease_ms)], renewed)

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
        held = [run_id for run_id, held in membership.held.items() if not held.reporting]
        if self.world.random.random() < 0.3 and held:
            self.executor.run(membership, held)
        membership.gone = True

    def _claimed(
        self, membership: Membership, place: tuple[int, str], slots: int, looks: int, results: Any
    ) -> None:
        if isinstance(results, Lost):
            self.rejoining = self.rejoining or slots > 0  # it may hold runs unknowingly
            return
        answer: Claimed | WorkerNotFound = results[0]
        if isinstance(answer, WorkerNotFound):
            self._abandoned(membership)
            return
        self.world.lanes[place] = answer.after
        if answer.now:
            self.world.remember(self.environment_id, answer, looks)
        for run in answer.runs:
            rows = answer.journals.get(run.id) if run.entries else ()
            journal = None if rows is None else [entry(row) for row in rows]
            membership.held[run.id] = Held(run, run.lease, run.alone, journal, run.operations)
        for run_id, lease in answer.cancelled:
            membership.held.pop(run_id, None)
            self.executor.report(membership, [{"kind": "closed", "run": run_id, "lease": lease}])
