"""The names of time zones, for whoever offers them to choose from.

They are the system's. On one without any, such as the smallest images, `pip install tzdata` brings them.
"""

from __future__ import annotations

import asyncio
from functools import cache
from zoneinfo import available_timezones

from starlette.requests import Request
from starlette.responses import Response

from holdfast.engine import Engine
from holdfast.errors import InvalidRequest
from holdfast.server.auth import Keyring
from holdfast.server.problems import respond
from holdfast.server.routing import Call, Endpoint
from holdfast.wire.answers import TEXTS, exactly

UTC = ("UTC", "Etc/UCT", "Etc/UTC", "Etc/Universal", "Etc/Zulu", "UCT", "Universal", "Zulu")
NO_ZONES = frozenset({"Factory", "localtime"})  # files beside the zones


async def list_timezones(call: Call) -> Response:
    exclude = call.request.query_params.get("excludeUtc", "false")
    if exclude not in ("true", "false"):
        raise InvalidRequest(f"excludeUtc is {exclude[:40]!r}: expected true or false", "excludeUtc")
    zones = await asyncio.to_thread(_zones)
    return respond({"timezones": [zone for zone in zones if exclude == "false" or zone not in UTC]})


@cache
def _zones() -> tuple[str, ...]:
    """UTC, then the others by name. Reading them opens each file once."""
    return ("UTC", *sorted(available_timezones() - NO_ZONES - {"UTC"}))


async def _anyones(request: Request, engine: Engine, keyring: Keyring) -> str:
    """No environment: the answer is the same for all."""
    return ""


ENDPOINTS = (
    Endpoint(
        "GET",
        "/api/v1/timezones",
        list_timezones,
        "List time zones",
        None,
        answer=exactly({"timezones": TEXTS}),
        query=("excludeUtc",),
        opened=_anyones,
    ),
)
