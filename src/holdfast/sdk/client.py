"""A server as Python sees it: `Holdfast(url, key).runs`, and the default one of this process."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from holdfast.sdk import options as trigger_options
from holdfast.sdk.policy import Flow, Request, asked
from holdfast.sdk.run import Run, cancelling, path_of, reading
from holdfast.sdk.transport import Connection, refuse_in_loop

VARIABLES = ("HOLDFAST_API_URL", "HOLDFAST_SECRET_KEY", "TRIGGER_API_URL", "TRIGGER_SECRET_KEY")
PAGE = 100

_defaults: dict[tuple[str | None, ...], Holdfast] = {}
_in_place: list[Holdfast] = []  # of the default one, for tests

Filter = str | Sequence[str] | None


class Holdfast:
    """A client of one server.

    url, key  default to HOLDFAST_API_URL (else http://localhost:3030) and HOLDFAST_SECRET_KEY
    runs      list, retrieve, cancel, replay, reschedule

    Connections open at the first call. Safe to share between threads and event loops.
    """

    def __init__(self, url: str | None = None, key: str | None = None, *, transport: Any = None) -> None:
        from holdfast.config import Settings

        settings = Settings.load({name: os.environ[name] for name in VARIABLES if name in os.environ})
        self.url = settings.api_url if url is None else url
        own_key = next(iter(settings.keys), "") if key is None else key
        # Calls are fenced by the current run's lease only where that run lives.
        self.connection = Connection(self.url, own_key, in_run=url is None, transport=transport)
        self.runs = Runs(self.connection)

    def __repr__(self) -> str:
        return f"Holdfast(url={self.url!r})"

    def close(self) -> None:
        """Close the connections of blocking calls; those of an event loop close together with it."""
        self.connection.close()


class Runs:
    """The runs of an environment."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def list(
        self,
        *,
        status: Filter = None,
        task: Filter = None,
        tag: Filter = None,
        queue: Filter = None,
        version: Filter = None,
        batch: str | None = None,
        is_test: bool | None = None,
        created_from: datetime | None = None,
        created_to: datetime | None = None,
        period: timedelta | float | str | None = None,
    ) -> Iterator[Run[Any]]:
        """The runs that match every filter (any of its values), newest first; pages are fetched as needed."""
        query = _query(status, task, tag, queue, version, batch, is_test, created_from, created_to, period)
        return self._pages(query)

    def alist(
        self,
        *,
        status: Filter = None,
        task: Filter = None,
        tag: Filter = None,
        queue: Filter = None,
        version: Filter = None,
        batch: str | None = None,
        is_test: bool | None = None,
        created_from: datetime | None = None,
        created_to: datetime | None = None,
        period: timedelta | float | str | None = None,
    ) -> AsyncIterator[Run[Any]]:
        """As `list`, for `async for`."""
        query = _query(status, task, tag, queue, version, batch, is_test, created_from, created_to, period)
        return self._apages(query)

    def retrieve(self, run_id: str) -> Run[Any]:
        """The run, as it is now. Raises RunNotFound."""
        refuse_in_loop("retrieve", "aretrieve")
        return Run(self._connection, self._connection.run(reading(run_id)))

    async def aretrieve(self, run_id: str) -> Run[Any]:
        return Run(self._connection, await self._connection.arun(reading(run_id)))

    def cancel(self, run_id: str) -> None:
        """Cancel the run and its descendants; one that has ended stays as it is."""
        refuse_in_loop("cancel", "acancel")
        self._connection.run(cancelling(run_id))

    async def acancel(self, run_id: str) -> None:
        await self._connection.arun(cancelling(run_id))

    def replay(self, run_id: str) -> Run[Any]:
        """A new run with the same task, payload and options."""
        refuse_in_loop("replay", "areplay")
        return Run(self._connection, self._connection.run(_replaying(run_id)))

    async def areplay(self, run_id: str) -> Run[Any]:
        return Run(self._connection, await self._connection.arun(_replaying(run_id)))

    def reschedule(self, run_id: str, delay: timedelta | float | str | datetime) -> Run[Any]:
        """Move a DELAYED run to another time, counted from now. Raises InvalidRequest for any other run."""
        refuse_in_loop("reschedule", "areschedule")
        return Run(self._connection, self._connection.run(_rescheduling(run_id, delay)))

    async def areschedule(self, run_id: str, delay: timedelta | float | str | datetime) -> Run[Any]:
        return Run(self._connection, await self._connection.arun(_rescheduling(run_id, delay)))

    def _pages(self, query: Mapping[str, str]) -> Iterator[Run[Any]]:
        after: str | None = None
        while True:
            refuse_in_loop("list", "alist")
            page = self._connection.run(_page(query, after))
            yield from (Run(self._connection, item) for item in page["data"])
            after = page["pagination"].get("next")
            if not after:
                return

    async def _apages(self, query: Mapping[str, str]) -> AsyncIterator[Run[Any]]:
        after: str | None = None
        while True:
            page = await self._connection.arun(_page(query, after))
            for item in page["data"]:
                yield Run(self._connection, item)
            after = page["pagination"].get("next")
            if not after:
                return


