"""JSON in and out: the one place that says what is accepted and how values are written.

What can not be kept is refused at the door (invariant I18): NaN and infinities, lone surrogates,
NUL characters, integers of more than 1,000 digits, nesting deeper than 100.
"""

from __future__ import annotations

import math
import re
from typing import Any

import pydantic_core

from holdfast.errors import InvalidRequest, PayloadTooLarge
from holdfast.model.limits import MAX_DEPTH, MAX_INTEGER_DIGITS

HUGE_FLOAT = re.compile(rb"[eE]\+?[0-9]{3}|[0-9]{309}")  # only these can turn into an infinity
LONG_NUMBER = re.compile(rb"[0-9]{%d}" % (MAX_INTEGER_DIGITS + 1))


def decode(data: bytes | str, param: str = "body", limit: int | None = None) -> Any:
    """The value in `data`. Raises InvalidRequest naming the place, or PayloadTooLarge over `limit` bytes."""
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    if limit is not None and len(raw) > limit:
        raise PayloadTooLarge(f"{param} is {len(raw)} bytes; at most {limit} are accepted", param)
    if len(raw) > MAX_INTEGER_DIGITS and LONG_NUMBER.search(raw) and _has_long_integer(raw):
        raise InvalidRequest(f"{param} holds an integer of more than {MAX_INTEGER_DIGITS} digits", param)
    # Brackets are counted first because a walk costs more than the parser itself; most bodies end here.
    may_be_deep = raw.count(b"[") + raw.count(b"{") > MAX_DEPTH
    if may_be_deep:
        _refuse_depth(raw, param)
    try:
        value = pydantic_core.from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidRequest(f"{param} is not JSON: {error}", param) from None
    if b"\\u0000" in raw:
        _refuse_nul(value, param)
    if HUGE_FLOAT.search(raw):
        _refuse_infinity(value, param)
    return value


def encode(value: Any) -> bytes:
    """`value` as JSON in UTF-8, without spaces. Raises InvalidRequest for what JSON can not hold."""
    try:
        return pydantic_core.to_json(value, inf_nan_mode="constants")
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidRequest(f"this value can not be written as JSON: {error}") from None


def encode_checked(value: Any, param: str, limit: int) -> str:
    """`value` as JSON text, held to the rules of `decode`; `param` names it in errors."""
    raw = encode(value)
    decode(raw, param, limit)
    return raw.decode()


def _refuse_depth(raw: bytes, param: str) -> None:
    """Counts nesting outside of strings without recursion, so that depth itself can not hurt."""
    depth, position, end = 0, 0, len(raw)
    special = re.compile(rb'["\[\]{}]')
    while match := special.search(raw, position):
        position = match.end()
        character = match[0]
        if character == b'"':
            while position < end and raw[position] != 0x22:
                position += 2 if raw[position] == 0x5C else 1
            position += 1
        elif character in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise InvalidRequest(f"{param} is nested deeper than {MAX_DEPTH} levels", param)
        else:
            depth -= 1


def _has_long_integer(raw: bytes) -> bool:
    """Whether the digits stand outside of strings."""
    return LONG_NUMBER.search(re.sub(rb'"(?:[^"\\]|\\.)*"', b'""', raw, flags=re.DOTALL)) is not None


def _refuse_nul(value: Any, place: str) -> None:
    if isinstance(value, str):
        if "\x00" in value:
            raise InvalidRequest(f"{place} holds a NUL character", place)
    elif isinstance(value, dict):
        for key, item in value.items():
            _refuse_nul(key, f"a key of {place}")
            _refuse_nul(item, f"{place}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_nul(item, f"{place}[{index}]")


def _refuse_infinity(value: Any, place: str) -> None:
    if isinstance(value, float) and math.isinf(value):
        raise InvalidRequest(f"{place} holds a number too large for a float", place)
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_infinity(item, f"{place}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_infinity(item, f"{place}[{index}]")
