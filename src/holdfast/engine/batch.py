"""Batches: made in one call, filled by index in as many as it takes, sealed when every item has arrived."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from holdfast.engine import once
from holdfast.engine.once import OneTime
from holdfast.engine.trigger import KEY_LIFETIME_MS, NewRun, new_run, trigger
from holdfast.errors import BatchNotFound, HoldfastError, InvalidRequest, Unprocessable
from holdfast.model.batch import UNSEALED_MS, Batch, BatchItem
from holdfast.model.duration import lifetime_ms
from holdfast.model.error import internal_error, refusal
from holdfast.model.run import Run, ended
from holdfast.model.status import FINAL, RunStatus
from holdfast.stores.base import Tx, batch

Refusal = Mapping[str, Any]  # {"error", "code", "param"?}, as model.error.refusal makes it


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """An item of a batch on its way in.

    run     what it asks for, or why it is refused
    opens   the batch, where its items come in the same call as itself
    failed  whether a refused item becomes a run that has failed already (engine rule R94); else it has none
    """

    environment_id: str
    batch_id: str
    index: int
    task: str
    run: NewRun | Refusal
    opens: NewBatch | None = None
    failed: bool = True


@dataclass(frozen=True, slots=True)
class Placed:
    """What became of a line: a run or a refusal; and its batch after the call.

    is_new     whether this line made it so; else an earlier one of the same index
    is_cached  whether its idempotency key found the run
    """

    run_id: str | None
    refusal: Refusal | None
    is_new: bool
    is_cached: bool
    batch: Batch


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


def place_items(tx: Tx, items: list[Line]) -> list[Placed | HoldfastError]:
    """Makes a run for each line, or tells what an earlier line of the same index has become.

    Refused with Unprocessable, in the place of a line: an unknown or aborted batch, and an index that it does not have.
    What is wrong with the run itself never fails the line (see `Line.failed`).
    """
    batches = _locked(tx, items)
    before = _earlier(tx, items, batches)
    answers: list[Placed | HoldfastError | None] = [None] * len(items)
    new: dict[tuple[str, int], int] = {}  # the first line of each index
    for place, line in enumerate(items):
        try:
            _check(line, batches.get(line.batch_id))
        except HoldfastError as error:
            answers[place] = error
        else:
            if (line.batch_id, line.index) not in before:
                new.setdefault((line.batch_id, line.index), place)
    made = _made(tx, [items[place] for place in new.values()], batches)
    if made:
        tx.add_batch_items(
            [
                (*key, items[place].task, run_id, int(is_cached), json.dumps(refused) if refused else None)
                for (key, place), (run_id, is_cached, refused) in zip(new.items(), made, strict=True)
            ]
        )
        counts: dict[str, int] = {}
        for batch_id, _ in new:
            counts[batch_id] = counts.get(batch_id, 0) + 1
        for row in tx.all("count_items", counts=batch(sorted(counts.items())), now=tx.now):
            batches[row["id"]] = Batch(**row)
        before |= dict(zip(new, made, strict=True))
    for place, line in enumerate(items):
        if answers[place] is None:
            key = (line.batch_id, line.index)
            run_id, is_cached, refused = before[key]
            answers[place] = Placed(run_id, refused, new.get(key) == place, is_cached, batches[line.batch_id])
    return [answer for answer in answers if answer is not None]


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
        raise _closed(batch_id, found)
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
    _add(tx, item, batch_id, due_at=tx.now + UNSEALED_MS, digest=digest, expires_at=tx.now + lifetime)
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


def _add(
    tx: Tx, item: NewBatch, batch_id: str, due_at: int | None, digest: str | None, expires_at: int
) -> None:
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


def _locked(tx: Tx, lines: list[Line]) -> dict[str, Batch]:
    """The batches of lines, locked: nobody else places their items until the commit. Made, where lines open them."""
    opened = {line.batch_id: line.opens for line in lines if line.opens is not None}
    for batch_id, item in sorted(opened.items()):
        _add(tx, item, batch_id, due_at=None, digest=None, expires_at=0)
    ids = sorted({line.batch_id for line in lines})
    return {row["id"]: Batch(**row) for row in tx.all("batches_for_update", ids=batch(ids))}


Made = tuple[str | None, bool, Refusal | None]  # run, whether it was there, or why there is none


def _earlier(tx: Tx, lines: list[Line], batches: Mapping[str, Batch]) -> dict[tuple[str, int], Made]:
    places = [
        [line.batch_id, line.index]
        for line in lines
        if line.batch_id in batches and batches[line.batch_id].arrived
    ]
    if not places:
        return {}
    return {
        (row["batch_id"], row["number"]): (
            row["run_id"],
            bool(row["is_cached"]),
            None if row["error"] is None else json.loads(row["error"]),
        )
        for row in tx.all("items_at", places=batch(places))
    }


def _check(line: Line, found: Batch | None) -> None:
    """Raises Unprocessable."""
    if found is None or found.environment_id != line.environment_id:
        raise _closed(line.batch_id, None)
    if found.aborted_at is not None:
        raise _closed(line.batch_id, found)
    check_index(line.index, found)


def check_index(index: int, found: Batch) -> None:
    """Raises Unprocessable."""
    if index >= found.run_count:
        raise Unprocessable(
            f"index is {index}: the batch was created for {found.run_count} items, "
            f"so the last one is {found.run_count - 1}",
            "index",
        )


def _closed(batch_id: str, found: Batch | None) -> Unprocessable:
    if found is None:
        return Unprocessable(f"batch {batch_id} does not exist in this environment")
    return Unprocessable(f"batch {batch_id} was aborted: its items did not arrive within 30 minutes")


def _made(tx: Tx, lines: Sequence[Line], batches: Mapping[str, Batch]) -> list[Made]:
    """What becomes of lines that are the first of their index."""
    answers = iter(trigger(tx, [line.run for line in lines if isinstance(line.run, NewRun)]))
    made: list[Made] = []
    failed: list[tuple[int, Refusal]] = []
    for place, line in enumerate(lines):
        answer = next(answers) if isinstance(line.run, NewRun) else line.run
        if isinstance(answer, HoldfastError):
            answer = refusal(answer)
        if isinstance(answer, Mapping):
            made.append((None, False, answer))
            if line.failed:
                failed.append((place, answer))
        else:
            made.append((answer.id, answer.is_cached, None))
    if failed:
        runs = _failed(tx, [(lines[place], said) for place, said in failed], batches)
        for (place, _), run in zip(failed, runs, strict=True):
            if run is not None:
                made[place] = (run.id, False, None)
    return made


def _failed(
    tx: Tx, refused: Sequence[tuple[Line, Refusal]], batches: Mapping[str, Batch]
) -> list[Run | None]:
    """Runs that have failed already, so that their batch has a result for every item."""
    wanted = sorted({parent for line, _ in refused if (parent := batches[line.batch_id].parent_id)})
    parents = {run.id: run for run in tx.runs("runs_by_id", ids=batch(wanted))} if wanted else {}
    before: dict[str, Run] = {}
    runs: list[Run | None] = []
    for line, said in refused:
        parent = batches[line.batch_id].parent_id
        item = NewRun(
            environment_id=line.environment_id,
            task=line.task,
            batch_id=line.batch_id,
            parent_id=parent if parent in parents else None,
        )
        try:
            run = replace(new_run(tx, item, None, parents), status=RunStatus.QUEUED)
        except HoldfastError:  # even its task can not be named
            runs.append(None)
            continue
        before[run.id] = run
        too_large = said["code"] == "payload_too_large"
        code = "PAYLOAD_TOO_LARGE" if too_large else "BATCH_ITEM_COULD_NOT_TRIGGER"
        runs.append(ended(run, RunStatus.FAILED_TO_RUN, tx.now, internal_error(code, str(said["error"]))))
    tx.add_runs(list(before.values()))
    tx.save_runs(before, [run for run in runs if run is not None])
    return runs
