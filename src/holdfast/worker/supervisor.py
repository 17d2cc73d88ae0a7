"""The worker's own process: it claims runs, hands them to executors and relays what they report.

It imports no user code. Per run it pays a few dictionary lookups and no task of the loop; runs,
results and reports travel in batches all the way.

Shutdown has stages: stop claiming, let runs finish (drain time), ask, kill, hand the rest back.
"""

from __future__ import annotations

import asyncio
import math
import os
import socket
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from typing import Any

from holdfast.errors import WorkerNotFound
from holdfast.model.limits import MAX_SLOTS
from holdfast.worker.api import Api
from holdfast.worker.custody import Custody
from holdfast.worker.fleet import FleetSettings
from holdfast.worker.held import Held
from holdfast.worker.membership import Membership
from holdfast.worker.pipe import Message
from holdfast.worker.registration import register
from holdfast.worker.shutdown import FLUSH_SECONDS, shut_down
from holdfast.worker.talk import Talk
from holdfast.worker.variables import Variables

TICK_SECONDS = 0.1
PLACES_PER_EXECUTOR = 100
MAX_THREADS = 32  # of one executor: sync runs beyond it wait for one another


class Supervisor:
    """A worker.

    api            the way to the server
    tasks          files, folders or modules that hold tasks
    executors      processes that run user code; by default one for each processor
    concurrency    runs at once in all of them; by default 100 for each
    api_url, secret_key  what user code in the executors triggers runs with
    drain_seconds  how long runs may go on after `drain`
    recycle_after  runs after which an executor is replaced
    recycle_memory resident bytes at which an executor is replaced
    warm_seconds   how long a run that waits is kept before it is suspended
    replaces       the id of a predecessor on this host that is known to be dead
    echo           whether to tell on stderr what runs log and print

    Raises NotAuthorised or InvalidRequest from `run` when the server refuses this worker.
    """

    def __init__(
        self,
        api: Api,
        *,
        tasks: Sequence[str],
        executors: int | None = None,
        concurrency: int | None = None,
        api_url: str = "",
        secret_key: str = "",
        drain_seconds: float = 30.0,
        recycle_after: int | None = None,
        recycle_memory: int | None = None,
        warm_seconds: float = 5.0,
        replaces: str | None = None,
        talk: Talk | None = None,
        echo: bool = False,
    ) -> None:
        count = executors or os.cpu_count() or 1
        places = min(concurrency or PLACES_PER_EXECUTOR * count, MAX_SLOTS)
        share = -(-places // count)
        environment = {}
        if api_url:
            environment["HOLDFAST_API_URL"] = api_url
        if secret_key:
            environment["HOLDFAST_SECRET_KEY"] = secret_key
        self.places = places
        self.membership: Membership | None = None
        self.joined = asyncio.Event()  # set once the server knows this worker and an executor is ready
        self._settings = FleetSettings(
            tuple(tasks),
            count,
            share,
            min(share, MAX_THREADS),
            environment,
            recycle_after,
            recycle_memory,
            round(warm_seconds * 1_000),
        )
        self._api = api
        self._drain_seconds = drain_seconds
        self._replaces = replaces
        self._own_talk = talk is None
        self._talk = talk or Talk(echo=echo)
        self._draining = asyncio.Event()
        self._stopped = asyncio.Event()
        self._rejoining = False
        self._lives: dict[Membership, asyncio.Task[None]] = {}

    # ---- for the commands

    def drain(self) -> None:
        """Claim nothing more and let runs finish; `run` returns when they have. A note only: safe in handlers."""
        self._draining.set()

    def stop_now(self) -> None:
        """Skip the rest of the drain time: ask, kill, hand back."""
        self._draining.set()
        self._stopped.set()

    async def run(self, stop: asyncio.Event | None = None) -> None:
        """Work until `drain`, `stop_now`, or until `stop` is set."""
        self._variables = Variables(self._api)
        settings = replace(self._settings, variables=self._variables.current)
        self._custody = Custody(settings, self._talk, self.places, self._freed)
        self._fleet = self._custody.fleet
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                helpers = [group.create_task(self._tick())]
                if stop is not None:
                    helpers.append(group.create_task(self._obey(stop)))
                if await self._unless_draining(self._variables.first()):
                    self._fleet.start()
                if await self._first_manifest():
                    await self._join()
                    await self._draining.wait()
                    await shut_down(
                        self._custody, self._lives, self._stopped, self._drain_seconds, self._talk
                    )
                for helper in (*helpers, *self._lives.values()):
                    helper.cancel()
        except BaseExceptionGroup as group:
            raise _first(group) from group
        finally:
            self._fleet.kill_all()
            while any(child.pid for child in self._fleet.children):
                for child in list(self._fleet.children):
                    child.watch()
                await asyncio.sleep(0.01)
            if self._own_talk:
                self._talk.close()

    async def reload(self, tasks: Sequence[str] | None = None) -> bool:
        """Run the code as it is on disk now; runs that began go on with the old one.

        Whether it could be loaded; if not, nothing changes. Import errors are told on stderr.
        """
        before = self._fleet.manifest
        if not await self._fleet.reload(None if tasks is None else tuple(tasks)):
            return False
        self._tell_failures()
        after = self._fleet.manifest
        if before is None or after is None or before["fingerprint"] != after["fingerprint"]:
            await self._join()
        return True

    def held(self, run_id: str) -> Held | None:
        """The run of this id, as long as this worker answers for it."""
        return self._custody.held.get(run_id)

    @property
    def task_ids(self) -> list[str]:
        """The tasks of the newest code, sorted; none before `joined`."""
        manifest = self._fleet.manifest
        return [] if manifest is None else [task["id"] for task in manifest["tasks"]]

    @property
    def schedules(self) -> dict[str, dict[str, Any]]:
        """When tasks of the newest code run by themselves: the `WireSchedule` of each that says so."""
        manifest = self._fleet.manifest
        tasks = [] if manifest is None else manifest["tasks"]
        return {task["id"]: task["schedule"] for task in tasks if "schedule" in task}

    @property
    def executor_pids(self) -> list[int]:
        return [child.pid for child in self._fleet.children if child.pid]

    # ---- joining

    async def _first_manifest(self) -> bool:
        """Until an executor has imported the tasks; False when told to stop before."""
        stopping = asyncio.ensure_future(self._draining.wait())
        while self._fleet.manifest is None and not stopping.done():
            self._fleet.changed.clear()
            changed = asyncio.ensure_future(self._fleet.changed.wait())
            await asyncio.wait((changed, stopping), return_when=asyncio.FIRST_COMPLETED)
            changed.cancel()
        stopping.cancel()
        self._tell_failures()
        return self._fleet.manifest is not None and not self._draining.is_set()

    def _tell_failures(self) -> None:
        manifest = self._fleet.manifest
        for failure in manifest["failures"] if manifest is not None else ():
            self._talk.say(failure)
        if manifest is not None and not manifest["tasks"]:
            self._talk.say(f"no tasks were found in {', '.join(self._fleet.settings.tasks) or 'nothing'}")

    async def _join(self) -> None:
        """Register the newest code and claim for it; a former membership is left when its runs are done."""
        manifest = self._fleet.manifest
        assert manifest is not None
        registration: dict[str, Any] = {
            "name": f"{socket.gethostname()}:{os.getpid()}"[:256],
            "fingerprint": manifest["fingerprint"],
            "tasks": manifest["tasks"],
            "queues": manifest["queues"],
        }
        if self._replaces is not None:
            registration["replaces"] = self._replaces
        joining = asyncio.ensure_future(register(self._api, registration, self))
        if not await self._unless_draining(joining):
            return
        former, self.membership = self.membership, joining.result()
        self._variables.told(self.membership.variables)
        self._replaces = None
        self._rejoining = False
        self._lives[self.membership] = self._group.create_task(self._live(self.membership))
        if former is not None and former in self._lives:
            former.stop_claiming()
        self.joined.set()
        self._tell_current(self.membership)

    def _tell_current(self, membership: Membership) -> None:
        if membership.current not in (None, membership.version):
            self._talk.say(
                f"this code is version {membership.version}, and version {membership.current} is deployed: only runs "
                "that belong to this version come here; `holdfast deploy` or `holdfast deployments promote` changes that"
            )

    async def _unless_draining(self, work: Awaitable[Any]) -> bool:
        """Whether `work` was done before this worker was told to stop; raises what it raises."""
        working = asyncio.ensure_future(work)
        draining = asyncio.ensure_future(self._draining.wait())
        await asyncio.wait((working, draining), return_when=asyncio.FIRST_COMPLETED)
        draining.cancel()
        if not working.done():
            working.cancel()
            return False
        working.result()
        return True

    async def _live(self, membership: Membership) -> None:
        """Keep a membership until it is left or lost; after a loss join again as its successor."""
        try:
            await membership.live()
        except WorkerNotFound:
            # The runs are, or will be, somebody else's: their code has to stop before that.
            self._custody.abandon(membership)
            self._lives.pop(membership, None)
            self.lease_renewed()
            if membership is self.membership and not self._draining.is_set():
                self._talk.say(
                    "the server does not know this worker any more, or was away for too long: joining again"
                )
                self.membership = None
                self._replaces = membership.id
                await self._join()

    async def _leave(self, membership: Membership) -> None:
        if await membership.flushed(FLUSH_SECONDS):
            life = self._lives.pop(membership, None)
            if life is not None:
                life.cancel()
            await membership.delete()
        else:
            membership.deleting = False  # a server that was away: again at the next tick

    async def _rejoin(self) -> None:
        # Somebody may have to be there first; and a server that is away is not to be hurried.
        await asyncio.sleep(1.0)
        if self._rejoining and not self._draining.is_set():
            await self._join()

    # ---- what memberships ask and tell

    def free_places(self, membership: Membership) -> int:
        if membership is not self.membership or self._draining.is_set():
            return 0
        return max(0, min(self.places - len(self._custody.held), self._fleet.room()))

    def runs_held(self, membership: Membership) -> list[str]:
        return self._custody.runs_of(membership)

    def runs_claimed(self, membership: Membership, runs: list[dict[str, Any]]) -> None:
        if self._draining.is_set():
            for run in runs:
                membership.report(
                    {"kind": "released", "run": run["id"], "lease": run["lease"], "started": False}
                )
            return
        self._custody.take(membership, runs)

    def runs_cancelled(self, membership: Membership, cancelled: list[dict[str, Any]]) -> bool:
        return self._custody.cancelled(membership, cancelled)

    def report_answered(self, membership: Membership, report: Message, answer: dict[str, Any]) -> None:
        self._custody.answered(membership, report, answer, stopping=self._draining.is_set())

    def lease_renewed(self) -> None:
        # With two memberships the earlier end is the safe one; each is renewed as often.
        self._fleet.extend_life(min((membership.end for membership in self._lives), default=math.inf))

    def _freed(self) -> None:
        if self.membership is not None:
            self.membership.freed.set()

    def claim_lost(self, membership: Membership) -> None:
        if membership is self.membership and not self._rejoining:
            self._rejoining = True
            self._group.create_task(self._rejoin())

    # ---- time, and the end

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self._fleet.tick()
            self._custody.tick()
            if self.membership is not None and self.free_places(self.membership):
                self.membership.freed.set()  # also after an executor became ready, or answers again
            for membership in list(self._lives):
                if membership.leaving and not self._custody.runs_of(membership) and not membership.deleting:
                    membership.deleting = True
                    self._group.create_task(self._leave(membership))

    async def _obey(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self.drain()


def _first(error: BaseException) -> BaseException:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error
