"""JSON Schemas that come in: of the payload of a task, of what completes a token."""

from __future__ import annotations

import json
from typing import Any

from holdfast.errors import InvalidRequest


def checked_schema(schema: dict[str, Any] | None, param: str) -> str | None:
    """The schema as text. One that is no JSON Schema is refused here, not where it is used."""
    if not schema:
        return None
    import jsonschema_rs

    try:
        jsonschema_rs.validator_for(schema, retriever=_fetch_nothing)
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        raise InvalidRequest(f"{param} is no JSON Schema: {str(error)[:500]}", param) from None
    return json.dumps(schema)


def _fetch_nothing(uri: str) -> Any:
    # Whoever sends a schema must not make the server read files or other hosts.
    raise ValueError(f"{uri[:200]}: a schema must hold all that it refers to")
