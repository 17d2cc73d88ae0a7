"""The runs of an environment: `client.runs`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from holdfast.errors import InvalidRequest
from holdfast.sdk import options as trigger_options
from holdfast.sdk.metadata import checked_tags
from holdfast.sdk.policy import Flow, Request, asked
from holdfast.sdk.resources.base import Resource, cursor_pages, plain_value, segment
from holdfast.sdk.resources.filters import RunFilters, in_query
from holdfast.sdk.resources.trace import RunEvent, Trace, event_of, trace_of
from holdfast.sdk.run import Run, cancelling, path_of, reading

if TYPE_CHECKING:
    from holdfast.sdk.queue import Queue

RUNS = "/api/v1/runs"
LOGS_PAGE, EVENTS_PAGE = 1_000, 1_000
UNCHANGED: Any = object()


class ReplayOptions(TypedDict, total=False):
    """What a replay changes of the run it repeats; as in `Options`."""

    tags: str | Sequence[str]
    queue: str | Queue
    key: str | int
    machine: str
    metadata: Mapping[str, Any]
    version: str
    delay: trigger_options.Duration | datetime
    ttl: trigger_options.Duration
    priority: float
    max_attempts: int
    timeout: trigger_options.Duration
    idempotency_key: str | Sequence[str]
    idempotency_key_ttl: trigger_options.Duration


@dataclass(frozen=True, slots=True)
class LogRecord:
    """What a run logged or printed. `message` is cut off after 16 Ki characters."""

    attempt: int
    at: datetime
    level: str
    logger: str
    message: str


class Runs(Resource):
    """The runs of an environment. Ids that name none raise RunNotFound."""

    def list(self, **filters: Unpack[RunFilters]) -> Iterator[Run[Any]]:
        """The runs that match every filter (any of its values), newest first; pages are fetched as needed.

        Runs that are made meanwhile do not appear, and none appears twice. See `RunFilters`.
        """
        return self._each(cursor_pages(RUNS, self._run, in_query(filters)))

    def alist(self, **filters: Unpack[RunFilters]) -> AsyncIterator[Run[Any]]:
        """As `list`, for `async for`."""
        return self._aeach(cursor_pages(RUNS, self._run, in_query(filters)))

    def retrieve(self, run_id: str) -> Run[Any]:
        """The run, as it is now. Raises RunNotFound."""
        return self._run(self._do("retrieve", reading(run_id)))

    async def aretrieve(self, run_id: str) -> Run[Any]:
        """As `retrieve`, inside an event loop."""
        return self._run(await self._ado(reading(run_id)))

    def result(self, run_id: str, timeout: timedelta | float | str | None = None) -> Any:
        """Wait for the end and give what the task returned, as plain JSON values. Raises as `Run.result`."""
        return self._run({"id": run_id}).result(timeout)

    async def aresult(self, run_id: str, timeout: timedelta | float | str | None = None) -> Any:
        """As `result`, inside an event loop."""
        return await self._run({"id": run_id}).aresult(timeout)

    def cancel(self, run_id: str) -> None:
        """Cancel the run and its descendants; one that has ended stays as it is. Doing so again changes nothing."""
        self._do("cancel", cancelling(run_id))

    async def acancel(self, run_id: str) -> None:
        """As `cancel`, inside an event loop."""
        await self._ado(cancelling(run_id))

    def replay(self, run_id: str, payload: Any = UNCHANGED, **changes: Unpack[ReplayOptions]) -> Run[Any]:
        """A new run with the same task, payload, tags, queue, key, machine and metadata, but for what is changed.

        payload  JSON values, as the task takes them

        Allowed in any status. Each call makes a run, unless `idempotency_key` finds one. Raises InvalidRequest,
        Unprocessable or PayloadTooLarge for what can not be.
        """
        return self._run(self._do("replay", _replaying(run_id, payload, changes)))

    async def areplay(
        self, run_id: str, payload: Any = UNCHANGED, **changes: Unpack[ReplayOptions]
    ) -> Run[Any]:
        """As `replay`, inside an event loop."""
        return self._run(await self._ado(_replaying(run_id, payload, changes)))

    def reschedule(self, run_id: str, delay: timedelta | float | str | datetime) -> Run[Any]:
        """Move a DELAYED run to another time, counted from now. Raises InvalidRequest for any other run."""
        return self._run(self._do("reschedule", _rescheduling(run_id, delay)))

    async def areschedule(self, run_id: str, delay: timedelta | float | str | datetime) -> Run[Any]:
        """As `reschedule`, inside an event loop."""
        return self._run(await self._ado(_rescheduling(run_id, delay)))

    def add_tags(self, run_id: str, *tags: str) -> None:
        """Add tags, of 1 to 128 characters each; those it has already are ignored.

        Raises Unprocessable when there were more than ten, and then adds none.
        """
        self._do("add_tags", _tagging(run_id, tags))

    async def aadd_tags(self, run_id: str, *tags: str) -> None:
        """As `add_tags`, inside an event loop."""
        await self._ado(_tagging(run_id, tags))

    def metadata(self, run_id: str) -> dict[str, Any]:
        """The run's metadata, as it is now."""
        return self._do("metadata", _reading_metadata(run_id))

    async def ametadata(self, run_id: str) -> dict[str, Any]:
        """As `metadata`, inside an event loop."""
        return await self._ado(_reading_metadata(run_id))

    def update_metadata(
        self,
        run_id: str,
        changes: Mapping[str, Any] = {},
        *,
        increment: Mapping[str, float] = {},
        append: Mapping[str, Any] = {},
        delete: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Change some keys, all at once and with nobody in between; gives what the metadata is then.

            client.runs.update_metadata(run.id, {"reviewer": "ada"}, increment={"looks": 1})

        changes    keys to set, to JSON values; a key such as "$.steps.0.name" is a path
        increment  numbers to add; what is no number counts as 0
        append     values to put at the end of lists; a missing list is made
        delete     keys to remove; a missing one is fine

        They are made in this order. Raises PayloadTooLarge over 256 KiB, Unprocessable ten minutes after the end.
        """
        return self._do("update_metadata", _changing_metadata(run_id, changes, increment, append, delete))

    async def aupdate_metadata(
        self,
        run_id: str,
        changes: Mapping[str, Any] = {},
        *,
        increment: Mapping[str, float] = {},
        append: Mapping[str, Any] = {},
        delete: Sequence[str] = (),
    ) -> dict[str, Any]:
        """As `update_metadata`, inside an event loop."""
        return await self._ado(_changing_metadata(run_id, changes, increment, append, delete))

    def replace_metadata(self, run_id: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """Put `metadata` in the place of all there is. Raises as `update_metadata`."""
        return self._do("replace_metadata", _replacing_metadata(run_id, metadata))

    async def areplace_metadata(self, run_id: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """As `replace_metadata`, inside an event loop."""
        return await self._ado(_replacing_metadata(run_id, metadata))

    def logs(self, run_id: str) -> Iterator[LogRecord]:
        """What the run logged and printed so far, oldest first; pages are fetched as needed."""
        return self._each(cursor_pages(path_of(run_id, rest="/logs"), _log_record, size=LOGS_PAGE), "logs")

    def alogs(self, run_id: str) -> AsyncIterator[LogRecord]:
        """As `logs`, for `async for`."""
        return self._aeach(cursor_pages(path_of(run_id, rest="/logs"), _log_record, size=LOGS_PAGE))

    def events(self, run_id: str) -> Sequence[RunEvent]:
        """What happened in the run alone, without its children: the first thousand events, in their order."""
        return self._do("events", _reading_events(run_id))

    async def aevents(self, run_id: str) -> Sequence[RunEvent]:
        """As `events`, inside an event loop."""
        return await self._ado(_reading_events(run_id))

    def trace(self, run_id: str) -> Trace:
        """What happened in the run and its descendants, as a tree of spans: attempts, steps, waits, children."""
        return self._do("trace", _reading_trace(run_id))

    async def atrace(self, run_id: str) -> Trace:
        """As `trace`, inside an event loop."""
        return await self._ado(_reading_trace(run_id))

    def reset_idempotency_key(self, task: str, key: str | Sequence[str]) -> None:
        """Free a task's idempotency key; the run that holds it stays as it is.

        key  as it was given to `options(idempotency_key=…)` outside of a run, or a text of 64 characters that is
             hashed already

        Raises NotFound when no run holds it, also the second time.
        """
        self._do("reset_idempotency_key", _resetting(task, key))

    async def areset_idempotency_key(self, task: str, key: str | Sequence[str]) -> None:
        """As `reset_idempotency_key`, inside an event loop."""
        await self._ado(_resetting(task, key))

    def _run(self, data: dict[str, Any]) -> Run[Any]:
        return Run(self._connection, data)


def _replaying(run_id: str, payload: Any, changes: Mapping[str, Any]) -> Flow[dict[str, Any]]:
    for name in changes:
        if name not in ReplayOptions.__annotations__:
            raise TypeError(
                f"a replay has no option {name!r}; there are {', '.join(ReplayOptions.__annotations__)}"
            )
    wire = trigger_options.on_wire(changes, None)
    if "queue" in wire:
        wire["queue"] = wire["queue"]["name"]
    if "lockToVersion" in wire:
        wire["version"] = wire.pop("lockToVersion")
    if payload is not UNCHANGED:
        # Given as JSON, so that a text is not taken for JSON that it may hold.
        wire["payload"] = plain_value(payload, "payload")
    data: dict[str, Any] = yield from asked(_posting(path_of(run_id, rest="/replay"), wire))
    return data


def _rescheduling(run_id: str, delay: timedelta | float | str | datetime) -> Flow[dict[str, Any]]:
    wire = trigger_options.on_wire({"delay": delay}, None)
    data: dict[str, Any] = yield from asked(_posting(path_of(run_id, rest="/reschedule"), wire))
    return data


def _tagging(run_id: str, tags: Sequence[str]) -> Flow[None]:
    yield from asked(_posting(path_of(run_id, rest="/tags"), {"tags": checked_tags(list(tags), [])}))


def _reading_metadata(run_id: str) -> Flow[dict[str, Any]]:
    answer = yield from asked(Request("GET", path_of(run_id, rest="/metadata")))
    metadata: dict[str, Any] = answer.get("metadata", {})
    return metadata


def _changing_metadata(
    run_id: str,
    changes: Mapping[str, Any],
    increment: Mapping[str, float],
    append: Mapping[str, Any],
    delete: Sequence[str],
) -> Flow[dict[str, Any]]:
    if isinstance(delete, str):
        raise InvalidRequest(f"delete is {delete!r}: expected a list of keys", "delete")
    operations = [{"type": "set", "key": key, "value": value} for key, value in changes.items()]
    operations += [{"type": "increment", "key": key, "value": value} for key, value in increment.items()]
    operations += [{"type": "append", "key": key, "value": value} for key, value in append.items()]
    operations += [{"type": "delete", "key": key} for key in delete]
    # Made a second time, these would count twice.
    repeatable = not increment and not append
    return (yield from _writing_metadata(run_id, {"operations": operations}, repeatable))


def _replacing_metadata(run_id: str, metadata: Mapping[str, Any]) -> Flow[dict[str, Any]]:
    return (yield from _writing_metadata(run_id, {"metadata": dict(metadata)}, repeatable=True))


def _writing_metadata(run_id: str, body: Mapping[str, Any], repeatable: bool) -> Flow[dict[str, Any]]:
    body = plain_value(body, "metadata")
    request = Request(
        "PUT", path_of(run_id, rest="/metadata"), json.dumps(body).encode(), repeatable=repeatable
    )
    answer = yield from asked(request)
    metadata: dict[str, Any] = answer["metadata"]
    return metadata


def _reading_events(run_id: str) -> Flow[Sequence[RunEvent]]:
    query = (("page[size]", str(EVENTS_PAGE)),)
    answer = yield from asked(Request("GET", path_of(run_id, rest="/events"), query=query))
    return [event_of(told) for told in answer["events"]]


def _reading_trace(run_id: str) -> Flow[Trace]:
    answer = yield from asked(Request("GET", path_of(run_id, rest="/trace")))
    return trace_of(answer["trace"])


def _resetting(task: str, key: str | Sequence[str]) -> Flow[None]:
    hashed = trigger_options.hashed_key(key, "global", None)
    path = f"/api/v1/idempotencyKeys/{segment(hashed, 'key')}/reset"
    # One that was freed by a try whose answer was lost is not found by the next.
    yield from asked(_posting(path, {"taskIdentifier": task}, repeatable=False))


def _posting(path: str, body: Mapping[str, Any], *, repeatable: bool = True) -> Request:
    return Request("POST", path, json.dumps(body).encode(), repeatable=repeatable)


def _log_record(told: dict[str, Any]) -> LogRecord:
    return LogRecord(
        told["attempt"],
        datetime.fromisoformat(told["at"]),
        told["level"],
        told["logger"],
        told["message"],
    )
