"""The whole store at one commit, read past the engine."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from holdfast.model.run import Run
from holdfast.stores.base import Tx, run_of
from simulator.violation import require

Select = Callable[[str, dict[str, Any]], list[tuple[Any, ...]]]


class Row(NamedTuple):
    """A journal entry."""

    seq: int
    scope: str
    kind: str
    name: str
    args: str | None
    ok: int | None
    value: str | None
    ref: str | None

    @property
    def forgets(self) -> list[int]:
        found: list[int] = json.loads(self.value or "[]")
        return found


class WaitRow(NamedTuple):
    """What a suspended run waits for."""

    part: int
    target: str | None
    due_at: int | None
    wake: str


class Token(NamedTuple):
    id: str
    environment_id: str
    status: str
    output: str | None
    output_is_error: int
    completed_at: int | None
    timeout_at: int | None
    idempotency_key: str | None
    idempotency_key_expires_at: int | None
    schema: str | None
    run_id: str | None


Rows = tuple[Row, ...]
Mark = tuple[int, int]  # how many entries there are, and a sum over them


@dataclass(slots=True)
class Snapshot:
    rows: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)
    attempts: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)  # (run id, id, number, status)
    workers: dict[str, dict[str, Any]] = field(default_factory=dict)
    environments: dict[str, tuple[int, bool]] = field(default_factory=dict)
    queues: dict[tuple[str, str], tuple[int | None, int | None, bool]] = field(default_factory=dict)
    tasks: dict[tuple[str, str], bool] = field(default_factory=dict)  # and whether they are retired
    current: dict[str, str | None] = field(default_factory=dict)  # the version that is deployed
    deployed: list[str] = field(default_factory=list)
    # The names of the tasks and of the queues of each.
    versions: dict[tuple[str, str], tuple[set[str], set[str]]] = field(default_factory=dict)
    journals: dict[str, Rows] = field(default_factory=dict)
    waits: dict[str, list[WaitRow]] = field(default_factory=dict)
    tokens: dict[str, Token] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)  # runs whose row is another one than before, or new

    def held(self, environment_id: str) -> list[Run]:
        return [run for run in self.runs.values() if run.holds_slot and run.environment_id == environment_id]


def read(tx: Tx, before: Snapshot) -> Snapshot:
    """The store as it is; what is as it was in `before` is the same object. Raises Violation for a stuck run."""
    select = tx._connection.select
    after = Snapshot()
    changed = after.changed
    for row in select("select runs.* from runs order by id", {}):
        run_id = row[0]
        known = before.rows.get(run_id)
        if known == row:
            after.rows[run_id], after.runs[run_id] = known, before.runs[run_id]
        else:
            after.rows[run_id], after.runs[run_id] = row, run_of(row)
            changed.add(run_id)
    for row in select("select run_id, id, number, status from attempts order by run_id, id", {}):
        after.attempts.setdefault(row[0], []).append(row)
    after.workers = _workers(select)
    for row in select("select id, concurrency_limit, paused, current_version from environments", {}):
        after.environments[row[0]] = (row[1], bool(row[2]))
        after.current[row[0]] = row[3]
    for row in select(
        "select environment_id, name, concurrency_limit, per_key_limit, paused from queues", {}
    ):
        after.queues[row[0], row[1]] = (row[2], row[3], bool(row[4]))
    for row in select("select environment_id, id, retired from tasks", {}):
        after.tasks[row[0], row[1]] = bool(row[2])
    after.deployed = [row[0] for row in select("select version from deployments order by id", {})]
    for row in select("select environment_id, version, tasks, queues from versions", {}):
        after.versions[row[0], row[1]] = (set(json.loads(row[2])), set(json.loads(row[3])))
    after.journals = _journals(select, before, changed)
    for row in select(
        "select run_id, part, target, due_at, wake from waits order by run_id, part, number", {}
    ):
        after.waits.setdefault(row[0], []).append(WaitRow(*row[1:]))
    columns = ", ".join(Token._fields)
    after.tokens = {row[0]: Token(*row) for row in select(f"select {columns} from waitpoints", {})}
    stuck = tx.all("stuck_runs")
    require(not stuck, "I11", f"without a reason to move: {[(row['id'], row['status']) for row in stuck]}")
    return after


def renewed(tx: Tx, before: Snapshot) -> Snapshot:
    """The same when nothing but leases of workers was written."""
    return replace(before, workers=_workers(tx._connection.select), changed=set())


def _workers(select: Select) -> dict[str, dict[str, Any]]:
    names = ("id", "environment_id", "version", "tasks", "lease_until")
    rows = select("select id, environment_id, version, tasks, lease_until from workers", {})
    return {row[0]: dict(zip(names, row, strict=True)) for row in rows}


def _journals(select: Select, before: Snapshot, changed: set[str]) -> dict[str, Rows]:
    """Of all runs; only those of `changed` ones are read, unless a sum over all of them tells of more."""
    [[count, total]] = select(
        "select count(*), coalesce(sum(length(coalesce(value, '')) + seq), 0) from journal", {}
    )
    if (count, total) == _mark(before.journals.values()):
        # Nearly always nothing was added. The same number with other content would need a change of its run as well.
        changed = {run_id for run_id in changed if run_id in before.journals}
        if not changed:
            return before.journals
    found = {run_id: rows for run_id, rows in before.journals.items() if run_id not in changed}
    found |= _read(select, changed)
    if (count, total) != _mark(found.values()):
        found = _read(select, None)
    return {
        run_id: before.journals[run_id] if before.journals.get(run_id) == rows else rows
        for run_id, rows in found.items()
    }


def _read(select: Select, run_ids: set[str] | None) -> dict[str, Rows]:
    only = ""
    if run_ids is not None:
        if not run_ids:
            return {}
        only = f"where run_id in ({', '.join(repr(one) for one in sorted(run_ids))})"
    found: dict[str, list[Row]] = {}
    columns = ", ".join(Row._fields)
    for row in select(f"select run_id, {columns} from journal {only} order by run_id, seq", {}):
        found.setdefault(row[0], []).append(Row(*row[1:]))
    return {run_id: tuple(rows) for run_id, rows in found.items()}


def _mark(journals: Iterable[Rows]) -> Mark:
    rows = [row for one in journals for row in one]
    return len(rows), sum(len(row.value or "") + row.seq for row in rows)
