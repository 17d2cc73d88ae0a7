"""What workers report about the runs they hold: outcomes, retries, metadata, tags, logs.

Reports of one call are taken in this order: metadata, tags and logs, which a worker sends before the
outcome they belong to; then outcomes. Every report carries the lease number; with a stale one nothing
is changed and the answer is "fenced".
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from holdfast.engine.claim import wake_before_others
from holdfast.engine.trigger import clean_tags, load_specs
from holdfast.errors import HoldfastError
from holdfast.model import limits
from holdfast.model.metadata import applied, check_operations, check_size
from holdfast.model.retry import DEFAULT_POLICY, retry_delay_ms
from holdfast.model.run import Attempt, Run, after_crash, after_failure, after_release, closed
from holdfast.model.status import FINAL, HELD, RunStatus
from holdfast.stores.base import Tx, batch

MAX_RETRY_DELAY_MS = 365 * 86_400_000


@dataclass(frozen=True, slots=True)
class Reported:
    """One report of a worker, in the shape of wire/workers.py: `report["kind"]` tells which."""

    worker_id: str
    environment_id: str
    report: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a report: ok, retry, started, fenced or refused."""

    status: str
    lease: int | None = None
    attempt: int | None = None
    delay_ms: int | None = None
    error: str | None = None


OK = Answer("ok")
FENCED = Answer("fenced")
STREAMED = frozenset({"metadata", "tags", "logs"})


def report(tx: Tx, items: list[Reported]) -> list[Answer]:
    """Applies reports; one answer for each, in order.

    A report that arrives twice changes nothing the second time. Where the worker goes on by its
    answer ("retry", "started") it gets that again, since the first may have been lost; else "fenced".
    """
    answers: list[Answer | None] = [None] * len(items)
    streamed = [index for index, item in enumerate(items) if item.report["kind"] in STREAMED]
    if streamed:
        _stream(tx, items, streamed, answers)
    succeeded: dict[str, list[int]] = {}
    others = []
    for index, item in enumerate(items):
        kind = item.report["kind"]
        if kind == "succeeded":
            succeeded.setdefault(item.worker_id, []).append(index)
        elif kind not in STREAMED:
            others.append(index)
    for worker_id, indexes in succeeded.items():
        _succeed(tx, worker_id, items, indexes, answers)
    if others:
        _decide(tx, items, others, answers)
    return [answer or FENCED for answer in answers]


def _succeed(
    tx: Tx, worker_id: str, items: Sequence[Reported], indexes: Sequence[int], answers: list[Answer | None]
) -> None:
    """The hot path: one guarded statement, nothing is read before."""
    outcomes = []
    for index in indexes:
        said = items[index].report
        output = said["output"]
        if (
            output is not None
            and len(output) > limits.MAX_OUTPUT // 4
            and len(output.encode()) > limits.MAX_OUTPUT
        ):
            answers[index] = Answer("refused", error=f"output is over the limit of {limits.MAX_OUTPUT} bytes")
            continue
        outcomes.append([said["run"], said["lease"], output])
    if not outcomes:
        return
    moved = set(tx.ids("finish_runs", outcomes=batch(outcomes), worker_id=worker_id, now=tx.now))
    environments = set()
    for index in indexes:
        run_id = items[index].report["run"]
        if answers[index] is None and run_id in moved:
            moved.discard(run_id)  # the same report twice in one call succeeds once
            answers[index] = OK
            tx.wake(f"run:{run_id}")
            environments.add(items[index].environment_id)
    for environment_id in environments:
        tx.wake(f"room:{environment_id}")


