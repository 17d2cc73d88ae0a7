"""Projects, environments and keys, on both stores."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from engine.world import World
from holdfast.engine.keys import (
    NewKey,
    Replacement,
    all_keys,
    create_keys,
    key_of,
    replace_keys,
    revoke_keys,
    signing,
)
from holdfast.engine.projects import (
    NewBranch,
    NewProject,
    archive,
    create_branches,
    create_projects,
    environment_ids,
    environments,
    find_environment,
    projects,
)
from holdfast.errors import HoldfastError, InvalidRequest, NotFound, Unprocessable
from holdfast.model.environment import DEFAULT_PROJECT, Environment
from holdfast.model.key import ApiKey, KeyKind

DAY_MS = 86_400_000


def new(digest: str = "d1", kind: KeyKind = KeyKind.SECRET, environment: str = "dev", **more: Any) -> NewKey:
    return NewKey(environment, kind, more.pop("name", "test"), digest, f"…{digest}", **more)


def found(world: World, digest: str) -> tuple[ApiKey, Environment] | None:
    answer: tuple[ApiKey, Environment] | None = world.read(lambda tx: key_of(tx, digest))
    return answer


def signers(world: World, environment: str = "dev") -> list[str]:
    signs = world.read(lambda tx: signing(tx, environment))
    return [key.digest for key in signs.keys]


def test_the_default_project_owns_what_was_there_before(world: World) -> None:
    assert [project.id for project in world.read(projects)] == [DEFAULT_PROJECT]
    assert [(one.id, one.type, one.slug) for one in world.read(environments)] == [
        ("dev", "dev", "dev"),
        ("staging", "staging", "stg"),
        ("prod", "prod", "prod"),
        ("preview", "preview", "preview"),
    ]


def test_a_project_has_environments_of_its_own(world: World) -> None:
    made = world.do(create_projects, NewProject(" My app ", "my-app"))
    assert (made.ref, made.name, made.slug) == ("my-app", "My app", "my-app")
    own = [one for one in world.read(environments) if one.project.id == made.id]
    assert [one.type for one in own] == ["dev", "staging", "prod", "preview"]
    assert all(one.id.startswith("env_") for one in own)
    assert {one.id for one in own} < set(world.read(environment_ids))


def test_a_ref_belongs_to_one_project(world: World) -> None:
    def make(_: int) -> Any:
        [answer] = world.store.transact(create_projects, [NewProject("x", "same")])
        return answer

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(make, range(4)))
    assert sum(isinstance(answer, Unprocessable) for answer in answers) == 3
    assert len(world.read(projects)) == 2
    assert len(world.read(environments)) == 8


@pytest.mark.parametrize(
    ("name", "ref"), [("", None), ("x" * 101, None), ("a\nb", None), ("x", "A b"), ("x", "")]
)
def test_names_that_can_not_be_are_refused(world: World, name: str, ref: str | None) -> None:
    with pytest.raises(InvalidRequest):
        world.do(create_projects, NewProject(name, ref))


def test_a_branch_is_made_once_archived_and_brought_back(world: World) -> None:
    made = world.do(create_branches, NewBranch(DEFAULT_PROJECT, "feat/x"))
    assert (made.type, made.branch, made.name) == ("preview", "feat/x", "preview/feat/x")
    assert world.do(create_branches, NewBranch(DEFAULT_PROJECT, "feat/x")) == made
    archived = world.do(archive, made.id)
    assert archived.archived_at == world.clock()
    assert (
        world.do(create_branches, NewBranch(DEFAULT_PROJECT, "feat/x", revive=False)).archived_at is not None
    )
    assert world.do(create_branches, NewBranch(DEFAULT_PROJECT, "feat/x")) == made


def test_only_branches_can_be_archived(world: World) -> None:
    with pytest.raises(Unprocessable, match="prod stays"):
        world.do(archive, "prod")
    with pytest.raises(NotFound):
        world.do(archive, "env_x")


@pytest.mark.parametrize("name", ["", " ", "a b", "a\x00b", "é", "x" * 129])
def test_a_branch_needs_a_name_that_can_be_read(world: World, name: str) -> None:
    with pytest.raises(InvalidRequest):
        world.do(create_branches, NewBranch(DEFAULT_PROJECT, name))


def test_an_environment_is_found_by_what_people_call_it(world: World) -> None:
    known = world.read(environments)
    assert find_environment(known, None, "prod", None).id == "prod"
    world.do(create_projects, NewProject("x", "other"))
    known = world.read(environments)
    with pytest.raises(InvalidRequest, match="several projects"):
        find_environment(known, None, "prod", None)
    assert find_environment(known, "other", "prod", None).project.ref == "other"
    for project, branch in (("nope", None), ("other", "nope")):
        with pytest.raises(NotFound):
            find_environment(known, project, "preview", branch)


def test_a_key_is_found_by_its_digest_until_it_is_revoked(world: World) -> None:
    made = world.do(create_keys, new(scopes=["read:runs"]))
    key, where = found(world, "d1") or (None, None)
    assert key == made
    assert (where and where.id, made.scope_list) == ("dev", ("read:runs",))
    revoked = world.do(revoke_keys, made.id)
    assert revoked.state(world.clock()) == "revoked"
    assert found(world, "d1") is None
    assert world.do(revoke_keys, made.id) == revoked
    with pytest.raises(NotFound):
        world.do(revoke_keys, "key_x")


def test_a_replaced_key_is_valid_for_the_grace_period(world: World) -> None:
    old = world.do(create_keys, new("old", KeyKind.ROOT, sealed="s"))
    world.do(replace_keys, Replacement(old.id, new("new", KeyKind.ROOT, sealed="t"), DAY_MS))
    assert found(world, "old") is not None
    assert signers(world) == ["new", "old"]  # the new one signs, both verify
    world.clock.advance(DAY_MS - 1)
    assert found(world, "old") is not None
    world.clock.advance(1)
    assert found(world, "old") is None
    assert found(world, "new") is not None
    assert signers(world) == ["new"]


def test_without_a_grace_period_the_old_key_ends_at_once(world: World) -> None:
    old = world.do(create_keys, new("old"))
    world.do(replace_keys, Replacement(old.id, new("new"), 0))
    assert found(world, "old") is None


def test_a_key_is_replaced_once(world: World) -> None:
    old = world.do(create_keys, new("old"))

    def rotate(number: int) -> ApiKey | HoldfastError:
        [answer] = world.store.transact(replace_keys, [Replacement(old.id, new(f"new{number}"), DAY_MS)])
        return answer

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(rotate, range(4)))
    assert sum(isinstance(answer, ApiKey) for answer in answers) == 1
    assert len(world.read(all_keys)) == 2


def test_a_replacement_that_is_refused_leaves_the_old_key_as_it_is(world: World) -> None:
    old = world.do(create_keys, new("old"))
    with pytest.raises(InvalidRequest, match="grace"):
        world.do(replace_keys, Replacement(old.id, new("new"), 31 * DAY_MS))
    with pytest.raises(InvalidRequest, match="name"):
        world.do(replace_keys, Replacement(old.id, new("new", name=""), 0))
    assert found(world, "old") is not None


def test_revoking_forgets_what_was_sealed(world: World) -> None:
    made = world.do(create_keys, new("r", KeyKind.ROOT, sealed="sealed text"))
    assert world.do(revoke_keys, made.id).sealed is None
    assert signers(world) == []


def test_a_branch_signs_with_the_keys_of_its_preview_environment(world: World) -> None:
    world.do(create_keys, new("r", KeyKind.ROOT, "preview", sealed="s"))
    branch = world.do(create_branches, NewBranch(DEFAULT_PROJECT, "b"))
    assert signers(world, branch.id) == ["r"]
    with pytest.raises(Unprocessable, match="takes the keys of preview"):
        world.do(create_keys, new("x", environment=branch.id))
    other = world.do(create_projects, NewProject("x"))
    stranger = world.do(create_branches, NewBranch(other.id, "b"))
    assert signers(world, stranger.id) == []


@pytest.mark.parametrize(
    ("item", "error"),
    [
        (new(environment="env_x"), NotFound),
        (new(name=""), InvalidRequest),
        (new(scopes=["eat:runs"]), InvalidRequest),
        (new(scopes=[]), InvalidRequest),
        (new(kind=KeyKind.ROOT, scopes=["read:runs"]), InvalidRequest),
        (new(kind=KeyKind.PUBLIC, scopes=["read:runs"]), InvalidRequest),
    ],
)
def test_a_key_that_can_not_be_is_refused(world: World, item: NewKey, error: type[HoldfastError]) -> None:
    with pytest.raises(error):
        world.do(create_keys, item)
    world.do(create_keys, replace(new(), digest="d2"))
    assert [key.digest for key, _ in world.read(all_keys)] == ["d2"]


def test_whoever_changes_keys_wakes_those_who_remember_them(world: World) -> None:
    made = world.do(create_keys, new())
    assert "keys" in world.wakes
    world.wakes.clear()
    world.do(revoke_keys, made.id)
    assert "keys" in world.wakes
