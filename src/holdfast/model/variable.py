"""Environment variables: what the executors of a worker find in their environment. Rules without I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from holdfast.errors import InvalidRequest, PayloadTooLarge
from holdfast.model.limits import MAX_VARIABLE, MAX_VARIABLE_NAME

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
OURS = ("HOLDFAST_", "TRIGGER_")  # settings of the product itself
REDACTED = "<redacted>"


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable as it is stored, in the environment that it was set in: that of a branch or its parent."""

    environment_id: str
    name: str
    sealed: str
    is_secret: bool


def seal_context(environment_id: str, name: str) -> str:
    """What a value is sealed for: elsewhere it does not open."""
    return f"env:{environment_id}:{name}"


def checked_name(name: Any, param: str = "name") -> str:
    """Raises InvalidRequest for what no variable may be called."""
    if not isinstance(name, str) or not NAME.fullmatch(name) or len(name) > MAX_VARIABLE_NAME:
        seen = repr(name[:40]) if isinstance(name, str) else f"of type {type(name).__name__}"
        raise InvalidRequest(
            f"{param} is {seen}: the name of a variable has 1 to {MAX_VARIABLE_NAME} letters, digits and "
            "underscores and does not begin with a digit",
            param,
        )
    if name.upper().startswith(OURS):
        raise InvalidRequest(
            f"{param} is {name[:40]!r}: names that begin with {' or '.join(OURS)} are settings of the worker itself",
            param,
        )
    return name


def checked_value(value: Any, param: str = "value") -> str:
    """Raises InvalidRequest or PayloadTooLarge, which do not tell the value: it may be a secret."""
    if not isinstance(value, str):
        raise InvalidRequest(f"{param} is of type {type(value).__name__}: expected a text", param)
    if "\x00" in value:
        raise InvalidRequest(f"{param} holds a NUL character, which no environment can", param)
    size = len(value.encode("utf-8", "surrogatepass"))
    if size > MAX_VARIABLE:
        raise PayloadTooLarge(f"{param} is {size} bytes; at most {MAX_VARIABLE} are accepted", param)
    return value


def checked_values(variables: Any, param: str) -> Mapping[str, str]:
    """Names and values. Raises as the two above, naming the variable."""
    if not isinstance(variables, dict):
        raise InvalidRequest(f"{param} is of type {type(variables).__name__}: expected an object", param)
    return {
        checked_name(name, param): checked_value(value, f"{param}.{name}")
        for name, value in variables.items()
    }
