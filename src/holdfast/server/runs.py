"""Runs: read, cancel, replay, reschedule, tags, metadata, results, logs."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from starlette.responses import Response

from holdfast.engine import NewRun
from holdfast.engine.operate import ChangeMetadata
from holdfast.errors import HoldfastError, InvalidRequest, NotFound, RunNotFound
from holdfast.model import limits
from holdfast.model.packet import SUPERJSON, packet_key
from holdfast.model.run import Run
from holdfast.server.access import Access, Thing
from holdfast.server.offload import placed
from holdfast.server.presign import addresses, stored_name
from holdfast.server.problems import respond
from holdfast.server.routing import Call, Endpoint, query_number
from holdfast.server.trigger import (
    key_text,
    metadata_text,
    replacement,
    request_key_of,
    tag_list,
)
from holdfast.wire import answers, schedules, versions
from holdfast.wire import runs as wire
from holdfast.wire.journal import numbered
from holdfast.wire.waits import token_result

MAX_WAIT_MS = 30_000
MAX_RESULTS = 1_000
# What a public key may not see of a run.
# What a schedule is called elsewhere stands in the payloads of its runs as well.
DATA = frozenset({"payload", "output", "payloadPresignedUrl", "outputPresignedUrl", "schedule"})


async def retrieve(call: Call) -> Response:
    return respond(await _full(call, call.path("run")))


async def cancel(call: Call) -> Response:
    run = await call.engine.cancel(call.environment_id, call.path("run"))
    return respond({"id": run.id})


async def replay(call: Call) -> Response:
    body = await call.body(wire.REPLAY, empty={})
    changes: dict[str, Any] = {}
    if "payload" in body or body.get("payloadType") == SUPERJSON:
        changes |= await _payload_of_replay(call, *replacement(body))
    else:
        await _check_stored(call)
    if "metadata" in body:
        changes["metadata"] = metadata_text(body["metadata"])
    if "tags" in body:
        changes["tags"] = tag_list(body["tags"])
    if "concurrencyKey" in body:
        changes["concurrency_key"] = key_text(body["concurrencyKey"])
    for name, field in REPLAY_FIELDS.items():
        if name in body:
            changes[field] = body[name]  # type: ignore[literal-required]  # the names are those of the shape
    if (key := request_key_of(call.request.headers)) is not None:
        changes["request_key"] = f"replay\n{call.path('run')}\n{key}"  # no header holds a line feed
    answer = await call.engine.replay(call.environment_id, call.path("run"), changes)
    return respond({"id": answer.id})


async def _payload_of_replay(call: Call, text: str, data_type: str | None) -> dict[str, Any]:
    item = NewRun(environment_id=call.environment_id, task="", payload=text, payload_type=data_type)
    [ready] = await placed(call, [item])
    if isinstance(ready, HoldfastError):
        raise ready
    return {"payload": ready.payload, "payload_type": ready.payload_type, "content": ready.content}


async def _check_stored(call: Call) -> None:
    """Raises InvalidRequest where the payload to be repeated is gone."""
    run = await call.engine.run(call.environment_id, call.path("run"))
    name = stored_name(run, "payload")
    if name is not None and await call.objects.get(packet_key(call.environment_id, name)) is None:
        raise InvalidRequest(
            "The payload of the run is gone from the object store: replay with another", "payload"
        )


REPLAY_FIELDS = {
    "queue": "queue",
    "machine": "machine",
    "version": "version_lock",
    "delay": "delay",
    "ttl": "ttl",
    "idempotencyKey": "idempotency_key",
    "idempotencyKeyTTL": "idempotency_key_ttl",
    "maxAttempts": "max_attempts",
    "maxDuration": "max_duration",
    "priority": "priority",
}


async def reschedule(call: Call) -> Response:
    body = await call.body(wire.RESCHEDULE)
    run = await call.engine.reschedule(call.environment_id, call.path("run"), body["delay"])
    return respond(await _full(call, run.id))


async def add_tags(call: Call) -> Response:
    body = await call.body(wire.TAGS)
    count = await call.engine.add_tags(call.environment_id, call.path("run"), tag_list(body["tags"]))
    return respond({"message": f"Successfully set {count} new tags." if count else "No new tags to add"})


async def read_metadata(call: Call) -> Response:
    run = await call.engine.run(call.environment_id, call.path("run"))
    return respond({"metadata": json.loads(run.metadata), "metadataType": "application/json"})


async def write_metadata(call: Call) -> Response:
    body = await call.body(wire.METADATA, limit=limits.MAX_METADATA_BODY)
    change = ChangeMetadata(
        call.environment_id,
        call.path("run"),
        body.get("metadata"),
        body.get("operations", []),
        body.get("parentOperations", []),
        body.get("rootOperations", []),
    )
    return respond({"metadata": await call.engine.change_metadata(change)})


async def result(call: Call) -> Response:
    """404 while the run goes on; `waitMs` holds the answer back until it ends or the time is over."""
    wait_ms = query_number(call.request, "waitMs", 0, MAX_WAIT_MS)
    ended = await call.engine.finished(call.environment_id, [call.path("run")], wait_ms=wait_ms)
    if not ended.runs:
        raise NotFound("Run either doesn't exist or is not finished")
    shape = versions.result if call.sdk else wire.result
    return respond(shape(ended.runs[0]))


async def results(call: Call) -> Response:
    body = await call.body(wire.RESULTS)
    runs, tokens = body.get("runs", []), body.get("tokens", [])
    if not 1 <= len(runs) + len(tokens) <= MAX_RESULTS:
        raise InvalidRequest(
            f"runs and tokens have {len(runs) + len(tokens)} ids: expected 1 to {MAX_RESULTS}", "runs"
        )
    ended = await call.engine.finished(call.environment_id, runs, tokens, body.get("waitMs", 0))
    return respond(
        {
            "results": [wire.result(run) for run in ended.runs],
            "tokens": [token_result(token) for token in ended.tokens],
            "pending": ended.pending,
        }
    )


async def read_journal(call: Call) -> Response:
    """What the run's code did so far; the value of an entry is JSON text."""
    size = query_number(call.request, "page[size]", 100, MAX_RESULTS, least=1)
    after = call.request.query_params.get("page[after]")
    number = -1 if after is None else query_number(call.request, "page[after]", 0, 999_999_999)
    page = await call.engine.journal(call.environment_id, call.path("run"), number, size)
    pagination = {"next": str(page.entries[-1]["seq"])} if page.more else {}
    return respond({"data": [numbered(entry) for entry in page.entries], "pagination": pagination})


