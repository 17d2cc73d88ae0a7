"""Batches: made at once or in two phases, read, and their results. The stream of phase 2 is in server/items.py."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping
from typing import Any

from starlette.responses import Response

from holdfast.engine import Line, NewBatch, NewRun, Placed, Triggered
from holdfast.errors import HoldfastError, InvalidRequest
from holdfast.model import limits
from holdfast.model.ids import Ids
from holdfast.server.access import Access, Thing, covers
from holdfast.server.items import line_of, stream_items, with_payloads, without_lease
from holdfast.server.offload import placed
from holdfast.server.problems import problem, respond
from holdfast.server.routing import Call, Endpoint
from holdfast.server.trigger import batch_item, handed_out, hands_out, request_key_of, triggered
from holdfast.wire import batches as wire
from holdfast.wire import runs as runs_wire
from holdfast.wire import versions

_ids = Ids()


async def trigger_batch(call: Call) -> Response:
    """All runs in one call; each item is answered in its place, and a refused one has no run."""
    body = await call.body(runs_wire.UNCHECKED_BATCH, limit=limits.MAX_BATCH_BYTES)
    items = _counted(body["items"], limits.MAX_BATCH)
    if call.credential.scopes is not None:
        named = (item.get("task") if isinstance(item, dict) else None for item in items)
        _require_tasks(call, (task if isinstance(task, str) else None for task in named))
    environment_id = call.environment_id
    batch_id = _derived_id("v1", environment_id, call.request.headers)
    batch_id = batch_id or _ids.new("batch", time.time_ns() // 1_000_000)
    read = [batch_item(environment_id, item, call.request.headers, batch_id, None) for item in items]
    ready = await placed(call, read)
    asked = [problem(item) if isinstance(item, HoldfastError) else item for item in ready]
    new = NewBatch(
        environment_id=environment_id, run_count=len(items), id=batch_id, once=call.credential.once
    )
    if new.once is not None:
        await call.engine.create_batch(new)  # uses the token up
    lines = [
        Line(
            environment_id=environment_id,
            batch_id=batch_id,
            index=index,
            task=run.task if isinstance(run, NewRun) else _task_in(items[index]),
            run=run if isinstance(run, NewRun) else _short(run),
            opens=new if new.once is None else None,
            failed=False,
        )
        for index, run in enumerate(asked)
    ]
    answers = await call.engine.place_items(lines)
    runs = [
        _told(answer) if isinstance(run, NewRun) else run for run, answer in zip(asked, answers, strict=True)
    ]
    return respond({"batchId": batch_id, "runs": runs})


async def create_batch(call: Call) -> Response:
    """Phase 1. A key whose batch is complete finds it; otherwise the items are wanted."""
    hands_out(call)
    body = await call.body(wire.CREATE_BATCH, limit=limits.MAX_BATCH_OPENING)
    tasks = body.get("taskIdentifiers", [])
    _require_tasks(call, tasks or [None])
    new = NewBatch(
        environment_id=call.environment_id,
        run_count=body["runCount"],
        id=_derived_id("v3", call.environment_id, call.request.headers),
        tasks=tasks,
        key=body.get("idempotencyKey"),
        key_shown=body.get("idempotencyKeyOptions", {}).get("key"),
        parent_id=_parent(call, body),
        once=call.credential.once,
    )
    made = await call.engine.create_batch(new)
    headers = await _tokens(call, made.batch.id)
    return respond(wire.created(made.batch, made.is_cached), 200 if made.is_cached else 202, headers)


async def create_batch_at_once(call: Call) -> Response:
    """The older way: batch and items in one body. An item that can not be triggered is a run that has failed."""
    hands_out(call)
    body = await call.body(wire.LEGACY_BATCH, limit=limits.MAX_LEGACY_BATCH_BYTES)
    items = _counted(body["items"], limits.MAX_LEGACY_BATCH)
    tasks = [item["task"] for item in items]
    _require_tasks(call, tasks)
    headers = call.request.headers
    new = NewBatch(
        environment_id=call.environment_id,
        run_count=len(items),
        id=_derived_id("v2", call.environment_id, headers),
        tasks=tasks,
        key=_key_in(headers),
        key_ttl=headers.get("idempotency-key-ttl"),
        parent_id=_parent(call, body),
        once=call.credential.once,
    )
    made = await call.engine.create_batch(new)
    if not made.is_cached:
        headers_of_items = without_lease(headers)
        lines = [line_of(made.batch, index, item, headers_of_items) for index, item in enumerate(items)]
        for answer in await call.engine.place_items(await with_payloads(call, lines)):
            if isinstance(answer, HoldfastError):
                raise answer
    told = wire.created(made.batch, made.is_cached)
    return respond(told, 200 if made.is_cached else 202, await _tokens(call, made.batch.id))


async def retrieve_batch(call: Call) -> Response:
    found = await call.engine.batch_found(call.environment_id, call.path("batch"))
    return respond(wire.with_processing(found.batch, found.items))


async def retrieve_old_batch(call: Call) -> Response:
    found = await call.engine.batch_found(call.environment_id, call.path("batch"))
    return respond(wire.without_processing(found.batch, found.items))


async def batch_results(call: Call) -> Response:
    """Of the runs that have ended, in the order of the items."""
    runs = await call.engine.batch_results(call.environment_id, call.path("batch"))
    shape = versions.result if call.sdk else runs_wire.result
    return respond({"id": call.path("batch"), "items": [shape(run) for run in runs]})


def _counted(items: list[Any], most: int) -> list[Any]:
    if not 1 <= len(items) <= most:
        raise InvalidRequest(f"items has {len(items)} entries: expected 1 to {most}", "items")
    return items


def _require_tasks(call: Call, tasks: Iterable[str | None]) -> None:
    """Whoever is limited needs every task, or all batches. Raises Forbidden."""
    if call.credential.scopes is not None:
        for task in dict.fromkeys(tasks):
            call.require("batchTrigger", [("tasks", task), ("batch", None)])


def _parent(call: Call, body: Mapping[str, Any]) -> str | None:
    parent_id: str | None = body.get("parentRunId")
    if parent_id is not None:
        call.require("write", [("runs", parent_id)])
    return parent_id


def _key_in(headers: Mapping[str, str]) -> str | None:
    key = headers.get("idempotency-key")
    if key is not None and not 1 <= len(key) <= limits.MAX_IDEMPOTENCY_KEY:
        raise InvalidRequest(
            f"idempotency-key has {len(key)} characters: expected 1 to {limits.MAX_IDEMPOTENCY_KEY}",
            "idempotency-key",
        )
    return key


async def _tokens(call: Call, batch_id: str) -> dict[str, str]:
    """A browser streams the items itself, so it may write the batch; the others have the key they came with."""
    scopes = [f"read:batch:{batch_id}"]
    own = call.credential.scopes
    in_browser = call.request.headers.get("x-trigger-client") == "browser"
    if in_browser and (own is None or covers(own, "batchTrigger", [("tasks", None)])):
        scopes.append(f"write:batch:{batch_id}")
    return await handed_out(call, scopes)


def _derived_id(route: str, environment_id: str, headers: Mapping[str, str]) -> str | None:
    """The id of the batch of a repeated request: the same again. None for a request that can not be repeated."""
    request_key = request_key_of(headers)
    if request_key is None:
        return None
    digest = hashlib.sha256(f"{route}\n{environment_id}\n{request_key}".encode()).hexdigest()
    return f"batch_{digest[:25]}"


def _task_in(item: Any) -> str:
    task = item.get("task") if isinstance(item, dict) else None
    return task[: limits.MAX_TASK_ID] if isinstance(task, str) else ""


def _short(refusal: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a refusal: all but the details."""
    return {name: refusal[name] for name in ("error", "code", "param") if name in refusal}


