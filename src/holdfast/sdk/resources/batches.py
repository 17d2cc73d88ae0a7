"""Batches of runs: `client.batches`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol, TypeAlias

from holdfast.errors import InvalidRequest, Unprocessable
from holdfast.model.limits import MAX_BATCH, MAX_TASK_ID
from holdfast.sdk import options as trigger_options
from holdfast.sdk.options import Options
from holdfast.sdk.policy import TRIES, Flow, Pause, Request, Unanswered, asked, delay_before_next
from holdfast.sdk.resources.base import Resource, moment, plain_value, segment
from holdfast.sdk.stored import with_outputs

BLOCK = 64 * 1024  # bytes, about: lines are streamed in blocks of this size
STREAM_SECONDS = 120.0


class Triggerable(Protocol):
    """What `task.bind(…)` gives."""

    def item(self, run: None) -> dict[str, Any]: ...


Item: TypeAlias = Triggerable | tuple[str, Any] | tuple[str, Any, Options]


@dataclass(frozen=True, slots=True)
class BatchError:
    """Why an item of a batch is no run. `index` is its place in the batch, from 0."""

    index: int
    task: str
    message: str
    code: str | None


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch, as it was when it was read.

    status     PENDING while items are missing, PROCESSING until every run has ended, then COMPLETED; PARTIAL_FAILED
               when some items never became runs, ABORTED when none did
    run_count  how many items it has
    run_ids    of those that are runs, in the order of the items
    is_cached  whether it was found by its idempotency key instead of being made
    """

    id: str
    status: Literal["PENDING", "PROCESSING", "COMPLETED", "PARTIAL_FAILED", "ABORTED"]
    run_count: int
    run_ids: Sequence[str]
    errors: Sequence[BatchError]
    idempotency_key: str | None
    created_at: datetime
    updated_at: datetime
    is_cached: bool


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run has ended.

    output  what the task returned, as plain JSON values; None unless `ok`
    error   as recorded, such as {"type": "BUILT_IN_ERROR", "name": "ValueError", "message": "…"}; None if `ok`
    """

    run_id: str
    task: str | None
    ok: bool
    output: Any
    error: Mapping[str, Any] | None


class Batches(Resource):
    """Batches of an environment. Ids that name none raise BatchNotFound."""

    def create(
        self,
        items: Iterable[Item],
        *,
        idempotency_key: str | Sequence[str] | None = None,
    ) -> Batch:
        """Trigger a run for each item, 1 to 1,000 of them, and give the batch.

            client.batches.create([
                greet.bind("Ada"),                                  # a task with arguments
                ("send-email", {"to": "ada@example.org"}),          # a task's id and payload
                ("send-email", {"to": "eve@example.org"}, {"delay": "1h"}),
            ])

        Items are streamed to the server, and what a broken connection has brought is not sent in vain: a run is made
        once for each item. With an `idempotency_key` a second batch with that key, of whichever items, is the first.
        An item that can not be triggered fails alone: see `Batch.errors`. Raises InvalidRequest for what is no item,
        or too many.
        """
        return self._do("create", _creating(items, idempotency_key))

    async def acreate(
        self,
        items: Iterable[Item],
        *,
        idempotency_key: str | Sequence[str] | None = None,
    ) -> Batch:
        """As `create`, inside an event loop."""
        return await self._ado(_creating(items, idempotency_key))

    def retrieve(self, batch_id: str) -> Batch:
        """The batch, as it is now. Raises BatchNotFound."""
        return self._do("retrieve", _reading(batch_id))

    async def aretrieve(self, batch_id: str) -> Batch:
        """As `retrieve`, inside an event loop."""
        return await self._ado(_reading(batch_id))

    def results(self, batch_id: str) -> list[RunResult]:
        """The results of those runs that have ended, in the order of the items. Raises BatchNotFound."""
        return self._do("results", _reading_results(batch_id))

    async def aresults(self, batch_id: str) -> list[RunResult]:
        """As `results`, inside an event loop."""
        return await self._ado(_reading_results(batch_id))


def _creating(items: Iterable[Item], idempotency_key: str | Sequence[str] | None) -> Flow[Batch]:
    asked_for = [_item(item, place) for place, item in enumerate(items)]
    if not 1 <= len(asked_for) <= MAX_BATCH:
        raise InvalidRequest(f"items has {len(asked_for)} entries: expected 1 to {MAX_BATCH}", "items")
    body: dict[str, Any] = {"runCount": len(asked_for)}
    if idempotency_key is not None:
        body["idempotencyKey"] = trigger_options.hashed_key(idempotency_key, "global", None)
        body["idempotencyKeyOptions"] = {"key": _shown(idempotency_key), "scope": "global"}
    made = yield from asked(Request("POST", "/api/v3/batches", json.dumps(body).encode()))
    if not made.get("isCached"):
        yield from _streaming(made["id"], _blocks(asked_for))
    return (yield from _reading(made["id"], is_cached=bool(made.get("isCached"))))


def _streaming(batch_id: str, blocks: Sequence[bytes]) -> Flow[None]:
    """Sends all items until the server has each of them, which it knows by their index."""
    path = f"/api/v3/batches/{segment(batch_id, 'batch_id')}/items"
    for number in range(1, TRIES + 1):
        answer = yield from asked(Request("POST", path, lines=blocks, timeout=STREAM_SECONDS))
        if answer["sealed"]:
            return
        yield Pause(delay_before_next(number, Unanswered(OSError(), sent=True)))
    raise Unprocessable(
        f"the server has {answer.get('enqueuedCount')} of {answer.get('expectedCount')} items of batch {batch_id}",
        "items",
    )


def _reading(batch_id: str, is_cached: bool = False) -> Flow[Batch]:
    told = yield from asked(Request("GET", f"/api/v2/batches/{segment(batch_id, 'batch_id')}"))
    created_at, updated_at = moment(told["createdAt"]), moment(told["updatedAt"])
    assert created_at is not None
    assert updated_at is not None
    return Batch(
        told["id"],
        told["status"],
        told["runCount"],
        tuple(told["runs"]),
        tuple(
            BatchError(one["index"], one["taskIdentifier"], one["error"], one.get("errorCode"))
            for one in told["processing"]["errors"]
        ),
        told.get("idempotencyKey"),
        created_at,
        updated_at,
        is_cached,
    )


def _reading_results(batch_id: str) -> Flow[list[RunResult]]:
    answer = yield from asked(Request("GET", f"/api/v1/batches/{segment(batch_id, 'batch_id')}/results"))
    yield from with_outputs(answer["items"])
    return [
        RunResult(
            one["id"],
            one.get("taskIdentifier"),
            one["ok"],
            json.loads(one.get("output") or "null") if one["ok"] else None,
            one.get("error"),
        )
        for one in answer["items"]
    ]


def _item(item: Item, place: int) -> dict[str, Any]:
    if not isinstance(item, tuple):
        if not callable(getattr(item, "item", None)):
            raise InvalidRequest(
                f"items[{place}] is {item!r}: expected what `.bind(…)` gives, or (task id, payload)", "items"
            )
        return {"index": place, **item.item(None)}
    if len(item) not in (2, 3):
        raise InvalidRequest(
            f"items[{place}] has {len(item)} parts: expected (task id, payload) or (task id, payload, options)",
            "items",
        )
    task, payload = item[0], item[1]
    if not isinstance(task, str) or not 1 <= len(task) <= MAX_TASK_ID:
        raise InvalidRequest(f"items[{place}] names the task {task!r}: expected its id", "items")
    options = item[2] if len(item) == 3 else {}
    trigger_options.checked(options)

    plain = plain_value(payload, f"items[{place}]")
    return {"index": place, "task": task, "payload": plain, "options": trigger_options.on_wire(options, None)}


def _blocks(items: Sequence[Mapping[str, Any]]) -> list[bytes]:
    """Items as lines of JSON, several of them in a block."""
    blocks, lines, size = list[bytes](), list[bytes](), 0
    for item in items:
        line = json.dumps(item, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        lines.append(line)
        size += len(line)
        if size >= BLOCK:
            blocks.append(b"".join(lines))
            lines, size = [], 0
    return [*blocks, b"".join(lines)] if lines else blocks


def _shown(key: str | Sequence[str]) -> str:
    return key if isinstance(key, str) else "-".join(key)