async def logs(call: Call) -> Response:
    size = query_number(call.request, "page[size]", 1_000, 10_000, least=1)
    after = query_number(call.request, "page[after]", 0, 999_999_999)
    rows = await call.engine.logs(call.environment_id, call.path("run"), after, size)
    data = [{**row, "id": str(row["id"]), "at": wire.moment(row["at"])} for row in rows]
    pagination = {"next": data[-1]["id"]} if len(data) == size else {}
    return respond({"data": data, "pagination": pagination})


async def _full(call: Call, run_id: str) -> dict[str, Any]:
    found = await call.engine.details(call.environment_id, run_id)
    shape = versions.full_run if call.sdk else wire.full_run
    urls = await addresses(call, found.run) if call.sees_data else {}
    answer = shape(found.run, found.attempts, found.root, found.parent, found.children, urls=urls)
    if call.sdk and (schedule := await call.engine.schedule_of_run(call.environment_id, run_id)) is not None:
        answer["schedule"] = schedules.schedule_of_run(schedule)
    return answer if call.sees_data else {name: answer[name] for name in answer if name not in DATA}


async def things_of_run(call: Call) -> list[Thing]:
    """What a scope may name to reach a run. Raises RunNotFound."""
    run = await call.engine.run(call.environment_id, call.path("run"))
    return things_of(run)


def things_of(run: Run) -> list[Thing]:
    things: list[Thing] = [("runs", run.id), ("tasks", run.task)]
    things += [("tags", tag) for tag in json.loads(run.tags)]
    return things if run.batch_id is None else [*things, ("batch", run.batch_id)]


async def things_to_cancel(call: Call) -> list[Thing]:
    """As `things_of_run`; a run that does not exist is refused before it is not found (the wire contract, 1.4)."""
    try:
        run = await call.engine.run(call.environment_id, call.path("run"))
    except RunNotFound:
        return [("runs", call.path("run"))]
    return [("runs", run.id), ("tasks", run.task)]


async def _this_run(call: Call) -> list[Thing]:
    return [("runs", call.path("run"))]


READ_RUN = Access("read", ("runs", "tasks", "tags", "batch"), things_of_run, tokens=True)
READ_RUN_ONLY = Access("read", ("runs",), _this_run)
WRITE_RUN = Access("write", ("runs",), _this_run)

ENDPOINTS = (
    Endpoint(
        "GET",
        "/api/v3/runs/{run}",
        retrieve,
        "Read a run",
        replace(READ_RUN, public_keys=True),
        answer=answers.RUN,
        sdk_answer=answers.SDK_RUN,
    ),
    Endpoint(
        "POST",
        "/api/v2/runs/{run}/cancel",
        cancel,
        "Cancel a run and its descendants",
        Access("write", ("runs", "tasks"), things_to_cancel, tokens=True),
        answer=answers.ID,
    ),
    Endpoint(
        "POST",
        "/api/v1/runs/{run}/replay",
        replay,
        "Run the same again",
        WRITE_RUN,
        wire.REPLAY,
        answers.ID,
        body_optional=True,
    ),
    Endpoint(
        "POST",
        "/api/v1/runs/{run}/reschedule",
        reschedule,
        "Move a delayed run",
        WRITE_RUN,
        wire.RESCHEDULE,
        answers.RUN,
        answers.SDK_RUN,
    ),
    Endpoint(
        "POST",
        "/api/v1/runs/{run}/tags",
        add_tags,
        "Add tags to a run",
        WRITE_RUN,
        wire.TAGS,
        answers.MESSAGE,
    ),
    Endpoint(
        "GET",
        "/api/v1/runs/{run}/metadata",
        read_metadata,
        "Read a run's metadata",
        READ_RUN_ONLY,
        answer=answers.METADATA,
    ),
    Endpoint(
        "PUT",
        "/api/v1/runs/{run}/metadata",
        write_metadata,
        "Change a run's metadata",
        WRITE_RUN,
        wire.METADATA,
        answers.METADATA,
    ),
    Endpoint(
        "GET",
        "/api/v1/runs/{run}/result",
        result,
        "Read or await a run's result",
        READ_RUN_ONLY,
        answer=answers.RESULT,
        query=("waitMs",),
    ),
    Endpoint(
        "POST",
        "/api/v1/runs/results",
        results,
        "Await the first of several runs and tokens",
        Access("read", ("runs",)),
        wire.RESULTS,
        answers.RESULTS,
    ),
    Endpoint(
        "GET",
        "/api/v1/runs/{run}/journal",
        read_journal,
        "Read what a run has recorded",
        READ_RUN_ONLY,
        answer=answers.JOURNAL,
        query=("page[size]", "page[after]"),
    ),
    Endpoint(
        "GET",
        "/api/v1/runs/{run}/logs",
        logs,
        "Read what a run logged",
        READ_RUN_ONLY,
        answer=answers.LOGS,
        query=("page[size]", "page[after]"),
    ),
)
