"""A run, as triggers and lists give it: read it, wait for it, cancel it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from holdfast.errors import ResultTimeout, RunFailed
from holdfast.model.duration import duration_ms
from holdfast.model.status import FINAL, RunStatus
from holdfast.sdk.context import Durable, current_durable, refuse_in_step
from holdfast.sdk.policy import Flow, Request, asked
from holdfast.sdk.stored import with_stored
from holdfast.sdk.transport import Connection, refuse_in_loop
from holdfast.sdk.waiting import Result, deadline_of, failure, next_results

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class RunAttempt:
    """One attempt of a run; `status` is EXECUTING, COMPLETED, FAILED or CANCELLED."""

    id: str
    status: str
    started_at: datetime | None
    completed_at: datetime | None
    error: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class RelatedRuns:
    root: Run[Any] | None
    parent: Run[Any] | None
    children: list[Run[Any]]


class Run(Generic[R]):
    """A run and what was read of it.

        run = fulfil.trigger(order)
        receipt = run.result(timeout="30s")

    Fields show the last reading. The first look at a field that was never read asks the server, and so
    inside of an event loop it wants `await run.arefresh()` first; `id` and `task_identifier` never do.
    """

    def __init__(
        self,
        connection: Connection,
        data: dict[str, Any],
        decode: Callable[[str], Any] = json.loads,
    ) -> None:
        self._connection = connection
        self._data = data
        self._decode = decode
        self._result: Result | None = None

    def __repr__(self) -> str:
        return f"<Run {self.id} of {self._data.get('taskIdentifier')}, {self._data.get('status', 'not read yet')}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def id(self) -> str:
        found: str = self._data["id"]
        return found

    @property
    def status(self) -> RunStatus:
        """One of the thirteen words, as it was last read."""
        return RunStatus(self._field("status"))

    @property
    def is_final(self) -> bool:
        """Whether the run had ended when it was last read."""
        return self.status in FINAL

    @property
    def is_cached(self) -> bool:
        """Whether the trigger found this run by its idempotency key instead of making it."""
        return bool(self._data.get("isCached", False))

    @property
    def task_identifier(self) -> str:
        return str(self._field("taskIdentifier"))

    @property
    def version(self) -> str | None:
        found: str | None = self._field("version")
        return found

    @property
    def created_at(self) -> datetime:
        return datetime.fromisoformat(self._field("createdAt"))

    @property
    def updated_at(self) -> datetime:
        return datetime.fromisoformat(self._field("updatedAt"))

    @property
    def started_at(self) -> datetime | None:
        return _moment(self._field("startedAt"))

    @property
    def finished_at(self) -> datetime | None:
        return _moment(self._field("finishedAt"))

    @property
    def is_test(self) -> bool:
        return bool(self._field("isTest"))

    @property
    def payload(self) -> Any:
        """The payload as plain JSON values."""
        return self._field("payload")

    @property
    def output(self) -> R | None:
        """What the task returned; None unless the run was COMPLETED_SUCCESSFULLY."""
        if self.status is not RunStatus.COMPLETED_SUCCESSFULLY:
            return None
        found: R = self._decode(json.dumps(self._field("output")))
        return found

    @property
    def tags(self) -> list[str]:
        return list(self._field("tags"))

    @property
    def metadata(self) -> dict[str, Any]:
        return dict(self._field("metadata"))

    @property
    def related_runs(self) -> RelatedRuns:
        related = self._field("relatedRuns")
        root, parent = (
            None if related[name] is None else Run[Any](self._connection, related[name])
            for name in ("root", "parent")
        )
        return RelatedRuns(root, parent, [Run(self._connection, child) for child in related["children"]])

    @property
    def attempts(self) -> list[RunAttempt]:
        return [
            RunAttempt(
                one["id"], one["status"], _moment(one["startedAt"]), _moment(one["completedAt"]), one["error"]
            )
            for one in self._field("attempts")
        ]

    def result(self, timeout: timedelta | float | str | None = None) -> R:
        """Wait for the end and give what the task returned.

        Raises RunFailed or its subclass for how the run ended, ResultTimeout after `timeout`; the run
        goes on then. An ended run answers again without a call. Inside a task the wait is durable.
        """
        refuse_in_loop("result", "aresult")
        refuse_in_step("run.result()")
        if (durable := current_durable()) is not None:
            return self._settled_durably(durable, durable.blocking(lambda: self._durably(durable, timeout)))
        return self.settled(self._connection.run(self._finished(timeout)))

    async def aresult(self, timeout: timedelta | float | str | None = None) -> R:
        """As `result`, inside an event loop."""
        refuse_in_step("run.aresult()")
        if (durable := current_durable()) is not None:
            return self._settled_durably(durable, await self._durably(durable, timeout))
        return self.settled(await self._connection.arun(self._finished(timeout)))

    def refresh(self) -> Run[R]:
        """Read the run again, and give it back."""
        refuse_in_loop("refresh", "arefresh")
        return self._connection.run(self._reread())

    async def arefresh(self) -> Run[R]:
        """As `refresh`, inside an event loop."""
        return await self._connection.arun(self._reread())

    def cancel(self) -> None:
        """Cancel the run and its descendants; one that has ended stays as it is."""
        refuse_in_loop("cancel", "acancel")
        self._connection.run(cancelling(self.id))

    async def acancel(self) -> None:
        """As `cancel`, inside an event loop."""
        await self._connection.arun(cancelling(self.id))

    def _field(self, name: str) -> Any:
        if name not in self._data and not (name == "output" and "attempts" in self._data):
            refuse_in_loop(f"run.{name}", "run.arefresh")
            self._connection.run(self._reread())
        return self._data.get(name)

    def _reread(self) -> Flow[Run[R]]:
        data = yield from reading(self.id)
        self._data = {**data, "isCached": self.is_cached}
        return self

    def _finished(self, timeout: timedelta | float | str | None) -> Flow[Result]:
        deadline = deadline_of(None if timeout is None else duration_ms(timeout, "timeout"))
        if self._result is None:
            [self._result] = yield from next_results([self.id], deadline)
        return self._result

    async def _durably(self, durable: Durable, timeout: timedelta | float | str | None) -> Result:
        if timeout is None:
            return await durable.result_of(self.id)
        due_at = await durable.deadline(max(0, duration_ms(timeout, "timeout")))
        found = await durable.first([self.id], [], due_at)
        if found is None:
            raise ResultTimeout(f"{self.id} did not end in time; waiting again later is fine")
        return found[1]

    def _settled_durably(self, durable: Durable, result: Result) -> R:
        try:
            return self.settled(result)
        except RunFailed as error:
            durable.failed(error, self.id)
            raise

    def settled(self, result: Result) -> R:
        """What the task returned, by the result as the server tells it; raises RunFailed."""
        self._result = result
        if self._data.get("status") != result["status"]:
            # What was read before the end is out of date: only what the result tells is kept.
            known: dict[str, Any] = {key: self._data[key] for key in ("id", "isCached") if key in self._data}
            self._data = {**known, "status": result["status"], "taskIdentifier": result["taskIdentifier"]}
        if not result["ok"]:
            raise failure(self, result)
        value: R = self._decode(result["output"])
        return value


def path_of(run_id: str, version: str = "v1", rest: str = "") -> str:
    return f"/api/{version}/runs/{quote(run_id, safe='')}{rest}"


def reading(run_id: str) -> Flow[dict[str, Any]]:
    data: dict[str, Any] = yield from asked(Request("GET", path_of(run_id, "v3")))
    yield from with_stored(data)
    return data


def cancelling(run_id: str) -> Flow[None]:
    yield from asked(Request("POST", path_of(run_id, "v2", "/cancel"), b"{}"))


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
