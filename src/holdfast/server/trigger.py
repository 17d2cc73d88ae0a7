"""Triggers: a run is asked for, on its own or as an item of a batch (the wire contract, 4.1)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError
from starlette.responses import Response

from holdfast.engine import NewRun, Triggered
from holdfast.errors import HoldfastError, InvalidRequest, Unprocessable
from holdfast.model import limits, superjson
from holdfast.model.duration import duration_ms
from holdfast.model.packet import JSON, STORE, SUPERJSON, TEXT, checked_name
from holdfast.server.access import Access, Thing
from holdfast.server.auth import Kind
from holdfast.server.offload import placed
from holdfast.server.problems import invalid, problem, respond
from holdfast.server.routing import Call, Endpoint
from holdfast.server.tokens import HANDLE_SECONDS
from holdfast.wire import answers
from holdfast.wire import runs as wire
from holdfast.wire.codec import decode, encode_checked

UNBUILT = ("debounce", "concurrency", "gates")  # flow control of the contract, known by name only


async def trigger(call: Call) -> Response:
    hands_out(call)
    # The contract of the SDK has a body for every trigger, and counts all of it.
    asked = call.body(wire.TRIGGER, limits.MAX_PAYLOAD) if call.sdk else call.body(wire.TRIGGER, empty={})
    body = await asked
    item = new_run(call.environment_id, call.path("task"), body, call.request.headers)
    item = item if call.credential.once is None else replace(item, once=call.credential.once)
    [ready] = await placed(call, [item])
    if isinstance(ready, HoldfastError):
        raise ready
    [answer] = await call.engine.trigger([ready])
    if isinstance(answer, HoldfastError):
        raise answer
    headers = await handed_out(call, [f"read:runs:{answer.id}", f"write:inputStreams:{answer.id}"])
    return respond(triggered(answer), headers=headers)


def batch_item(
    environment_id: str, item: Any, headers: Mapping[str, str], batch_id: str | None, request_key: str | None
) -> NewRun | dict[str, Any]:
    """An item of a batch as the engine takes it, or the refusal of this one in its place."""
    try:
        item = wire.BATCH_ITEM.validate_python(item)
        return new_run(environment_id, item["task"], item, headers, batch_id, request_key, single=False)
    except HoldfastError as error:
        return problem(error)
    except ValidationError as error:
        return invalid(error)


def new_run(
    environment_id: str,
    task: str,
    body: Mapping[str, Any],
    headers: Mapping[str, str],
    batch_id: str | None = None,
    request_key: str | None = None,
    single: bool = True,
) -> NewRun:
    """A trigger's body as the engine takes it. Raises InvalidRequest or PayloadTooLarge naming the field."""
    options: Mapping[str, Any] = body.get("options") or {}
    _refuse_unbuilt(options)
    parent_id, parent_lease = _lease(headers)
    key = options.get("concurrencyKey")
    payload, payload_type = (
        packet(body["payload"], options.get("payloadType")) if "payload" in body else (None, None)
    )
    return NewRun(
        environment_id=environment_id,
        task=task,
        payload=payload,
        payload_type=payload_type,
        queue=options["queue"]["name"] if "queue" in options else None,
        concurrency_key=None if key is None else key_text(key),
        delay=options.get("delay"),
        ttl=options.get("ttl"),
        idempotency_key=options.get("idempotencyKey", headers.get("idempotency-key") if single else None),
        idempotency_key_ttl=options.get(
            "idempotencyKeyTTL", headers.get("idempotency-key-ttl") if single else None
        ),
        idempotency_key_shown=options.get("idempotencyKeyOptions", {}).get("key"),
        machine=options.get("machine"),
        max_attempts=options.get("maxAttempts"),
        max_duration=options.get("maxDuration"),
        metadata=metadata_text(options.get("metadata")),
        tags=tag_list(options.get("tags", [])),
        is_test=options.get("test", False),
        priority=options.get("priority", 0),
        parent_id=options.get("parentRunId", parent_id),
        parent_lease=parent_lease if options.get("parentRunId", parent_id) == parent_id else None,
        version_lock=options.get("lockToVersion"),
        external_deployment=options.get("externalDeploymentId"),
        batch_id=batch_id,
        request_key=request_key_of(headers) if single else request_key,
    )


