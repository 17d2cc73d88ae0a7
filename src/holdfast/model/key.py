"""API keys: what they look like, and what is kept of them.

tr_prod_…     a root key: may do all in its environment, and signs public tokens
tr_prod_sk_…  an additional secret key, perhaps limited to scopes
pk_prod_…     a public key: reads runs, without payload and output
"""

from __future__ import annotations

import hashlib
import json
import secrets
import string
from dataclasses import dataclass
from enum import StrEnum

from holdfast.model.environment import SLUGS

LETTERS = string.ascii_letters + string.digits
RANDOM = 24  # characters: 142 bits
ROOT_RANDOM = 32  # it signs, too
MAX_KEY = 512
SHOWN = 4  # last characters that lists show


class KeyKind(StrEnum):
    ROOT = "root"
    SECRET = "secret"  # noqa: S105
    PUBLIC = "public"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is kept: never itself, and only a root key can be opened again.

    digest  SHA-256 of the key
    shown   its prefix and last characters, by which people know it
    sealed  a root key under the master key
    scopes  JSON of what it is limited to; None for everything in its environment
    """

    id: str
    environment_id: str
    kind: str
    name: str
    digest: str
    shown: str
    sealed: str | None
    scopes: str | None
    created_at: int
    expires_at: int | None
    revoked_at: int | None

    @property
    def scope_list(self) -> tuple[str, ...] | None:
        return None if self.scopes is None else tuple(json.loads(self.scopes))

    def is_valid(self, now: int) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def state(self, now: int) -> str:
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is None:
            return "valid"
        return "replaced" if now < self.expires_at else "expired"


def prefix(kind: KeyKind, type: str) -> str:
    """How a key of an environment's type begins."""
    slug = SLUGS[type]
    return {KeyKind.ROOT: f"tr_{slug}_", KeyKind.SECRET: f"tr_{slug}_sk_", KeyKind.PUBLIC: f"pk_{slug}_"}[
        kind
    ]


PREFIXES = tuple(prefix(kind, type) for kind in KeyKind for type in SLUGS)


def new_key(kind: KeyKind, type: str) -> str:
    """A key that nobody has."""
    length = ROOT_RANDOM if kind is KeyKind.ROOT else RANDOM
    return prefix(kind, type) + "".join(secrets.choice(LETTERS) for _ in range(length))


def looks_like_key(text: str) -> bool:
    return len(text) <= MAX_KEY and text.isascii() and text.startswith(PREFIXES)


def digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def shown(key: str) -> str:
    """Enough of a key to know it again, such as "tr_prod_sk_…Wx7q"."""
    start = max((each for each in PREFIXES if key.startswith(each)), key=len, default="")
    return f"{start}…{key[-SHOWN:]}"


def seal_context(environment_id: str, key_digest: str) -> str:
    """Where a root key is sealed: it opens in its own row only."""
    return f"key:{environment_id}:{key_digest}"
