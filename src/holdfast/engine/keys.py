"""API keys: make, replace, revoke and find them. What a key itself is stays with whoever made it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.engine.projects import environment, environments
from holdfast.errors import HoldfastError, InvalidRequest, NotFound, Unprocessable
from holdfast.model.environment import Environment, checked_name
from holdfast.model.key import ApiKey, KeyKind
from holdfast.model.scope import checked_scopes
from holdfast.stores.base import Tx

MAX_GRACE_MS = 30 * 86_400_000


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was made. `sealed` is set for a root key and no other; `scopes` None stands for everything."""

    environment_id: str
    kind: KeyKind
    name: str
    digest: str
    shown: str
    sealed: str | None = None
    scopes: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class Replacement:
    """A key in the place of another one, which stays valid for so long."""

    id: str
    new: NewKey
    grace_ms: int


@dataclass(frozen=True, slots=True)
class Signing:
    """An environment and the root keys that are valid in it: the first signs, each verifies."""

    environment: Environment
    keys: Sequence[ApiKey]


def create_keys(tx: Tx, items: list[NewKey]) -> list[ApiKey | HoldfastError]:
    """Keeps keys. Refuses, in the place of an item, what is no environment, or one that has the keys of another."""
    answers: list[ApiKey | HoldfastError] = []
    for item in items:
        try:
            answers.append(_add(tx, _checked(tx, item)))
        except HoldfastError as error:
            answers.append(error)
    tx.wake("keys")
    return answers


def replace_keys(tx: Tx, items: list[Replacement]) -> list[ApiKey | HoldfastError]:
    """Keeps keys in the place of others. Of two replacements of one key at once the second is refused."""
    answers: list[ApiKey | HoldfastError] = []
    for item in items:
        try:
            if not 0 <= item.grace_ms <= MAX_GRACE_MS:
                raise InvalidRequest(
                    f"grace is over {MAX_GRACE_MS // 86_400_000} days: take a shorter one", "grace"
                )
            key = _checked(tx, item.new)
            if not tx.ids("expire_key", id=item.id, until=tx.now + item.grace_ms):
                raise Unprocessable(f"key {item.id} is not in force any more: it was revoked or replaced")
            answers.append(_add(tx, key))
        except HoldfastError as error:
            answers.append(error)
    tx.wake("keys")
    return answers


def revoke_keys(tx: Tx, items: list[str]) -> list[ApiKey | HoldfastError]:
    """Revokes keys, by id; doing it again changes nothing. What was sealed of a root key is forgotten."""
    answers: list[ApiKey | HoldfastError] = []
    for id in items:
        tx.do("revoke_key", id=id, now=tx.now)
        row = tx.one("api_key", id=id)
        answers.append(NotFound(f"key {id!r} does not exist") if row is None else ApiKey(**row))
    tx.wake("keys")
    return answers


def all_keys(tx: Tx) -> list[tuple[ApiKey, Environment]]:
    """Every key with its environment; by environment, the oldest first."""
    known = {one.id: (place, one) for place, one in enumerate(environments(tx))}
    keys = [ApiKey(**row) for row in tx.all("api_keys")]
    keys.sort(key=lambda key: (known[key.environment_id][0], key.id))
    return [(key, known[key.environment_id][1]) for key in keys]


def key_of(tx: Tx, digest: str) -> tuple[ApiKey, Environment] | None:
    """The valid key that has this digest, and where it acts."""
    row = tx.one("key_of_digest", digest=digest)
    if row is None:
        return None
    key = ApiKey(**row)
    found = environment(tx, key.environment_id)
    return None if found is None or not key.is_valid(tx.now) else (key, found)


def signing(tx: Tx, environment_id: str) -> Signing | None:
    """What signs for an environment; for a branch the keys of the environment that it belongs to."""
    found = environment(tx, environment_id)
    if found is None:
        return None
    rows = tx.all("root_keys", project_id=found.project.id, type=found.type)
    keys = [key for key in (ApiKey(**row) for row in rows) if key.is_valid(tx.now)]
    # The newest first, and those that are being replaced behind it.
    keys.sort(key=lambda key: (key.expires_at is None, key.id), reverse=True)
    return Signing(found, keys)


def _checked(tx: Tx, item: NewKey) -> ApiKey:
    """What is to be kept of it. Raises for what can not be, before anything is written."""
    found = environment(tx, item.environment_id)
    if found is None:
        raise NotFound(f"environment {item.environment_id!r} does not exist")
    if found.branch is not None:
        raise Unprocessable(f"{found.name} takes the keys of {found.type}, with the header x-trigger-branch")
    scopes = None if item.scopes is None else json.dumps(checked_scopes(item.scopes))
    if scopes is not None and item.kind is not KeyKind.SECRET:
        raise InvalidRequest(f"a {item.kind} key has no scopes: make an additional secret key", "scopes")
    return ApiKey(
        tx.new_id("key"),
        item.environment_id,
        item.kind,
        checked_name(item.name, "name"),
        item.digest,
        item.shown,
        item.sealed,
        scopes,
        tx.now,
        None,
        None,
    )


def _add(tx: Tx, key: ApiKey) -> ApiKey:
    tx.do(
        "add_key",
        id=key.id,
        environment_id=key.environment_id,
        kind=key.kind,
        name=key.name,
        digest=key.digest,
        shown=key.shown,
        sealed=key.sealed,
        scopes=key.scopes,
        now=tx.now,
    )
    return key
