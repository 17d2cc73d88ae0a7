"""The worker protocol; its meaning is told in wire/workers.py."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from starlette.responses import Response

from holdfast.engine import Registering
from holdfast.engine.finish import Answer
from holdfast.errors import HoldfastError, InvalidRequest
from holdfast.model import limits
from holdfast.model.duration import duration_ms
from holdfast.model.retry import DEFAULT_POLICY, RetryPolicy
from holdfast.model.run import Run
from holdfast.model.task import QueueSpec, TaskSpec, default_queue
from holdfast.server.problems import respond
from holdfast.server.routing import Call, Endpoint
from holdfast.wire import workers as wire
from holdfast.wire.codec import decode

MAX_REPORT_BYTES = 256 * 1024 * 1024  # two thousand outputs of ordinary size, or some of the largest
MAX_REGISTRATION_BYTES = 32 * 1024 * 1024


async def register(call: Call) -> Response:
    body = await call.body(wire.REGISTRATION, limit=MAX_REGISTRATION_BYTES)
    counts = Counter(task["id"] for task in body["tasks"])
    if twice := sorted(task_id for task_id, count in counts.items() if count > 1):
        raise InvalidRequest(f"tasks holds {twice[0]!r} more than once", "tasks")
    registered = await call.engine.register(
        Registering(
            call.environment_id,
            body["name"],
            body["fingerprint"],
            [_task(task) for task in body["tasks"]],
            [
                QueueSpec(queue["name"], queue.get("concurrencyLimit"), queue.get("perKeyLimit"))
                for queue in body.get("queues", [])
            ],
            call.engine.lease_ms,
            body.get("replaces"),
        )
    )
    return respond(
        {
            "workerId": registered.worker_id,
            "version": registered.version,
            "environment": call.environment_id,
            "leaseMs": call.engine.lease_ms,
        }
    )


async def claim(call: Call) -> Response:
    body = await call.body(wire.CLAIM)
    claimed = await call.engine.claim(call.path("worker"), call.environment_id, body["slots"], body["waitMs"])
    return respond(
        {
            "runs": [_claimed(run) for run in claimed.runs],
            "cancelled": [{"id": run_id, "lease": lease} for run_id, lease in claimed.cancelled],
        }
    )


async def heartbeat(call: Call) -> Response:
    body = await call.body(wire.HEARTBEAT, empty={})
    await call.engine.renew(call.path("worker"), call.environment_id, body.get("held"))
    return respond({"leaseMs": call.engine.lease_ms})


async def report(call: Call) -> Response:
    body = await call.body(wire.REPORTS, limit=MAX_REPORT_BYTES)
    refused = {
        index: reason for index, said in enumerate(body["reports"]) if (reason := _refusal(said)) is not None
    }
    taken = [said for index, said in enumerate(body["reports"]) if index not in refused]
    answers = await call.engine.report(call.path("worker"), call.environment_id, taken)
    rest = iter(answers)
    return respond(
        {
            "answers": [
                {"status": "refused", "error": refused[index]} if index in refused else _answer(next(rest))
                for index in range(len(body["reports"]))
            ]
        }
    )


async def leave(call: Call) -> Response:
    await call.engine.leave(call.path("worker"), call.environment_id)
    return respond({})


def _refusal(said: wire.Report) -> str | None:
    """Why a report can not be taken: an output that is no JSON would make its run unreadable."""
    if said["kind"] != "succeeded" or said["output"] is None:
        return None
    try:
        decode(said["output"], "output", limits.MAX_OUTPUT)
    except HoldfastError as error:
        return str(error)
    return None


def _task(task: wire.WireTask) -> TaskSpec:
    retry = task.get("retry")
    policy = DEFAULT_POLICY
    if retry is not None:
        policy = RetryPolicy(
            retry["maxAttempts"],
            retry["factor"],
            retry["minTimeoutInMs"],
            retry["maxTimeoutInMs"],
            retry["randomize"],
        )
    duration = task.get("maxDuration")
    ttl = task.get("ttl")
    schema = task.get("payloadSchema")
    return TaskSpec(
        task["id"],
        task.get("queue", default_queue(task["id"])),
        policy,
        None if duration is None else max(limits.MIN_MAX_DURATION, duration),
        None if ttl is None else max(0, duration_ms(ttl, f"tasks.{task['id']}.ttl")) or None,
        task.get("machine"),
        task.get("key"),
        _checked_schema(schema, task["id"]),
    )


def _checked_schema(schema: dict[str, Any] | None, task_id: str) -> str | None:
    """The schema as text. One that is no JSON Schema is refused here, not at every trigger."""
    if not schema:
        return None
    import jsonschema_rs

    try:
        jsonschema_rs.validator_for(schema, retriever=_fetch_nothing)
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        param = f"tasks.{task_id}.payloadSchema"
        raise InvalidRequest(f"{param} is no JSON Schema: {str(error)[:500]}", param) from None
    return json.dumps(schema)


def _fetch_nothing(uri: str) -> Any:
    # A worker must not make the server read files or other hosts.
    raise ValueError(f"{uri[:200]}: a schema must hold all that it refers to")


def _claimed(run: Run) -> wire.ClaimedRun:
    return {
        "id": run.id,
        "lease": run.lease,
        "task": run.task,
        "attempt": run.attempt,
        "maxAttempts": run.max_attempts or 1,
        "maxDuration": run.max_duration,
        "payload": run.payload,
        "tags": [] if run.tags == "[]" else json.loads(run.tags),
        "metadata": {} if run.metadata == "{}" else json.loads(run.metadata),
        "queue": run.queue,
        "concurrencyKey": run.concurrency_key,
        "isTest": run.is_test,
        "alone": run.alone,
        "createdAt": run.created_at,
        "startedAt": run.started_at or run.updated_at,
        "parentId": run.parent_id,
        "rootId": run.root_id,
    }


_OK = {"status": "ok"}


def _answer(answer: Answer) -> dict[str, Any]:
    if answer.status == "ok":
        return _OK
    names = (
        ("lease", answer.lease),
        ("attempt", answer.attempt),
        ("delayMs", answer.delay_ms),
        ("error", answer.error),
    )
    return {"status": answer.status, **{name: value for name, value in names if value is not None}}


ENDPOINTS = (
    Endpoint("POST", "/api/v1/workers", register, "Register a worker", wire.REGISTRATION),
    Endpoint("POST", "/api/v1/workers/{worker}/claim", claim, "Claim runs and learn of cancels", wire.CLAIM),
    Endpoint(
        "POST",
        "/api/v1/workers/{worker}/heartbeat",
        heartbeat,
        "Renew a worker's lease",
        wire.HEARTBEAT,
        body_optional=True,
    ),
    Endpoint("POST", "/api/v1/workers/{worker}/reports", report, "Report about claimed runs", wire.REPORTS),
    Endpoint("DELETE", "/api/v1/workers/{worker}", leave, "Give everything back and leave"),
)
