"""What people do to runs: cancel, replay, reschedule, tag, change metadata; pause queues."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from holdfast.engine.annotate import save_metadata, with_metadata
from holdfast.engine.trigger import NewRun, clean_tags, trigger
from holdfast.engine.wait import forget_waits, settle_runs
from holdfast.errors import HoldfastError, InvalidRequest, NotFound, RunNotFound, Unprocessable
from holdfast.model.duration import moment_ms
from holdfast.model.metadata import check_operations, text_of
from holdfast.model.run import Run, cancelled
from holdfast.model.status import RunStatus
from holdfast.stores.base import Tx, batch

METADATA_OPEN_MS = 10 * 60_000  # so long after the end metadata may still be changed


@dataclass(frozen=True, slots=True)
class Target:
    """A run that a person or a program names, within the environment of the key in use."""

    environment_id: str
    run_id: str


@dataclass(frozen=True, slots=True)
class Cancel(Target):
    reason: str = "Canceled by user"


@dataclass(frozen=True, slots=True)
class Reschedule(Target):
    delay: Any = None


@dataclass(frozen=True, slots=True)
class AddTags(Target):
    tags: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ChangeMetadata(Target):
    """`metadata` replaces everything first; then the operations apply in order."""

    metadata: Mapping[str, Any] | None = None
    operations: Sequence[dict[str, Any]] = ()
    parent_operations: Sequence[dict[str, Any]] = ()
    root_operations: Sequence[dict[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class Replay(Target):
    """`changes` are fields of NewRun that differ from the run that is repeated."""

    changes: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ResetKey:
    environment_id: str
    task: str
    key: str


def reset_keys(tx: Tx, items: list[ResetKey]) -> list[str | HoldfastError]:
    """Frees idempotency keys; the runs that hold them stay as they are (engine rule R85). Answers the keys."""
    answers: list[str | HoldfastError] = []
    for item in items:
        freed = tx.one("release_key", environment_id=item.environment_id, task=item.task, key=item.key)
        missing = NotFound(f"no run of task {item.task[:80]!r} holds the idempotency key {item.key[:80]!r}")
        answers.append(item.key if freed else missing)
    return answers


def cancel(tx: Tx, items: list[Cancel]) -> list[Run | HoldfastError]:
    """Cancels runs and all their descendants, at once; one that has ended stays as it is.

    Answers the run as it is afterwards, or RunNotFound. Cancelling twice is the same as once.
    """
    found = _load(tx, items, "runs_by_id")
    before: dict[str, Run] = {}
    after: dict[str, Run] = {}
    targets: dict[str, list[str]] = {}
    for item in items:
        target = found.get(item.run_id)
        if target is not None and target.environment_id == item.environment_id and not target.is_final:
            targets.setdefault(item.reason, []).append(target.id)
    for reason, ids in targets.items():
        for run in _family(tx, ids):
            before.setdefault(run.id, run)
            after.setdefault(run.id, cancelled(run, reason, tx.now))
    tx.save_runs(before, after.values())
    forget_waits(tx, before.values())
    settle_runs(tx, after.values())
    for run in after.values():
        tx.wake(f"run:{run.id}")
        tx.wake(f"room:{run.environment_id}")
        if run.worker_id is not None:
            tx.wake(f"worker:{run.worker_id}")
            tx.wake("upkeep")
    # Those that ended while their locks were waited for.
    if late := sorted({item.run_id for item in items if item.run_id in found} - set(after)):
        found |= {run.id: run for run in tx.runs("runs_by_id", ids=batch(late))}
    return [_answer(item, after.get(item.run_id) or found.get(item.run_id)) for item in items]


def replay(tx: Tx, items: list[Replay]) -> list[Any]:
    """Triggers a new run with what the old one had (engine rule R68), except for `changes`.

    Copies payload, tags, concurrency key, machine, test flag, queue and metadata; not attempts, ttl,
    delay, key or priority. Allowed in any status; replaying twice makes two runs.
    """
    found = _load(tx, items)
    answers: list[Any] = []
    new: list[NewRun] = []
    places: list[int] = []
    for item in items:
        run = found.get(item.run_id)
        answer = _answer(item, run)
        answers.append(answer)
        if isinstance(answer, Run):
            copied: dict[str, Any] = {
                "environment_id": answer.environment_id,
                "task": answer.task,
                "payload": answer.payload,
                "payload_type": answer.payload_type,
                "tags": json.loads(answer.tags),
                "concurrency_key": answer.concurrency_key or None,
                "machine": answer.machine,
                "is_test": answer.is_test,
                "queue": answer.queue,
                "metadata": answer.metadata,
                "replay_of": answer.id,
            }
            new.append(NewRun(**{**copied, **(item.changes or {})}))
            places.append(len(answers) - 1)
    for place, made in zip(places, trigger(tx, new), strict=True):
        answers[place] = made
    return answers


def reschedule(tx: Tx, items: list[Reschedule]) -> list[Run | HoldfastError]:
    """Moves the start of runs that are still DELAYED; any other status is refused."""
    found = _load(tx, items)
    before: dict[str, Run] = {}
    after: dict[str, Run] = {}
    answers: list[Run | HoldfastError] = []
    for item in items:
        answer = _answer(item, found.get(item.run_id))
        if isinstance(answer, Run):
            try:
                answer = _later(answer, item.delay, tx.now)
            except HoldfastError as error:
                answer = error
            else:
                before.setdefault(answer.id, found[answer.id])  # as it is stored, also the second time
                after[answer.id] = answer
                found[answer.id] = answer
        answers.append(answer)
    tx.save_runs(before, after.values())
    if after:
        tx.wake("upkeep")
    return answers


def add_tags(tx: Tx, items: list[AddTags]) -> list[int | HoldfastError]:
    """Adds tags; answers how many were new. Over ten in total is refused and adds none."""
    found = _load(tx, items)
    answers: list[int | HoldfastError] = []
    changed: dict[str, Run] = {}
    for item in items:
        answer = _answer(item, changed.get(item.run_id) or found.get(item.run_id))
        if isinstance(answer, HoldfastError):
            answers.append(answer)
            continue
        old = json.loads(answer.tags)
        try:
            merged = clean_tags([*old, *item.tags])
        except HoldfastError as error:
            answers.append(error)
            continue
        if len(merged) > len(old):
            changed[answer.id] = replace(answer, tags=json.dumps(merged, ensure_ascii=False))
        answers.append(len(merged) - len(old))
    if changed:
        save_metadata(tx, list(changed.values()))
        rows = [[run.environment_id, tag, run.id] for run in changed.values() for tag in json.loads(run.tags)]
        tx.do("add_tags", tags=batch(rows))
    return answers


def change_metadata(tx: Tx, items: list[ChangeMetadata]) -> list[Any]:
    """Changes metadata of runs, their parents and roots; answers this run's metadata afterwards.

    Refused ten minutes after the run ended. All changes of an item are made, or none.
    """
    runs = _load(tx, items)
    related = {other for run in runs.values() for other in (run.parent_id, run.root_id) if other} - set(runs)
    if related:
        runs |= {run.id: run for run in tx.runs("runs_for_update", ids=batch(sorted(related)))}
    changed: set[str] = set()
    answers: list[Any] = []
    for item in items:
        answer = _answer(item, runs.get(item.run_id))
        if isinstance(answer, HoldfastError):
            answers.append(answer)
            continue
        try:
            after = _changed(runs, answer, item, tx.now)
        except HoldfastError as error:
            answers.append(error)
            continue
        runs |= after
        changed |= set(after)
        answers.append(json.loads(runs[answer.id].metadata))
    if changed:
        save_metadata(tx, [runs[run_id] for run_id in sorted(changed)])
    return answers


def _family(tx: Tx, run_ids: Sequence[str]) -> list[Run]:
    """Runs and their descendants, as far as they have not ended, locked: children before their parents, as the end
    of a child does. Looks again until the locks it took hold still: a child may have been under way meanwhile."""
    found: list[Run] = []
    while len(more := tx.runs("active_family", ids=batch(run_ids))) > len(found):
        found = more
    return found


def _changed(runs: Mapping[str, Run], run: Run, item: ChangeMetadata, now: int) -> dict[str, Run]:
    if run.finished_at is not None and run.finished_at < now - METADATA_OPEN_MS:
        raise Unprocessable("Cannot update metadata for a completed run: it ended more than 10 minutes ago")
    after: dict[str, Run] = {}
    if item.metadata is not None:
        check_operations([{"type": "update", "value": dict(item.metadata)}], "metadata")
        if "__proto__" in item.metadata:
            raise InvalidRequest("metadata has the key '__proto__': this name is not allowed", "metadata")
        after[run.id] = replace(run, metadata=text_of(item.metadata))
    for name, operations, target in (
        ("operations", item.operations, run.id),
        ("parentOperations", item.parent_operations, run.parent_id or run.id),
        ("rootOperations", item.root_operations, run.root_id or run.id),
    ):
        check_operations(list(operations), name)
        current = after.get(target) or runs.get(target)
        if operations and current is not None:
            after[target] = with_metadata(current, operations)
    return after


def _later(run: Run, delay: Any, now: int) -> Run:
    if run.status is not RunStatus.DELAYED:
        raise InvalidRequest(f"run {run.id} is {run.status}: only a DELAYED run can be rescheduled", "delay")
    at = moment_ms(delay, now, "delay")
    if at <= now:
        raise InvalidRequest(f"delay is {delay!r}: that time has passed; name one to come", "delay")
    return replace(run, lease=run.lease + 1, due_at=at, delayed_until=at, updated_at=now)


def _load(tx: Tx, items: Sequence[Target], statement: str = "runs_for_update") -> dict[str, Run]:
    ids = sorted({item.run_id for item in items})
    return {run.id: run for run in tx.runs(statement, ids=batch(ids))}


def _answer(item: Target, run: Run | None) -> Run | HoldfastError:
    if run is None or run.environment_id != item.environment_id:
        return RunNotFound(item.run_id)
    return run
