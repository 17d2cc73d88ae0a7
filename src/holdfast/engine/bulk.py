"""Actions on many runs: upkeep carries them out, a chunk of each commit, so that nothing is done twice or forgotten."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

from holdfast.engine import operate
from holdfast.engine.request import once
from holdfast.errors import BulkActionNotFound, HoldfastError, InvalidRequest
from holdfast.model.bulk import BulkAction, BulkStatus, BulkType
from holdfast.model.ids import TIME_LENGTH, base36
from holdfast.model.status import RunStatus
from holdfast.stores.base import Tx, batch
from holdfast.stores.listing import BulkPage, Filters, keep_members, list_bulk_actions

# A chunk holds up other writers for some ten milliseconds.
LOOKED_AT = 5_000  # runs
ACTED_ON = 100  # runs
PAYLOADS = 8 * 1024 * 1024  # characters, but for a run that has more by itself


@dataclass(frozen=True, slots=True)
class NewBulkAction:
    """What is to be done to whom: the runs that `filters` select, or those of `run_ids`, which differ."""

    environment_id: str
    type: BulkType
    filters: Filters | None = None
    run_ids: Sequence[str] = ()
    name: str | None = None
    request_key: str | None = None


@dataclass(frozen=True, slots=True)
class Abort:
    environment_id: str
    bulk_id: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """How much is done in one commit."""

    looked_at: int = LOOKED_AT
    acted_on: int = ACTED_ON


def create(tx: Tx, items: list[NewBulkAction]) -> list[str]:
    """Keeps what is to be done, and answers ids; a request key that was seen before gives the first answer again.

    Members of a filter are runs that exist now: those that are made later, as a replay makes, are none.
    """
    answers = []
    for item in items:
        create_one = partial(_create, tx, item)
        answers.append(once(tx, item.environment_id, "bulk", item.request_key, create_one)["id"])
    tx.wake("upkeep")
    return answers


def advance(tx: Tx, items: list[Chunk]) -> list[bool]:
    """Goes on with the bulk action that waited longest, for one chunk each; whether there was one.

    First its members are found and kept, then each is acted on. What was done and how far it has come are one commit.
    """
    answers = []
    for item in items:
        row = tx.one("next_bulk_action")
        if row is not None:
            action = BulkAction(**row)
            after = (
                _look(tx, action, item.looked_at) if action.scan_until else _act(tx, action, item.acted_on)
            )
            _save(tx, after)
        answers.append(row is not None)
    return answers


def abort(tx: Tx, items: list[Abort]) -> list[str | HoldfastError]:
    """Ends bulk actions before their next chunk; one that has ended stays as it is. Answers ids."""
    answers: list[str | HoldfastError] = []
    for item in items:
        where = {"id": item.bulk_id, "environment_id": item.environment_id}
        known = tx.ids("abort_bulk_action", now=tx.now, **where) or tx.one("bulk_action", **where)
        answers.append(item.bulk_id if known else BulkActionNotFound(item.bulk_id))
    return answers


def one(tx: Tx, environment_id: str, bulk_id: str) -> BulkAction:
    """Raises BulkActionNotFound for one that does not exist in this environment."""
    row = tx.one("bulk_action", id=bulk_id, environment_id=environment_id)
    if row is None:
        raise BulkActionNotFound(bulk_id)
    return BulkAction(**row)


def page(tx: Tx, environment_id: str, size: int, after: str | None, before: str | None) -> BulkPage:
    """One page of bulk actions. Raises InvalidRequest for a cursor that is none of this environment."""
    for name, cursor in (("page[after]", after), ("page[before]", before)):
        if cursor is not None and not tx.one("bulk_action", id=cursor, environment_id=environment_id):
            raise InvalidRequest(
                f"{name} is not a bulk action of this environment: begin again at the first page", name
            )
    return list_bulk_actions(tx, environment_id, size, after, before)


def _create(tx: Tx, item: NewBulkAction) -> dict[str, str]:
    bulk_id, filters = tx.new_id("bulk"), item.filters
    tx.do(
        "add_bulk_action",
        id=bulk_id,
        environment_id=item.environment_id,
        type=item.type,
        name=item.name,
        filter=None if filters is None else json.dumps(asdict(filters)),
        # Ids sort by creation.
        scanned="" if filters is None else f"run_{base36(max(0, filters.created_from or 0), TIME_LENGTH)}",
        scan_until=None if filters is None else tx.new_id("run"),
        total=len(item.run_ids),
        now=tx.now,
    )
    if item.run_ids:
        tx.do("add_bulk_members", bulk_id=bulk_id, ids=batch(item.run_ids))
    return {"id": bulk_id}


def _look(tx: Tx, action: BulkAction, looked_at: int) -> BulkAction:
    """Finds members among the next runs, however few of them the filter selects."""
    assert action.filter is not None
    assert action.scan_until is not None
    told = json.loads(action.filter)
    filters = Filters(**{**told, "status": [RunStatus(status) for status in told["status"]]})
    own = {"environment_id": action.environment_id, "after": action.scanned, "until": action.scan_until}
    window = tx.one("bulk_window", looked=looked_at, **own)
    last = action.scan_until if window is None else window["id"]
    found = keep_members(
        tx, action.environment_id, filters, action.id, action.scanned, last, including=window is not None
    )
    until = None if window is None else action.scan_until
    return replace(action, scanned=last, scan_until=until, total=action.total + found)


def _act(tx: Tx, action: BulkAction, acted_on: int) -> BulkAction:
    rows = tx.all("bulk_members", bulk_id=action.id, after=action.acted, limit=acted_on)
    ids: list[str] = []
    size = 0
    for row in rows:
        size += row["size"]
        if ids and size > PAYLOADS:
            break
        ids.append(row["run_id"])
    if not ids:
        return replace(action, status=BulkStatus.COMPLETED, completed_at=tx.now)
    answers: Sequence[object]
    if action.type == BulkType.CANCEL:
        answers = operate.cancel(tx, [operate.Cancel(action.environment_id, run_id) for run_id in ids])
    else:
        answers = operate.replay(tx, [operate.Replay(action.environment_id, run_id) for run_id in ids])
    failed = sum(isinstance(answer, HoldfastError) for answer in answers)
    done = replace(
        action,
        acted=ids[-1],
        success=action.success + len(ids) - failed,
        failure=action.failure + failed,
    )
    if len(ids) < len(rows) or len(rows) == acted_on:
        return done
    return replace(done, status=BulkStatus.COMPLETED, completed_at=tx.now)


def _save(tx: Tx, action: BulkAction) -> None:
    tx.do(
        "save_bulk_action",
        id=action.id,
        status=action.status,
        scanned=action.scanned,
        scan_until=action.scan_until,
        acted=action.acted,
        total=action.total,
        success=action.success,
        failure=action.failure,
        updated_at=max(tx.now, action.updated_at + 1),  # behind the others, also when the clock stands still
        completed_at=action.completed_at,
    )
