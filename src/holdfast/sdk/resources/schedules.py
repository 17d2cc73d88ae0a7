"""The schedules of an environment: `client.schedules`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from holdfast.errors import InvalidRequest
from holdfast.sdk.policy import Flow, Request, asked
from holdfast.sdk.resources.base import Resource, moment, numbered_pages, segment

if TYPE_CHECKING:
    from holdfast.sdk.task import Task

PATH = "/api/v1/schedules"


@dataclass(frozen=True, slots=True)
class LastTick:
    """The latest time at which a schedule made a run, or a run was refused.

    at       the time that the expression names
    run_id   None when it was refused, or the run is deleted
    refusal  why there is no run; None when there is one
    """

    at: datetime
    run_id: str | None
    refusal: str | None


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule, as it was when it was read.

    type                   DECLARATIVE: `@task(cron=…)` says it; IMPERATIVE: it was made with `create`
    task                   the id of the task
    cron, timezone         five fields or an alias such as "@daily", and the zone whose clock they are read on
    description            the same in words
    window                 how far the runs are spread after each tick, such as "30m" or "30%"; None for not at all
    deduplication_key      None for a DECLARATIVE one
    external_id            what the task is told as such; yours to choose
    next_run               the next time that the expression names; None while it is not active
    next_run_effective_at  that time, moved inside the window
    last_tick              None before the first
    """

    id: str
    type: Literal["DECLARATIVE", "IMPERATIVE"]
    task: str
    active: bool
    cron: str
    timezone: str
    description: str
    window: str | None
    deduplication_key: str | None
    external_id: str | None
    next_run: datetime | None
    next_run_effective_at: datetime | None
    last_tick: LastTick | None


class Schedules(Resource):
    """The schedules of an environment: those that code declares, and those that are made here, such as one a customer.

    An id that names none raises NotFound. What can not be a schedule raises Unprocessable, which names the field: an
    expression or zone that can not be read, a task that no worker has registered or that takes no tick.
    """

    def list(self) -> Iterator[Schedule]:
        """All schedules; pages are fetched as needed."""
        return self._each(numbered_pages(PATH, _schedule))

    def alist(self) -> AsyncIterator[Schedule]:
        """As `list`, for `async for`."""
        return self._aeach(numbered_pages(PATH, _schedule))

    def retrieve(self, schedule_id: str) -> Schedule:
        """The schedule, as it is now."""
        return self._do("retrieve", _asking("GET", schedule_id))

    async def aretrieve(self, schedule_id: str) -> Schedule:
        """As `retrieve`, inside an event loop."""
        return await self._ado(_asking("GET", schedule_id))

    def create(
        self,
        task: str | Task[Any, Any],
        cron: str,
        *,
        deduplication_key: str,
        timezone: str = "UTC",
        window: str | None = None,
        external_id: str | None = None,
    ) -> Schedule:
        """Make a schedule; a second one with the same key changes the first, which keeps its id.

        deduplication_key  1 to 512 characters. Keys count for the whole project: one that is in use in another
                           environment moves that schedule here
        timezone           an IANA name, such as "Europe/Paris"
        window             spreads the runs after each tick: "30m", "2h", up to 24 hours, or "30%" of the time to the next
        external_id        at most 512 characters
        """
        new = _creating(task, cron, deduplication_key, timezone, window, external_id)
        return self._do("create", new)

    async def acreate(
        self,
        task: str | Task[Any, Any],
        cron: str,
        *,
        deduplication_key: str,
        timezone: str = "UTC",
        window: str | None = None,
        external_id: str | None = None,
    ) -> Schedule:
        """As `create`, inside an event loop."""
        return await self._ado(_creating(task, cron, deduplication_key, timezone, window, external_id))

    def update(
        self,
        schedule_id: str,
        task: str | Task[Any, Any],
        cron: str,
        *,
        timezone: str = "UTC",
        window: str | None = None,
        external_id: str | None = None,
    ) -> Schedule:
        """Put other values in the place of all that it has. One that code declares raises Unprocessable."""
        return self._do("update", _updating(schedule_id, task, cron, timezone, window, external_id))

    async def aupdate(
        self,
        schedule_id: str,
        task: str | Task[Any, Any],
        cron: str,
        *,
        timezone: str = "UTC",
        window: str | None = None,
        external_id: str | None = None,
    ) -> Schedule:
        """As `update`, inside an event loop."""
        return await self._ado(_updating(schedule_id, task, cron, timezone, window, external_id))

    def deactivate(self, schedule_id: str) -> Schedule:
        """Make no run any more, until `activate`. Doing so twice is the same as once."""
        return self._do("deactivate", _asking("POST", schedule_id, "/deactivate"))

    async def adeactivate(self, schedule_id: str) -> Schedule:
        """As `deactivate`, inside an event loop."""
        return await self._ado(_asking("POST", schedule_id, "/deactivate"))

    def activate(self, schedule_id: str) -> Schedule:
        """Go on with the next tick; what was missed meanwhile is not made up for."""
        return self._do("activate", _asking("POST", schedule_id, "/activate"))

    async def aactivate(self, schedule_id: str) -> Schedule:
        """As `activate`, inside an event loop."""
        return await self._ado(_asking("POST", schedule_id, "/activate"))

    def delete(self, schedule_id: str) -> None:
        """Remove it; its runs stay. Raises NotFound the second time, Unprocessable for one that code declares."""
        self._do("delete", _deleting(schedule_id))

    async def adelete(self, schedule_id: str) -> None:
        """As `delete`, inside an event loop."""
        await self._ado(_deleting(schedule_id))


