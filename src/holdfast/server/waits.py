"""Waitpoint tokens: create, list, read, complete by key, public token or URL (the wire contract, 7.4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import Response

from holdfast.engine import Completion, Engine, NewToken, TokenFilters
from holdfast.errors import InvalidRequest, LengthRequired, NotAuthorised
from holdfast.model import limits
from holdfast.server.access import Access, Thing
from holdfast.server.auth import Keyring
from holdfast.server.listing import answer_page, created_between, cursors, list_values, one_value
from holdfast.server.problems import respond
from holdfast.server.routing import MAX_BODY, Call, Endpoint, query_number, read_body
from holdfast.server.schemas import checked_schema
from holdfast.server.tokens import PATH
from holdfast.server.trigger import request_key_of, tag_list
from holdfast.wire import waits as wire
from holdfast.wire.answers import DONE, FLAG, MOMENT, TEXT, TEXTS, Schema, exactly, page_of
from holdfast.wire.codec import decode, encode_checked

STATUSES = ("WAITING", "COMPLETED", "TIMED_OUT")
FILTERS = (
    "filter[status]",
    "filter[idempotencyKey]",
    "filter[tags]",
    "filter[createdAt][from]",
    "filter[createdAt][to]",
    "filter[createdAt][period]",
)
MAX_TOKEN_BODY = limits.MAX_TOKEN_DATA + 1_024  # and what stands around the data


async def create(call: Call) -> Response:
    # The SDK sends no schema, which is what makes a body large.
    limit = limits.MAX_TOKEN_REQUEST if call.sdk else MAX_BODY
    body = await call.body(wire.CREATE_TOKEN, limit, empty={})
    call.signer.ready()
    item = replace(
        new_token(call.environment_id, body, None), request_key=request_key_of(call.request.headers)
    )
    made = await call.engine.create_token(item)
    now = await call.engine.store.read(lambda tx: tx.now)
    signed = call.signer.signed(made.id, now)
    claims = call.signer.claims([f"write:waitpoints:{made.id}"])
    headers = {
        "x-trigger-jwt": signed["publicAccessToken"],
        "x-trigger-jwt-claims": encode_checked(claims, "claims", limits.MAX_TOKEN_DATA),
    }
    return respond({"id": made.id, "isCached": made.is_cached, **signed}, headers=headers)


def new_token(environment_id: str, body: Mapping[str, Any], run_id: str | None) -> NewToken:
    """A token that is asked for, as the engine takes it. Raises InvalidRequest naming the field."""
    return NewToken(
        environment_id=environment_id,
        timeout=body.get("timeout"),
        tags=tag_list(body.get("tags", [])),
        idempotency_key=body.get("idempotencyKey"),
        idempotency_key_ttl=body.get("idempotencyKeyTTL"),
        schema=checked_schema(body.get("schema"), "schema"),
        run_id=run_id,
    )


async def list_tokens(call: Call) -> Response:
    query = call.request.query_params
    for name in query:
        if name.startswith("filter[") and name not in FILTERS:
            raise InvalidRequest(f"{name[:80]} is not a filter: known are {', '.join(FILTERS)}", name[:80])
    size = query_number(call.request, "page[size]", limits.DEFAULT_PAGE, limits.MAX_PAGE, least=1)
    at = cursors(call)
    statuses = list_values(query, "status")
    if unknown := [status for status in statuses if status not in STATUSES]:
        raise InvalidRequest(
            f"filter[status] holds {unknown[0][:40]!r}: expected one of {', '.join(STATUSES)}",
            "filter[status]",
        )
    now = await call.engine.store.read(lambda tx: tx.now)
    since, until = created_between(query, now)
    filters = TokenFilters(
        statuses, list_values(query, "tags"), one_value(query, "filter[idempotencyKey]"), since, until
    )
    page = await call.engine.tokens_page(call.environment_id, filters, size, at.after, at.before)
    data = [wire.token_item(token, call.signer.url(token.id)) for token in page.tokens]
    return answer_page(data, page.next, page.previous, at.turn)


async def read_token(call: Call) -> Response:
    token = await call.engine.token(call.environment_id, call.path("token"))
    return respond(wire.full_token(token, call.signer.url(token.id)))


async def complete(call: Call) -> Response:
    """Completing again, or after the timeout, changes nothing and succeeds."""
    body = await call.body(wire.COMPLETE_TOKEN, limit=MAX_TOKEN_BODY, empty={})
    output = encode_checked(body["data"], "data", limits.MAX_TOKEN_DATA) if "data" in body else None
    await call.engine.complete_token(Completion(call.environment_id, call.path("token"), output))
    return respond({"success": True})


async def callback(call: Call) -> Response:
    """Whoever has the URL completes the token, with any JSON; what is none counts as {}."""
    if "content-length" not in call.request.headers:
        raise LengthRequired("Content-Length is missing: say how many bytes the body has")
    raw = await read_body(call.request, MAX_TOKEN_BODY, call.body_seconds)
    try:
        data = decode(raw, "body", limits.MAX_TOKEN_DATA)
    except InvalidRequest:
        data = {}
    output = encode_checked(data, "body", limits.MAX_TOKEN_DATA)
    await call.engine.complete_token(Completion(call.environment_id, call.path("token"), output))
    return respond({"success": True})


async def _this_waitpoint(call: Call) -> list[Thing]:
    return [("waitpoints", call.path("token"))]


async def environment_of_url(request: Request, engine: Engine, keyring: Keyring) -> str:
    """The environment of a callback URL. Raises NotAuthorised for one that was not made here."""
    token_id, given = (unquote(request.path_params[name]) for name in ("token", "hash"))
    environment_id = await engine.environment_of_token(token_id)
    signer = None if environment_id is None else await keyring.signer(environment_id)
    if environment_id is None or signer is None or not signer.is_callback(token_id, given):
        raise NotAuthorised("Invalid URL: it is not that of a token of this server")
    return environment_id


CREATED = exactly({"id": TEXT, "isCached": FLAG, "url": TEXT, "publicAccessToken": TEXT})
_ITEM: dict[str, Schema] = {
    "id": TEXT,
    "url": TEXT,
    "status": {"enum": list(STATUSES)},
    "tags": TEXTS,
    "createdAt": MOMENT,
}
_OPTIONAL: dict[str, Schema] = {
    "completedAt": MOMENT,
    "timeoutAt": MOMENT,
    "idempotencyKey": TEXT,
    "idempotencyKeyExpiresAt": MOMENT,
}
TOKENS = page_of(exactly(_ITEM, **_OPTIONAL))
TOKEN = exactly(_ITEM, **_OPTIONAL, output=TEXT, outputType=TEXT, outputIsError=FLAG)
ENDPOINTS = (
    Endpoint(
        "POST",
        PATH,
        create,
        "Create a token",
        Access("write", ("waitpoints",)),
        wire.CREATE_TOKEN,
        CREATED,
        body_optional=True,
    ),
    Endpoint(
        "GET",
        PATH,
        list_tokens,
        "List tokens, newest first",
        Access("read", ("waitpoints",)),
        answer=TOKENS,
        query=(*FILTERS, "page[size]", "page[after]", "page[before]"),
    ),
    Endpoint(
        "GET",
        f"{PATH}/{{token}}",
        read_token,
        "Read a token",
        Access("read", ("waitpoints",), _this_waitpoint),
        answer=TOKEN,
    ),
    Endpoint(
        "POST",
        f"{PATH}/{{token}}/complete",
        complete,
        "Complete a token",
        Access("write", ("waitpoints",), _this_waitpoint, tokens=True),
        wire.COMPLETE_TOKEN,
        DONE,
        body_optional=True,
    ),
    Endpoint(
        "POST",
        f"{PATH}/{{token}}/callback/{{hash}}",
        callback,
        "Complete a token by its URL",
        None,
        answer=DONE,
        opened=environment_of_url,
    ),
)
