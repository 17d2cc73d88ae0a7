"""Idempotency keys: giving one back (the wire contract, 4.12). Triggers take them in server/runs.py."""

from __future__ import annotations

from starlette.responses import Response

from holdfast.server.access import Access
from holdfast.server.problems import respond
from holdfast.server.routing import Call, Endpoint
from holdfast.wire import answers
from holdfast.wire import runs as wire


async def reset(call: Call) -> Response:
    body = await call.body(wire.RESET_KEY)
    key = await call.engine.reset_key(call.environment_id, body["taskIdentifier"], call.path("key"))
    return respond({"id": key})


ENDPOINTS = (
    Endpoint(
        "POST",
        "/api/v1/idempotencyKeys/{key}/reset",
        reset,
        "Give an idempotency key back",
        Access("write", ("runs",), tokens=True),
        wire.RESET_KEY,
        answers.ID,
    ),
)
