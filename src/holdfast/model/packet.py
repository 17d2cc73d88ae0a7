"""Payloads and outputs as text with a type (the wire contract, section 3). No type stands for application/json."""

from __future__ import annotations

import json
from typing import Any

from holdfast.model import superjson

JSON = "application/json"
TEXT = "text/plain"
SUPERJSON = "application/super+json"
STORE = "application/store"  # the text is the name of an object, which holds the data and knows its type


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