def default_client() -> Holdfast:
    """The client that tasks trigger with: of the server and key that the environment names now."""
    if _in_place:
        return _in_place[-1]
    named = tuple(os.environ.get(name) for name in VARIABLES)
    client = _defaults.get(named)
    if client is None:
        client = _defaults.setdefault(named, Holdfast())
    return client


@contextmanager
def in_place_of_default(client: Holdfast) -> Iterator[None]:
    """While this lasts, tasks trigger with `client`, in all threads."""
    _in_place.append(client)
    try:
        yield
    finally:
        _in_place.remove(client)


def _query(
    status: Filter,
    task: Filter,
    tag: Filter,
    queue: Filter,
    version: Filter,
    batch: str | None,
    is_test: bool | None,
    created_from: datetime | None,
    created_to: datetime | None,
    period: timedelta | float | str | None,
) -> dict[str, str]:
    lists = {"status": status, "taskIdentifier": task, "tag": tag, "queue": queue, "version": version}
    query = {
        f"filter[{name}]": given if isinstance(given, str) else ",".join(given)
        for name, given in lists.items()
        if given is not None
    }
    if batch is not None:
        query["filter[batch]"] = batch
    if is_test is not None:
        query["filter[isTest]"] = "true" if is_test else "false"
    for end, moment in (("from", created_from), ("to", created_to)):
        if moment is not None:
            query[f"filter[createdAt][{end}]"] = str(round(moment.timestamp() * 1_000))
    if period is not None:
        query["filter[createdAt][period]"] = trigger_options.duration_on_wire(period, "period")
    query["page[size]"] = str(PAGE)
    return query


def _page(query: Mapping[str, str], after: str | None) -> Flow[dict[str, Any]]:
    cursor = {} if after is None else {"page[after]": after}
    request = Request("GET", "/api/v1/runs", query=tuple({**query, **cursor}.items()))
    page: dict[str, Any] = yield from asked(request)
    return page


def _replaying(run_id: str) -> Flow[dict[str, Any]]:
    # The server keeps no memory of this call, so one that may have arrived is not sent again.
    request = Request("POST", path_of(run_id, rest="/replay"), b"{}", repeatable=False)
    data: dict[str, Any] = yield from asked(request)
    return data


def _rescheduling(run_id: str, delay: timedelta | float | str | datetime) -> Flow[dict[str, Any]]:
    wire = trigger_options.on_wire({"delay": delay}, None)
    request = Request("POST", path_of(run_id, rest="/reschedule"), json.dumps(wire).encode())
    data: dict[str, Any] = yield from asked(request)
    return data
