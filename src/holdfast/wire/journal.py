"""Journal entries as they are answered, to workers and to people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import to_json

from holdfast.wire.runs import outcome
from holdfast.wire.workers import JournalEntry


def entry(row: Mapping[str, Any]) -> JournalEntry:
    """An entry as the store has it; one about the end of a run has that run's result as its value."""
    value = row["value"]
    if (ended := row.get("outcome")) is not None:
        told = outcome(ended["id"], ended["task"], ended["status"], ended["output"], ended["error"])
        value = to_json(told).decode()
    return {
        "scope": row["scope"],
        "kind": row["kind"],
        "name": row["name"],
        "args": row["args"],
        "ok": None if row["ok"] is None else bool(row["ok"]),
        "value": value,
        "ref": row["ref"],
    }


def numbered(row: Mapping[str, Any]) -> dict[str, Any]:
    """An entry with its number."""
    return {"seq": row["seq"], **entry(row)}
