"""Scopes: what grants what, and which of them go beyond others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import InvalidRequest
from holdfast.model import limits
from holdfast.model.scope import ACTIONS, KINDS, PRESETS, checked_scopes, covers, exceeding

ids = st.sampled_from(["1", "a:b", "run_x"])
actions, kinds = st.sampled_from(ACTIONS), st.sampled_from([*KINDS, "all"])
scopes = st.one_of(
    st.just("admin"),
    st.builds("{}:{}".format, actions, kinds),
    st.builds("{}:{}:{}".format, actions, kinds, ids),
)
things = st.tuples(st.sampled_from(KINDS), st.one_of(st.none(), ids))
asked_actions = st.sampled_from([action for action in ACTIONS if action != "*"])


@given(scopes, st.lists(scopes, max_size=4), asked_actions, things)
def test_what_does_not_exceed_grants_nothing_that_was_not_granted(
    scope: str, held: list[str], action: str, thing: tuple[str, str | None]
) -> None:
    if not exceeding([scope], held) and covers([scope], action, [thing]):
        assert covers(held, action, [thing])


@given(scopes, st.lists(scopes, max_size=4))
def test_a_scope_does_not_exceed_itself(scope: str, others: list[str]) -> None:
    assert exceeding([scope], [*others, scope]) == []
    assert exceeding([scope], ["admin"]) == exceeding([scope], None) == []


@pytest.mark.parametrize(
    ("asked", "held", "within"),
    [
        ("read:runs:run_1", "read:runs", True),
        ("read:runs:run_1", "read:runs:run_1", True),
        ("read:runs:run_1", "read:runs:run_2", False),
        ("read:runs", "read:runs:run_1", False),
        ("read:runs", "read:all", True),
        ("read:all", "read:runs", False),
        ("read:runs", "*:runs", True),
        ("*:runs", "read:runs", False),
        ("*:all", "admin", True),
        ("admin", "*:all", False),
        ("write:runs", "read:runs", False),
        ("read:runs:a:b", "read:runs:a", False),
        ("read:all:1", "read:all", True),
    ],
)
def test_exceeding(asked: str, held: str, within: bool) -> None:
    assert exceeding([asked], [held]) == ([] if within else [asked])


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_can_be_read(preset: str) -> None:
    if (granted := PRESETS[preset]) is not None:
        assert checked_scopes(granted) == list(granted)


def test_repeats_are_dropped() -> None:
    assert checked_scopes(["read:runs", "admin", "read:runs"]) == ["read:runs", "admin"]


@pytest.mark.parametrize(
    "scope",
    [
        "",
        "read",
        "read:",
        ":runs",
        "eat:runs",
        "read:runs:",
        "read::1",
        "read:ru ns",
        "Admin",
        "read:runs:\n",
        "read:runs:" + "x" * limits.MAX_SCOPE_TEXT,
    ],
)
def test_what_is_no_scope_is_named(scope: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        checked_scopes(["read:runs", scope])
    assert caught.value.param == "scopes"


@pytest.mark.parametrize("count", [0, limits.MAX_SCOPES + 1])
def test_there_are_some_scopes_and_not_too_many(count: int) -> None:
    with pytest.raises(InvalidRequest, match=f"has {count} entries"):
        checked_scopes([f"read:runs:{number}" for number in range(count)])
