"""Payloads and outputs as text with a type (the wire contract, section 3). No type stands for application/json."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from holdfast.errors import InvalidRequest
from holdfast.model import superjson
from holdfast.model.limits import MAX_PACKET_NAME

JSON = "application/json"
TEXT = "text/plain"
SUPERJSON = "application/super+json"
STORE: Final = (
    "application/store"  # the text is the name of an object, which holds the data and knows its type
)

TYPES = (JSON, TEXT, SUPERJSON)  # of stored data
OWN = "holdfast/"  # names of what the server stores itself begin with it
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\\]")


def projection(text: str, data_type: str | None) -> Any:
    """The JSON value that a packet stands for: of superjson its `json` part, in which dates are texts."""
    if data_type in (TEXT, STORE):
        return text
    value = json.loads(text)
    return value.get("json") if data_type == SUPERJSON and isinstance(value, dict) else value


def python_value(text: str, data_type: str | None) -> Any:
    """The JSON value that a task in Python is given: rich values of superjson as model/superjson.py says."""
    if data_type == TEXT:
        return text
    value = json.loads(text)
    return superjson.decoded(value) if data_type == SUPERJSON else value


def python_text(text: str, data_type: str | None) -> str:
    """The same as JSON text."""
    if data_type in (None, JSON):
        return text
    return json.dumps(python_value(text, data_type), ensure_ascii=False, separators=(",", ":"))


def checked_name(name: Any, param: str) -> str:
    """The name of an object, such as "trigger/packet_1/payload.json". Raises InvalidRequest."""
    if not isinstance(name, str) or not name:
        raise InvalidRequest(
            f"{param} names no packet: expected such as 'trigger/packet_1/payload.json'", param
        )
    size = len(name.encode("utf-8", "replace"))
    if size > MAX_PACKET_NAME:
        raise InvalidRequest(
            f"{param} has {size} bytes: a packet's name has at most {MAX_PACKET_NAME}", param
        )
    if CONTROL.search(name) or any("\ud800" <= character <= "\udfff" for character in name):
        raise InvalidRequest(f"{param} is {name[:60]!r}: no control characters and no backslashes", param)
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise InvalidRequest(
            f"{param} is {name[:60]!r}: a packet's name has no part that is empty, '.' or '..'", param
        )
    return name


def packet_key(environment_id: str, name: str) -> str:
    """What an object is kept under. An environment sees its own ones only."""
    return f"{environment_id}/{name}"
