"""Looking into payloads: whether the task's schema takes them, and what concurrency key they have."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from holdfast.errors import PayloadTooLarge, Unprocessable
from holdfast.model import limits
from holdfast.model.packet import STORE, python_value
from holdfast.model.task import TaskSpec

UNSEEN = object()  # what is in a stored payload that nobody looked into


def value_of(text: str | None, data_type: str | None, content: Any = UNSEEN) -> Any:
    """The payload as the task's code will see it; `content` where it is in the object store."""
    if data_type == STORE:
        return content
    return None if text is None else python_value(text, data_type)


def check_payload(text: str | None, value: Any, spec: TaskSpec | None) -> None:
    """Raises PayloadTooLarge, or Unprocessable for a value that the task's schema refuses."""
    if text is not None and len(text) > limits.MAX_PAYLOAD // 4:
        size = len(text.encode())
        if size > limits.MAX_PAYLOAD:
            raise PayloadTooLarge(f"payload is {size} bytes: at most {limits.MAX_PAYLOAD}", "payload")
    if spec is None or spec.payload_schema is None or value is UNSEEN:
        return
    if (error := schema_error(spec.payload_schema, value, "payload", f"task {spec.id}")) is not None:
        raise error


def schema_error(schema: str, value: Any, name: str, of: str) -> Unprocessable | None:
    """Why a JSON Schema refuses a value, naming the place; None when it does not."""
    error = next(iter(_validator(schema).iter_errors(value)), None)
    if error is None:
        return None
    place = ".".join([name, *(str(step) for step in error.instance_path)])
    return Unprocessable(f"{place}: {error.message} ({of})"[:2_000], place[:200])


@lru_cache(maxsize=1_024)
def _validator(schema: str) -> Any:
    import jsonschema_rs

    return jsonschema_rs.validator_for(json.loads(schema))


def key_at(value: Any, path: str) -> str:
    """The concurrency key at a path such as "order.tenant" of a payload; "" where there is nothing.

    The empty path is the payload itself.
    """
    for step in path.split(".") if path else ():
        if not isinstance(value, dict):
            return ""
        value = value.get(step)
    if isinstance(value, dict | list) or value is None or value is UNSEEN:
        return ""
    return value if isinstance(value, str) else json.dumps(value)
