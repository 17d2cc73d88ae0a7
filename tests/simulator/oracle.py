"""What must be true of the store after every commit, whatever was called: the invariants on rows.

What each use case may and must do is in rules.py. Both know nothing of how the engine does it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from holdfast.model import run as model
from holdfast.model.run import Run
from holdfast.model.status import FINAL, MOVES, RunStatus
from holdfast.stores.base import Store, Tx, UseCase
from holdfast.stores.sqlite import SqliteStore
from simulator.journals import check_journals
from simulator.ledger import Ledger
from simulator.snapshot import Snapshot, read, renewed
from simulator.violation import require
from simulator.waits import Awaited, check_waits

S = RunStatus

FIXED = (  # columns that no call may change once the run exists
    *(
        "environment_id",
        "task",
        "version_lock",
        "queue",
        "concurrency_key",
        "priority",
        "created_at",
        "is_test",
    ),
    *(
        "ttl_ms",
        "idempotency_key",
        "parent_id",
        "root_id",
        "depth",
        "batch_id",
        "replay_of",
        "payload",
        "machine",
    ),
)
FROZEN = (
    "status",
    "output",
    "error",
    "attempt",
    "starts",
    "losses",
    "started_at",
    "attempt_started_at",
    "version",
)
LOSSES = frozenset({"upkeep", "register"})  # use cases that may declare a worker lost
CAUSES = {  # which use cases may make a move
    (S.QUEUED, S.EXECUTING): {"claim"},
    (S.QUEUED, S.EXPIRED): {"upkeep"},
    (S.DELAYED, S.QUEUED): {"upkeep"},
    (S.DELAYED, S.WAITING_FOR_DEPLOY): {"upkeep"},
    (S.WAITING_FOR_DEPLOY, S.QUEUED): {"upkeep"},
    (S.REATTEMPTING, S.EXECUTING): {"report"},
    (S.REATTEMPTING, S.QUEUED): {"upkeep", "report", "leave", "register"},
    (S.EXECUTING, S.REATTEMPTING): {"report"},
    (S.EXECUTING, S.QUEUED): {"report", "leave", "upkeep", "register", "give_back_unknown"},
    (S.EXECUTING, S.COMPLETED_SUCCESSFULLY): {"report"},
    (S.EXECUTING, S.COMPLETED_WITH_ERRORS): {"report"},
    (S.EXECUTING, S.FAILED_TO_RUN): {"report"},
    (S.EXECUTING, S.TIMED_OUT): {"report"},
    (S.EXECUTING, S.CRASHED): {"report", "leave", "upkeep", "register"},
    (S.EXECUTING, S.WAITING_TO_RESUME): {"report"},
    (S.EXECUTING, S.WAITING_FOR_DEPLOY): {"report"},
    # Whatever ends what it waits for.
    (S.WAITING_TO_RESUME, S.QUEUED): {"report", "upkeep", "complete", "cancel", "register", "leave"},
} | {(status, S.CANCELLED): {"cancel"} for status in S if S.CANCELLED in MOVES[status]}


def _learns(old: Run, run: Run, column: str) -> bool:
    """A run of a task nobody knew, which named no queue, takes the task's own when it enters the queue."""
    unknown = old.queue == f"task/{old.task}" and not old.concurrency_key
    enters = old.status in (S.DELAYED, S.WAITING_FOR_DEPLOY) and run.status is S.QUEUED
    return column in ("queue", "concurrency_key") and unknown and enters