def _creating(
    task: str | Task[Any, Any],
    cron: str,
    deduplication_key: str,
    timezone: str,
    window: str | None,
    external_id: str | None,
) -> Flow[Schedule]:
    if not isinstance(deduplication_key, str) or not deduplication_key:
        raise InvalidRequest(
            f"deduplication_key is {deduplication_key!r}: expected a text that is not empty",
            "deduplication_key",
        )
    body = {**_body(task, cron, timezone, window, external_id), "deduplicationKey": deduplication_key}
    return _schedule((yield from asked(Request("POST", PATH, json.dumps(body).encode()))))


def _updating(
    schedule_id: str,
    task: str | Task[Any, Any],
    cron: str,
    timezone: str,
    window: str | None,
    external_id: str | None,
) -> Flow[Schedule]:
    body = json.dumps(_body(task, cron, timezone, window, external_id)).encode()
    return _schedule((yield from asked(Request("PUT", _path(schedule_id), body))))


def _asking(method: str, schedule_id: str, rest: str = "") -> Flow[Schedule]:
    return _schedule((yield from asked(Request(method, _path(schedule_id) + rest))))


def _deleting(schedule_id: str) -> Flow[None]:
    yield from asked(Request("DELETE", _path(schedule_id), repeatable=False))


def _path(schedule_id: str) -> str:
    return f"{PATH}/{segment(schedule_id, 'schedule_id')}"


def _body(
    task: str | Task[Any, Any], cron: str, timezone: str, window: str | None, external_id: str | None
) -> dict[str, Any]:
    id = task if isinstance(task, str) else getattr(task, "id", None)
    if not isinstance(id, str) or not id:
        raise InvalidRequest(f"task is {task!r}: expected a task or the id of one", "task")
    for name, value in (("cron", cron), ("timezone", timezone)):
        if not isinstance(value, str):
            raise InvalidRequest(f"{name} is {value!r}: expected a text", name)
    body: dict[str, Any] = {"task": id, "cron": cron, "timezone": timezone}
    for name, wire, given in (("window", "window", window), ("external_id", "externalId", external_id)):
        if given is None:
            continue
        if not isinstance(given, str):
            raise InvalidRequest(f"{name} is {given!r}: expected a text", name)
        body[wire] = given
    return body


def _schedule(told: Mapping[str, Any]) -> Schedule:
    return Schedule(
        told["id"],
        told["type"],
        told["task"],
        told["active"],
        told["generator"]["expression"],
        told["timezone"],
        told["generator"]["description"],
        told.get("window"),
        told.get("deduplicationKey"),
        told.get("externalId"),
        moment(told.get("nextRun")),
        moment(told.get("nextRunEffectiveAt")),
        _last_tick(told.get("lastTick")),
    )


def _last_tick(told: Mapping[str, Any] | None) -> LastTick | None:
    if told is None:
        return None
    at = moment(told["at"])
    assert at is not None
    return LastTick(at, told.get("runId"), told.get("refusal"))
