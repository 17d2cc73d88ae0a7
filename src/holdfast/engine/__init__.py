"""Engine: the async front of the use cases, one short method each.

The use cases are plain functions over an open transaction, in the modules beside this one. This is
the only place where async meets the store.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from holdfast.engine import batch as batches
from holdfast.engine import bulk, finish, inspect, journal, operate, packet, queues
from holdfast.engine import claim as claiming
from holdfast.engine import deploy as deploying
from holdfast.engine import keys as held_keys
from holdfast.engine import projects as owners
from holdfast.engine import schedules as scheduling
from holdfast.engine import token as tokens
from holdfast.engine import trace as tracing
from holdfast.engine import variables as settings
from holdfast.engine.batch import BatchFound, CreatedBatch, NewBatch
from holdfast.engine.batch_item import Line, Placed, place_items
from holdfast.engine.bulk import NewBulkAction
from holdfast.engine.claim import Claim, Claimed, Registered, Registering
from holdfast.engine.deploy import DeploymentFilters, DeploymentPage, NewDeployment, Promotion
from holdfast.engine.hub import Hub
from holdfast.engine.inspect import Ended
from holdfast.engine.journal import JournalPage
from holdfast.engine.keeper import Keeper
from holdfast.engine.keys import Signing
from holdfast.engine.once import OneTime
from holdfast.engine.projects import NewBranch
from holdfast.engine.queues import ChangeQueue, OneQueue, QueuePage
from holdfast.engine.reporting import Answer, Reported
from holdfast.engine.schedules import ChangeSchedule, NewSchedule, OneSchedule, SchedulePage, SetActive
from holdfast.engine.token import Completion, Created, NewToken
from holdfast.engine.trigger import NewRun, Triggered, trigger
from holdfast.errors import HoldfastError, WorkerNotFound
from holdfast.model.batch import Batch
from holdfast.model.bulk import BulkAction
from holdfast.model.deployment import Deployment
from holdfast.model.environment import Environment, Project
from holdfast.model.key import ApiKey
from holdfast.model.queue import Lane, QueueState
from holdfast.model.run import Run
from holdfast.model.schedule import Schedule
from holdfast.model.variable import Variable
from holdfast.model.wait import Waitpoint
from holdfast.stores.base import Store, Tx
from holdfast.stores.listing import BulkPage, Filters, Page, TokenFilters, TokenPage

__all__ = [
    "BatchFound",
    "Claimed",
    "Completion",
    "Created",
    "Ended",
    "Engine",
    "Filters",
    "JournalPage",
    "Line",
    "NewBatch",
    "NewBranch",
    "NewBulkAction",
    "NewRun",
    "NewToken",
    "Page",
    "Placed",
    "Registered",
    "Registering",
    "Reported",
    "Signing",
    "TokenFilters",
    "TokenPage",
    "Triggered",
]

I = TypeVar("I")  # noqa: E741  # as in stores/base.py
O = TypeVar("O")  # noqa: E741
SWEEP_SECONDS = 1.0  # so long a run that comes into an empty lane may be overlooked while others are busy


class Engine:
    """Use cases over one store. `retention_ms` None keeps finished runs for ever."""

    def __init__(self, store: Store, *, lease_ms: int = 15_000, retention_ms: int | None = None) -> None:
        self.store = store
        self.lease_ms = lease_ms
        self.hub = Hub()
        self.keeper = Keeper(store, self.hub, lease_ms, retention_ms)
        self._closing = False
        self._lanes: dict[str, Lane | None] = {}
        self.key_changes = (
            0  # grows whenever keys or environments may have changed: what is known of them is old
        )
        self._looks = 0  # grows with every commit that puts a run before others
        # By environment: when all lanes were looked at, the count of looks then, and where the lines began.
        self._known_fronts: dict[str, tuple[float, int, Mapping[Lane, int] | None]] = {}
        self._claims: dict[str, int] = {}  # the number of each worker's latest claim
        self._environments: dict[str, str] = {}  # of workers that reported; it never changes
        store.on_wake = self._woken

    def stop_waiting(self) -> None:
        """Answers every held-back call now: the server is about to shut down and wants its connections back."""
        self._closing = True
        self.hub.wake_all()

    # Runs

    async def trigger(self, items: Sequence[NewRun]) -> list[Triggered | HoldfastError]:
        return await self.store.write(trigger, items)

    async def cancel(self, environment_id: str, run_id: str, reason: str = "Canceled by user") -> Run:
        return await self._one(operate.cancel, operate.Cancel(environment_id, run_id, reason))

    async def replay(self, environment_id: str, run_id: str, changes: Mapping[str, Any]) -> Triggered:
        return await self._one(operate.replay, operate.Replay(environment_id, run_id, changes))

    async def reschedule(self, environment_id: str, run_id: str, delay: Any) -> Run:
        return await self._one(operate.reschedule, operate.Reschedule(environment_id, run_id, delay))

    async def add_tags(self, environment_id: str, run_id: str, tags: Sequence[str]) -> int:
        return await self._one(operate.add_tags, operate.AddTags(environment_id, run_id, tags))

    async def reset_key(self, environment_id: str, task: str, key: str) -> str:
        return await self._one(operate.reset_keys, operate.ResetKey(environment_id, task, key))

    async def change_metadata(self, change: operate.ChangeMetadata) -> dict[str, Any]:
        return await self._one(operate.change_metadata, change)

    # Bulk actions

    async def create_bulk_action(self, item: NewBulkAction) -> str:
        return await self._one(bulk.create, item)

    async def abort_bulk_action(self, environment_id: str, bulk_id: str) -> str:
        return await self._one(bulk.abort, bulk.Abort(environment_id, bulk_id))

    async def bulk_action(self, environment_id: str, bulk_id: str) -> BulkAction:
        return await self.store.read(lambda tx: bulk.one(tx, environment_id, bulk_id))

    async def bulk_page(
        self, environment_id: str, size: int, after: str | None, before: str | None
    ) -> BulkPage:
        return await self.store.read(lambda tx: bulk.page(tx, environment_id, size, after, before))

    # Batches

    async def create_batch(self, item: NewBatch) -> CreatedBatch:
        return await self._one(batches.create_batches, item)

    async def place_items(self, items: Sequence[Line]) -> list[Placed | HoldfastError]:
        return await self.store.write(place_items, items)

    async def batch(self, environment_id: str, batch_id: str) -> Batch:
        return await self.store.read(lambda tx: batches.one_batch(tx, environment_id, batch_id))

    async def open_batch(self, environment_id: str, batch_id: str, token: OneTime | None = None) -> Batch:
        return await self.store.read(lambda tx: batches.open_batch(tx, environment_id, batch_id, token))

    async def batch_found(self, environment_id: str, batch_id: str) -> BatchFound:
        return await self.store.read(lambda tx: batches.found_batch(tx, environment_id, batch_id))

    async def batch_results(self, environment_id: str, batch_id: str) -> list[Run]:
        return await self.store.read(lambda tx: batches.ended_runs(tx, environment_id, batch_id))

    # Reading

    async def details(self, environment_id: str, run_id: str) -> inspect.RunDetails:
        return await self.store.read(lambda tx: inspect.details(tx, environment_id, run_id))

    async def run(self, environment_id: str, run_id: str) -> Run:
        return await self.store.read(lambda tx: inspect.one_run(tx, environment_id, run_id))

    async def page(
        self, environment_id: str, filters: Filters, size: int, after: str | None, before: str | None
    ) -> Page:
        return await self.store.read(
            lambda tx: inspect.page(tx, environment_id, filters, size, after, before)
        )

    async def logs(self, environment_id: str, run_id: str, after: int, limit: int) -> list[dict[str, Any]]:
        return await self.store.read(lambda tx: inspect.logs(tx, environment_id, run_id, after, limit))

    async def finished(
        self, environment_id: str, run_ids: Sequence[str], token_ids: Sequence[str] = (), wait_ms: int = 0
    ) -> Ended:
        """Those runs and tokens that have ended and the ids of the others; waits up to `wait_ms` for the first."""
        deadline = time.monotonic() + wait_ms / 1_000
        topics = {f"run:{run_id}" for run_id in run_ids} | {f"token:{token_id}" for token_id in token_ids}
        with self.hub.listen(topics) as listener:
            while True:
                ended = await self.store.read(
                    lambda tx: inspect.finished(tx, environment_id, run_ids, token_ids)
                )
                left = deadline - time.monotonic()
                if ended.runs or ended.tokens or not ended.pending or left <= 0 or self._closing:
                    return ended
                await listener.wait(left)

    async def journal(self, environment_id: str, run_id: str, after: int, limit: int) -> JournalPage:
        return await self.store.read(lambda tx: journal.page(tx, environment_id, run_id, after, limit))

    async def trace(self, environment_id: str, run_id: str, size: int) -> tracing.TracePage:
        return await self.store.read(lambda tx: tracing.tree(tx, environment_id, run_id, size))

    async def trace_page(
        self, environment_id: str, run_id: str, size: int, after: str | None
    ) -> tracing.TracePage:
        return await self.store.read(lambda tx: tracing.page(tx, environment_id, run_id, size, after))

    async def run_events(
        self, environment_id: str, run_id: str, size: int, after: str | None
    ) -> tracing.TracePage:
        return await self.store.read(lambda tx: tracing.events(tx, environment_id, run_id, size, after))

    async def span(self, environment_id: str, run_id: str, span_id: str) -> tracing.SpanDetail:
        return await self.store.read(lambda tx: tracing.span(tx, environment_id, run_id, span_id))

    # Packets

    async def add_packets(self, keys: Sequence[str]) -> list[HoldfastError | None]:
        return await self.store.write(packet.add_packets, keys)

    async def runs_of_packet(self, key: str, limit: int) -> list[Run] | None:
        return await self.store.read(lambda tx: packet.runs_of_packet(tx, key, limit))

    async def condemned_packets(self) -> list[str]:
        return (await self.store.write(packet.condemn, [packet.Sweep()]))[0]

    async def delete_packets(self, keys: Sequence[str]) -> None:
        await self.store.write(packet.delete_packets, keys)

    # Tokens

    async def create_token(self, item: NewToken) -> Created:
        return await self._one(tokens.create_tokens, item)

    async def complete_token(self, item: Completion) -> None:
        await self._one(tokens.complete, item)

    async def token(self, environment_id: str, token_id: str) -> Waitpoint:
        [found] = await self.store.read(lambda tx: inspect.tokens(tx, environment_id, [token_id]))
        return found

    async def environment_of_token(self, token_id: str) -> str | None:
        return await self.store.read(lambda tx: inspect.environment_of_token(tx, token_id))

    async def tokens_page(
        self, environment_id: str, filters: TokenFilters, size: int, after: str | None, before: str | None
    ) -> TokenPage:
        return await self.store.read(
            lambda tx: inspect.tokens_page(tx, environment_id, filters, size, after, before)
        )

    # Queues

    async def queue(self, item: OneQueue) -> QueueState:
        return await self.store.read(lambda tx: queues.one_queue(tx, item))

    async def queues_page(self, environment_id: str, skipped: int, limit: int) -> QueuePage:
        return await self.store.read(lambda tx: queues.page(tx, environment_id, skipped, limit))

    async def change_queue(self, item: ChangeQueue) -> QueueState:
        return await self._one(queues.change, item)

    # Schedules

    async def save_schedule(self, item: NewSchedule) -> Schedule:
        return await self._one(scheduling.save, item)

    async def change_schedule(self, item: ChangeSchedule) -> Schedule:
        return await self._one(scheduling.change, item)

    async def set_schedule_active(self, item: OneSchedule, active: bool) -> Schedule:
        return await self._one(scheduling.set_active, SetActive(item.environment_id, item.id, active))

    async def delete_schedule(self, item: OneSchedule) -> None:
        await self._one(scheduling.delete, item)

    async def schedule(self, environment_id: str, schedule_id: str) -> Schedule:
        return await self.store.read(lambda tx: scheduling.one(tx, environment_id, schedule_id))

    async def schedules_page(self, environment_id: str, skipped: int, limit: int) -> SchedulePage:
        return await self.store.read(lambda tx: scheduling.page(tx, environment_id, skipped, limit))

    async def schedule_of_run(self, environment_id: str, run_id: str) -> Schedule | None:
        return await self.store.read(lambda tx: scheduling.of_run(tx, environment_id, run_id))

    # Projects, environments and keys

    async def projects(self) -> list[Project]:
        return await self.store.read(owners.projects)

    async def environment(self, environment_id: str) -> Environment | None:
        return await self.store.read(lambda tx: owners.environment(tx, environment_id))

    async def branch(self, project_id: str, branch: str) -> Environment | None:
        return await self.store.read(lambda tx: owners.branch_environment(tx, project_id, branch))

    async def create_branch(self, item: NewBranch) -> Environment:
        return await self._one(owners.create_branches, item)

    async def key_of(self, digest: str) -> tuple[ApiKey, Environment] | None:
        return await self.store.read(lambda tx: held_keys.key_of(tx, digest))

    async def signing(self, environment_id: str) -> Signing | None:
        return await self.store.read(lambda tx: held_keys.signing(tx, environment_id))

    # Environment variables

    async def set_variables(self, item: settings.SetVariables) -> None:
        await self._one(settings.set_variables, item)

    async def change_variable(self, item: settings.ChangeVariable) -> None:
        await self._one(settings.change_variables, item)

    async def delete_variable(self, item: settings.DeleteVariable) -> None:
        await self._one(settings.delete_variables, item)

    async def variables(self, environment_id: str) -> list[Variable]:
        return await self.store.read(lambda tx: settings.variables(tx, environment_id))

    async def parent_environment(self, environment_id: str) -> str | None:
        return await self.store.read(lambda tx: settings.parent_id(tx, environment_id))

    # Deployments

    async def deploy(self, item: NewDeployment) -> Deployment:
        return await self._one(deploying.deploy, item)

    async def promote(self, item: Promotion) -> Deployment:
        return await self._one(deploying.promote, item)

    async def current_deployment(self, environment_id: str) -> Deployment:
        return await self.store.read(lambda tx: deploying.current(tx, environment_id))

    async def deployments_page(
        self, environment_id: str, filters: DeploymentFilters, size: int, after: str | None
    ) -> DeploymentPage:
        return await self.store.read(lambda tx: deploying.page(tx, environment_id, filters, size, after))

    # Workers

    async def register(self, item: Registering) -> Registered:
        return await self._one(claiming.register, item)

    async def renew(self, worker_id: str, environment_id: str, held: Sequence[str] | None = None) -> None:
        """Keeps a worker alive; with `held` it is all that it holds, and the rest goes back to the queue."""
        await self._one(claiming.renew, (worker_id, environment_id, self.lease_ms))
        if held is not None:
            await self.store.write(claiming.give_back_unknown, [(worker_id, held)])

    async def claim(
        self,
        worker_id: str,
        environment_id: str,
        slots: int,
        wait_ms: int = 0,
        gone: asyncio.Event | None = None,
    ) -> Claimed:
        """Runs for a worker and cancelled ones to stop; waits up to `wait_ms` while there is neither.

        gone  set when the caller listens no more: nothing is claimed from then on
        """
        deadline = time.monotonic() + wait_ms / 1_000
        number = self._claims[worker_id] = self._claims.get(worker_id, 0) + 1
        topics = [f"worker:{worker_id}"]
        self.hub.wake(set(topics))  # an earlier call, whose caller is gone, must not claim any more
        room = f"room:{environment_id}"
        if slots:
            topics += [f"ready:{environment_id}", room]
        with self.hub.listen(topics) as listener:
            while True:
                if self._claims.get(worker_id) != number or (gone is not None and gone.is_set()):
                    return Claimed((), ())
                looks = self._looks
                item = Claim(
                    worker_id, environment_id, slots, self._lanes.get(worker_id), self._fronts(environment_id)
                )
                try:
                    claimed: Claimed = await self._one(claiming.claim, item)
                except WorkerNotFound:
                    self._forget(worker_id)
                    raise
                self._lanes[worker_id] = claimed.after
                self._remember(environment_id, claimed, looks)
                left = deadline - time.monotonic()
                if claimed.runs or claimed.cancelled or left <= 0 or self._closing:
                    return claimed
                if claimed.after is None or claimed.after == item.after:
                    await listener.wait(left, ignored="" if claimed.limited else room)

    async def worker_journal(
        self, environment_id: str, worker_id: str, run_id: str, lease: int, after: int
    ) -> JournalPage:
        return await self.store.read(
            lambda tx: journal.page_for_worker(tx, environment_id, worker_id, run_id, lease, after)
        )

    async def report(
        self, worker_id: str, environment_id: str, reports: Sequence[Mapping[str, Any]]
    ) -> list[Answer]:
        """Raises WorkerNotFound for a worker of another environment, before anything is looked at."""
        if worker_id not in self._environments:
            row = await self.store.read(lambda tx: tx.one("worker", id=worker_id))
            if row is not None:
                self._environments[worker_id] = row["environment_id"]
        if self._environments.get(worker_id, environment_id) != environment_id:
            raise WorkerNotFound(worker_id)
        return await self.store.write(
            finish.report, [Reported(worker_id, environment_id, said) for said in reports]
        )

    async def leave(self, worker_id: str, environment_id: str) -> None:
        await self._one(claiming.leave, (worker_id, environment_id))
        self._forget(worker_id)

    def _woken(self, topics: set[str]) -> None:
        """Called after a commit, before its callers are answered, from any thread."""
        if "keys" in topics or "*" in topics:
            self.key_changes += 1
        if any(topic.startswith("front:") for topic in topics):
            self._looks += 1  # somebody stands before a front now, so the next claims look from the start
        self.hub.wake(topics)

    def _fronts(self, environment_id: str) -> Mapping[Lane, int] | None:
        """Where lines began a moment ago, on a store in which looking from the start walks what is claimed already."""
        swept_at, looks, fronts = self._known_fronts.get(environment_id, (0.0, -1, None))
        fresh = looks == self._looks and time.monotonic() - swept_at < SWEEP_SECONDS
        return fronts if fresh and self.store.keeps_dead_entries else None

    def _remember(self, environment_id: str, claimed: Claimed, looks: int) -> None:
        """`looks` is the count from before the claim: what was committed since may stand before its fronts."""
        if claimed.swept:
            self._known_fronts[environment_id] = (time.monotonic(), looks, claimed.fronts)
        elif claimed.runs and environment_id in self._known_fronts:
            swept_at, known_looks, _ = self._known_fronts[environment_id]
            if known_looks == looks:
                self._known_fronts[environment_id] = (swept_at, looks, claimed.fronts)

    def _forget(self, worker_id: str) -> None:
        for known in (self._lanes, self._claims, self._environments):
            known.pop(worker_id, None)

    # Upkeep

    async def run_upkeep(self, stop: asyncio.Event) -> None:
        await self.keeper.run(stop)

    async def upkeep(self) -> float:
        return await self.keeper.upkeep()

    async def _one(self, use_case: Callable[[Tx, list[I]], Sequence[O | HoldfastError]], item: I) -> O:
        """A use case for one item; an error in its place is raised."""
        answers: list[O | HoldfastError] = await self.store.write(use_case, [item])
        if isinstance(answers[0], HoldfastError):
            raise answers[0]
        return answers[0]
