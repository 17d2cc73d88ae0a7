"""What JSON is accepted, and how values are written (invariant I18)."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import InvalidRequest, PayloadTooLarge
from holdfast.wire import codec
from holdfast.wire.codec import decode, encode, encode_checked

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
    max_leaves=20,
)


@given(values)
def test_what_is_written_can_be_read_again(value: Any) -> None:
    assert decode(encode(value)) == value
    assert json.loads(encode(value)) == value


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with suppress(InvalidRequest):
        assert decode(encode(decode(data))) == decode(data)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "NaN",
        "Infinity",
        "-Infinity",
        "1e999",
        "[-1e400]",
        "1" * 400 + ".5",
        '"\\ud800"',
        '"a\\u0000b"',
        '{"a\\u0000":1}',
        "1" * 1_001,
        "[" * 101 + "]" * 101,
        '{"a":' * 101 + "1" + "}" * 101,
        "[1,]",
        "{'a':1}",
        "\ufeff1 2",
    ],
)
def test_what_can_not_be_kept_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidRequest, match="payload"):
        decode(text, "payload")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1" * 1_000, int("1" * 1_000)),
        ("[" * 100 + "]" * 100, None),
        ('"' + "[" * 500 + '"', "[" * 500),
        ('"' + "1" * 5_000 + '"', "1" * 5_000),
        ('"\\\\u0000"', "\\u0000"),
        ('"\\ud83d\\ude00"', "😀"),
        ('"1e999"', "1e999"),
        ("1e-999", 0.0),
        ('["\\"", "[", "]]]"]', ['"', "[", "]]]"]),
    ],
)
def test_what_only_looks_like_it_is_accepted(text: str, value: Any) -> None:
    assert value is None or decode(text) == value
    decode(text.encode())


def test_a_lone_surrogate_that_is_not_escaped_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        decode('"\ud800"')
    with pytest.raises(InvalidRequest):
        encode_checked("\ud800", "payload", 100)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\x00", object(), [[float("-inf")]]])
def test_values_that_json_can_not_hold_are_not_written(value: Any) -> None:
    with pytest.raises(InvalidRequest):
        encode_checked(value, "output", 1_000)


def test_sizes_are_measured_in_bytes_of_utf8() -> None:
    assert encode_checked("ää", "payload", 6) == '"ää"'
    with pytest.raises(PayloadTooLarge, match="payload is 6 bytes"):
        encode_checked("ää", "payload", 5)


def test_a_value_that_contains_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(InvalidRequest):
        encode(value)


@given(
    st.lists(st.sampled_from([*"0179eE+-. a", "1e9", "E+30", "0" * 309, "7" * 1_001]), max_size=12).map(
        "".join
    )
)
def test_what_the_expressions_find_has_its_sign(text: str) -> None:
    raw = text.encode()
    digits = raw.translate(codec.SAME_DIGITS)
    if codec.HUGE_FLOAT.search(raw):
        assert any(sign in digits for sign in codec.SIGNS_OF_HUGE)
    assert (codec.LONG_NUMBER.search(raw) is not None) == (codec.SIGN_OF_LONG in digits)
