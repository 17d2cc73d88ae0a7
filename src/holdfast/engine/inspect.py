"""Reading: a run with what belongs to it, pages of runs, logs, and who has ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.errors import InvalidRequest, RunNotFound, WaitpointNotFound
from holdfast.model.run import Attempt, Run, current_attempt
from holdfast.model.status import FINAL, RunStatus
from holdfast.model.wait import Waitpoint
from holdfast.stores.base import Tx, batch
from holdfast.stores.listing import Filters, Page, TokenFilters, TokenPage, list_runs, list_tokens

MAX_CHILDREN = 1_000  # shown with their parent; a list filtered by parent has all of them


@dataclass(frozen=True, slots=True)
class RunDetails:
    """A run with its attempts, oldest first, and its relations; `children` are the first thousand."""

    run: Run
    attempts: Sequence[Attempt]
    root: Run | None
    parent: Run | None
    children: Sequence[Run]


@dataclass(frozen=True, slots=True)
class Ended:
    """Runs and tokens that have ended, and the ids of those that were asked for and have not."""

    runs: Sequence[Run]
    tokens: Sequence[Waitpoint]
    pending: Sequence[str]


def details(tx: Tx, environment_id: str, run_id: str) -> RunDetails:
    """Raises RunNotFound for a run that does not exist in this environment."""
    run = one_run(tx, environment_id, run_id)
    attempts = tx.attempts(run_id)
    if current := current_attempt(run):
        attempts.append(current)
    wanted = sorted({other for other in (run.root_id, run.parent_id) if other})
    related = {other.id: other for other in tx.runs("runs_by_id", ids=batch(wanted))} if wanted else {}
    return RunDetails(
        run,
        attempts,
        related.get(run.root_id or ""),
        related.get(run.parent_id or ""),
        tx.runs("children", parent_id=run_id, limit=MAX_CHILDREN),
    )


def one_run(tx: Tx, environment_id: str, run_id: str) -> Run:
    """Raises RunNotFound for a run that does not exist in this environment."""
    runs = tx.runs("run", id=run_id, environment_id=environment_id)
    if not runs:
        raise RunNotFound(run_id)
    return runs[0]


def page(
    tx: Tx,
    environment_id: str,
    filters: Filters,
    size: int,
    after: str | None = None,
    before: str | None = None,
) -> Page:
    """One page of runs. Raises InvalidRequest for a cursor that is no run of this environment."""
    for name, cursor in (("page[after]", after), ("page[before]", before)):
        if cursor is not None and not tx.runs("run", id=cursor, environment_id=environment_id):
            raise InvalidRequest(
                f"{name} is not a run of this environment: begin again at the first page", name
            )
    return list_runs(tx, environment_id, filters, size, after, before)


def finished(tx: Tx, environment_id: str, run_ids: Sequence[str], token_ids: Sequence[str] = ()) -> Ended:
    """Those of the runs and tokens that have ended. Raises RunNotFound, WaitpointNotFound."""
    states: dict[str, Any] = {row["id"]: row for row in tx.all("run_states", ids=batch(run_ids))}
    for run_id in run_ids:
        if run_id not in states or states[run_id]["environment_id"] != environment_id:
            raise RunNotFound(run_id)
    ended = [run_id for run_id in run_ids if RunStatus(states[run_id]["status"]) in FINAL]
    pending = [run_id for run_id in run_ids if RunStatus(states[run_id]["status"]) not in FINAL]
    found = tokens(tx, environment_id, token_ids) if token_ids else []
    pending += [token.id for token in found if not token.is_complete]
    runs = tx.runs("runs_by_id", ids=batch(ended)) if ended else []
    return Ended(runs, [token for token in found if token.is_complete], pending)


def tokens(tx: Tx, environment_id: str, ids: Sequence[str]) -> list[Waitpoint]:
    """Tokens of an environment, in the order of `ids`. Raises WaitpointNotFound if one is not there."""
    found = {row["id"]: Waitpoint(**row) for row in tx.all("waitpoints_by_id", ids=batch(sorted(set(ids))))}
    for token_id in ids:
        if token_id not in found or found[token_id].environment_id != environment_id:
            raise WaitpointNotFound(token_id)
    return [found[token_id] for token_id in ids]


def environment_of_token(tx: Tx, token_id: str) -> str | None:
    """Where a token belongs; None for one that does not exist."""
    row = next(iter(tx.all("waitpoints_by_id", ids=batch([token_id]))), None)
    return None if row is None else str(row["environment_id"])


def tokens_page(
    tx: Tx,
    environment_id: str,
    filters: TokenFilters,
    size: int,
    after: str | None = None,
    before: str | None = None,
) -> TokenPage:
    """One page of tokens. Raises InvalidRequest for a cursor that is no token of this environment."""
    for name, cursor in (("page[after]", after), ("page[before]", before)):
        if cursor is not None:
            try:
                tokens(tx, environment_id, [cursor])
            except WaitpointNotFound:
                raise InvalidRequest(
                    f"{name} is not a token of this environment: begin again at the first page", name
                ) from None
    return list_tokens(tx, environment_id, filters, size, after, before)


def logs(tx: Tx, environment_id: str, run_id: str, after: int, limit: int) -> list[dict[str, Any]]:
    """What a run logged: id, attempt, at (epoch ms), level, logger, message. Raises RunNotFound."""
    one_run(tx, environment_id, run_id)
    return tx.all("logs", run_id=run_id, after=after, limit=limit)
