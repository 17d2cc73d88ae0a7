"""List pages: the one place where a statement is put together, for the filters that were asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

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
    is_test: bool | None = None
    created_from: int | None = None  # epoch milliseconds, inclusive
    created_to: int | None = None
    matches_nothing: bool = False  # a filter on something that no run here has, such as a schedule


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
    where = _where(environment_id, filters)
    where.equal("runs.id < :after_id", "after_id", after)
    where.equal("runs.id > :before_id", "before_id", before)
    direction = "asc" if before is not None else "desc"
    text = (
        f"select runs.* from runs where {' and '.join(where.conditions)} "  # noqa: S608  # fixed texts only
        f"order by runs.id {direction} limit :size"
    )
    rows = tx.select_runs(text, where.parameters | {"size": size + 1})
    more, runs = len(rows) > size, rows[:size]
    if before is not None:
        runs.reverse()
        return Page(runs, runs[-1].id if runs else None, runs[0].id if more else None)
    return Page(runs, runs[-1].id if more else None, runs[0].id if runs and after is not None else None)


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
    text = (
        f"select * from waitpoints where {' and '.join(where.conditions)} "  # noqa: S608  # fixed texts only
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
    where.any_of(
        "runs.id in (select run_id from run_tags where environment_id = :environment_id and tag in ({}))",
        "tag",
        filters.tag,
    )
    where.equal("runs.batch_id = :batch_id", "batch_id", filters.batch_id)
    where.equal("runs.parent_id = :parent_id", "parent_id", filters.parent_id)
    where.equal(
        "runs.is_test = :is_test", "is_test", None if filters.is_test is None else int(filters.is_test)
    )
    where.equal("runs.created_at >= :created_from", "created_from", filters.created_from)
    where.equal("runs.created_at <= :created_to", "created_to", filters.created_to)
    return where


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