def _told(answer: Placed | HoldfastError) -> dict[str, Any]:
    if isinstance(answer, HoldfastError):
        return problem(answer)
    if answer.run_id is None:
        return dict(answer.refusal or {})
    return triggered(Triggered(answer.run_id, answer.is_cached))


async def _this_batch(call: Call) -> list[Thing]:
    """Raises BatchNotFound before anything is refused (the wire contract, 1.4)."""
    found = await call.engine.batch(call.environment_id, call.path("batch"))
    return [("batch", found.id), ("runs", None)]


MAKES_BATCHES = Access("batchTrigger", ("tasks", "batch"), tokens=True, inside=True)
READS_BATCH = Access("read", ("batch", "runs"), _this_batch, tokens=True)

ENDPOINTS = (
    Endpoint(
        "POST",
        "/api/v1/tasks/batch",
        trigger_batch,
        "Trigger up to 1,000 runs",
        MAKES_BATCHES,
        runs_wire.BATCH,
        wire.TRIGGERED_BATCH,
    ),
    Endpoint(
        "POST",
        "/api/v2/tasks/batch",
        create_batch_at_once,
        "Create a batch of up to 500 runs",
        MAKES_BATCHES,
        wire.LEGACY_BATCH,
        wire.CREATED,
        status=202,
    ),
    Endpoint(
        "POST",
        "/api/v3/batches",
        create_batch,
        "Create a batch whose items come later",
        MAKES_BATCHES,
        wire.CREATE_BATCH,
        wire.CREATED,
        status=202,
    ),
    Endpoint(
        "POST",
        "/api/v3/batches/{batch}/items",
        stream_items,
        "Stream the items of a batch, a line of JSON each",
        Access("write", ("batch", "tasks"), tokens=True, inside=True),
        answer=wire.ARRIVED,
    ),
    Endpoint(
        "GET", "/api/v2/batches/{batch}", retrieve_batch, "Read a batch", READS_BATCH, answer=wire.BATCH
    ),
    Endpoint(
        "GET",
        "/api/v1/batches/{batch}",
        retrieve_old_batch,
        "Read a batch without the errors of its items",
        READS_BATCH,
        answer=wire.OLD_BATCH,
    ),
    Endpoint(
        "GET",
        "/api/v1/batches/{batch}/results",
        batch_results,
        "Read the results of a batch's runs that have ended",
        Access("read", ("batch", "runs"), _this_batch),
        answer=wire.BATCH_RESULTS,
    ),
)
