"""Environment variables on the wire (the wire contract, 7.5).

Names and values are checked by model/variable.py, whose refusals do not tell a value: those of pydantic would.
"""

from __future__ import annotations

from typing import Annotated, Any, NotRequired

from pydantic import TypeAdapter, WithJsonSchema
from typing_extensions import TypedDict

from holdfast.model.limits import MAX_VARIABLE, MAX_VARIABLE_NAME
from holdfast.model.variable import REDACTED
from holdfast.wire.runs import Flag

Name = Annotated[Any, WithJsonSchema({"type": "string", "minLength": 1, "maxLength": MAX_VARIABLE_NAME})]
Value = Annotated[Any, WithJsonSchema({"type": "string", "maxLength": MAX_VARIABLE})]
Values = Annotated[
    Any,
    WithJsonSchema({"type": "object", "additionalProperties": {"type": "string", "maxLength": MAX_VARIABLE}}),
]


class NewVariable(TypedDict, total=False):
    """`name` and `value` are required."""

    name: Name
    value: Value
    isSecret: Flag


class ChangedVariable(TypedDict, total=False):
    """`value` is required."""

    value: Value


class ImportedVariables(TypedDict, total=False):
    """`variables` is required; `parentVariables` belong to the environment of a branch. `source` is not kept."""

    variables: Values
    parentVariables: Values
    override: Flag
    isSecret: Flag
    source: NotRequired[Any]


NEW: TypeAdapter[NewVariable] = TypeAdapter(NewVariable)
CHANGED: TypeAdapter[ChangedVariable] = TypeAdapter(ChangedVariable)
IMPORTED: TypeAdapter[ImportedVariables] = TypeAdapter(ImportedVariables)


def variable(name: str, value: str | None, is_secret: bool) -> dict[str, Any]:
    """`value` is None for a secret: it never comes back."""
    return {"name": name, "value": REDACTED if value is None else value, "isSecret": is_secret}
