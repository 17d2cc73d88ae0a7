"""What is sealed under the master key, all of it: to be sealed anew when that key is replaced."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.model import key as keys
from holdfast.model import variable as variables
from holdfast.stores.base import Tx


@dataclass(frozen=True, slots=True)
class Seal:
    """A sealed text and where it stands: in a root key, by its id, or in a variable of an environment, by its name."""

    context: str
    sealed: str
    environment_id: str
    key_id: str | None = None
    variable: str | None = None


@dataclass(frozen=True, slots=True)
class Resealed:
    """The same text, sealed anew."""

    seal: Seal
    sealed: str


def seals(tx: Tx) -> list[Seal]:
    """Everything that is sealed."""
    found = [
        Seal(
            keys.seal_context(row["environment_id"], row["digest"]),
            row["sealed"],
            row["environment_id"],
            key_id=row["id"],
        )
        for row in tx.all("sealed_keys")
    ]
    return found + [
        Seal(
            variables.seal_context(row["environment_id"], row["name"]),
            row["sealed"],
            row["environment_id"],
            variable=row["name"],
        )
        for row in tx.all("sealed_variables")
    ]


def reseal(tx: Tx, items: list[Resealed]) -> list[bool]:
    """Puts seals in the place of others; False for one that somebody has changed or removed meanwhile."""
    answers = []
    for item in items:
        seal = item.seal
        if seal.key_id is not None:
            done = tx.ids("reseal_key", id=seal.key_id, old=seal.sealed, sealed=item.sealed)
        else:
            done = tx.ids(
                "reseal_variable",
                environment_id=seal.environment_id,
                name=seal.variable,
                old=seal.sealed,
                sealed=item.sealed,
            )
        answers.append(bool(done))
    return answers
