"""Keys: what they look like, and what may be shown of them."""

from __future__ import annotations

import re

import pytest

from holdfast.config import environment_of
from holdfast.model.environment import TYPES, Project, type_named
from holdfast.model.key import KeyKind, digest, looks_like_key, new_key, shown

SHAPES = {
    KeyKind.ROOT: r"tr_(dev|stg|prod|preview)_[0-9a-zA-Z]{24,}",
    KeyKind.SECRET: r"tr_(dev|stg|prod|preview)_sk_[0-9a-zA-Z]{24}",  # as the SDK knows them
    KeyKind.PUBLIC: r"pk_(dev|stg|prod|preview)_[0-9a-zA-Z]{24,}",
}


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("kind", KeyKind)
def test_a_key_has_the_shape_of_its_kind_and_environment(kind: KeyKind, type: str) -> None:
    key = new_key(kind, type)
    assert [other for other, shape in SHAPES.items() if re.fullmatch(shape, key)] == [kind]
    assert looks_like_key(key)
    assert environment_of(key) == (None if kind is KeyKind.PUBLIC else type)
    assert new_key(kind, type) != key


@pytest.mark.parametrize("kind", KeyKind)
def test_only_the_last_four_characters_are_shown(kind: KeyKind) -> None:
    key = new_key(kind, "prod")
    seen = shown(key)
    assert seen.endswith(f"_…{key[-4:]}")
    assert key[-8:-4] not in seen
    assert len(digest(key)) == 64


@pytest.mark.parametrize("text", ["", "tr_", "xx_dev_abc", "tr_dev_é", "tr_dev_" + "x" * 600, "pk_other_x"])
def test_what_is_no_key_does_not_look_like_one(text: str) -> None:
    assert not looks_like_key(text)


def test_environments_go_by_their_type_or_their_slug() -> None:
    assert [type_named(word) for word in ("dev", "stg", "staging", "prod", "preview", "production", "")] == [
        "dev",
        "staging",
        "staging",
        "prod",
        "preview",
        None,
        None,
    ]


@pytest.mark.parametrize(("name", "slug"), [("My App!", "my-app"), ("Größe", "gr-e"), ("中文", "proj_1")])
def test_the_slug_of_a_project_is_made_of_its_name(name: str, slug: str) -> None:
    assert Project("proj_1", "proj_1", name, 0).slug == slug
