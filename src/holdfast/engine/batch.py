"""Batches: made in one call, filled by index in as many as it takes, sealed when every item has arrived."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from holdfast.engine import once
from holdfast.engine.once import OneTime
from holdfast.engine.trigger import KEY_LIFETIME_MS
from holdfast.errors import BatchNotFound, HoldfastError, InvalidRequest, Unprocessable
from holdfast.model.batch import UNSEALED_MS, Batch, BatchItem
from holdfast.model.duration import lifetime_ms
from holdfast.model.run import Run
from holdfast.model.status import FINAL, RunStatus
from holdfast.stores.base import Tx, batch


@dataclass(frozen=True, slots=True, kw_only=True)
class NewBatch:
    """What a batch is asked for with.

    id       when the caller derived it from a request key: the same request finds the same batch
    tasks    its idempotency key holds for batches of these tasks
    key_ttl  as the caller wrote it; None is thirty days
    """

    environment_id: str
    run_count: int
    id: str | None = None
    tasks: Sequence[str] = ()
    key: str | None = None
    key_shown: str | None = None  # what the user wrote, where the key is a hash of it
    key_ttl: str | None = None
    parent_id: str | None = None
    once: OneTime | None = None  # the public token that asks, where it may be used a single time


@dataclass(frozen=True, slots=True)
class CreatedBatch:
    """The batch that was made or, with `is_cached`, a complete one that its idempotency key found."""

    batch: Batch
    is_cached: bool = False


@dataclass(frozen=True, slots=True)
class BatchFound:
    """A batch and the items that arrived, in order."""

    batch: Batch
    items: Sequence[BatchItem]


def create_batches(tx: Tx, items: list[NewBatch]) -> list[CreatedBatch | HoldfastError]:
    """Makes a batch for each item, or finds the one that its id or its idempotency key stands for.

    One found by its key is cached when it is sealed. Until then its items are still wanted, from whoever sends them: the
    process that made it may be gone. Refuses a parent that does not exist (Unprocessable).
    """
    if locks := sorted(once.lock_of(item.once) for item in items if item.once is not None):
        tx.do("lock_keys", keys=batch(locks))
    parents = sorted({item.parent_id for item in items if item.parent_id is not None})
    known = {run.id: run for run in tx.runs("runs_by_id", ids=batch(parents))} if parents else {}
    return [_created(tx, item, known) for item in items]


def abort_batches(tx: Tx, limit: int) -> int:
    """Ends batches whose items did not all arrive in time (engine rule R91); how many. Their runs go on."""
    return len(tx.ids("abort_batches", now=tx.now, limit=limit))


def open_batch(tx: Tx, environment_id: str, batch_id: str, token: OneTime | None) -> Batch:
    """A batch to place items in. A one-time token reaches the one that it was used for, and no other.

    Raises Unprocessable, also for one that was aborted.
    """
    row = tx.one("batch", id=batch_id, environment_id=environment_id)
    found = None if row is None else Batch(**row)
    if token is not None and once.used_by(tx, token) != batch_id:
        raise Unprocessable("This one-time public token was not used to create this batch")
    if found is None or found.aborted_at is not None:
        raise closed(batch_id, found)
    return found


def one_batch(tx: Tx, environment_id: str, batch_id: str) -> Batch:
    """Raises BatchNotFound for a batch that does not exist in this environment."""
    row = tx.one("batch", id=batch_id, environment_id=environment_id)
    if row is None:
        raise BatchNotFound(batch_id)
    return Batch(**row)


def found_batch(tx: Tx, environment_id: str, batch_id: str) -> BatchFound:
    """A batch with its items. Raises BatchNotFound."""
    found = one_batch(tx, environment_id, batch_id)
    rows = tx.all("batch_items", batch_id=batch_id)
    return BatchFound(
        found,
        [
            BatchItem(
                row["number"],
                row["task"],
                row["run_id"],
                row["error"],
                None if row["status"] is None else RunStatus(row["status"]),
                row["updated_at"],
            )
            for row in rows
        ],
    )


def ended_runs(tx: Tx, environment_id: str, batch_id: str) -> list[Run]:
    """The runs of a batch that have ended, in the order of its items. Raises BatchNotFound."""
    found = found_batch(tx, environment_id, batch_id)
    ids = [item.run_id for item in found.items if item.run_id is not None and item.status in FINAL]
    runs = {run.id: run for run in tx.runs("runs_by_id", ids=batch(sorted(set(ids))))} if ids else {}
    return [runs[run_id] for run_id in ids]


def _created(tx: Tx, item: NewBatch, parents: Mapping[str, Run]) -> CreatedBatch | HoldfastError:
    if item.parent_id is not None:
        parent = parents.get(item.parent_id)
        if parent is None or parent.environment_id != item.environment_id:
            return Unprocessable(f"parentRunId is {item.parent_id!r}: no such run", "parentRunId")
    if item.id is not None and (row := tx.one("batch", id=item.id, environment_id=item.environment_id)):
        return CreatedBatch(Batch(**row))
    digest = None
    lifetime = KEY_LIFETIME_MS
    if item.key is not None:
        if "\x00" in item.key:
            return InvalidRequest("idempotencyKey holds a NUL character", "idempotencyKey")
        if item.key_ttl is not None:
            try:
                lifetime = lifetime_ms(item.key_ttl, "idempotency-key-ttl")
            except HoldfastError as error:
                return error
        digest = key_digest(item.environment_id, item.key, item.tasks)
        row = tx.one("batch_of_key", key_digest=digest)
        if row is not None:
            held = Batch(**row)
            if held.key_expires_at is None or held.key_expires_at > tx.now:
                if held.sealed_at is None and item.once is not None:  # it is to bring the items
                    return _used(tx, item.once, held)
                return CreatedBatch(held, is_cached=held.sealed_at is not None)
            tx.do("release_batch_key", id=held.id)
    batch_id = item.id or tx.new_id("batch")
    if item.once is not None:
        try:
            once.use(tx, item.once, batch_id)
        except HoldfastError as error:
            return error
    add_batch(tx, item, batch_id, due_at=tx.now + UNSEALED_MS, digest=digest, expires_at=tx.now + lifetime)
    return CreatedBatch(one_batch(tx, item.environment_id, batch_id))


def _used(tx: Tx, token: OneTime, held: Batch) -> CreatedBatch | HoldfastError:
    """A batch that is still open, for whose items a one-time token is used up."""
    if once.used_by(tx, token) != held.id:
        try:
            once.use(tx, token, held.id)
        except HoldfastError as error:
            return error
    return CreatedBatch(held)


def key_digest(environment_id: str, key: str, tasks: Sequence[str]) -> str:
    """What an idempotency key is kept as: it holds for batches of the same tasks (engine rule R86)."""
    return hashlib.sha256(json.dumps([environment_id, key, *sorted(set(tasks))]).encode()).hexdigest()


def add_batch(
    tx: Tx, item: NewBatch, batch_id: str, due_at: int | None, digest: str | None, expires_at: int
) -> None:
    """Adds a batch, unless it is there. `due_at` None is for one whose items come along."""
    tx.do(
        "add_batch",
        id=batch_id,
        environment_id=item.environment_id,
        run_count=item.run_count,
        now=tx.now,
        due_at=due_at,
        key_digest=digest,
        key_shown=item.key_shown or item.key,
        key_expires_at=None if digest is None else expires_at,
        parent_id=item.parent_id,
    )


def closed(batch_id: str, found: Batch | None) -> Unprocessable:
    """Why a batch takes no items: it is not there, or was aborted."""
    if found is None:
        return Unprocessable(f"batch {batch_id} does not exist in this environment")
    return Unprocessable(f"batch {batch_id} was aborted: its items did not arrive within 30 minutes")
