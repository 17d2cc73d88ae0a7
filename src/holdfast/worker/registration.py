"""Joining: the one call that is repeated until the server is there."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from pydantic_core import from_json, to_json

from holdfast.errors import HoldfastError, InvalidRequest, NotAuthorised, ServerUnreachable
from holdfast.worker.api import Api
from holdfast.worker.limits import lease_clock
from holdfast.worker.membership import CALL_SECONDS, Membership, MembershipOwner


async def register(api: Api, registration: dict[str, Any], owner: MembershipOwner) -> Membership:
    """Join, however long the server takes to come up.

    Raises NotAuthorised or InvalidRequest when it answers and refuses.
    """
    body = to_json(registration)
    failures = 0
    while True:
        sent_at = lease_clock()
        try:
            status, data = await api.post("/api/v1/workers", body, CALL_SECONDS)
        except ServerUnreachable:
            status, data = 0, b""
        if status == 200:
            return Membership(api, from_json(data), owner, sent_at)
        if 400 <= status < 500 and status not in (408, 425, 429):
            raise refusal(status, data)
        failures += 1
        await pause(failures)


async def pause(failures: int) -> None:
    """Before asking again."""
    await asyncio.sleep(random.uniform(0.5, 1.0) * min(2.0, 0.1 * 2 ** min(failures, 6)))


def refusal(status: int, data: bytes) -> HoldfastError:
    try:
        text = str(from_json(data)["error"])
    except (ValueError, KeyError, TypeError):
        text = data[:200].decode("utf-8", "replace")
    if status in (401, 403):
        return NotAuthorised(text)
    return InvalidRequest(f"the server refused to register this worker ({status}): {text}")
