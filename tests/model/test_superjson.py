"""superjson as the official SDK writes it, and as anybody may send it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import InvalidRequest
from holdfast.model import superjson
from holdfast.model.packet import SUPERJSON, TEXT, projection, python_text

# Written by superjson.cjs beside it, with the encoder of @trigger.dev/sdk 4.8.3.
ENCODED = json.loads((Path(__file__).parent / "superjson.json").read_text())


@pytest.mark.parametrize("case", ENCODED, ids=[case["name"] for case in ENCODED])
def test_what_the_sdk_encodes_is_given_to_python(case: dict[str, str]) -> None:
    superjson.check(json.loads(case["text"]), "payload")
    given = json.loads(python_text(case["text"], SUPERJSON))
    assert json.dumps(given, sort_keys=True) == json.dumps(json.loads(case["python"]), sort_keys=True)
    assert projection(case["text"], SUPERJSON) == json.loads(case["text"])["json"]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(".\\ab", max_size=4), inner, max_size=3)
    ),
    max_leaves=12,
)
PATHS = st.text(".\\ab01", max_size=6)
TYPES = st.sampled_from(
    [*sorted(superjson.SIMPLE), ["custom", "x"], ["typed-array", "Uint8Array"], ["class", "A"]]
)
TREES = st.recursive(
    TYPES.map(lambda type_: [type_]),
    lambda inner: (
        st.dictionaries(PATHS, inner, max_size=3)
        | st.tuples(TYPES, st.dictionaries(PATHS, inner, max_size=2)).map(list)
    ),
    max_leaves=8,
)


@given(JSON_VALUES, TREES)
def test_any_value_with_any_types_is_read(value: Any, tree: Any) -> None:
    packet = {"json": value, "meta": {"values": tree}}
    superjson.check(packet, "payload")
    json.dumps(superjson.decoded(json.loads(json.dumps(packet))), allow_nan=False)


def encoded(value: Any) -> tuple[Any, Any]:
    """A value of Python as superjson would write one of JavaScript: dicts as maps, large integers as bigints."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value), ["bigint"]
    if isinstance(value, dict):
        pairs, inner = [], {}
        for index, (key, item) in enumerate(value.items()):
            text, tree = encoded(item)
            pairs.append([key, text])
            if isinstance(tree, list):
                inner[f"{index}.1"] = tree
            elif tree:
                inner |= {f"{index}.1.{path}": below for path, below in tree.items()}
        return pairs, ["map", inner] if inner else ["map"]
    if isinstance(value, list):
        items, trees = [], {}
        for index, item in enumerate(value):
            text, tree = encoded(item)
            items.append(text)
            if isinstance(tree, list):
                trees[str(index)] = tree
            elif tree:
                trees |= {f"{index}.{path}": below for path, below in tree.items()}
        return items, trees
    return value, {}


@given(JSON_VALUES)
def test_maps_and_bigints_nested_in_any_way_come_back(value: Any) -> None:
    text, tree = encoded(value)
    assert superjson.decoded({"json": text, "meta": {"values": tree}}) == value


@pytest.mark.parametrize(
    ("packet", "place"),
    [
        ([], "payload"),
        ({"meta": {}}, "payload"),
        ({"json": 1, "meta": []}, "payload.meta"),
        ({"json": 1, "meta": {"values": "Date"}}, "payload.meta.values"),
        ({"json": 1, "meta": {"values": []}}, "payload.meta.values"),
        ({"json": 1, "meta": {"values": ["date"]}}, "payload.meta.values"),
        ({"json": 1, "meta": {"values": [["custom"]]}}, "payload.meta.values"),
        ({"json": 1, "meta": {"values": [[["custom"], "x"]]}}, "payload.meta.values"),
        ({"json": 1, "meta": {"values": [None]}}, "payload.meta.values"),
        ({"json": 1, "meta": {"values": {"a": {"b": 3}}}}, "payload.meta.values.a.b"),
        ({"json": 1, "meta": {"values": ["map", ["Date"]]}}, "payload.meta.values"),
        ({"json": 1, "meta": {"values": ["set", {}, 1]}}, "payload.meta.values"),
    ],
)
def test_what_is_no_superjson_is_refused_with_its_place(packet: Any, place: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        superjson.check(packet, "payload")
    assert refused.value.param == place


def test_places_that_do_not_fit_stay_as_they_are() -> None:
    value = {"a": "x", "b": [1], "c": {"d": 1}, "e": "1" * 1_001}
    tree = {
        "a": ["bigint"],
        "b": ["map"],
        "b.7": ["bigint"],
        "c.d.e": ["undefined"],
        "z": ["Date"],
        "e": ["bigint"],
    }
    assert superjson.decoded({"json": json.loads(json.dumps(value)), "meta": {"values": tree}}) == value


def test_a_path_of_a_million_dots_is_read_at_once() -> None:
    path = "a." * 1_000_000
    assert superjson.decoded({"json": {path: "1"}, "meta": {"values": {path: ["bigint"]}}}) == {path: 1}


def test_minus_zero_is_a_float() -> None:
    assert math.copysign(1, superjson.decoded({"json": "-0", "meta": {"values": ["number"]}})) == -1


def test_a_text_is_a_value() -> None:
    assert python_text("é", TEXT) == '"é"'
    assert projection("é", TEXT) == "é"
