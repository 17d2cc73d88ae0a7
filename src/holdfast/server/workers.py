"""The worker protocol; its meaning is told in wire/workers.py."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import Response

from holdfast.engine import Registering
from holdfast.engine.reporting import Answer
from holdfast.errors import HoldfastError
from holdfast.model import limits
from holdfast.model.packet import STORE, python_text
from holdfast.model.run import Run
from holdfast.server.access import Access
from holdfast.server.manifests import MAX_MANIFEST_BYTES, queue_specs, task_specs
from holdfast.server.offload import placed, with_stored_output
from holdfast.server.problems import problem, respond
from holdfast.server.routing import Call, Endpoint
from holdfast.server.schemas import checked_schema
from holdfast.server.trigger import batch_item
from holdfast.server.variables import values_in_force
from holdfast.server.waits import new_token
from holdfast.wire import answers
from holdfast.wire import workers as wire
from holdfast.wire.codec import decode
from holdfast.wire.journal import entry

MAX_REPORT_BYTES = 256 * 1024 * 1024  # two thousand outputs of ordinary size, or some of the largest


async def register(call: Call) -> Response:
    body = await call.body(wire.REGISTRATION, limit=MAX_MANIFEST_BYTES)
    variables = await values_in_force(call)
    registered = await call.engine.register(
        Registering(
            call.environment_id,
            body["name"],
            body["fingerprint"],
            task_specs(body["tasks"]),
            queue_specs(body.get("queues", [])),
            call.engine.lease_ms,
            body.get("replaces"),
        )
    )
    current = {} if registered.current is None else {"current": registered.current}
    return respond(
        {
            **current,
            "workerId": registered.worker_id,
            "version": registered.version,
            "environment": call.environment_id,
            "leaseMs": call.engine.lease_ms,
            "variables": variables,
        }
    )


async def read_variables(call: Call) -> Response:
    """The environment's variables: a worker asks before it has anything to register, and whenever it starts an executor."""
    return respond({"variables": await values_in_force(call)})


async def claim(call: Call) -> Response:
    body = await call.body(wire.CLAIM)
    # A worker that was killed leaves its claim behind: what that is given would be lost for a lease.
    gone = asyncio.Event()
    watching = asyncio.create_task(_disconnected(call, gone))
    try:
        claimed = await call.engine.claim(
            call.path("worker"), call.environment_id, body["slots"], body["waitMs"], gone
        )
    finally:
        watching.cancel()
    return respond(
        {
            "runs": [_claimed(run, claimed.journals.get(run.id)) for run in claimed.runs],
            "cancelled": [{"id": run_id, "lease": lease} for run_id, lease in claimed.cancelled],
            "now": claimed.now,
        }
    )


async def _disconnected(call: Call, gone: asyncio.Event) -> None:
    while (await call.request.receive())["type"] != "http.disconnect":
        pass
    gone.set()


async def heartbeat(call: Call) -> Response:
    body = await call.body(wire.HEARTBEAT, empty={})
    await call.engine.renew(call.path("worker"), call.environment_id, body.get("held"))
    return respond({"leaseMs": call.engine.lease_ms})


async def report(call: Call) -> Response:
    body = await call.body(wire.REPORTS, limit=MAX_REPORT_BYTES)
    refused = {
        index: reason
        for index, said in enumerate(body["reports"])
        if (reason := _refusal(call, said)) is not None
    }
    taken = [
        await _as_taken(call, said) for index, said in enumerate(body["reports"]) if index not in refused
    ]
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


async def journal(call: Call) -> Response:
    body = await call.body(wire.JOURNAL)
    page = await call.engine.worker_journal(
        call.environment_id, call.path("worker"), body["run"], body["lease"], body["after"]
    )
    return respond(
        {"entries": [entry(row) for row in page.entries], "more": page.more, "operations": page.operations}
    )


async def _as_taken(call: Call, said: wire.Report) -> Mapping[str, Any]:
    """A report as the engine takes it: what it asks to be made is read here."""
    if said["kind"] == "succeeded":
        return await with_stored_output(call, said)
    if said["kind"] == "triggers":
        headers = {"x-holdfast-lease": f"{said['run']}:{said['lease']}"}
        items = [batch_item(call.environment_id, item, headers, None, None) for item in said["items"]]
        ready = await placed(call, items)
        return {
            **said,
            "items": [problem(item) if isinstance(item, HoldfastError) else item for item in ready],
        }
    if said["kind"] == "token":
        new = new_token(call.environment_id, said, said["run"])
        return {**said, "new": new, "sign": call.signer.signed}
    return said


