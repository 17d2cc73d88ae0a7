"""The end of a world: faults stop, workers are healthy, and everything must come to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.engine import operate
from holdfast.model.run import Run
from holdfast.model.status import RunStatus
from simulator.client import UNDECLARED, set_environment, set_queue_paused
from simulator.deployer import PLACE
from simulator.options import ENVIRONMENTS
from simulator.violation import require

if TYPE_CHECKING:
    from simulator.world import World

ROUNDS = 600


def drain(world: World) -> None:
    """Raises Violation (I11) when a run is left after all of the rounds."""
    from simulator.worker import Worker

    world.timeline.add("world", "faults stop; limits are lifted")
    world.network.faults = 0.0
    world.ending = True
    for worker in world.workers:
        worker.deaths, worker.frozen = 0.0, False
        worker.declares_limits = False
        worker.draining = world.random.random() < 0.4
        for membership in worker.memberships:
            if worker.draining:
                membership.stop_claiming()
    while world.network.waiting:  # a change of limits that is still on its way must not undo this
        world.network.deliver()
    for environment in ENVIRONMENTS:
        world.network.send(
            world.servers[0], set_environment, [{"id": environment, "concurrency_limit": 50, "paused": 0}]
        )
        for queue in ("narrow", "wide", "task/alpha"):
            item = {"environment_id": environment, "name": queue, "paused": 0}
            world.network.send(world.servers[0], set_queue_paused, [item])
        worker = Worker(world, f"healthy-{environment}", environment, 1_000, None)
        worker.tasks, worker.deaths = list(world.options.tasks), 0.0
        worker.declares_limits, worker.slots = False, 8
        world.workers.append(worker)
        if environment == PLACE:
            world.deployer.finish(f"code-{worker.code}", worker.tasks)
    world.now = max(world.now, world.oracle.latest)  # the clock is right again
    began = world.now
    for round_number in range(ROUNDS):
        world.step = world.timeline.step = world.step + 1
        world.timeline.now = world.now
        for worker in list(world.workers):
            worker.act()
        world.servers[round_number % 2].act()
        while world.network.waiting:
            world.network.deliver()
        left = [run for run in world.oracle.now_before.runs.values() if run.finished_at is None]
        if not left:
            return
        _help(world, left)
        world.pass_time(world.random.choice([0, 100, world.lease_ms // 4, world.lease_ms // 2]))
        if not any(run.worker_id or run.status is RunStatus.QUEUED for run in left):
            world.pass_time(max(0, _next_due(world, left) - world.now))
    # What is still there is stuck: its worker lives and renews, and neither of them knows.
    stuck = [(run.id, str(run.status), run.attempt, run.due_at, run.worker_id) for run in left]
    require(False, "I11", f"not drained {world.now - began} ms after the last fault: {stuck}")


def _next_due(world: World, left: list[Run]) -> int:
    store = world.oracle.now_before
    times = [run.due_at for run in left if run.due_at]
    times += [row.due_at for rows in store.waits.values() for row in rows if row.due_at]
    times += [one.timeout_at for one in store.tokens.values() if one.status == "WAITING" and one.timeout_at]
    return min(times, default=0)


def _help(world: World, left: list[Run]) -> None:
    """What waits for a person gets one: tokens, and runs of a task or a queue that nobody has, or of a
    version that is gone."""
    if world.random.random() < 0.5:
        world.clients[0].complete()
    known = {task.id for task in world.options.tasks}
    versions = {worker["version"] for worker in world.oracle.now_before.workers.values()}
    for run in left:
        if run.status not in (RunStatus.QUEUED, RunStatus.WAITING_FOR_DEPLOY):
            continue
        forsaken = run.version_lock is not None and (
            run.version_lock not in versions or world.random.random() < 0.3
        )
        if forsaken or run.task not in known or run.queue == UNDECLARED:
            cancel = operate.Cancel(run.environment_id, run.id)
            world.network.send(world.clients[0], operate.cancel, [cancel])
