"""Credentials: who asks, and in which environment (the wire contract, 1.1)."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from starlette.requests import Request

from holdfast.engine import Engine
from holdfast.engine.once import OneTime
from holdfast.errors import BadSetting, NotAuthorised
from holdfast.server.tokens import Signer, verified

PREFIXES = {"tr_dev_": "dev", "tr_stg_": "staging", "tr_prod_": "prod"}
MIN_KEY = 16
MAX_KEY = 512


class Kind(StrEnum):
    ROOT = "root"  # a secret key that may do all and signs public tokens
    SECRET = "secret"  # an additional secret key, perhaps limited to scopes  # noqa: S105
    PUBLIC_KEY = "public_key"  # reads runs, without payload and output
    PUBLIC_TOKEN = "public_token"  # a JWT: what its scopes say  # noqa: S105
    OPEN = "open"  # no credential: the address itself is the secret


@dataclass(frozen=True, slots=True)
class Credential:
    """Who asks.

    scopes  what it is limited to; None for everything in its environment
    once    set for a public token that may be used a single time: whatever it makes must use it up
    """

    environment_id: str
    kind: Kind
    scopes: tuple[str, ...] | None = None
    once: OneTime | None = None


def environment_of_key(key: str) -> str:
    """The environment that a key's prefix names. Raises BadSetting without telling the key."""
    for prefix, environment in PREFIXES.items():
        if key.startswith(prefix):
            if not MIN_KEY <= len(key) <= MAX_KEY or not key.isascii() or not key.isprintable() or " " in key:
                raise BadSetting(
                    f"HOLDFAST_SECRET_KEY holds a key {prefix}… of {len(key)} characters: a key is "
                    f"{MIN_KEY} to {MAX_KEY} printable ASCII characters without spaces"
                )
            return environment
    raise BadSetting(
        f"HOLDFAST_SECRET_KEY holds a key that begins with {key[:3]!r}…: expected tr_dev_…, tr_stg_… or tr_prod_…"
    )


class Keyring:
    """The keys in force. Compared as digests in constant time, so that timing tells nothing."""

    def __init__(self, engine: Engine, keys: Mapping[str, str], public_url: str) -> None:
        self._engine = engine
        self._digests = [
            (hashlib.sha256(key.encode()).digest(), environment) for key, environment in keys.items()
        ]
        self._signers = {
            environment: Signer(environment, keys, public_url) for environment in set(keys.values())
        }

    async def credential(self, request: Request) -> Credential:
        """Who asks. Raises NotAuthorised."""
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        key = key.strip()
        if scheme.lower() != "bearer" or not key:
            raise NotAuthorised(
                "Invalid or Missing API key: send the header Authorization: Bearer <secret key>"
            )
        if key.count(".") == 2 and not key.startswith(tuple(PREFIXES)):
            return await self._of_token(key)
        digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
        found = None
        for known, environment in self._digests:
            if hmac.compare_digest(known, digest):
                found = environment
        if found is None:
            raise NotAuthorised("Invalid API key")
        return Credential(found, Kind.ROOT)

    def signers(self) -> Mapping[str, Signer]:
        """The signer of each environment that has a root key."""
        return self._signers

    def signer(self, environment_id: str) -> Signer:
        return self._signers[environment_id]

    async def _of_token(self, token: str) -> Credential:
        now = await self._engine.store.read(lambda tx: tx.now)
        environment_id, claims = verified(token, self._signers, now)
        once = None
        if claims.get("otu") is True:
            digest = hashlib.sha256(token.encode()).hexdigest()
            once = OneTime(digest, round(claims["exp"] * 1_000))
        scopes = tuple(scope for scope in claims["scopes"] if isinstance(scope, str))
        return Credential(environment_id, Kind.PUBLIC_TOKEN, scopes, once)