class Oracle:
    """Performs use cases and compares the store before and after each."""

    def __init__(self, rules: Any) -> None:
        self.rules = rules
        self.now_before = Snapshot()
        self.retry_at: dict[
            str, tuple[int, int]
        ] = {}  # (store time, elapsed): no attempt may start before both
        self.losses: Counter[str] = Counter()  # in a row, as seen from here
        self.unrecorded: Counter[str] = Counter()  # starts that were handed back before user code began
        self.mismatches: Counter[str] = Counter()  # attempts whose code did not fit the journal
        self.waits: dict[str, list[Awaited]] = {}  # of suspended runs, as their workers reported them
        self.outcomes: dict[str, tuple[str, str | None]] = {}  # of runs and tokens that ended: status, output
        self.ledger = Ledger()
        self.statuses: Counter[RunStatus] = Counter()
        self.calls: Counter[str] = Counter()
        self.elapsed = 0  # real time; a worker sleeps by it
        self.latest = 0  # the clock may step back; what was due once stays due
        self._written = -1

    def perform(
        self, store: Store, use_case: UseCase[Any, Any], items: Sequence[Any], rolled_back: bool
    ) -> list[Any] | None:
        """The results of the call, or None when it crashed before its commit. Raises Violation."""
        at: list[int] = []

        def timed(tx: Tx, given: list[Any]) -> Sequence[Any]:
            at.append(tx.now)
            return use_case(tx, given)

        results: list[Any] | None = None
        with suppress(CrashBeforeCommit):
            results = store.transact(crashing(timed) if rolled_back else timed, items)
        before = self.now_before
        name = use_case.__name__
        after = self._after(store, name, results)
        self.calls[name] += 1
        self.latest = max(self.latest, *at)
        if results is None:
            require(
                after.rows == before.rows and after.attempts == before.attempts, "I15", "half a commit stayed"
            )
        else:
            require(
                len(results) == len(items), "I15", f"{name} answered {len(results)} of {len(items)} items"
            )
            self._rows(name, at[-1], before, after)
            self.rules.check(self, name, at[-1], items, results, before, after)
            if after.rows is not before.rows:
                check_journals(name, before, after)
                check_waits(self, name, before, after)
            for run_id in sorted(after.changed):
                self._attempts(after.runs[run_id], after)
        self.now_before = after
        return results

    def _after(self, store: Store, name: str, results: list[Any] | None) -> Snapshot:
        """The store after a call; reading all of it is what costs most, so SQLite says how many rows were written."""
        before = self.now_before
        if not isinstance(store, SqliteStore):
            return self.read(store)
        written, self._written = self._written, store._writer.raw.total_changes
        count = self._written - written
        if count and name == "renew" and results is not None and count == results.count(None):
            [after] = store.transact(lambda tx, _: [renewed(tx, before)], [None])
            return after
        return self.read(store) if count else replace(before, changed=set())

    def read(self, store: Store) -> Snapshot:
        """The store as it is now. Raises Violation when a run has no reason to move (I11)."""
        [snapshot] = store.transact(lambda tx, _: [read(tx, self.now_before)], [None])
        return snapshot

    def _rows(self, name: str, now: int, before: Snapshot, after: Snapshot) -> None:
        if after.rows is before.rows:
            return
        for run_id in before.runs.keys() - after.runs.keys():
            was = before.runs[run_id]
            require(name == "retain" and was.finished_at is not None, "I1", f"{run_id} {was.status} vanished")
        for run_id in sorted(after.changed):
            run, old = after.runs[run_id], before.runs.get(run_id)
            if old is None:
                require(name in ("trigger", "replay", "report"), "I1", f"{run_id} appeared by {name}")
                fresh = run.status in (S.QUEUED, S.DELAYED, S.WAITING_FOR_DEPLOY) and run.worker_id is None
                require(fresh and run.attempt == run.starts == 0, "I1", f"{run_id} begins as {run.status}")
                self.statuses[run.status] += 1
            else:
                self._changed(name, now, old, run, before, after)
            if run.is_final:
                self.outcomes[run_id] = (run.status, run.output)
        for token in after.tokens.values():
            if token.status != "WAITING":
                self.outcomes.setdefault(token.id, (token.status, token.output))

    def _changed(self, name: str, now: int, old: Run, run: Run, before: Snapshot, after: Snapshot) -> None:
        where = f"{run.id} ({old.status} -> {run.status} by {name})"
        for column in FIXED:
            kept = getattr(old, column) == getattr(run, column)
            require(kept or _learns(old, run, column), "I18", f"{where}: {column} changed")
        require(run.lease >= old.lease, "I3", f"{where}: lease went back")
        if (old.status, old.worker_id, old.attempt) != (run.status, run.worker_id, run.attempt):
            require(run.lease > old.lease, "I3", f"{where}: moved under an old lease")
        if old.status in FINAL:
            for column in FROZEN:
                require(
                    getattr(old, column) == getattr(run, column),
                    "I2",
                    f"{where}: {column} changed after the end",
                )
            if old.finished_at != run.finished_at:
                require(
                    old.finished_at is None and old.status is S.CANCELLED, "I2", f"{where}: finished twice"
                )
            require(
                old.worker_id == run.worker_id or run.worker_id is None,
                "I9",
                f"{where}: taken after a cancel",
            )
            return
        require(run.status in FINAL or run.finished_at is None, "I2", f"{where}: finish time without an end")
        if run.status is not old.status:
            self.statuses[run.status] += 1
            require(run.status in MOVES[old.status], "moves", where)
            require(name in CAUSES[old.status, run.status], "moves", where)
            if run.status is S.EXPIRED:
                require(
                    old.starts == 0 and old.due_at is not None and old.due_at <= now, "I13", f"{where}: ttl"
                )
            if old.status is S.DELAYED and run.status is not S.CANCELLED:
                require(
                    old.delayed_until is not None and old.delayed_until <= now, "I13", f"{where}: too early"
                )
            if run.status in FINAL - {S.CANCELLED}:
                ended = run.finished_at == now and run.worker_id is None and run.due_at is None
                require(ended, "I2", f"{where}: ended with loose ends")
        require(run.operations == old.operations or name == "report", "I16", f"{where}: changes counted")
        if run.entries > old.entries:
            self.losses[run.id] = 0
        if old.suspended and not run.suspended and run.status is S.EXECUTING:
            goes_on = (run.resumes, run.starts, run.attempt) == (old.resumes + 1, old.starts, old.attempt)
            require(goes_on, "I12", f"{where}: resumed as {run}, not as {old}")
            require(run.attempt_started_at == old.attempt_started_at, "I12", f"{where}: begins anew")
        else:
            resumes = 0 if run.starts > old.starts else old.resumes
            require(run.resumes == resumes, "I12", f"{where}: a resume was counted")
        if run.starts > old.starts:
            require(run.status is S.EXECUTING and run.starts == old.starts + 1, "I3", f"{where}: starts")
            require(
                self.latest >= (run.delayed_until or 0), "I13", f"{where}: started before its delay was over"
            )
            planned, slept = self.retry_at.pop(run.id, (0, 0))
            early = self.latest < planned and self.elapsed < slept
            require(not early, "I12", f"{where}: retried {planned - now} ms early")
        lost = old.worker_id is not None and old.worker_id not in after.workers and name in LOSSES
        if lost and old.status is S.EXECUTING:
            self.losses[run.id] += 1
            if run.status is S.CRASHED and run.max_attempts != 1:
                text = f"{where}: ended after {self.losses[run.id]} losses in a row"
                require(self.losses[run.id] >= model.MAX_LOSSES, "I12", text)
            require(run.attempt <= old.attempt, "I12", f"{where}: a loss was counted")

    def _attempts(self, run: Run, after: Snapshot) -> None:
        records = after.attempts.get(run.id, [])
        under_way = run.attempt_started_at is not None
        failed = sum(row[3] == "FAILED" for row in records) - self.mismatches[run.id]
        seen = f"{run.id} {run.status} attempt {run.attempt} starts {run.starts} records {records}"
        require(
            len(records) + under_way + self.unrecorded[run.id] == run.starts, "I12", f"attempts kept: {seen}"
        )
        require(run.attempt == failed + under_way, "I12", f"attempts counted: {seen}")
        require(
            run.max_attempts is None or run.attempt <= run.max_attempts, "I12", f"too many attempts: {seen}"
        )
        if run.status is S.EXECUTING:
            require(under_way and run.worker_id is not None and run.due_at is None, "I3", f"holder: {seen}")


class CrashBeforeCommit(Exception):
    """Raised inside a transaction, after the use case and before the commit."""


def crashing(use_case: UseCase[Any, Any]) -> UseCase[Any, Any]:
    """The use case in a process that dies before its commit."""

    def run(tx: Tx, items: list[Any]) -> Sequence[Any]:
        use_case(tx, items)
        raise CrashBeforeCommit

    return run
