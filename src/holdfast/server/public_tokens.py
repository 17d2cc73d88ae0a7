"""Public tokens: what the SDK needs to sign them itself, and those that the server signs (the wire contract, 5.1)."""

from __future__ import annotations

import re
from typing import Any

from starlette.responses import Response

from holdfast.errors import HoldfastError, InvalidRequest, ScopesExceedKeyAccess
from holdfast.model.duration import duration_ms, moment_ms
from holdfast.model.scope import checked_scopes, exceeding
from holdfast.server.access import Access
from holdfast.server.problems import respond
from holdfast.server.routing import Call, Endpoint
from holdfast.server.tokens import MAX_LIFETIME_SECONDS
from holdfast.wire import credentials as wire
from holdfast.wire.answers import TEXT, exactly

DEFAULT_SECONDS = 900
# The words that the SDK's own signer takes beside ours, such as "2 hours".
SPAN = re.compile(
    r"\+? ?([0-9]{1,9}(?:\.[0-9]{1,9})?) ?"
    r"(s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?|w|weeks?)(?: from now)?",
    re.IGNORECASE,
)
SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


async def jwt_claims(call: Call) -> Response:
    """What the SDK puts into the tokens that it signs with a root key."""
    return respond({"sub": call.environment_id, "pub": True})


async def create_public_token(call: Call) -> Response:
    body = await call.body(wire.PUBLIC_TOKEN)
    scopes = checked_scopes(body["scopes"])
    if too_much := exceeding(scopes, call.credential.scopes):
        raise ScopesExceedKeyAccess(
            f"scopes holds {too_much[0][:80]!r}, which the key in use does not grant: ask for what it may do itself, "
            "or use another key"
        )
    now = await call.engine.store.read(lambda tx: tx.now)
    seconds = lifetime(body.get("expirationTime"), now)
    more: dict[str, Any] = {"otu": True} if body.get("oneTimeUse") else {}
    if "realtime" in body:
        more["realtime"] = body["realtime"]
    return respond({"token": call.signer.jwt(scopes, now, seconds, **more)})


def lifetime(asked: str | float | None, now_ms: int) -> int:
    """Seconds that a token is to live. Raises InvalidRequest for none, and for over thirty days."""
    if asked is None:
        return DEFAULT_SECONDS
    seconds = asked - now_ms / 1_000 if isinstance(asked, int | float) else _span(asked, now_ms)
    if not 0 < seconds <= MAX_LIFETIME_SECONDS:
        raise InvalidRequest(
            f"expirationTime is {asked!r}, {seconds:.0f} seconds from now: a token lives up to "
            f"{MAX_LIFETIME_SECONDS // 86_400} days",
            "expirationTime",
        )
    return max(1, int(seconds))


def _span(text: str, now_ms: int) -> float:
    if match := SPAN.fullmatch(text.strip()):
        return float(match[1]) * SECONDS[match[2][0].lower()]
    try:
        return duration_ms(text, "expirationTime") / 1_000
    except HoldfastError:
        return (moment_ms(text, now_ms, "expirationTime") - now_ms) / 1_000


CLAIMS = exactly({"sub": TEXT, "pub": {"const": True}})
TOKEN = exactly({"token": TEXT})
# Whoever has a key may give away what it may do; how much that is, is asked inside.
ANY_KEY = Access("write", ())
ENDPOINTS = (
    Endpoint(
        "POST",
        "/api/v1/auth/jwt/claims",
        jwt_claims,
        "Read the claims of public tokens that the caller signs",
        ANY_KEY,
        answer=CLAIMS,
    ),
    Endpoint(
        "POST",
        "/api/v1/auth/public-tokens",
        create_public_token,
        "Make a public token",
        ANY_KEY,
        wire.PUBLIC_TOKEN,
        TOKEN,
    ),
)
