"""Secret keys: which environment a request acts in."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

from starlette.requests import Request

from holdfast.errors import BadSetting, NotAuthorised

PREFIXES = {"tr_dev_": "dev", "tr_stg_": "staging", "tr_prod_": "prod"}
MIN_KEY = 16
MAX_KEY = 512


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


class Keys:
    """The secret keys in force. Compared as digests in constant time, so that timing tells nothing."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        self._digests = [
            (hashlib.sha256(key.encode()).digest(), environment) for key, environment in keys.items()
        ]

    def public_token(self, request: Request) -> str | None:
        """The public token (a JWT) of a request; None when it has something else."""
        _, _, given = request.headers.get("authorization", "").partition(" ")
        return given.strip() if given.count(".") == 2 and not given.startswith(tuple(PREFIXES)) else None

    def environment(self, request: Request) -> str:
        """The environment of the request's key. Raises NotAuthorised."""
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise NotAuthorised(
                "Invalid or Missing API key: send the header Authorization: Bearer <secret key>"
            )
        digest = hashlib.sha256(key.strip().encode("utf-8", "surrogatepass")).digest()
        found = None
        for known, environment in self._digests:
            if hmac.compare_digest(known, digest):
                found = environment
        if found is None:
            raise NotAuthorised("Invalid API key")
        return found
