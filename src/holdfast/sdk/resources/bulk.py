"""Actions on many runs: `client.bulk_actions`."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, Unpack

from holdfast.errors import InvalidRequest, ResultTimeout
from holdfast.model.duration import duration_ms
from holdfast.model.limits import MAX_BULK_RUNS
from holdfast.sdk.policy import Flow, Pause, Request, asked
from holdfast.sdk.resources.base import Resource, cursor_pages, moment, segment
from holdfast.sdk.resources.filters import BulkFilters, in_body
from holdfast.sdk.waiting import deadline_of

PATH = "/api/v1/bulk-actions"
FIRST_LOOK, LONGEST_LOOK = 0.1, 2.0  # seconds between two looks at one that goes on


@dataclass(frozen=True, slots=True)
class BulkAction:
    """An action on many runs, as it was when it was read.

    total    its members, as far as they are found
    success  those it was done to; a cancel of a run that has ended counts here, and changes nothing
    failure  those it could not be done to, such as ids that name no run
    """

    id: str
    name: str | None
    type: Literal["CANCEL", "REPLAY"]
    status: Literal["PENDING", "COMPLETED", "ABORTED"]
    total: int
    success: int
    failure: int
    created_at: datetime
    completed_at: datetime | None


class BulkActions(Resource):
    """Cancels and replays of many runs. The server carries them out, a hundred runs or so at a time."""

    def cancel(
        self, run_ids: Sequence[str] = (), *, name: str | None = None, **filters: Unpack[BulkFilters]
    ) -> BulkAction:
        """Begin to cancel the runs that are named, or those that match every filter, with their descendants.

            client.bulk_actions.cancel(task="import", status=["QUEUED", "DELAYED"], name="bad file")

        run_ids  1 to 500; one that names no run counts as a failure
        name     at most 255 characters, for those who look at the list

        Give either ids or filters. The filters select among the runs that exist now: those that are made later are no
        members. Gives the action as it begins; `wait` waits for its end. Each call begins an action of its own.
        """
        return self._do("cancel", _beginning("cancel", run_ids, name, filters))

    async def acancel(
        self, run_ids: Sequence[str] = (), *, name: str | None = None, **filters: Unpack[BulkFilters]
    ) -> BulkAction:
        """As `cancel`, inside an event loop."""
        return await self._ado(_beginning("cancel", run_ids, name, filters))

    def replay(
        self, run_ids: Sequence[str] = (), *, name: str | None = None, **filters: Unpack[BulkFilters]
    ) -> BulkAction:
        """Begin to replay the runs that are named, or those that match every filter, each once. As `cancel`.

        `client.runs.list(bulk_action=action.id)` lists the runs that were replayed.
        """
        return self._do("replay", _beginning("replay", run_ids, name, filters))

    async def areplay(
        self, run_ids: Sequence[str] = (), *, name: str | None = None, **filters: Unpack[BulkFilters]
    ) -> BulkAction:
        """As `replay`, inside an event loop."""
        return await self._ado(_beginning("replay", run_ids, name, filters))

    def list(self) -> Iterator[BulkAction]:
        """All of the environment, newest first; pages are fetched as needed."""
        return self._each(cursor_pages(PATH, _bulk_action))

    def alist(self) -> AsyncIterator[BulkAction]:
        """As `list`, for `async for`."""
        return self._aeach(cursor_pages(PATH, _bulk_action))

    def retrieve(self, bulk_id: str) -> BulkAction:
        """The action, as it is now. Raises BulkActionNotFound."""
        return self._do("retrieve", _reading(bulk_id))

    async def aretrieve(self, bulk_id: str) -> BulkAction:
        """As `retrieve`, inside an event loop."""
        return await self._ado(_reading(bulk_id))

    def abort(self, bulk_id: str) -> BulkAction:
        """Stop it before its next runs; what was done stays done, and one that has ended stays as it is.

        Raises BulkActionNotFound.
        """
        return self._do("abort", _aborting(bulk_id))

    async def aabort(self, bulk_id: str) -> BulkAction:
        """As `abort`, inside an event loop."""
        return await self._ado(_aborting(bulk_id))

    def wait(self, bulk_id: str, timeout: timedelta | float | str | None = None) -> BulkAction:
        """Wait until it has ended. Raises ResultTimeout after `timeout`; the action goes on then."""
        return self._do("wait", _waiting(bulk_id, timeout), "await_")

    async def await_(self, bulk_id: str, timeout: timedelta | float | str | None = None) -> BulkAction:
        """As `wait`, inside an event loop."""
        return await self._ado(_waiting(bulk_id, timeout))


def _beginning(
    action: str, run_ids: Sequence[str], name: str | None, filters: Mapping[str, Any]
) -> Flow[BulkAction]:
    body: dict[str, Any] = {"action": action}
    if isinstance(run_ids, str):
        raise InvalidRequest(f"run_ids is {run_ids!r}: expected a list of ids", "run_ids")
    selected = in_body(filters)
    if bool(run_ids) == bool(selected):
        raise InvalidRequest("give either run_ids or filters: one of the two selects the runs", "run_ids")
    if len(run_ids) > MAX_BULK_RUNS:
        raise InvalidRequest(
            f"run_ids has {len(run_ids)} ids: at most {MAX_BULK_RUNS}; a filter selects any number", "run_ids"
        )
    body |= {"runIds": list(run_ids)} if run_ids else {"filter": selected}
    if name is not None:
        body["name"] = name
    made = yield from asked(Request("POST", PATH, json.dumps(body).encode()))
    return (yield from _reading(made["id"]))


def _reading(bulk_id: str) -> Flow[BulkAction]:
    told = yield from asked(Request("GET", f"{PATH}/{segment(bulk_id, 'bulk_id')}"))
    return _bulk_action(told)


def _aborting(bulk_id: str) -> Flow[BulkAction]:
    yield from asked(Request("POST", f"{PATH}/{segment(bulk_id, 'bulk_id')}/abort", b"{}"))
    return (yield from _reading(bulk_id))


def _waiting(bulk_id: str, timeout: timedelta | float | str | None) -> Flow[BulkAction]:
    deadline = deadline_of(None if timeout is None else duration_ms(timeout, "timeout"))
    delay = FIRST_LOOK
    while True:
        action = yield from _reading(bulk_id)
        if action.status != "PENDING":
            return action
        left = delay if deadline is None else min(delay, deadline - time.monotonic())
        if left <= 0:
            raise ResultTimeout(f"{bulk_id} did not end in time; waiting again later is fine")
        yield Pause(left)
        delay = min(LONGEST_LOOK, delay * 1.5)


def _bulk_action(told: Mapping[str, Any]) -> BulkAction:
    counts = told["counts"]
    created_at = moment(told["createdAt"])
    assert created_at is not None
    return BulkAction(
        told["id"],
        told.get("name"),
        told["type"],
        told["status"],
        counts["total"],
        counts["success"],
        counts["failure"],
        created_at,
        moment(told.get("completedAt")),
    )
