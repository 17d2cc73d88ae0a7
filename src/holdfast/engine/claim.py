"""Give runs to workers under the limits, and keep track of the workers themselves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from holdfast.engine.journal import journals_of
from holdfast.engine.trigger import read_spec
from holdfast.engine.version import announce, declare, version_of_code
from holdfast.engine.wait import settle_runs
from holdfast.engine.wake import wake_before_others
from holdfast.errors import HoldfastError, WorkerNotFound
from holdfast.model import limits
from holdfast.model.queue import Candidate, Lane, Room, choose
from holdfast.model.retry import DEFAULT_POLICY
from holdfast.model.run import Run, after_lost_worker, after_release, closed
from holdfast.model.status import RunStatus
from holdfast.model.task import QueueSpec, TaskSpec
from holdfast.stores.base import Tx, batch

# One claim looks at this many lanes, beginning where the last one ended, so that ten thousand
# concurrency keys cost the same as a hundred and each gets its turn.
LANES_PER_CLAIM = 200
FRONT = Lane("", "", "")
NO_BOUND = -(2**60)  # below every score


@dataclass(frozen=True, slots=True)
class Registering:
    """A worker that says what it can run. `replaces` is a predecessor known to be dead."""

    environment_id: str
    name: str
    fingerprint: str
    tasks: Sequence[TaskSpec]
    queues: Sequence[QueueSpec]
    lease_ms: int
    replaces: str | None = None


@dataclass(frozen=True, slots=True)
class Registered:
    """`current` is the version that plain runs go to, where one is deployed."""

    worker_id: str
    version: str
    current: str | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """A worker with free places.

    after   where its last look at the lanes ended
    fronts  the lanes with the scores at which their lines began a moment ago; what came in before
            those, or in other lanes, is then found only when these have nothing. None looks at all.
    """

    worker_id: str
    environment_id: str
    slots: int
    after: Lane | None = None
    fronts: Mapping[Lane, int] | None = None


@dataclass(frozen=True, slots=True)
class Claimed:
    """Runs whose attempt has begun or goes on, cancelled runs to be stopped as (id, lease), and where to look next.

    fronts    for the next claim; None when not all lanes were seen
    swept     whether all lanes were looked at from their beginning
    limited   there are none, and limits may be why: it is worth another look when others end
    now       the store's time
    journals  of those that have one, in order, as far as they fit into an answer
    """

    runs: Sequence[Run]
    cancelled: Sequence[tuple[str, int]]
    after: Lane | None = None
    fronts: Mapping[Lane, int] | None = None
    swept: bool = False
    limited: bool = False
    now: int = 0
    journals: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Taker:
    """A claim with its worker, and the version that is current in its environment, if one is deployed."""

    item: Claim
    worker: Mapping[str, Any]
    current: str | None

    @property
    def version(self) -> str:
        version: str = self.worker["version"]
        return version

    @property
    def is_aside(self) -> bool:
        """Whether another version is current, so that it only gets what belongs to its own."""
        return self.current is not None and self.current != self.version


def register(tx: Tx, items: list[Registering]) -> list[Registered | HoldfastError]:
    """Makes a worker of each item, under the version that its code was deployed or is registered as, or a new one.

    Its tasks and queues become the environment's, unless a deployment is current there, which has said what they are;
    runs that waited for such a task are put in the queue by upkeep. Registering twice makes two workers; the first is
    lost when its lease ends.
    """
    answers: list[Registered | HoldfastError] = []
    for item in items:
        own = item.environment_id
        tx.do("lock_versions", id=own)
        environment = tx.one("deploys", id=own)
        current = environment["current_version"] if environment else None
        version = version_of_code(
            tx, own, item.fingerprint, item.tasks, item.queues, any_age=current is not None
        )
        worker_id = tx.new_id("worker")
        if item.replaces is not None:
            dead = tx.one("worker", id=item.replaces)
            if dead is not None and dead["environment_id"] == own:
                lose_worker(tx, item.replaces)
        if current is None:
            declare(tx, own, version, item.tasks, item.queues)
        elif version != current:
            announce(tx, own, version, item.tasks, item.queues)
        tx.do(
            "add_worker",
            id=worker_id,
            environment_id=item.environment_id,
            name=item.name,
            version=version,
            tasks=batch(sorted({task.id for task in item.tasks})),
            lease_until=tx.now + item.lease_ms,
            now=tx.now,
        )
        tx.wake("upkeep")
        answers.append(Registered(worker_id, version, current))
    return answers


def renew(tx: Tx, items: list[tuple[str, str, int]]) -> list[HoldfastError | None]:
    """Keeps workers alive: (worker id, environment, lease_ms). One that was declared lost is told so."""
    answers: list[HoldfastError | None] = [None] * len(items)
    # In one order, so that two servers never wait for each other.
    for index in sorted(range(len(items)), key=lambda index: items[index][0]):
        worker_id, environment_id, lease_ms = items[index]
        row = tx.one("worker", id=worker_id)
        if (
            row is None
            or row["environment_id"] != environment_id
            or tx.one("renew_worker", id=worker_id, lease_until=tx.now + lease_ms) is None
        ):
            answers[index] = WorkerNotFound(worker_id)
    return answers


def give_back_unknown(tx: Tx, items: list[tuple[str, Sequence[str]]]) -> list[None]:
    """For workers that claim no more, (worker id, ids it holds): what else is theirs returns to the queue.

    No worker ever knew of it, so no attempt has begun. What is named and is not theirs stays as it is.
    """
    for worker_id, held in sorted(items, key=lambda item: item[0]):  # in one order, as everywhere
        unknown = set(tx.ids("held_by_worker", worker_id=worker_id)) - set(held)
        before = {
            run.id: run
            for run in (tx.runs("runs_for_update", ids=batch(sorted(unknown))) if unknown else ())
            if run.worker_id == worker_id and run.holds_slot
        }
        after = [after_release(run, tx.now, started=False)[0] for run in before.values()]
        tx.save_runs(before, after)
        for run in after:
            wake_before_others(tx, run.environment_id)
    return [None] * len(items)


def claim(tx: Tx, items: list[Claim]) -> list[Claimed | HoldfastError]:
    """Begins attempts of queued runs, by priority and then by age, at most `slots` for each worker.

    Each run is EXECUTING afterwards, its attempt is counted and its lease is new; a suspended run goes on
    with its attempt. Queues, keys and environments at their limit give none. Claiming twice gives different runs.
    """
    ids = sorted({item.worker_id for item in items})
    stopped, *rows = tx.together(
        [("cancelled_of_workers", {"ids": batch(ids)}), *(("worker", {"id": worker_id}) for worker_id in ids)]
    )
    workers = {row["id"]: row for found in rows for row in found}
    cancelled: dict[str, list[tuple[str, int]]] = {}
    for row in stopped:
        cancelled.setdefault(row["worker_id"], []).append((row["id"], row["lease"]))
    answers: list[Claimed | HoldfastError] = []
    asking: dict[str, list[int]] = {}
    for index, item in enumerate(items):
        worker = workers.get(item.worker_id)
        if worker is None or worker["environment_id"] != item.environment_id:
            answers.append(WorkerNotFound(item.worker_id))
            continue
        answers.append(Claimed((), cancelled.get(item.worker_id, []), item.after, now=tx.now))
        if item.slots:
            asking.setdefault(item.environment_id, []).append(index)
    # One environment after another in one order, so that two servers never wait for each other.
    for environment_id, indexes in sorted(asking.items()):
        room, current, lanes = _look(tx, environment_id, [items[index] for index in indexes])
        for index, seen in zip(indexes, lanes, strict=True):
            item = items[index]
            found = _start(tx, _Taker(item, workers[item.worker_id], current), room, seen)
            answers[index] = replace(found, cancelled=cancelled.get(item.worker_id, []), now=tx.now)
    return answers


def leave(tx: Tx, items: list[tuple[str, str]]) -> list[HoldfastError | None]:
    """Workers that shut down: what they still hold returns to the queue, and they are forgotten."""
    answers: list[HoldfastError | None] = [None] * len(items)
    for index in sorted(range(len(items)), key=lambda index: items[index][0]):
        worker_id, environment_id = items[index]
        row = tx.one("worker", id=worker_id)
        if row is None or row["environment_id"] != environment_id:
            answers[index] = WorkerNotFound(worker_id)
            continue
        _remove(tx, worker_id, environment_id, lost=False)
    return answers


def lose_worker(tx: Tx, worker_id: str) -> None:
    """A worker that is dead or silent: its runs return as `after_lost_worker` decides."""
    row = tx.one("worker", id=worker_id)
    if row is not None:
        _remove(tx, worker_id, row["environment_id"], lost=True)


def _remove(tx: Tx, worker_id: str, environment_id: str, lost: bool) -> None:
    _give_back(tx, worker_id, lost)
    tx.do("remove_worker", id=worker_id)
    wake_before_others(tx, environment_id)  # children of a version that is gone now may go to others


def _give_back(tx: Tx, worker_id: str, lost: bool) -> None:
    tx.do("lock_worker", id=worker_id)
    # All of them, however many it claimed: what is left under a worker that is gone is stuck.
    while _give_back_some(tx, worker_id, lost) == limits.MAX_SLOTS:
        pass


def _give_back_some(tx: Tx, worker_id: str, lost: bool) -> int:
    held = tx.runs("runs_of_worker", worker_id=worker_id, limit=limits.MAX_SLOTS)
    after, attempts = [], []
    for run in held:
        if run.status is RunStatus.CANCELLED:
            after.append(closed(run, tx.now))
            continue
        changed, attempt = (
            after_lost_worker(run, tx.now) if lost else after_release(run, tx.now, started=True)
        )
        after.append(changed)
        if attempt is not None:
            attempts.append(attempt)
    tx.add_attempts(attempts)
    saved = tx.save_runs({run.id: run for run in held}, after)
    for run in after:
        if run.status is RunStatus.QUEUED:
            wake_before_others(tx, run.environment_id)
        else:
            tx.wake(f"run:{run.id}")
    settle_runs(tx, after)
    return len(saved)


def _look(tx: Tx, environment_id: str, items: Sequence[Claim]) -> tuple[Room, str | None, list[list[Lane]]]:
    """Locks an environment for this transaction; what room it has, its current version if one is deployed, and the
    lanes that each claim looks at."""
    own = {"environment_id": environment_id}
    asking = [item for item in items if not item.fronts]
    [locked], queues, held, *found = tx.together(
        [
            ("lock_environment", {"id": environment_id}),
            ("queues", own),
            ("held", own),
            *(("lanes", _after(environment_id, item.after or FRONT)) for item in asking),
        ]
    )
    room = Room.of(
        0 if locked["paused"] else locked["concurrency_limit"],
        [
            QueueSpec(row["name"], row["concurrency_limit"], row["per_key_limit"], bool(row["paused"]))
            for row in queues
        ],
        ((row["queue"], row["concurrency_key"], row["held"]) for row in held),
    )
    lanes = iter(found)
    seen = [list(item.fronts) if item.fronts else _lanes_of(next(lanes)) for item in items]
    return room, locked["current_version"], seen


def _start(tx: Tx, taker: _Taker, room: Room, seen: list[Lane]) -> Claimed:
    item = taker.item
    slots = min(item.slots, room.environment_limit - room.held_total)
    if slots <= 0:
        return Claimed((), (), item.after, item.fronts, limited=True)
    if item.fronts:
        # Where lines begin tells nothing of the runs of a version that is not current: they may be anywhere.
        found = None if taker.is_aside else _from(tx, taker, room, slots, item.fronts)
        if found is not None and found.runs:
            return replace(found, after=item.after)
        seen = _lanes_of(tx.all("lanes", **_after(item.environment_id, item.after or FRONT)))
    lanes, after = _all_lanes(tx, item, seen)
    found = _from(tx, taker, room, slots, dict.fromkeys(lanes, NO_BOUND))
    if taker.is_aside:
        return replace(found, after=after, fronts=item.fronts)
    whole = after is None and item.after is None
    return replace(found, after=after, fronts=found.fronts if whole else None, swept=whole)


def _from(tx: Tx, taker: _Taker, room: Room, slots: int, fronts: Mapping[Lane, int]) -> Claimed:
    """Begins runs of these lanes, each from its score on."""
    item, version = taker.item, taker.version
    tasks = _tasks(taker.worker["tasks"])
    own_lanes = [(lane, score) for lane, score in fronts.items() if lane.task in tasks]
    wanted = [
        [lane.task, lane.queue, lane.concurrency_key, score]
        for lane, score in own_lanes
        if room.free(lane.queue, lane.concurrency_key)
    ]
    if not wanted:
        return Claimed((), (), fronts=fronts, limited=bool(own_lanes))
    # With many lanes each gives a share, twice over for those that have less; the worker comes again for the rest.
    limit = min(slots, -(-2 * slots // len(wanted)))
    known = {lane[0] for lane in wanted}
    own = {"environment_id": item.environment_id}
    asked = {**own, "lanes": batch(wanted), "version": version, "limit": limit}
    rows, specs = tx.together(
        [
            ("pinned_runs", asked)
            if taker.is_aside
            else ("ready_runs", {**asked, "stay": int(taker.current is not None)}),
            ("task_specs", {**own, "ids": batch(sorted(known))}),
        ]
    )
    candidates = [Candidate(row["score"], row["id"], row["queue"], row["concurrency_key"]) for row in rows]
    chosen = choose(candidates, room, slots)
    if not chosen:
        limited = bool(candidates) or len(wanted) < len(own_lanes)
        return Claimed((), (), fronts=fronts, limited=limited)
    moved, taken = dict(fronts), set(chosen)
    for row in rows:  # what is taken of a lane is the beginning of its line
        if row["id"] in taken:
            lane = Lane(row["task"], row["queue"], row["concurrency_key"])
            moved[lane] = max(moved[lane], row["score"])
    policies = {row["id"]: read_spec(row["spec"]) for row in specs}
    begun = _begin(tx, item, version, chosen, policies)
    return Claimed(begun, (), fronts=moved, journals=journals_of(tx, begun))


def _begin(tx: Tx, item: Claim, version: str, chosen: list[str], specs: dict[str, TaskSpec]) -> list[Run]:
    # A run that was triggered before its task was registered learns the task's limits here.
    started = tx.runs(
        "start_runs",
        starts=batch(chosen),
        worker_id=item.worker_id,
        version=version,
        now=tx.now,
        policies=batch([[name, spec.retry.max_attempts, spec.max_duration] for name, spec in specs.items()]),
        max_attempts=DEFAULT_POLICY.max_attempts,
    )
    place = {run_id: index for index, run_id in enumerate(chosen)}
    return sorted(started, key=lambda run: place[run.id])


def _all_lanes(tx: Tx, item: Claim, seen: list[Lane]) -> tuple[list[Lane], Lane | None]:
    """Lanes to look at, and where the next claim goes on; None when all were seen."""
    if len(seen) == LANES_PER_CLAIM:
        return seen, seen[-1]
    if item.after is None:
        return seen, None
    # The end was reached: go on at the front.
    front = _lanes_of(tx.all("lanes", **_after(item.environment_id, FRONT)))
    return list(dict.fromkeys([*seen, *front])), None


def _after(environment_id: str, start: Lane) -> dict[str, Any]:
    return {
        "environment_id": environment_id,
        "task": start.task,
        "queue": start.queue,
        "concurrency_key": start.concurrency_key,
        "limit": LANES_PER_CLAIM,
    }


def _lanes_of(rows: list[dict[str, Any]]) -> list[Lane]:
    return [Lane(row["task"], row["queue"], row["concurrency_key"]) for row in rows]


@lru_cache(maxsize=256)
def _tasks(text: str) -> frozenset[str]:
    return frozenset(json.loads(text))
