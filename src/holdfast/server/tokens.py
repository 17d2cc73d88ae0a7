"""Public tokens (JWT) and the URLs that complete waitpoints: signing and verifying (the wire contract, 5.2)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Sequence
from functools import cache
from typing import Any

from holdfast.errors import Unprocessable

ISSUER = "https://id.trigger.dev"
AUDIENCE = "https://api.trigger.dev"
HANDLE_SECONDS = 3_600  # of what a trigger or batch hands out
WAITPOINT_SECONDS = 86_400
MAX_LIFETIME_SECONDS = 30 * 86_400  # of what the server signs; who has a root key may sign what lives longer
LATEST = 253_402_300_800  # epoch seconds; the end of the year 9999
ALGORITHM = "HS256"  # the only one; what a token's header asks for is not looked at
PATH = "/api/v1/waitpoints/tokens"
OBJECTS = "/api/v1/objects"
MAX_TOKEN = 8_192  # characters


class Signer:
    """Signs and verifies for one environment, with its root keys: the first signs, each verifies.

    public_url  how the world outside reaches this server
    lacking     what to say where there is no key and something must be signed
    """

    def __init__(
        self, environment_id: str, keys: Sequence[str], public_url: str, lacking: str = "there is no root key"
    ) -> None:
        self._environment_id = environment_id
        self._keys = tuple(keys)
        self._public_url = public_url.rstrip("/")
        self._lacking = lacking

    def ready(self) -> None:
        """Raises Unprocessable where nothing can be signed. For those who must know before they make something."""
        self._own()

    def url(self, token_id: str) -> str:
        """The address that completes a token by a POST, without a key."""
        return f"{self._public_url}{PATH}/{token_id}/callback/{self._hash(token_id, self._own())}"

    def is_callback(self, token_id: str, given: str) -> bool:
        """Whether `given` is the last part of a token's URL."""
        found = False
        for key in self._keys:
            found |= hmac.compare_digest(self._hash(token_id, key).encode(), given.encode("utf-8", "replace"))
        return found

    def object_url(self, method: str, key: str, expires: int) -> str:
        """The address of an object for one method, until `expires` (epoch seconds)."""
        # In these letters no proxy decodes anything too early.
        name = base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")
        signature = self._object_signature(method, key, expires, self._own())
        return f"{self._public_url}{OBJECTS}/{name}?expires={expires}&signature={signature}"

    def is_of_object(self, method: str, key: str, expires: int, given: str) -> bool:
        """Whether `given` is the signature of such an address."""
        found = False
        for own in self._keys:
            signature = self._object_signature(method, key, expires, own)
            found |= hmac.compare_digest(signature.encode(), given.encode("utf-8", "replace"))
        return found

    def signed(self, token_id: str, now_ms: int) -> dict[str, str]:
        """What the holder of a new token is given: its URL, and a bearer token that completes it for a day."""
        return {
            "url": self.url(token_id),
            "publicAccessToken": self.jwt([f"write:waitpoints:{token_id}"], now_ms, WAITPOINT_SECONDS),
        }

    def claims(self, scopes: list[str]) -> dict[str, Any]:
        """The claims of a public token, without its times."""
        return {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": self._environment_id,
            "pub": True,
            "scopes": scopes,
        }

    def jwt(self, scopes: list[str], now_ms: int, seconds: int, **more: Any) -> str:
        """A public token that lives so many seconds; `more` are further claims, such as otu."""
        at = now_ms // 1_000
        claims = {**self.claims(scopes), "iat": at, "exp": at + seconds, **more}
        signed: str = _signatures().encode(json.dumps(claims).encode(), self._own(), ALGORITHM)
        return signed

    def _own(self) -> str:
        if not self._keys:
            raise Unprocessable(self._lacking)
        return self._keys[0]

    def _object_signature(self, method: str, key: str, expires: int, own: str) -> str:
        # A key of its own, so that no signature of another kind can be taken for one of these.
        signing = hmac.new(own.encode(), b"holdfast object address", hashlib.sha256).digest()
        return hmac.new(signing, f"{method}\n{expires}\n{key}".encode(), hashlib.sha256).hexdigest()

    def _hash(self, token_id: str, key: str) -> str:
        return hmac.new(key.encode(), token_id.encode(), hashlib.sha256).hexdigest()

    def verified(self, token: str, now_ms: int) -> dict[str, Any] | None:
        """The claims of a public token; None for one that is expired, foreign or forged."""
        import jwt

        if len(token) > MAX_TOKEN:
            return None

        for key in self._keys:
            try:
                # The signature comes first; nothing of an unsigned token is looked at.
                claims = json.loads(_signatures().decode(token, key, [ALGORITHM]))
            except (jwt.PyJWTError, ValueError, RecursionError):
                continue
            if self._are_valid(claims, now_ms / 1_000):
                valid: dict[str, Any] = claims
                return valid
        return None

    def _are_valid(self, claims: Any, now: float) -> bool:
        if not isinstance(claims, dict) or claims.get("pub") is not True:
            return False
        expires = claims.get("exp")
        if isinstance(expires, bool) or not isinstance(expires, int | float):
            return False
        if not now < expires < LATEST:
            return False
        begins = claims.get("nbf", now)
        if isinstance(begins, bool) or not isinstance(begins, int | float) or not begins <= now:
            return False
        given = (claims.get("iss"), claims.get("aud"), claims.get("sub"))
        return given == (ISSUER, AUDIENCE, self._environment_id) and isinstance(
            claims.get("scopes", []), list
        )


@cache
def _signatures() -> Any:
    """HS256 with root keys as they are: the library warns of those that are shorter than it recommends."""
    from jwt.algorithms import HMACAlgorithm
    from jwt.api_jws import PyJWS

    class RootKey(HMACAlgorithm):
        def check_key_length(self, key: Any) -> str | None:
            return None

    signatures = PyJWS()
    signatures.unregister_algorithm(ALGORITHM)
    signatures.register_algorithm(ALGORITHM, RootKey(HMACAlgorithm.SHA256))
    return signatures
