"""Changes to a run's metadata: pure functions over a JSON object.

An operation is {"type": "set", "key": "a", "value": 1}; types are set, delete, append, remove,
increment and update. A key that starts with "$." is a path: dots descend, a number indexes a
list. A write through a missing parent does nothing (the wire contract's section 4.11).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.errors import InvalidRequest, PayloadTooLarge
from holdfast.model.limits import MAX_DEPTH, MAX_METADATA

Metadata = dict[str, Any]
Operation = dict[str, Any]

TYPES = ("set", "delete", "append", "remove", "increment", "update")
FORBIDDEN = frozenset({"__proto__", "constructor", "prototype"})
MAX_OPERATIONS = 1_000


def check_operations(operations: Any, param: str) -> list[Operation]:
    """`operations` if each is well-formed; raises InvalidRequest naming the place."""
    if not isinstance(operations, list):
        raise InvalidRequest(f"{param} is not a list", param)
    if len(operations) > MAX_OPERATIONS:
        raise InvalidRequest(
            f"{param} has {len(operations)} operations; at most {MAX_OPERATIONS} at once", param
        )
    for index, operation in enumerate(operations):
        place = f"{param}[{index}]"
        kind = operation.get("type") if isinstance(operation, dict) else None
        if kind not in TYPES:
            raise InvalidRequest(
                f"{place}.type is {kind!r}: expected one of {', '.join(TYPES)}", f"{place}.type"
            )
        if kind == "update":
            value = operation.get("value")
            if not isinstance(value, dict):
                raise InvalidRequest(f"{place}.value must be an object", f"{place}.value")
            if "__proto__" in value:
                raise InvalidRequest(
                    f"{place}.value has the key '__proto__': this name is not allowed", f"{place}.value"
                )
            continue
        key = operation.get("key")
        if not isinstance(key, str) or not key:
            raise InvalidRequest(f"{place}.key must be a text that is not empty", f"{place}.key")
        segments = key[2:].split(".") if key.startswith("$.") else [key]
        if FORBIDDEN & set(segments) and (key.startswith("$.") or key == "__proto__"):
            raise InvalidRequest(f"{place}.key is {key!r}: this name is not allowed", f"{place}.key")
        value = operation.get("value")
        if kind == "increment" and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise InvalidRequest(f"{place}.value is {value!r}: expected a number", f"{place}.value")
    return operations


def applied(metadata: Metadata, operations: Sequence[Operation]) -> Metadata:
    """What `metadata` becomes; the argument itself is not changed.

    Raises InvalidRequest when the operations together make what no JSON that comes in may be: a number
    past the largest float, or nesting deeper than 100.
    """
    result: Metadata = json.loads(json.dumps(metadata))
    for operation in operations:
        result = _apply(result, operation)
    if any(
        str(operation.get("key")).startswith("$.") for operation in operations
    ):  # else nothing gets deeper
        _refuse_depth(result)
    return result


def _refuse_depth(metadata: Metadata) -> None:
    level: list[Any] = [metadata]
    for _ in range(MAX_DEPTH):
        level = [item for held in level for item in (held.values() if isinstance(held, dict) else held)]
        level = [item for item in level if isinstance(item, dict | list)]
        if not level:
            return
    raise InvalidRequest(f"metadata would be nested deeper than {MAX_DEPTH} levels", "metadata")


def text_of(metadata: Mapping[str, Any]) -> str:
    """`metadata` as the text that is kept, in which nothing is there for looks: the limit counts it. Raises PayloadTooLarge."""
    return check_size(json.dumps(metadata, ensure_ascii=False, separators=(",", ":")))


def check_size(text: str, param: str = "metadata") -> str:
    """`text` if it is within the limit of 256 KiB; raises PayloadTooLarge."""
    size = len(text.encode())
    if size > MAX_METADATA:
        raise PayloadTooLarge(f"{param} would be {size} bytes; at most {MAX_METADATA} are kept", param)
    return text


def _apply(metadata: Metadata, operation: Operation) -> Metadata:
    kind = operation["type"]
    if kind == "update":
        return dict(operation["value"])
    if kind == "delete":
        metadata.pop(operation["key"], None)
        return metadata
    where = _place(metadata, operation["key"])
    if where is None:
        return metadata
    holder, key = where
    present = key in holder if isinstance(holder, dict) else 0 <= key < len(holder)
    old = holder[key] if present else None
    new = _changed(kind, old, present, operation.get("value"))
    if isinstance(holder, list) and not present:
        if key == len(holder):
            holder.append(new)
    elif present or kind != "remove":
        holder[key] = new
    return metadata


def _changed(kind: str, old: Any, present: bool, value: Any) -> Any:
    if kind == "append":
        if isinstance(old, list):
            return [*old, value]
        return [old, value] if present else [value]
    if kind == "remove":
        return [item for item in old if not _is_same(item, value)] if isinstance(old, list) else old
    if kind == "increment":
        is_number = isinstance(old, int | float) and not isinstance(old, bool)
        return _sum(old if is_number else 0, value)
    return value


def _is_same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal as JSON has it, where true is no 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_is_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_is_same(one[key], other[key]) for key in one)
    return bool(one == other)


def _sum(old: float, value: float) -> float:
    try:
        total = old + value
    except OverflowError:  # a whole number that no float can hold, and a float
        total = math.inf
    if isinstance(total, float) and not math.isfinite(total):
        raise InvalidRequest("an increment leads to a number too large for a float", "metadata")
    return total


def _place(metadata: Metadata, key: str) -> tuple[Any, Any] | None:
    """The container and the key in it that a path names, or None where there is no such place."""
    if not key.startswith("$."):
        return metadata, key
    *path, last = key[2:].split(".")
    holder: Any = metadata
    for segment in path:
        holder = _descend(holder, segment)
    if isinstance(holder, dict):
        return holder, last
    if isinstance(holder, list) and last.isdecimal() and len(last) < 7:
        return holder, int(last)
    return None


def _descend(holder: Any, segment: str) -> Any:
    if isinstance(holder, dict):
        return holder.get(segment)
    if isinstance(holder, list) and segment.isdecimal() and len(segment) < 7 and int(segment) < len(holder):
        return holder[int(segment)]
    return None
