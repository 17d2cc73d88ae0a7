"""Projects and environments: make them, find them, archive branches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.errors import HoldfastError, InvalidRequest, NotFound, Unprocessable
from holdfast.model.environment import TYPES, Environment, Project, checked_branch, checked_name
from holdfast.stores.base import Row, Tx

DEFAULT_LIMIT = 1_000  # runs at once in a new environment


@dataclass(frozen=True, slots=True)
class NewProject:
    """`ref` is chosen by whoever makes it, or made up."""

    name: str
    ref: str | None = None


@dataclass(frozen=True, slots=True)
class NewBranch:
    """A branch environment of a project. An archived one is brought back where `revive` says so."""

    project_id: str
    branch: str
    revive: bool = True


def create_projects(tx: Tx, items: list[NewProject]) -> list[Project | HoldfastError]:
    """Makes projects, each with the environments dev, staging, prod and preview. Refuses a ref that is taken."""
    return [_created(tx, item) for item in items]


def create_branches(tx: Tx, items: list[NewBranch]) -> list[Environment | HoldfastError]:
    """Makes branch environments, or finds those that are there; an archived one is refused unless it is to revive."""
    answers: list[Environment | HoldfastError] = []
    for item in items:
        try:
            name = checked_branch(item.branch)
        except InvalidRequest as error:
            answers.append(error)
            continue
        _add_environment(tx, tx.new_id("env"), item.project_id, "preview", name)
        found = branch_environment(tx, item.project_id, name)
        assert found is not None
        if found.archived_at is not None and item.revive:
            tx.do("archive_environment", id=found.id, archived_at=None)
            found = branch_environment(tx, item.project_id, name)
            assert found is not None
        answers.append(found)
    tx.wake("keys")
    return answers


def archive(tx: Tx, items: list[str]) -> list[Environment | HoldfastError]:
    """Archives branch environments, by id: nobody acts in them any more, what is in them stays."""
    answers: list[Environment | HoldfastError] = []
    for id in items:
        found = environment(tx, id)
        if found is None:
            answers.append(NotFound(f"environment {id!r} does not exist"))
        elif found.branch is None:
            answers.append(Unprocessable(f"environment {found.name} stays: only branches can be archived"))
        else:
            tx.do("archive_environment", id=id, archived_at=found.archived_at or tx.now)
            answers.append(environment(tx, id) or found)
    tx.wake("keys")
    return answers


def projects(tx: Tx) -> list[Project]:
    """All projects, the oldest first."""
    return [Project(**row) for row in tx.all("projects")]


def environments(tx: Tx) -> list[Environment]:
    """The environments of all projects: by project, type and branch."""
    found = [_environment(row) for row in tx.all("full_environments")]
    return sorted(
        found,
        key=lambda one: (one.project.created_at, one.project.id, TYPES.index(one.type), one.branch or ""),
    )


def environment_ids(tx: Tx) -> list[str]:
    return tx.ids("environment_ids")


def environment(tx: Tx, id: str) -> Environment | None:
    row = tx.one("full_environment", id=id)
    return None if row is None else _environment(row)


def branch_environment(tx: Tx, project_id: str, branch: str) -> Environment | None:
    row = tx.one("branch_environment", project_id=project_id, branch=branch)
    return None if row is None else _environment(row)


def find_environment(
    found: Sequence[Environment], project: str | None, type: str, branch: str | None
) -> Environment:
    """The one that is called so; without a project, of the only one or the default. Raises NotFound, InvalidRequest."""
    known = {one.project.ref: one.project for one in found}
    if project is None:
        if len(known) > 1:
            raise InvalidRequest(
                f"there are several projects: name one of {', '.join(sorted(known))}", "project"
            )
        project = next(iter(known))
    if project not in known:
        raise NotFound(f"project {project!r} does not exist: there are {', '.join(sorted(known))}")
    for one in found:
        if (one.project.ref, one.type, one.branch) == (project, type, branch):
            return one
    raise NotFound(f"project {project} has no environment {type}" + ("" if branch is None else f"/{branch}"))


def _created(tx: Tx, item: NewProject) -> Project | HoldfastError:
    try:
        name = checked_name(item.name, "name")
        project_id = tx.new_id("proj")
        ref = project_id if item.ref is None else _checked_ref(item.ref)
    except InvalidRequest as error:
        return error
    if not tx.ids("add_project", id=project_id, ref=ref, name=name, now=tx.now):
        return Unprocessable(f"ref {ref!r} is taken by another project", "ref")
    for type in TYPES:
        _add_environment(tx, tx.new_id("env"), project_id, type, None)
    return Project(project_id, ref, name, tx.now)


def _checked_ref(ref: str) -> str:
    kept = ref.replace("-", "").replace("_", "")
    if not 1 <= len(ref) <= 64 or not kept.isascii() or not kept.isalnum() or ref != ref.lower():
        raise InvalidRequest(
            f"ref is {ref[:40]!r}: expected 1 to 64 lower-case letters, digits, hyphens and underscores",
            "ref",
        )
    return ref


def _add_environment(tx: Tx, id: str, project_id: str, type: str, branch: str | None) -> None:
    tx.do(
        "add_environment",
        id=id,
        project_id=project_id,
        type=type,
        branch=branch,
        concurrency_limit=DEFAULT_LIMIT,
        now=tx.now,
    )


def _environment(row: Row) -> Environment:
    project = Project(row["project_id"], row["ref"], row["name"], row["project_created_at"])
    return Environment(
        row["id"],
        project,
        row["type"],
        row["branch"],
        row["concurrency_limit"],
        row["archived_at"],
        row["created_at"],
    )
