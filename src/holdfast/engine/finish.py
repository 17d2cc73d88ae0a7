"""What workers report about the runs they hold: what the code did, and how attempts end.

Reports of one call are taken in this order: journal entries; metadata, tags and logs, which a worker sends
before the outcome they belong to; then outcomes; suspensions last. Every report carries the lease number;
with a stale one nothing is changed and the answer is "fenced".
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from holdfast.engine import packet
from holdfast.engine.annotate import ANNOTATIONS, annotate
from holdfast.engine.progress import FORGETTING, JOURNALLED, entry_row, record
from holdfast.engine.reporting import FENCED, OK, Answer, Reported, is_live
from holdfast.engine.trigger import load_specs
from holdfast.engine.wait import Suspension, settle, suspend
from holdfast.engine.wake import wake_after_attempt
from holdfast.model import limits
from holdfast.model.error import is_mismatch
from holdfast.model.packet import STORE, packet_key
from holdfast.model.retry import DEFAULT_POLICY, retry_delay_ms
from holdfast.model.run import (
    Attempt,
    Run,
    after_crash,
    after_failure,
    after_mismatch,
    after_release,
    closed,
)
from holdfast.model.status import HELD, RunStatus
from holdfast.model.wait import Wait, Wake
from holdfast.stores.base import Tx, batch

MAX_RETRY_DELAY_MS = 365 * 86_400_000


def report(tx: Tx, items: list[Reported]) -> list[Answer]:
    """Applies reports; one answer for each, in order.

    A report that arrives twice changes nothing the second time. Where the worker goes on by its
    answer ("retry", "started") it gets that again, since the first may have been lost; else "fenced".
    """
    answers: list[Answer | None] = [None] * len(items)
    journalled: list[int] = []
    annotations: list[int] = []
    succeeded: dict[str, list[int]] = {}
    others: list[int] = []
    for index, item in enumerate(items):
        kind = item.report["kind"]
        if kind == "succeeded":
            succeeded.setdefault(item.worker_id, []).append(index)
        elif kind in JOURNALLED:
            journalled.append(index)
        elif kind in ANNOTATIONS:
            annotations.append(index)
        else:
            others.append(index)
    if journalled:
        record(tx, items, journalled, answers)
    if annotations:
        annotate(tx, items, annotations, answers)
    ended: dict[str, bool] = {}
    for worker_id, indexes in succeeded.items():
        ended |= _succeed(tx, worker_id, items, indexes, answers)
    suspensions: list[Suspension] = []
    if others:
        ended |= _decide(tx, items, others, answers, suspensions)
    settle(tx, ended)
    if suspensions:
        suspend(tx, suspensions)
    return [answer or FENCED for answer in answers]


def _succeed(
    tx: Tx, worker_id: str, items: Sequence[Reported], indexes: Sequence[int], answers: list[Answer | None]
) -> dict[str, bool]:
    """The hot path: one guarded statement, nothing is read before. Answers what has ended, if somebody waits."""
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
        outcomes.append([said["run"], said["lease"], output, said.get("outputType")])
    if not outcomes:
        return {}
    # Who waits is asked in a statement of its own, which begins when the runs are locked: see wait.py.
    finished, waiting = tx.together(
        [
            ("finish_runs", {"outcomes": batch(outcomes), "worker_id": worker_id, "now": tx.now}),
            ("waits_on", {"targets": batch([outcome[0] for outcome in outcomes])}),
        ]
    )
    moved = {row["id"] for row in finished}
    ended = dict.fromkeys(moved, False) if waiting else {}
    environments = set()
    stored: list[tuple[str, str]] = []
    for index in indexes:
        run_id = items[index].report["run"]
        if answers[index] is None and run_id in moved:
            moved.discard(run_id)  # the same report twice in one call succeeds once
            answers[index] = OK
            tx.wake(f"run:{run_id}")
            if items[index].report.get("outputType") == STORE:
                stored.append(
                    (packet_key(items[index].environment_id, items[index].report["output"]), run_id)
                )
            environments.add(items[index].environment_id)
    packet.use(tx, stored)
    for environment_id in environments:
        tx.wake(f"room:{environment_id}")
    return ended


def _decide(
    tx: Tx,
    items: Sequence[Reported],
    indexes: Sequence[int],
    answers: list[Answer | None],
    suspensions: list[Suspension],
) -> dict[str, bool]:
    """Everything but success: read the runs under lock, decide by pure functions, write once.

    Adds to `suspensions`, which are carried out when all else is done. Answers what has ended, and whether
    it failed.
    """
    ids = sorted({items[index].report["run"] for index in indexes})
    before = {run.id: run for run in tx.runs("runs_for_update", ids=batch(ids))}
    runs = dict(before)
    starts: list[int] = []
    attempts: list[Attempt] = []
    entries: dict[str, tuple[Any, ...]] = {}
    leaving: set[str] = set()
    waiting: dict[int, Answer] = {}
    for index in indexes:
        item = items[index]
        run = runs.get(item.report["run"])
        if run is not None and run.id in leaving:
            answers[index] = FENCED
        elif run is None or run.lease != item.report["lease"] or run.worker_id != item.worker_id:
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
        elif item.report["kind"] == "suspended":
            answers[index] = OK if is_live(run, item) else FENCED
            if is_live(run, item):
                leaving.add(run.id)
                suspensions.append(_suspension(run, item.report))
        else:
            after, attempt = _outcome(tx, run, item.report)
            if after.status is RunStatus.REATTEMPTING and item.report["kind"] == "failed":
                after = _forgetting(after, item.report, entries)
            runs[run.id] = after
            if attempt is not None:
                attempts.append(attempt)
            waiting[index] = _told(after, item.report)
    changed = [run for run_id, run in runs.items() if run is not before[run_id]]
    saved = tx.save_runs(before, changed)
    tx.add_attempts([attempt for attempt in attempts if attempt.run_id in saved])
    tx.add_entries([row for run_id, row in entries.items() if run_id in saved])
    for index, answer in waiting.items():
        answers[index] = answer if items[index].report["run"] in saved else FENCED
    for run in changed:
        wake_after_attempt(tx, run)
    if starts:
        _next_attempts(tx, items, starts, answers)
    return {run.id: True for run in changed if run.is_final}


def _suspension(run: Run, said: Mapping[str, Any]) -> Suspension:
    waits = [
        Wait(one.get("group", 0), Wake(one["wake"]), one.get("id"), one.get("dueAt")) for one in said["waits"]
    ]
    operations = max(run.operations, said.get("written", 0))
    return Suspension(replace(run, operations=operations), said["activeMs"], waits)


def _forgetting(run: Run, said: Mapping[str, Any], entries: dict[str, tuple[Any, ...]]) -> Run:
    """`run` with an entry for the failures that its next attempt tries anew, added to `entries`."""
    run = replace(run, operations=said.get("operations", run.operations))
    if not said.get("forget"):
        return run
    value = batch(said["forget"])
    entries[run.id] = entry_row(run.id, run.entries, {**FORGETTING, "value": value})
    return replace(run, entries=run.entries + 1, journal_bytes=run.journal_bytes + len(value))


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
        if is_mismatch(said["error"]):
            return after_mismatch(run, said["error"], tx.now)
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
