"""The queues of an environment: `client.queues`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from holdfast.errors import InvalidRequest
from holdfast.model.limits import MAX_QUEUE_LIMIT
from holdfast.sdk.policy import Flow, Request, asked
from holdfast.sdk.resources.base import Resource, moment, numbered_pages, segment
from holdfast.sdk.resources.filters import TASK_QUEUE

if TYPE_CHECKING:
    from holdfast.sdk.queue import Queue

PATH = "/api/v1/queues"


@dataclass(frozen=True, slots=True)
class QueueState:
    """A queue, as it was when it was read.

    name               that of a task's own queue is "task/<id>"
    running, queued    how many runs hold a slot, and how many wait
    concurrency_limit  in force now: how many runs may hold a slot; None for no limit of its own
    base_limit         what the code declares
    override_limit     what was put in its place; None when nothing was
    """

    id: str
    name: str
    type: Literal["task", "custom"]
    running: int
    queued: int
    paused: bool
    concurrency_limit: int | None
    base_limit: int | None
    override_limit: int | None
    overridden_at: datetime | None


class Queues(Resource):
    """The queues of an environment.

    Methods take a `Queue`, its name, the name "task/<id>" for a task's own queue, or an id "queue_…" with `by="id"`.
    One that does not exist raises NotFound.
    """

    def list(self) -> Iterator[QueueState]:
        """All queues, in the order of their names; pages are fetched as needed."""
        return self._each(numbered_pages(PATH, _queue))

    def alist(self) -> AsyncIterator[QueueState]:
        """As `list`, for `async for`."""
        return self._aeach(numbered_pages(PATH, _queue))

    def retrieve(self, queue: str | Queue, *, by: Literal["name", "id"] = "name") -> QueueState:
        """The queue, as it is now."""
        return self._do("retrieve", _reading(queue, by))

    async def aretrieve(self, queue: str | Queue, *, by: Literal["name", "id"] = "name") -> QueueState:
        """As `retrieve`, inside an event loop."""
        return await self._ado(_reading(queue, by))

    def pause(self, queue: str | Queue, *, by: Literal["name", "id"] = "name") -> QueueState:
        """Begin no run of it any more; those that run go on. Pausing twice is the same as once."""
        return self._do("pause", _changing(queue, by, "/pause", {"action": "pause"}))

    async def apause(self, queue: str | Queue, *, by: Literal["name", "id"] = "name") -> QueueState:
        """As `pause`, inside an event loop."""
        return await self._ado(_changing(queue, by, "/pause", {"action": "pause"}))

    def resume(self, queue: str | Queue, *, by: Literal["name", "id"] = "name") -> QueueState:
        """Begin its runs again."""
        return self._do("resume", _changing(queue, by, "/pause", {"action": "resume"}))

    async def aresume(self, queue: str | Queue, *, by: Literal["name", "id"] = "name") -> QueueState:
        """As `resume`, inside an event loop."""
        return await self._ado(_changing(queue, by, "/pause", {"action": "resume"}))

    def override(
        self, queue: str | Queue, concurrency: int, *, by: Literal["name", "id"] = "name"
    ) -> QueueState:
        """Put a limit in the place of the declared one, until `reset`, also over deploys; 0 to 100,000 runs.

        Overriding again replaces the limit.
        """
        return self._do("override", _overriding(queue, by, concurrency))

    async def aoverride(
        self, queue: str | Queue, concurrency: int, *, by: Literal["name", "id"] = "name"
    ) -> QueueState:
        """As `override`, inside an event loop."""
        return await self._ado(_overriding(queue, by, concurrency))

    def reset(self, queue: str | Queue, *, by: Literal["name", "id"] = "name") -> QueueState:
        """Put the declared limit in force again. Raises InvalidRequest when it is not overridden."""
        return self._do("reset", _changing(queue, by, "/concurrency/reset", {}, repeatable=False))

    async def areset(self, queue: str | Queue, *, by: Literal["name", "id"] = "name") -> QueueState:
        """As `reset`, inside an event loop."""
        return await self._ado(_changing(queue, by, "/concurrency/reset", {}, repeatable=False))


def _reading(queue: str | Queue, by: str) -> Flow[QueueState]:
    path, type = _address(queue, by)
    return _queue((yield from asked(Request("GET", path, query=(("type", type),)))))


def _overriding(queue: str | Queue, by: str, concurrency: int) -> Flow[QueueState]:
    whole = isinstance(concurrency, int) and not isinstance(concurrency, bool)
    if not whole or not 0 <= concurrency <= MAX_QUEUE_LIMIT:
        raise InvalidRequest(
            f"concurrency is {concurrency!r}: expected a whole number from 0 to {MAX_QUEUE_LIMIT}",
            "concurrency",
        )
    return (yield from _changing(queue, by, "/concurrency/override", {"concurrencyLimit": concurrency}))


def _changing(
    queue: str | Queue, by: str, rest: str, body: Mapping[str, Any], *, repeatable: bool = True
) -> Flow[QueueState]:
    path, type = _address(queue, by)
    text = json.dumps({"type": type, **body}).encode()
    return _queue((yield from asked(Request("POST", path + rest, text, repeatable=repeatable))))


def _address(queue: str | Queue, by: str) -> tuple[str, str]:
    """The path of a queue, and what its last part is."""
    if by not in ("name", "id"):
        raise InvalidRequest(f'by is {by!r}: expected "name" or "id"', "by")
    name = queue if isinstance(queue, str) else getattr(queue, "name", None)
    if not isinstance(name, str) or not name:
        raise InvalidRequest(f"queue is {queue!r}: expected a Queue or the name of one", "queue")
    if by == "id":
        return f"{PATH}/{segment(name, 'queue')}", "id"
    type = "task" if name.startswith(TASK_QUEUE) else "custom"
    # Slashes are encoded twice: proxies decode them once (the wire contract, 7.2).
    return f"{PATH}/{segment(name.removeprefix(TASK_QUEUE).replace('/', '%2F'), 'queue')}", type


def _queue(told: Mapping[str, Any]) -> QueueState:
    limits = told.get("concurrency") or {}
    prefix = TASK_QUEUE if told["type"] == "task" else ""
    return QueueState(
        told["id"],
        prefix + told["name"],
        told["type"],
        told["running"],
        told["queued"],
        told["paused"],
        told.get("concurrencyLimit"),
        limits.get("base"),
        limits.get("override"),
        moment(limits.get("overriddenAt")),
    )