def _decide(tx: Tx, items: Sequence[Reported], indexes: Sequence[int], answers: list[Answer | None]) -> None:
    """Everything but success: read the runs under lock, decide by pure functions, write once."""
    ids = sorted({items[index].report["run"] for index in indexes})
    before = {run.id: run for run in tx.runs("runs_for_update", ids=batch(ids))}
    runs = dict(before)
    starts: list[int] = []
    attempts: list[Attempt] = []
    waiting: dict[int, Answer] = {}
    for index in indexes:
        item = items[index]
        run = runs.get(item.report["run"])
        if run is None or run.lease != item.report["lease"] or run.worker_id != item.worker_id:
            answers[index] = _again(run, item)
        elif item.report["kind"] == "started":
            starts.append(index)
        elif item.report["kind"] == "closed":
            if run.status is RunStatus.CANCELLED:
                runs[run.id] = closed(run, tx.now)
                waiting[index] = OK
            else:
                answers[index] = Answer("refused", error="the run was not cancelled")
        elif run.status not in HELD:
            answers[index] = FENCED
        else:
            after, attempt = _outcome(tx, run, item.report)
            runs[run.id] = after
            if attempt is not None:
                attempts.append(attempt)
            waiting[index] = _told(after, item.report)
    changed = [run for run_id, run in runs.items() if run is not before[run_id]]
    saved = tx.save_runs(before, changed)
    tx.add_attempts([attempt for attempt in attempts if attempt.run_id in saved])
    for index, answer in waiting.items():
        answers[index] = answer if items[index].report["run"] in saved else FENCED
    for run in changed:
        _wake(tx, run)
    if starts:
        _next_attempts(tx, items, starts, answers)


def _again(run: Run | None, item: Reported) -> Answer:
    """The answer to a report under a lease that is over: its first answer, if nothing has happened since."""
    said = item.report
    if run is None or run.worker_id != item.worker_id or run.lease != said["lease"] + 1:
        return FENCED
    if said["kind"] == "failed" and run.status is RunStatus.REATTEMPTING and said["retryDelayMs"] is not None:
        return _told(run, said)
    if said["kind"] == "started" and run.status is RunStatus.EXECUTING:
        return Answer("started", lease=run.lease, attempt=run.attempt)
    return FENCED


def _outcome(tx: Tx, run: Run, said: Mapping[str, Any]) -> tuple[Run, Attempt | None]:
    kind = said["kind"]
    if kind == "released":
        return after_release(run, tx.now, said["started"])
    if run.status is not RunStatus.EXECUTING and kind == "failed":
        return run, None  # between two attempts there is nothing that could fail
    if kind == "failed":
        delay = said["retryDelayMs"]
        return after_failure(
            run, said["error"], None if delay is None else min(delay, MAX_RETRY_DELAY_MS), tx.now
        )
    policy = _policy(tx, run)
    delay = retry_delay_ms(policy, run.attempt, random.random())
    return after_crash(run, said["error"], delay, said["shared"], tx.now)


def _policy(tx: Tx, run: Run) -> Any:
    spec = load_specs(tx, run.environment_id, {run.task}).get(run.task)
    policy = spec.retry if spec else DEFAULT_POLICY
    return policy if run.max_attempts is None else replace(policy, max_attempts=run.max_attempts)


def _told(run: Run, said: Mapping[str, Any]) -> Answer:
    if run.status is RunStatus.REATTEMPTING and run.worker_id is not None:
        return Answer("retry", lease=run.lease, attempt=run.attempt + 1, delay_ms=said["retryDelayMs"])
    return OK


def _next_attempts(
    tx: Tx, items: Sequence[Reported], indexes: Sequence[int], answers: list[Answer | None]
) -> None:
    by_worker: dict[str, list[int]] = {}
    for index in indexes:
        by_worker.setdefault(items[index].worker_id, []).append(index)
    for worker_id, own in by_worker.items():
        starts = [[items[index].report["run"], items[index].report["lease"]] for index in own]
        rows = tx.all("next_attempts", starts=batch(starts), worker_id=worker_id, now=tx.now)
        started = {row["id"]: row for row in rows}
        for index in own:
            row = started.get(items[index].report["run"])
            answers[index] = (
                FENCED if row is None else Answer("started", lease=row["lease"], attempt=row["attempt"])
            )


