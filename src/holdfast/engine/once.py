"""Public tokens that may be used a single time: whoever is first has used one, and nobody after."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.errors import Unprocessable
from holdfast.stores.base import Tx


@dataclass(frozen=True, slots=True)
class OneTime:
    """Such a token. `digest` is all that is kept of it, until the moment at which it expires anyway (epoch ms)."""

    digest: str
    expires_at: int


def use(tx: Tx, token: OneTime, by: str) -> None:
    """Uses it up for what is made in this transaction, such as a run. Raises Unprocessable when it was used before.

    Call it when everything else is checked: a request that is refused does not use the token up.
    """
    if not tx.ids("use_token", digest=token.digest, used_by=by, expires_at=token.expires_at):
        raise Unprocessable("Cannot use a one-time public token again as it has already been used.")


def used_by(tx: Tx, token: OneTime) -> str | None:
    """What it was used for, if it was."""
    row = tx.one("token_use", digest=token.digest)
    return None if row is None else str(row["used_by"])


def lock_of(token: OneTime) -> list[str]:
    """What `lock_keys` takes to let one of several simultaneous uses come first."""
    return ["", "one-time token", token.digest]
