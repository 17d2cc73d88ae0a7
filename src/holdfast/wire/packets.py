"""What is in an object of the object store, as JSON that Python code is given."""

from __future__ import annotations

from typing import Any

from holdfast.errors import InvalidRequest, Unprocessable
from holdfast.model import superjson
from holdfast.model.packet import JSON, SUPERJSON, TEXT
from holdfast.wire.codec import decode, encode


def value_of(data: bytes, data_type: str, param: str) -> Any:
    """The value in an object. Raises InvalidRequest, or Unprocessable for a type that no payload has."""
    if data_type == TEXT:
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"{param} is no UTF-8: {error}", param) from None
        if "\x00" in text:
            raise InvalidRequest(f"{param} holds a NUL character", param)
        return text
    if data_type not in (JSON, SUPERJSON):
        raise Unprocessable(f"{param} was stored as {data_type[:80]!r}: that is no type of a packet", param)
    value = decode(data, param)
    if data_type == SUPERJSON:
        superjson.check(value, param)
        return superjson.decoded(value)
    return value


def text_of(data: bytes, data_type: str, param: str) -> str:
    """The same as JSON text."""
    value = value_of(data, data_type, param)
    return data.decode() if data_type == JSON else encode(value).decode()