def _refusal(call: Call, said: wire.Report) -> str | None:
    """Why a report can not be taken: a text that is no JSON would make its run unreadable."""
    try:
        if said["kind"] == "succeeded" and said["output"] is not None:
            decode(said["output"], "output", limits.MAX_OUTPUT)
        elif said["kind"] == "entries":
            for told in said["entries"]:
                if told["value"] is not None:
                    decode(told["value"], "value", limits.MAX_STEP_RESULT)
        elif said["kind"] == "token":
            call.signer.ready()  # it is answered with the token's address
            if "schema" in said:
                checked_schema(said["schema"], "schema")
    except HoldfastError as error:
        return str(error)
    return None


def _claimed(run: Run, journal: Sequence[Mapping[str, Any]] | None) -> wire.ClaimedRun:
    return {
        "id": run.id,
        "lease": run.lease,
        "task": run.task,
        "attempt": run.attempt,
        "maxAttempts": run.max_attempts or 1,
        "maxDuration": run.max_duration,
        **_payload(run),
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
        "entries": run.entries,
        "journal": None if journal is None else [entry(row) for row in journal],
        "resumes": run.resumes,
        # A new attempt begins with its claim, a suspended one began before.
        "resumed": run.resumes > 0,
        "activeMs": run.active_ms,
        "operations": run.operations,
    }


def _payload(run: Run) -> wire.ClaimedPayload:
    """What is in the object store the worker reads from there, so that no claim waits for it."""
    if run.payload_type == STORE:
        return {"payload": None, "payloadType": STORE}
    return {"payload": None if run.payload is None else python_text(run.payload, run.payload_type)}


_OK = {"status": "ok"}


def _answer(answer: Answer) -> dict[str, Any]:
    if answer.status == "ok" and answer.now is None:
        return _OK
    names = (
        ("lease", answer.lease),
        ("attempt", answer.attempt),
        ("delayMs", answer.delay_ms),
        ("error", answer.error),
        ("code", answer.code),
        ("now", answer.now),
        ("values", answer.values),
        ("value", answer.value),
    )
    return {"status": answer.status, **{name: value for name, value in names if value is not None}}


WORK = Access("work", ("workers",))
VARIABLES = answers.exactly({"variables": {"type": "object", "additionalProperties": answers.TEXT}})

ENDPOINTS = (
    Endpoint(
        "POST",
        "/api/v1/workers",
        register,
        "Register a worker",
        WORK,
        wire.REGISTRATION,
        wire.REGISTERED,
        opens_branch=True,
    ),
    Endpoint(
        "POST",
        "/api/v1/workers/variables",
        read_variables,
        "Read the environment variables of executors",
        WORK,
        answer=VARIABLES,
        opens_branch=True,
    ),
    Endpoint(
        "POST",
        "/api/v1/workers/{worker}/claim",
        claim,
        "Claim runs and learn of cancels",
        WORK,
        wire.CLAIM,
        wire.CLAIM_ANSWER,
    ),
    Endpoint(
        "POST",
        "/api/v1/workers/{worker}/heartbeat",
        heartbeat,
        "Renew a worker's lease",
        WORK,
        wire.HEARTBEAT,
        wire.LEASED,
        body_optional=True,
    ),
    Endpoint(
        "POST",
        "/api/v1/workers/{worker}/reports",
        report,
        "Report about claimed runs",
        WORK,
        wire.REPORTS,
        wire.ANSWERS,
    ),
    Endpoint(
        "POST",
        "/api/v1/workers/{worker}/journal",
        journal,
        "Read a claimed run's journal",
        WORK,
        wire.JOURNAL,
        wire.JOURNAL_PAGE,
    ),
    Endpoint(
        "DELETE",
        "/api/v1/workers/{worker}",
        leave,
        "Give everything back and leave",
        WORK,
        answer=answers.exactly({}),
    ),
)
