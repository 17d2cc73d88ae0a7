"""Sealed text: what the database keeps and only the master key opens (root keys, environment variables).

A sealed text is `v1.<key id>.<nonce and ciphertext>`: AES-256-GCM under a key derived from the master key. The
context, such as "env:prod:NAME", is authenticated with it, so that a sealed text moved to another row does not open.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Sequence
from functools import cache
from typing import Any

from holdfast.errors import NoMasterKey, SealBroken

VERSION = "v1"
NONCE_BYTES = 12
KEY_BYTES = 32
KEY_ID_LENGTH = 8
# A master key may be a sentence; this makes guessing it dear, and costs a process 50 ms once.
SCRYPT_COST = 2**14


class Vault:
    """Seals and opens under the master keys: the first seals, each opens, so that one can be replaced by another."""

    def __init__(self, master_keys: Sequence[str] = ()) -> None:
        self._master_keys = tuple(master_keys)

    def seal(self, text: str, context: str) -> str:
        """`text` as only this vault opens it. Raises NoMasterKey."""
        key_id, cipher = self._ciphers()[0]
        nonce = os.urandom(NONCE_BYTES)
        sealed = nonce + cipher.encrypt(nonce, text.encode(), _bound(context, key_id))
        return f"{VERSION}.{key_id}.{base64.urlsafe_b64encode(sealed).decode()}"

    def open(self, sealed: str, context: str) -> str:
        """The text. Raises NoMasterKey, or SealBroken for what another key sealed, is altered or stood elsewhere."""
        ciphers = self._ciphers()
        from cryptography.exceptions import InvalidTag

        try:
            version, key_id, data = sealed.split(".")
            raw = base64.b64decode(data, b"-_", validate=True)
        except (ValueError, binascii.Error):
            raise SealBroken(f"the sealed value of {context} can not be read: it was altered") from None
        for own_id, cipher in ciphers:
            if (version, key_id) == (VERSION, own_id):
                try:
                    opened: bytes = cipher.decrypt(
                        raw[:NONCE_BYTES], raw[NONCE_BYTES:], _bound(context, key_id)
                    )
                except (InvalidTag, ValueError):
                    raise SealBroken(
                        f"the sealed value of {context} was altered, or stood elsewhere"
                    ) from None
                return opened.decode()
        raise SealBroken(
            f"the sealed value of {context} was sealed with another master key: add that key behind the first "
            "one of HOLDFAST_MASTER_KEY, separated by a comma"
        )

    def is_current(self, sealed: str) -> bool:
        """Whether the first master key sealed it; else it should be sealed anew before the old key is dropped."""
        return sealed.startswith(f"{VERSION}.{self._ciphers()[0][0]}.")

    def ready(self) -> None:
        """Raises NoMasterKey where nothing can be sealed."""
        self._ciphers()

    def _ciphers(self) -> list[tuple[str, Any]]:
        if not self._master_keys:
            raise NoMasterKey(
                "nothing can be sealed or opened: HOLDFAST_MASTER_KEY is not set. Set it to the answer of "
                "`openssl rand -base64 32` on every server, and keep it: what it sealed opens with it only"
            )
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError:
            raise NoMasterKey(
                "nothing can be sealed or opened: cryptography is not installed: pip install 'holdfast[vault]'"
            ) from None
        return [(key_id, AESGCM(key)) for key_id, key in map(_derived, self._master_keys)]


@cache
def _derived(master_key: str) -> tuple[str, bytes]:
    """The id and the key made of a master key. The id tells nothing of the key: both are parts of one derivation."""
    made = hashlib.scrypt(
        master_key.encode(),
        salt=b"holdfast vault v1",
        n=SCRYPT_COST,
        r=8,
        p=1,
        dklen=KEY_BYTES + KEY_ID_LENGTH // 2,
    )
    return made[KEY_BYTES:].hex(), made[:KEY_BYTES]


def _bound(context: str, key_id: str) -> bytes:
    return f"{VERSION}.{key_id}.{context}".encode()
