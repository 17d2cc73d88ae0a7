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

HUGE_FLOAT = re.compile(
    rb"[0-9][eE]\+?[0-9]{3,}(?![0-9a-z])|[0-9]{309}"
)  # only these can turn into an infinity
LONG_NUMBER = re.compile(rb"[0-9]{%d}" % (MAX_INTEGER_DIGITS + 1))
# The expressions cost more than the parser. In bytes with each digit as 0 and E as e, what they find has one of these.
SAME_DIGITS = bytes.maketrans(b"123456789E", b"000000000e")
SIGNS_OF_HUGE = (b"0e000", b"0e+000", b"0" * 309)
SIGN_OF_LONG = b"0" * (MAX_INTEGER_DIGITS + 1)


def decode(data: bytes | str, param: str = "body", limit: int | None = None) -> Any:
    """The value in `data`. Raises InvalidRequest naming the place, or PayloadTooLarge over `limit` bytes."""
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    if limit is not None and len(raw) > limit:
        raise PayloadTooLarge(f"{param} is {len(raw)} bytes; at most {limit} are accepted", param)
    digits = raw.translate(SAME_DIGITS)
    if SIGN_OF_LONG in digits and _has_long_integer(raw):
        raise InvalidRequest(f"{param} holds an integer of more than {MAX_INTEGER_DIGITS} digits", param)
    try:
        value = pydantic_core.from_json(raw, allow_inf_nan=False)  # refuses more than 200 levels by itself
    except ValueError as error:
        raise InvalidRequest(f"{param} is not JSON: {error}", param) from None
    # A walk costs more than the parser, so it is made only where the bytes say that it may find something.
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH:
        _refuse_depth(value, param)
    if b"\\u0000" in raw:
        _refuse_nul(value, param)
    if any(sign in digits for sign in SIGNS_OF_HUGE) and HUGE_FLOAT.search(raw):
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


def _refuse_depth(value: Any, param: str) -> None:
    """Walks level by level, so that depth itself can not hurt."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            item
            for holder in level
            for item in (holder.values() if type(holder) is dict else holder if type(holder) is list else ())
            if type(item) is dict or type(item) is list
        ]
        if not level:
            return
    raise InvalidRequest(f"{param} is nested deeper than {MAX_DEPTH} levels", param)


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
