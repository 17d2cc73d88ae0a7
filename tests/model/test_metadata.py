"""Operations on metadata."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import InvalidRequest, PayloadTooLarge
from holdfast.model.metadata import TYPES, applied, check_operations, check_size

CASES: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ({}, {"type": "set", "key": "a", "value": 1}, {"a": 1}),
    ({"a": {"b": 1}}, {"type": "set", "key": "$.a.b", "value": 2}, {"a": {"b": 2}}),
    ({"a": [1, 2]}, {"type": "set", "key": "$.a.1", "value": 9}, {"a": [1, 9]}),
    ({"a": [1]}, {"type": "set", "key": "$.a.1", "value": 2}, {"a": [1, 2]}),
    ({"a": [1]}, {"type": "set", "key": "$.a.7", "value": 2}, {"a": [1]}),
    ({}, {"type": "set", "key": "$.a.b", "value": 2}, {}),
    ({}, {"type": "set", "key": "a.b", "value": 2}, {"a.b": 2}),
    ({"a": 1, "b": 2}, {"type": "delete", "key": "a"}, {"b": 2}),
    ({"b": 2}, {"type": "delete", "key": "a"}, {"b": 2}),
    ({}, {"type": "append", "key": "a", "value": 1}, {"a": [1]}),
    ({"a": [1]}, {"type": "append", "key": "a", "value": 2}, {"a": [1, 2]}),
    ({"a": 1}, {"type": "append", "key": "a", "value": 2}, {"a": [1, 2]}),
    ({"a": [1, 2, 1]}, {"type": "remove", "key": "a", "value": 1}, {"a": [2]}),
    ({"a": [1, True, 1.0]}, {"type": "remove", "key": "a", "value": 1}, {"a": [True]}),
    ({"a": [0, False]}, {"type": "remove", "key": "a", "value": False}, {"a": [0]}),
    (
        {"a": [{"b": [1]}, {"b": [True]}, {"b": [1], "c": 1}]},
        {"type": "remove", "key": "a", "value": {"b": [1]}},
        {"a": [{"b": [True]}, {"b": [1], "c": 1}]},
    ),
    ({"a": 1}, {"type": "remove", "key": "a", "value": 1}, {"a": 1}),
    ({}, {"type": "remove", "key": "a", "value": 1}, {}),
    ({}, {"type": "increment", "key": "a", "value": 2}, {"a": 2}),
    ({"a": 1.5}, {"type": "increment", "key": "a", "value": -2}, {"a": -0.5}),
    ({"a": "x"}, {"type": "increment", "key": "a", "value": 2}, {"a": 2}),
    ({"a": 1}, {"type": "update", "value": {"b": 2}}, {"b": 2}),
]


@pytest.mark.parametrize(("before", "operation", "after"), CASES)
def test_what_an_operation_does(
    before: dict[str, Any], operation: dict[str, Any], after: dict[str, Any]
) -> None:
    kept = json.dumps(before)
    changed = applied(before, check_operations([operation], "operations"))
    assert json.dumps(changed) == json.dumps(after)  # 1 == True
    assert json.dumps(before) == kept


@pytest.mark.parametrize(
    "operation",
    [
        None,
        {},
        {"type": "explode"},
        {"type": "set", "value": 1},
        {"type": "set", "key": "", "value": 1},
        {"type": "set", "key": 1, "value": 1},
        {"type": "set", "key": "__proto__", "value": 1},
        {"type": "set", "key": "$.a.__proto__.b", "value": 1},
        {"type": "increment", "key": "a", "value": "1"},
        {"type": "increment", "key": "a", "value": True},
        {"type": "update", "value": [1]},
    ],
)
def test_operations_that_are_refused_name_their_place(operation: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"operations\[1\]"):
        check_operations([{"type": "delete", "key": "a"}, operation], "operations")


values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
keys = st.sampled_from(["a", "b", "$.a", "$.a.b", "$.a.0", "$.b.1.c", "$.", "$..", "$.a.-1", "$.c.99999999"])
operations = st.fixed_dictionaries({"type": st.sampled_from(TYPES[:4]), "key": keys, "value": values})


@given(st.dictionaries(st.sampled_from("abc"), values), st.lists(operations, max_size=6))
def test_any_operations_leave_an_object_that_json_can_hold(
    before: dict[str, Any], changes: list[dict[str, Any]]
) -> None:
    after = applied(before, check_operations(changes, "operations"))
    assert isinstance(after, dict)
    assert json.loads(json.dumps(after)) == after


def test_metadata_is_measured_in_bytes() -> None:
    assert check_size("x" * 262_144)
    with pytest.raises(PayloadTooLarge):
        check_size("ä" * 131_073)
