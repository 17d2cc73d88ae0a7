"""Environment variables: set, change, delete, import; their values come sealed and leave sealed.

What is looked at before a write (which names there are, how much they take) stays so until the commit: one
environment's variables are written by one at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from holdfast.errors import HoldfastError, InvalidRequest, NotFound, Unprocessable
from holdfast.model.limits import MAX_VARIABLES, MAX_VARIABLES_BYTES
from holdfast.model.variable import Variable
from holdfast.stores.base import Row, Tx, batch


@dataclass(frozen=True, slots=True)
class Sealed:
    """A sealed value, and the bytes that it had before."""

    text: str = field(repr=False)
    bytes: int


@dataclass(frozen=True, slots=True)
class SetVariables:
    """Variables to set in an environment, all or none.

    override   whether those that are there get the new values; else they are refused
    is_secret  of all of them; None leaves those that are there as they are, and new ones can be read
    parent     the same for the environment that a branch belongs to
    """

    environment_id: str
    values: Mapping[str, Sealed]
    override: bool = False
    is_secret: bool | None = None
    parent: SetVariables | None = None


@dataclass(frozen=True, slots=True)
class ChangeVariable:
    """Another value for a variable that is there."""

    environment_id: str
    name: str
    value: Sealed


@dataclass(frozen=True, slots=True)
class DeleteVariable:
    environment_id: str
    name: str


def set_variables(tx: Tx, items: list[SetVariables]) -> list[HoldfastError | None]:
    """Sets variables, for each item all or none. Refuses names that are there, and more than are kept."""
    _lock(tx, [one.environment_id for item in items for one in _both(item)])
    answers: list[HoldfastError | None] = []
    for item in items:
        rows: list[list[object]] = []
        refused = None
        for one in _both(item):
            found = {row["name"]: row for row in tx.all("variable_sizes", environment_id=one.environment_id)}
            refused = refused or _refusal(one, found)
            rows += [_row(one, name, found.get(name)) for name in one.values]
        if refused is None and rows:
            tx.do("save_variables", variables=batch(rows), now=tx.now)
        answers.append(refused)
    return answers


def change_variables(tx: Tx, items: list[ChangeVariable]) -> list[HoldfastError | None]:
    """Gives variables another value; whether one is a secret stays. Refuses one that is not there."""
    _lock(tx, [item.environment_id for item in items])
    answers: list[HoldfastError | None] = []
    for item in items:
        found = {row["name"]: row for row in tx.all("variable_sizes", environment_id=item.environment_id)}
        if item.name not in found:
            answers.append(not_found(item.name))
            continue
        change = SetVariables(item.environment_id, {item.name: item.value}, override=True)
        refused = _refusal(change, found)
        if refused is None:
            row = _row(change, item.name, found[item.name])
            tx.do("save_variables", variables=batch([row]), now=tx.now)
        answers.append(refused)
    return answers


def delete_variables(tx: Tx, items: list[DeleteVariable]) -> list[HoldfastError | None]:
    """Deletes variables. Refuses one that is not there."""
    _lock(tx, [item.environment_id for item in items])
    return [
        None
        if tx.ids("delete_variable", environment_id=item.environment_id, name=item.name)
        else not_found(item.name)
        for item in items
    ]


def variables(tx: Tx, environment_id: str) -> list[Variable]:
    """What is in force in an environment, by name: a branch has those of its parent that it does not set itself."""
    rows = tx.all("variables", environment_id=environment_id)
    own = {row["name"] for row in rows if row["environment_id"] == environment_id}
    return sorted(
        (
            Variable(row["environment_id"], row["name"], row["sealed"], bool(row["is_secret"]))
            for row in rows
            if row["environment_id"] == environment_id or row["name"] not in own
        ),
        key=lambda variable: variable.name,
    )


def parent_id(tx: Tx, environment_id: str) -> str | None:
    """The environment that a branch belongs to; None for one that is no branch."""
    found = tx.ids("parent_environment", environment_id=environment_id)
    return found[0] if found else None


def not_found(name: str) -> NotFound:
    return NotFound(f"Environment variable not found: {name[:80]}")


def _both(item: SetVariables) -> Sequence[SetVariables]:
    return (item,) if item.parent is None else (item, item.parent)


def _lock(tx: Tx, environment_ids: Iterable[str]) -> None:
    for environment_id in sorted(set(environment_ids)):  # in one order, as everywhere
        tx.do("lock_variables", id=environment_id)


def _refusal(item: SetVariables, found: Mapping[str, Row]) -> HoldfastError | None:
    there = sorted(name for name in item.values if name in found)
    if there and not item.override:
        return InvalidRequest(
            f"variable {there[0]} exists already"
            + (f", and so do {len(there) - 1} others" if len(there) > 1 else "")
            + ": change it, or import it with override",
            "name" if len(item.values) == 1 else "variables",
        )
    count = len(found) + len(item.values) - len(there)
    if count > MAX_VARIABLES:
        return Unprocessable(
            f"there would be {count} variables: at most {MAX_VARIABLES} are kept", "variables"
        )
    size = sum(row["bytes"] for name, row in found.items() if name not in item.values)
    size += sum(value.bytes for value in item.values.values())
    if size > MAX_VARIABLES_BYTES:
        return Unprocessable(
            f"all values together would have {size} bytes: at most {MAX_VARIABLES_BYTES} are kept",
            "variables",
        )
    return None


def _row(item: SetVariables, name: str, found: Row | None) -> list[object]:
    """As `save_variables` takes it."""
    value = item.values[name]
    is_secret = item.is_secret
    if is_secret is None:
        is_secret = found is not None and bool(found["is_secret"])
    return [item.environment_id, name, value.text, value.bytes, int(is_secret)]
