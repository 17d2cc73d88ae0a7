"""Payloads and outputs as text with a type (the wire contract, section 3): what the JSON in them is."""

from __future__ import annotations

import json
from typing import Any

SUPERJSON = "application/super+json"


def projection(text: str, data_type: str | None) -> Any:
    """The JSON value that a packet stands for: of superjson its `json` part, in which dates are texts.

    data_type  None stands for application/json
    """
    value = json.loads(text)
    return value.get("json") if data_type == SUPERJSON and isinstance(value, dict) else value