def _stream(tx: Tx, items: Sequence[Reported], indexes: Sequence[int], answers: list[Answer | None]) -> None:
    ids = {items[index].report["run"] for index in indexes}
    runs = {run.id: run for run in tx.runs("runs_for_update", ids=batch(sorted(ids)))}
    related = {
        other
        for index in indexes
        if items[index].report.get("parentOperations") or items[index].report.get("rootOperations")
        for run in (runs.get(items[index].report["run"]),)
        if run is not None
        for other in (run.parent_id, run.root_id)
        if other is not None
    } - set(runs)
    if related:
        runs |= {run.id: run for run in tx.runs("runs_for_update", ids=batch(sorted(related)))}
    changed: set[str] = set()
    tags: list[list[str]] = []
    logs: list[list[Any]] = []
    counts: dict[str, int] = {}
    for index in indexes:
        item = items[index]
        said = item.report
        run = runs.get(said["run"])
        if (
            run is None
            or run.lease != said["lease"]
            or run.worker_id != item.worker_id
            or run.status not in HELD
        ):
            answers[index] = FENCED
            continue
        try:
            match said["kind"]:
                case "metadata":
                    changed |= _change_metadata(runs, run, said)
                case "tags":
                    merged = clean_tags([*json.loads(run.tags), *said["tags"]])
                    runs[run.id] = replace(run, tags=json.dumps(merged, ensure_ascii=False))
                    changed.add(run.id)
                    tags += [[run.environment_id, tag, run.id] for tag in merged]
                case _:
                    logs += _kept_logs(tx, run, said["records"], counts)
        except HoldfastError as error:
            answers[index] = Answer("refused", error=str(error))
        else:
            answers[index] = OK
    if changed:
        save_metadata(tx, [runs[run_id] for run_id in sorted(changed)])
    if tags:
        tx.do("add_tags", tags=batch(tags))
    if logs:
        tx.do("add_logs", logs=batch(logs))


def _kept_logs(
    tx: Tx, run: Run, records: Sequence[Mapping[str, Any]], counts: dict[str, int]
) -> list[list[Any]]:
    """The records that still fit under the limit of the run."""
    if run.id not in counts:
        row = tx.one("count_logs", run_id=run.id, limit=limits.MAX_LOGS_PER_RUN)
        counts[run.id] = row["records"] if row else 0
    room = max(0, limits.MAX_LOGS_PER_RUN - counts[run.id])
    counts[run.id] += len(records)
    return [
        [
            run.id,
            run.attempt,
            record["at"],
            record["level"],
            record["logger"],
            record["message"].replace("\x00", ""),
        ]
        for record in records[:room]
    ]


def save_metadata(tx: Tx, runs: Sequence[Run]) -> None:
    """Writes the metadata and tags of runs, and tells those who watch them."""
    changes = [[run.id, run.metadata, run.tags] for run in runs]
    tx.do("save_metadata", changes=batch(changes), now=tx.now)
    for run in runs:
        tx.wake(f"changed:{run.id}")


def _change_metadata(runs: dict[str, Run], run: Run, said: Mapping[str, Any]) -> set[str]:
    """Applies the operations of a report; all of them or, when one is refused, none."""
    changed: dict[str, Run] = {}
    for name, target in (
        ("operations", run.id),
        ("parentOperations", run.parent_id or run.id),
        ("rootOperations", run.root_id or run.id),
    ):
        operations = said.get(name)
        if not operations:
            continue
        check_operations(operations, name)
        current = changed.get(target) or runs.get(target)
        if current is None:
            continue  # a parent that retention has deleted
        changed[target] = with_metadata(current, operations)
    runs |= changed
    return set(changed)


def with_metadata(run: Run, operations: Sequence[dict[str, Any]]) -> Run:
    """`run` after the operations. Raises PayloadTooLarge over 256 KiB."""
    metadata = applied(json.loads(run.metadata), operations)
    return replace(run, metadata=check_size(json.dumps(metadata, ensure_ascii=False)))


def _wake(tx: Tx, run: Run) -> None:
    if run.status in FINAL:
        tx.wake(f"run:{run.id}")
        tx.wake(f"room:{run.environment_id}")
    elif run.status is RunStatus.QUEUED:
        wake_before_others(tx, run)
    elif run.worker_id is None:
        tx.wake(f"room:{run.environment_id}")
    if run.due_at is not None:
        tx.wake("upkeep")
