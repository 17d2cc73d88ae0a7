"""List pages: the one place where a statement is put together, for the filters that were asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any

from holdfast.model.bulk import BulkAction
from holdfast.model.run import Run
from holdfast.model.status import RunStatus
from holdfast.model.wait import Waitpoint
from holdfast.stores.base import Tx


@dataclass(frozen=True, slots=True)
class Filters:
    """Different filters narrow together, values of one widen. Empty means not asked for."""

    status: Sequence[RunStatus] = ()
    task: Sequence[str] = ()
    version: Sequence[str] = ()
    machine: Sequence[str] = ()
    queue: Sequence[str] = ()
    tag: Sequence[str] = ()
    batch_id: str | None = None
    parent_id: str | None = None
    bulk_id: str | None = None
    schedule: str | None = None  # the id of the one that made the run
    is_test: bool | None = None
    created_from: int | None = None  # epoch milliseconds, inclusive
    created_to: int | None = None
    matches_nothing: bool = False  # a filter on something that no run here has, such as a group of errors


@dataclass(frozen=True, slots=True)
class Page:
    """Runs newest first, and the cursors of the neighbouring pages."""

    runs: Sequence[Run]
    next: str | None = None
    previous: str | None = None


@dataclass(frozen=True, slots=True)
class TokenFilters:
    """As Filters, for tokens; `tag` may be any of several."""

    status: Sequence[str] = ()
    tag: Sequence[str] = ()
    idempotency_key: str | None = None
    created_from: int | None = None
    created_to: int | None = None


@dataclass(frozen=True, slots=True)
class TokenPage:
    tokens: Sequence[Waitpoint]
    next: str | None = None
    previous: str | None = None


@dataclass(frozen=True, slots=True)
class BulkPage:
    actions: Sequence[BulkAction]
    next: str | None = None
    previous: str | None = None


@dataclass(slots=True)
class _Where:
    conditions: list[str]
    parameters: dict[str, Any] = field(default_factory=dict)

    def any_of(self, expression: str, name: str, values: Sequence[Any]) -> None:
        """`expression` with IN and one parameter for each value in place of {}."""
        if values:
            names = [f"{name}_{chr(97 + index // 26)}{chr(97 + index % 26)}" for index in range(len(values))]
            self.parameters |= dict(zip(names, [str(value) for value in values], strict=True))
            self.conditions.append(expression.format(", ".join(f":{name}" for name in names)))

    def equal(self, condition: str, name: str, value: Any) -> None:
        if value is not None:
            self.parameters[name] = value
            self.conditions.append(condition)


def list_runs(
    tx: Tx,
    environment_id: str,
    filters: Filters,
    size: int,
    after: str | None = None,
    before: str | None = None,
) -> Page:
    """One page of at most `size` runs, newest first.

    after   the last id of the page before: the page holds older runs
    before  the first id of the page after: the page holds newer runs
    """
    if filters.matches_nothing:
        return Page(())
    found: dict[str, Run] = {}
    for tag in filters.tag or (None,):  # each in its own order: the whole of a tag may be a million runs
        found |= {run.id: run for run in _first(tx, environment_id, filters, tag, size + 1, after, before)}
    rows = sorted(found.values(), key=attrgetter("id"), reverse=before is None)
    more, runs = len(rows) > size, rows[:size]
    if before is not None:
        runs.reverse()
        return Page(runs, runs[-1].id if runs else None, runs[0].id if more else None)
    return Page(runs, runs[-1].id if more else None, runs[0].id if runs and after is not None else None)


def _first(
    tx: Tx,
    environment_id: str,
    filters: Filters,
    tag: str | None,
    count: int,
    after: str | None,
    before: str | None,
) -> list[Run]:
    """The first runs of a page, of those that have the tag."""
    where = _where(environment_id, filters)
    source, key = "runs", "runs.id"
    # SQLite takes a cross join in the order it is written: along the tag, the members or the ticks, newest first.
    join = "join" if tx.dialect == "postgres" else "cross join"
    if tag is not None:
        source, key = f"run_tags {join} runs on runs.id = run_tags.run_id", "run_tags.run_id"
        where.equal("run_tags.environment_id = :environment_id and run_tags.tag = :tag", "tag", tag)
        where.equal(
            "exists (select 1 from bulk_members where bulk_id = :bulk_id and run_id = runs.id)",
            "bulk_id",
            filters.bulk_id,
        )
    elif filters.bulk_id is not None:
        source, key = f"bulk_members {join} runs on runs.id = bulk_members.run_id", "bulk_members.run_id"
        where.equal("bulk_members.bulk_id = :bulk_id", "bulk_id", filters.bulk_id)
    if source == "runs" and filters.schedule is not None:
        source, key = f"ticks {join} runs on runs.id = ticks.run_id", "ticks.run_id"
        where.equal("ticks.schedule_id = :schedule", "schedule", filters.schedule)
    else:
        where.equal(
            "exists (select 1 from ticks where schedule_id = :schedule and run_id = runs.id)",
            "schedule",
            filters.schedule,
        )
    where.equal(f"{key} < :after_id", "after_id", after)
    where.equal(f"{key} > :before_id", "before_id", before)
    direction = "asc" if before is not None else "desc"
    text = (
        f"select runs.* from {source} where {' and '.join(where.conditions)} "  # noqa: S608  # fixed texts only
        f"order by {key} {direction} limit :size"
    )
    return tx.select_runs(text, where.parameters | {"size": count})


def list_tokens(
    tx: Tx,
    environment_id: str,
    filters: TokenFilters,
    size: int,
    after: str | None = None,
    before: str | None = None,
) -> TokenPage:
    """One page of at most `size` tokens, newest first; cursors as in `list_runs`."""
    where = _Where(["environment_id = :environment_id"], {"environment_id": environment_id})
    where.any_of("status in ({})", "status", filters.status)
    where.equal("idempotency_key = :idempotency_key", "idempotency_key", filters.idempotency_key)
    where.equal("created_at >= :created_from", "created_from", filters.created_from)
    where.equal("created_at <= :created_to", "created_to", filters.created_to)
    where.equal("id < :after_id", "after_id", after)
    where.equal("id > :before_id", "before_id", before)
    if filters.tag:  # each begins a line in the JSON list, and no text in JSON holds the end of a line
        wanted = {
            f"tag_{chr(97 + index)}": "\n" + json.dumps(tag, ensure_ascii=False)
            for index, tag in enumerate(filters.tag)
        }
        where.parameters |= wanted
        position = "strpos" if tx.dialect == "postgres" else "instr"
        where.conditions.append(f"({' or '.join(f'{position}(tags, :{name}) > 0' for name in wanted)})")
    direction = "asc" if before is not None else "desc"
    # Outputs are large, and lists do not show them.
    columns = ", ".join("null" if one.name == "output" else one.name for one in fields(Waitpoint))
    text = (
        f"select {columns} from waitpoints where {' and '.join(where.conditions)} "  # noqa: S608  # fixed texts only
        f"order by id {direction} limit :size"
    )
    rows = [Waitpoint(*row) for row in tx.select(text, where.parameters | {"size": size + 1})]
    more, tokens = len(rows) > size, rows[:size]
    if before is not None:
        tokens.reverse()
        return TokenPage(tokens, tokens[-1].id if tokens else None, tokens[0].id if more else None)
    return TokenPage(
        tokens, tokens[-1].id if more else None, tokens[0].id if tokens and after is not None else None
    )


def list_bulk_actions(
    tx: Tx, environment_id: str, size: int, after: str | None = None, before: str | None = None
) -> BulkPage:
    """One page of at most `size` bulk actions, newest first; cursors as in `list_runs`."""
    where = _Where(["environment_id = :environment_id"], {"environment_id": environment_id})
    where.equal("id < :after_id", "after_id", after)
    where.equal("id > :before_id", "before_id", before)
    direction = "asc" if before is not None else "desc"
    text = (
        f"select * from bulk_actions where {' and '.join(where.conditions)} "  # noqa: S608  # fixed texts only
        f"order by id {direction} limit :size"
    )
    rows = [BulkAction(*row) for row in tx.select(text, where.parameters | {"size": size + 1})]
    more, actions = len(rows) > size, rows[:size]
    if before is not None:
        actions.reverse()
        return BulkPage(actions, actions[-1].id if actions else None, actions[0].id if more else None)
    return BulkPage(
        actions, actions[-1].id if more else None, actions[0].id if actions and after is not None else None
    )


def keep_members(
    tx: Tx, environment_id: str, filters: Filters, bulk_id: str, after: str, before: str, including: bool
) -> int:
    """Makes the runs after one id and before another, which may be included, members of a bulk action; how many."""
    if filters.matches_nothing:
        return 0
    where = _where(environment_id, filters)
    until = "<=" if including else "<"
    where.equal("runs.id > :after_id", "after_id", after)
    where.equal(f"runs.id {until} :before_id", "before_id", before)
    # Looked up first, and bounded as the runs are: a tag may have a million of them.
    bounds = f"run_id > :after_id and run_id {until} :before_id"
    first = "runs.id = any(array({}))" if tx.dialect == "postgres" else "runs.id in ({})"
    tagged = (
        f"select run_id from run_tags where environment_id = :environment_id and tag in ({{}}) and {bounds}"  # noqa: S608
    )
    where.any_of(first.format(tagged), "tag", filters.tag)
    of_other = f"select run_id from bulk_members where bulk_id = :of_bulk and {bounds}"  # noqa: S608  # fixed texts only
    where.equal(first.format(of_other), "of_bulk", filters.bulk_id)
    of_schedule = f"select run_id from ticks where schedule_id = :schedule and {bounds}"  # noqa: S608
    where.equal(first.format(of_schedule), "schedule", filters.schedule)
    text = (
        "insert into bulk_members (bulk_id, run_id) "  # noqa: S608  # fixed texts only
        f"select :member_of, runs.id from runs where {' and '.join(where.conditions)} returning run_id"
    )
    return len(tx.select(text, where.parameters | {"member_of": bulk_id}))


def _where(environment_id: str, filters: Filters) -> _Where:
    where = _Where(["runs.environment_id = :environment_id"], {"environment_id": environment_id})
    unfinished = filters.status and not any(status in _ENDED for status in filters.status)
    unsuccessful = filters.status and all(status in _UNSUCCESSFUL for status in filters.status)
    if unfinished:  # lets the planner use the small index of live runs
        where.conditions.append("runs.finished_at is null")
    elif unsuccessful:
        where.conditions.append("runs.finished_at is not null and runs.status <> 'COMPLETED_SUCCESSFULLY'")
    where.any_of("runs.status in ({})", "status", filters.status)
    where.any_of("runs.task in ({})", "task", filters.task)
    where.any_of("runs.version in ({})", "version", filters.version)
    where.any_of("runs.machine in ({})", "machine", filters.machine)
    where.any_of("runs.queue in ({})", "queue", filters.queue)
    where.equal(OF_BATCH, "batch_id", filters.batch_id)
    where.equal("runs.parent_id = :parent_id", "parent_id", filters.parent_id)
    where.equal(
        "runs.is_test = :is_test", "is_test", None if filters.is_test is None else int(filters.is_test)
    )
    where.equal("runs.created_at >= :created_from", "created_from", filters.created_from)
    where.equal("runs.created_at <= :created_to", "created_to", filters.created_to)
    return where


# An item of a batch may have found the run of another trigger, by its idempotency key.
OF_BATCH = (
    "runs.id in (select id from runs where batch_id = :batch_id"
    " union select run_id from batch_items where batch_id = :batch_id)"
)

# A cancelled run may still be closing, so it is in neither of the two.
_ENDED = frozenset(
    {
        RunStatus.COMPLETED_SUCCESSFULLY,
        RunStatus.COMPLETED_WITH_ERRORS,
        RunStatus.CANCELLED,
        RunStatus.CRASHED,
        RunStatus.FAILED_TO_RUN,
        RunStatus.TIMED_OUT,
        RunStatus.EXPIRED,
    }
)
_UNSUCCESSFUL = _ENDED - {RunStatus.COMPLETED_SUCCESSFULLY, RunStatus.CANCELLED}