def packet(payload: Any, payload_type: str | None) -> tuple[str, str | None]:
    """A payload as the text that is kept and its type: JSON where that says all, else superjson.

    With a type of application/json or superjson, a text is JSON already; of application/store it is the name of an object,
    and is looked for later.
    """
    types = (JSON, SUPERJSON, TEXT, STORE)
    if payload_type is not None and payload_type not in types:
        raise InvalidRequest(
            f"options.payloadType is {payload_type!r}: expected one of {', '.join(types)}",
            "options.payloadType",
        )
    if payload_type == STORE:
        return checked_name(payload, "payload"), STORE
    if payload_type == TEXT and payload == "":
        return "", TEXT  # empty data: the SDK is told of no payload (the wire contract, 3.2)
    if payload_type in (JSON, SUPERJSON) and isinstance(payload, str):
        payload = decode(payload, "payload", limits.MAX_PAYLOAD)
    if payload_type != SUPERJSON:
        return encode_checked(payload, "payload", limits.MAX_PAYLOAD), None
    superjson.check(payload, "payload")
    if superjson.is_plain(payload):
        return encode_checked(payload["json"], "payload", limits.MAX_PAYLOAD), None
    return encode_checked(payload, "payload", limits.MAX_PAYLOAD), SUPERJSON


def replacement(body: Mapping[str, Any]) -> tuple[str, str | None]:
    """The payload that a replay is given: any JSON, or superjson as text (the wire contract, 4.9)."""
    if body.get("payloadType") != SUPERJSON:
        return packet(body["payload"], None)
    if not isinstance(body.get("payload"), str):
        raise InvalidRequest(
            f"payload is no text: with the type {SUPERJSON} it is superjson as text", "payload"
        )
    return packet(body["payload"], SUPERJSON)


def key_text(key: str | float) -> str:
    """A concurrency key as it is kept; numbers as JavaScript writes them."""
    return str(int(key)) if isinstance(key, float) and key.is_integer() else str(key)


def metadata_text(metadata: Any) -> str | None:
    if metadata is None:
        return None
    if isinstance(metadata, str):
        metadata = decode(metadata, "options.metadata", limits.MAX_METADATA)
    if not isinstance(metadata, dict):
        raise InvalidRequest(
            f"options.metadata is {str(metadata)[:40]!r}: expected an object", "options.metadata"
        )
    return encode_checked(metadata, "options.metadata", limits.MAX_METADATA)


def tag_list(tags: str | list[str]) -> list[str]:
    return [tags] if isinstance(tags, str) else tags


def triggered(answer: Triggered) -> dict[str, Any]:
    return {"id": answer.id, "isCached": answer.is_cached}


def hands_out(call: Call) -> bool:
    """Whether `handed_out` signs something. Raises Unprocessable where nothing can: ask before making anything."""
    if not call.sdk and call.credential.kind is not Kind.PUBLIC_TOKEN:
        return False
    call.signer.ready()
    return True


async def handed_out(call: Call, scopes: list[str]) -> dict[str, str]:
    """Headers with a public token for what was made: the SDK gives it to whoever holds the handle (4.1.2)."""
    if not hands_out(call):
        return {}
    now = await call.engine.store.read(lambda tx: tx.now)
    return {
        "x-trigger-jwt": call.signer.jwt(scopes, now, HANDLE_SECONDS),
        "x-trigger-jwt-claims": json.dumps({"sub": call.environment_id, "pub": True}),
    }


def request_key_of(headers: Mapping[str, str]) -> str | None:
    key = headers.get("x-trigger-request-idempotency-key")
    if key is not None and not 1 <= len(key) <= 256:
        raise InvalidRequest(
            f"x-trigger-request-idempotency-key has {len(key)} characters: expected 1 to 256",
            "x-trigger-request-idempotency-key",
        )
    return key


def _refuse_unbuilt(options: Mapping[str, Any]) -> None:
    """Raises for options of the contract that this release can not keep: a limit that is not held is worse than none."""
    if "debounce" in options:
        duration_ms(options["debounce"]["delay"], "options.debounce.delay")
    for name in UNBUILT:
        if options.get(name):
            raise Unprocessable(
                f"options.{name} is not supported by this server: leave it out", f"options.{name}"
            )


def _lease(headers: Mapping[str, str]) -> tuple[str | None, int | None]:
    """The attempt on whose behalf a request is made: header x-holdfast-lease, run id and lease number."""
    text = headers.get("x-holdfast-lease")
    if text is None:
        return None, None
    run_id, _, lease = text.partition(":")
    if not lease.isdecimal() or len(lease) > 15:
        raise InvalidRequest("the header x-holdfast-lease must be <run id>:<lease>", "x-holdfast-lease")
    return run_id, int(lease)


async def _this_task(call: Call) -> list[Thing]:
    return [("tasks", call.path("task"))]


ENDPOINTS = (
    Endpoint(
        "POST",
        "/api/v1/tasks/{task}/trigger",
        trigger,
        "Trigger a run",
        Access("trigger", ("tasks",), _this_task, tokens=True),
        wire.TRIGGER,
        answers.TRIGGERED,
        body_optional=True,
    ),
)
