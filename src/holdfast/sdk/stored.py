"""Payloads and outputs that are in the object store: read through the server, which everybody here can reach."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from holdfast.errors import NotFound
from holdfast.model.packet import JSON, STORE
from holdfast.sdk.policy import PATIENT_TRIES, Flow, Request, replied

SECONDS = 60.0


def content(run_id: str, field: str) -> Flow[str]:
    """The stored "payload" or "output" of a run, as JSON text. Raises NotFound where it is not, or is gone."""
    from holdfast.wire.packets import text_of

    path = f"/api/v1/runs/{quote(run_id, safe='')}/packets/{field}/content"
    reply = yield from replied(Request("GET", path, timeout=SECONDS, tries=PATIENT_TRIES))
    return text_of(reply.body, reply.headers.get("content-type", JSON), field)


def with_stored(run: dict[str, Any]) -> Flow[None]:
    """Puts a stored payload and output in the place of their addresses. What is gone stays out."""
    for field in ("payload", "output"):
        if run.pop(f"{field}PresignedUrl", None) is not None:
            try:
                run[field] = json.loads((yield from content(run["id"], field)))
            except NotFound:
                run[field] = None


def with_outputs(results: Iterable[dict[str, Any]]) -> Flow[None]:
    """Puts stored outputs of runs into their results."""
    for result in results:
        if result.get("outputType") == STORE:
            text = yield from content(result["id"], "output")
            result.update(output=text, outputType=JSON)
