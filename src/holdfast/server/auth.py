"""Credentials: who asks, and in which environment (the wire contract, 1.1)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from starlette.requests import Request

from holdfast.engine import Engine, NewBranch
from holdfast.engine.once import OneTime
from holdfast.errors import BadSetting, Forbidden, HoldfastError, NotAuthorised, NotFound
from holdfast.model.environment import DEFAULT_PROJECT, Environment, checked_branch
from holdfast.model.key import ApiKey, digest, looks_like_key, seal_context
from holdfast.model.scope import Thing, covers
from holdfast.server.fresh import Fresh
from holdfast.server.tokens import MAX_TOKEN, Signer
from holdfast.server.vault import Vault

log = logging.getLogger("holdfast.server")
PREFIXES = {"tr_dev_": "dev", "tr_stg_": "staging", "tr_prod_": "prod", "tr_preview_": "preview"}
MIN_KEY = 16
MAX_KEY = 512
MAX_ID = 64  # characters; in the id of an environment
BRANCH = "x-trigger-branch"


class Kind(StrEnum):
    ROOT = "root"  # a secret key that may do all and signs public tokens
    SECRET = "secret"  # an additional secret key, perhaps limited to scopes  # noqa: S105
    PUBLIC_KEY = "public_key"  # reads runs, without payload and output
    PUBLIC_TOKEN = "public_token"  # a JWT: what its scopes say  # noqa: S105
    OPEN = "open"  # no credential: the address itself is the secret


# How what is kept of a key calls them.
KINDS = {"root": Kind.ROOT, "secret": Kind.SECRET, "public": Kind.PUBLIC_KEY}


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


@dataclass(frozen=True, slots=True)
class Known:
    """A key in force: where it acts, and as what."""

    environment: Environment
    kind: Kind
    scopes: tuple[str, ...] | None

    def may(self, action: str, things: Sequence[Thing]) -> bool:
        secret = self.kind in (Kind.ROOT, Kind.SECRET)
        return secret and (self.scopes is None or covers(self.scopes, action, things))


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
        f"HOLDFAST_SECRET_KEY holds a key that begins with {key[:3]!r}…: expected one of {', '.join(PREFIXES)}"
    )


class Keyring:
    """The keys in force: those of the setting, and those in the database, which are known by their digests.

    keys  the environment of each key of the setting HOLDFAST_SECRET_KEY; they are root keys of the default project
    """

    def __init__(self, engine: Engine, keys: Mapping[str, str], public_url: str, vault: Vault) -> None:
        self._engine = engine
        self._vault = vault
        self._public_url = public_url
        self._given = dict(keys)
        self._given_digests = {digest(key): environment for key, environment in keys.items()}
        self._opened: dict[str, str] = {}  # by their digests: root keys that were sealed

        def changes() -> int:
            return engine.key_changes

        self._keys: Fresh[str, Known] = Fresh(self._load_key, changes)
        self._signers: Fresh[str, Signer] = Fresh(self._load_signer, changes)
        self._branches: Fresh[tuple[str, str], Environment] = Fresh(lambda at: engine.branch(*at), changes)

    async def credential(
        self, request: Request, opens_branch: tuple[str, Sequence[Thing]] | None = None
    ) -> Credential:
        """Who asks. Raises NotAuthorised, and for a branch that is none NotFound or Forbidden.

        opens_branch  an action and its things: whoever may do that opens a branch that nobody has heard of
        """
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        key = key.strip()
        if scheme.lower() != "bearer" or not key:
            raise NotAuthorised(
                "Invalid or Missing API key: send the header Authorization: Bearer <secret key>"
            )
        if key.count(".") == 2 and not looks_like_key(key):
            return await self._of_token(key)
        known = await self._keys.get(digest(key)) if looks_like_key(key) else None
        if known is None:
            raise NotAuthorised("Invalid API key")
        environment = known.environment
        if environment.type == "preview" and (branch := request.headers.get(BRANCH)):
            environment = await self._branch(known, branch, opens_branch)
        return Credential(environment.id, known.kind, known.scopes)

    async def signer(self, environment_id: str) -> Signer | None:
        """What signs and verifies for an environment; None where it does not exist, or nobody acts in it any more."""
        return await self._signers.get(environment_id)

    async def _branch(
        self, known: Known, name: str, opens: tuple[str, Sequence[Thing]] | None
    ) -> Environment:
        project_id = known.environment.project.id
        checked_branch(name)
        found = await self._branches.get((project_id, name))
        if found is None and opens is not None and known.may(*opens):
            found = await self._engine.create_branch(NewBranch(project_id, name, revive=False))
        if found is None:
            raise NotFound(
                f"{BRANCH} is {name!r}: no such branch. A worker or a deploy of it makes it, or "
                f"`holdfast environments create --branch`"
            )
        if found.archived_at is not None:
            raise Forbidden(
                f"{BRANCH} is {name!r}: the branch is archived. `holdfast environments create --branch` brings it back"
            )
        return found

    async def _of_token(self, token: str) -> Credential:
        environment_id = named_environment(token)
        signer = None if environment_id is None else await self.signer(environment_id)
        now = await self._engine.store.read(lambda tx: tx.now)
        claims = None if signer is None else signer.verified(token, now)
        if environment_id is None or claims is None:
            raise NotAuthorised("Public Access Token is invalid")
        once = None
        if claims.get("otu") is True:
            own = hashlib.sha256(token.encode()).hexdigest()
            once = OneTime(own, round(claims["exp"] * 1_000))
        scopes = tuple(scope for scope in claims.get("scopes", []) if isinstance(scope, str))
        return Credential(environment_id, Kind.PUBLIC_TOKEN, scopes, once)

    async def _load_key(self, key_digest: str) -> Known | None:
        given = self._given_digests.get(key_digest)
        if given is not None:
            environment = await self._engine.environment(given)
            return None if environment is None else Known(environment, Kind.ROOT, None)
        found = await self._engine.key_of(key_digest)
        if found is None:
            return None
        key, environment = found
        return Known(environment, KINDS[key.kind], key.scope_list)

    async def _load_signer(self, environment_id: str) -> Signer | None:
        found = await self._engine.signing(environment_id)
        if found is None or found.environment.archived_at is not None:
            return None
        own = found.environment
        # The keys of the setting belong to environments that are named after their types, and to branches of these.
        keys = [
            key for key, given in self._given.items() if given == own.id or self._is_branch_of(own, given)
        ]
        opened = [self._open(key) for key in found.keys]
        keys += [key for key in opened if key is not None]
        return Signer(environment_id, keys, self._public_url, lacking=_lacking(own, found.keys))

    def _is_branch_of(self, own: Environment, given: str) -> bool:
        return own.branch is not None and own.project.id == DEFAULT_PROJECT and own.type == given

    def _open(self, key: ApiKey) -> str | None:
        """A root key; None where this server can not open it, which is told in the log once."""
        if key.sealed is None:
            return None
        if key.digest not in self._opened:
            try:
                self._opened[key.digest] = self._vault.open(
                    key.sealed, seal_context(key.environment_id, key.digest)
                )
            except HoldfastError as error:
                log.warning("root key %s signs and verifies nothing here: %s", key.shown, error)
                return None
        return self._opened[key.digest]


def named_environment(token: str) -> str | None:
    """The environment that a public token says it is of. Nothing of it is trusted yet."""
    if len(token) > MAX_TOKEN:
        return None
    try:
        part = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return None
    environment_id = claims.get("sub") if isinstance(claims, dict) and claims.get("pub") is True else None
    return environment_id if isinstance(environment_id, str) and len(environment_id) <= MAX_ID else None


def _lacking(environment: Environment, sealed: Sequence[ApiKey]) -> str:
    """Why nothing can be signed, should it come to that."""
    if sealed:
        return (
            f"environment {environment.name} has root keys, which sign public tokens, but this server can not open "
            "them: set HOLDFAST_MASTER_KEY to what it was when they were made"
        )
    return (
        f"environment {environment.name} has no root key, which signs public tokens: make one by "
        f"`holdfast keys create --environment {environment.type} --root`"
    )
