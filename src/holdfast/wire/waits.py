"""Tokens on the wire: the bodies of their routes, and how one is answered (the wire contract, 7.4)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, NotRequired

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from holdfast.model.limits import MAX_IDEMPOTENCY_KEY
from holdfast.model.wait import Waitpoint
from holdfast.wire.runs import Delay, Text, moment


class CreateTokenBody(TypedDict, total=False):
    timeout: Delay
    tags: Text | list[str]
    idempotencyKey: Annotated[str, Field(max_length=MAX_IDEMPOTENCY_KEY)]
    idempotencyKeyTTL: Text
    schema: dict[str, Any]  # JSON Schema that what completes it must fit


class CompleteTokenBody(TypedDict):
    data: NotRequired[Any]


CREATE_TOKEN: TypeAdapter[CreateTokenBody] = TypeAdapter(CreateTokenBody)
COMPLETE_TOKEN: TypeAdapter[CompleteTokenBody] = TypeAdapter(CompleteTokenBody)


def token_item(token: Waitpoint, url: str) -> dict[str, Any]:
    """A token in a list. What it does not have is left out."""
    told: dict[str, Any] = {
        "id": token.id,
        "url": url,
        "status": token.status,
        "tags": json.loads(token.tags),
        "createdAt": moment(token.created_at),
    }
    for name, value in (
        ("completedAt", moment(token.completed_at)),
        ("timeoutAt", moment(token.timeout_at)),
        ("idempotencyKey", token.idempotency_key),
        ("idempotencyKeyExpiresAt", moment(token.idempotency_key_expires_at)),
    ):
        if value is not None:
            told[name] = value
    return told


def token_result(token: Waitpoint) -> dict[str, Any]:
    """How a token has ended: `output` is JSON text."""
    told: dict[str, Any] = {"id": token.id, "status": token.status}
    if token.is_complete:
        told |= {
            "output": token.output if token.output is not None else "null",
            "outputType": "application/json",
            "outputIsError": bool(token.output_is_error),
        }
    return told


def full_token(token: Waitpoint, url: str) -> Mapping[str, Any]:
    """A token with its output, which one that was completed with nothing has not."""
    result = token_result(token)
    if token.output is None:
        result.pop("output", None)
    return {**token_item(token, url), **result}
