"""Loads the named statements and the migrations of a dialect from their files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from holdfast.errors import StoreTooNew

NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
PARAMETER = re.compile(r"(?<![:\w]):([a-z_]+)")
ROOT = files("holdfast.stores") / "sql"


@dataclass(frozen=True, slots=True)
class Statement:
    """One named statement: its text, the comment above it, and the names of its parameters."""

    name: str
    text: str
    comment: str
    parameters: frozenset[str]


@cache
def statements(dialect: str) -> Mapping[str, Statement]:
    """All statements of "sqlite" or "postgres"; parameters are written `:name` in both."""
    found: dict[str, Statement] = {}
    for file in (ROOT / "common.sql", ROOT / dialect / "statements.sql"):
        _, *parts = NAME.split(file.read_text())
        for name, body in zip(parts[::2], parts[1::2], strict=True):
            if name in found:
                raise ValueError(f"statement {name} is defined twice")
            lines = body.strip().splitlines()
            comment = [line[3:] for line in lines if line.startswith("--")]
            text = "\n".join(line for line in lines if not line.startswith("--"))
            found[name] = Statement(name, text, " ".join(comment), frozenset(PARAMETER.findall(text)))
    return found


@cache
def migrations(dialect: str) -> tuple[tuple[str, str], ...]:
    """(name, text) of each migration, in order."""
    folder = ROOT / "migrations" / dialect
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return tuple((name.removesuffix(".sql"), (folder / name).read_text()) for name in names)


def refuse_newer(applied: Sequence[str], dialect: str) -> None:
    """Raises StoreTooNew when a migration was applied that this release does not know."""
    known = {name for name, _ in migrations(dialect)}
    if newer := [name for name in applied if name not in known]:
        raise StoreTooNew(
            f"the database has migrations that this release does not know ({', '.join(newer)}): "
            "it was written by a newer Holdfast; install that release or use another database"
        )
