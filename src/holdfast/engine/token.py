"""Tokens: made by a run or a client, completed once by somebody outside, or timed out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.engine.payload import schema_error
from holdfast.engine.request import once
from holdfast.engine.trigger import clean_tags
from holdfast.engine.wait import settle
from holdfast.errors import HoldfastError, InvalidRequest, WaitpointNotFound
from holdfast.model import limits
from holdfast.model.duration import lifetime_ms, moment_ms
from holdfast.model.wait import Waitpoint
from holdfast.stores.base import Tx, batch

TIMEOUT = json.dumps(
    {"code": "TRIGGER_WAITPOINT_TIMEOUT", "message": "The token was not completed before its timeout"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewToken:
    """What a token is asked for with; times as the caller wrote them."""

    environment_id: str
    timeout: str | None = None
    tags: Sequence[str] = ()
    idempotency_key: str | None = None
    idempotency_key_ttl: str | None = None
    schema: str | None = None  # JSON Schema as text
    run_id: str | None = None  # that makes it
    request_key: str | None = None


@dataclass(frozen=True, slots=True)
class Created:
    """The token that was made or, with `is_cached`, found by its idempotency key."""

    id: str
    is_cached: bool = False


@dataclass(frozen=True, slots=True)
class Completion:
    """What somebody completes a token with: JSON text, or nothing, which counts as null."""

    environment_id: str
    id: str
    output: str | None


def create_tokens(tx: Tx, items: list[NewToken]) -> list[Created | HoldfastError]:
    """Makes a token for each item, or finds the one that holds its idempotency key, also a complete one.

    A key whose lifetime is over, or has none and its token is gone, makes a new token (engine rule R57). Refuses
    over ten tags (Unprocessable) and a timeout that can not be read. A request key that was seen before gives the
    first answer again.
    """
    if keys := sorted(token_key(item) for item in items if item.idempotency_key is not None):
        tx.do("lock_keys", keys=batch(keys))
    return [_created_once(tx, item) for item in items]


def complete(tx: Tx, items: list[Completion]) -> list[HoldfastError | None]:
    """Completes tokens, once: what comes later, or after the timeout, changes nothing and is no error.

    Raises, in the place of an item, WaitpointNotFound, or Unprocessable for what its schema refuses.
    """
    ids = sorted({item.id for item in items})
    found = {row["id"]: Waitpoint(**row) for row in tx.all("waitpoints_for_update", ids=batch(ids))}
    answers: list[HoldfastError | None] = []
    done: dict[str, bool] = {}
    for item in items:
        token = found.get(item.id)
        if token is None or token.environment_id != item.environment_id:
            answers.append(WaitpointNotFound(item.id))
            continue
        if token.is_complete or token.id in done:
            answers.append(None)
            continue
        if token.schema is not None and (
            error := schema_error(
                token.schema, None if item.output is None else json.loads(item.output), "data", "the token"
            )
        ):
            answers.append(error)
            continue
        if tx.ids("complete_waitpoint", id=token.id, output=item.output, now=tx.now):
            done[token.id] = False
            tx.wake(f"token:{token.id}")
        answers.append(None)
    settle(tx, done)
    return answers


def time_out_tokens(tx: Tx, limit: int) -> int:
    """Ends tokens whose timeout has passed; how many."""
    gone = tx.ids("time_out_waitpoints", now=tx.now, output=TIMEOUT, limit=limit)
    settle(tx, dict.fromkeys(gone, True))
    for token_id in gone:
        tx.wake(f"token:{token_id}")
    return len(gone)


def token_key(item: NewToken) -> list[str]:
    """What is locked for its idempotency key; those of runs name a task as well."""
    return [item.environment_id, item.idempotency_key or ""]


def _created_once(tx: Tx, item: NewToken) -> Created | HoldfastError:
    def make() -> dict[str, Any]:
        made = _created(tx, item)
        return {"id": made.id, "is_cached": made.is_cached}

    try:
        return Created(**once(tx, item.environment_id, "token", item.request_key, make))
    except HoldfastError as error:
        return error


def _created(tx: Tx, item: NewToken) -> Created:
    tags = clean_tags(item.tags, "tags")
    timeout_at = None if item.timeout is None else moment_ms(item.timeout, tx.now, "timeout")
    lifetime = None
    if item.idempotency_key_ttl is not None:
        lifetime = lifetime_ms(item.idempotency_key_ttl, "idempotencyKeyTTL")
    key = _checked_key(item.idempotency_key)
    if key is not None:
        row = tx.one("waitpoint_of_key", environment_id=item.environment_id, key=key)
        if row is not None:
            held = Waitpoint(**row)
            until = held.idempotency_key_expires_at
            if until is None or until > tx.now:
                return Created(held.id, is_cached=True)
            tx.do("release_waitpoint_key", id=held.id)
    token_id = tx.new_id("waitpoint")
    tx.do(
        "add_waitpoint",
        id=token_id,
        environment_id=item.environment_id,
        now=tx.now,
        timeout_at=timeout_at,
        idempotency_key=key,
        idempotency_key_expires_at=None if key is None or lifetime is None else tx.now + lifetime,
        tags=json.dumps(tags, ensure_ascii=False, indent=0),  # each in a line of its own: see list_tokens
        schema=item.schema,
        run_id=item.run_id,
    )
    if timeout_at is not None:
        tx.wake("upkeep")
    return Created(token_id)


def _checked_key(key: str | None) -> str | None:
    if key is None:
        return None
    if not key or "\x00" in key or len(key) > limits.MAX_IDEMPOTENCY_KEY:
        raise InvalidRequest(
            f"idempotencyKey must have 1 to {limits.MAX_IDEMPOTENCY_KEY} characters", "idempotencyKey"
        )
    return key
