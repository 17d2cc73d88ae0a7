"""Presigned addresses of payloads and outputs in the object store."""

from __future__ import annotations

from contextlib import suppress

from holdfast.errors import ObjectStoreUnavailable, Unprocessable
from holdfast.model.limits import PACKET_URL_SECONDS
from holdfast.model.packet import STORE, packet_key
from holdfast.model.run import Run
from holdfast.server.objects import Method
from holdfast.server.routing import Call

FIELDS = ("payload", "output")


async def address(call: Call, method: Method, name: str) -> str:
    """Where one object can be got or put without a key, for a while."""
    key = packet_key(call.environment_id, name)
    url = await call.objects.url(method, key, PACKET_URL_SECONDS)
    if url is not None:
        return url
    now = await call.engine.store.read(lambda tx: tx.now)
    return call.signer.object_url(method, key, now // 1_000 + PACKET_URL_SECONDS)


async def addresses(call: Call, run: Run) -> dict[str, str]:
    """Those of a run's stored payload and output, by field; without what no address can be made for now."""
    found: dict[str, str] = {}
    for field in FIELDS:
        name = stored_name(run, field)
        if name is not None:
            with suppress(ObjectStoreUnavailable, Unprocessable):
                found[field] = await address(call, "GET", name)
    return found


def stored_name(run: Run, field: str) -> str | None:
    """The name of a run's payload or output in the object store; None where it is not there."""
    text, data_type = (run.payload, run.payload_type) if field == "payload" else (run.output, run.output_type)
    return text if data_type == STORE else None
