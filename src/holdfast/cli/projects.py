"""`holdfast projects` and `holdfast environments`: make and list them, in the database itself."""

from __future__ import annotations

from typing import Any

import click

from holdfast.cli import Family
from holdfast.cli.api import json_option
from holdfast.cli.database import Database, database_option, open_database, project_option
from holdfast.cli.output import emit, emit_json, say, table
from holdfast.model.environment import Environment, Project

branch_option = click.option("--branch", required=True, help="The branch, as in the header x-trigger-branch.")


@click.group(cls=Family)
def projects() -> None:
    """Make and list projects. Works on the database; no server needs to run."""


@projects.command("create")
@click.argument("name")
@click.option("--ref", help="What paths and configurations call it; made up by default.")
@database_option
@json_option
def create_project(name: str, ref: str | None, database: str | None, as_json: bool) -> None:
    """Make a project with the environments dev, staging, prod and preview, and print its ref."""
    from holdfast.engine.projects import NewProject, create_projects

    with open_database(database, create=True) as there:
        made = there.do(create_projects, NewProject(name, ref))
    if as_json:
        emit_json(_project(made))
    else:
        emit(made.ref)
        say(f"next: `holdfast keys create --project {made.ref} --environment dev --root`")


@projects.command("list")
@database_option
@json_option
def list_projects(database: str | None, as_json: bool) -> None:
    """All projects, the oldest first."""
    from holdfast.engine import projects as owners

    with open_database(database) as there:
        found = there.read(owners.projects)
    if as_json:
        emit_json([_project(one) for one in found])
    else:
        table(("ref", "name"), [(one.ref, one.name) for one in found])


@click.group(cls=Family)
def environments() -> None:
    """List environments; make and archive preview branches. Works on the database."""


@environments.command("list")
@project_option
@click.option("--all", "everything", is_flag=True, help="Also archived branches.")
@database_option
@json_option
def list_environments(project: str | None, everything: bool, database: str | None, as_json: bool) -> None:
    """The environments of all projects, or of one."""
    from holdfast.engine import projects as owners

    with open_database(database) as there:
        found = there.read(owners.environments)
    rows = [
        _environment(one)
        for one in found
        if project in (None, one.project.ref) and (everything or one.archived_at is None)
    ]
    if as_json:
        emit_json(rows)
        return
    columns = ("id", "project", "environment", "branch", "state")
    table(columns, [[row[column] or "-" for column in columns] for row in rows])


@environments.command("create")
@branch_option
@project_option
@database_option
@json_option
def create_environment(branch: str, project: str | None, database: str | None, as_json: bool) -> None:
    """Make the environment of a preview branch, or bring an archived one back. Prints its id."""
    from holdfast.engine.projects import NewBranch, create_branches

    with open_database(database) as there:
        parent = _found(there, project, None)
        made = there.do(create_branches, NewBranch(parent.project.id, branch))
    if as_json:
        emit_json(_environment(made))
    else:
        emit(made.id)
        say(f"it takes a key tr_preview_… and the header x-trigger-branch: {branch}")


@environments.command()
@branch_option
@project_option
@database_option
@json_option
def archive(branch: str, project: str | None, database: str | None, as_json: bool) -> None:
    """Archive a preview branch: nobody acts in it any more, what is in it stays."""
    from holdfast.engine import projects as owners

    with open_database(database) as there:
        archived = there.do(owners.archive, _found(there, project, branch).id)
    if as_json:
        emit_json(_environment(archived))
    else:
        say(f"archived: {archived.name}")


def _found(there: Database, project: str | None, branch: str | None) -> Environment:
    from holdfast.engine import projects as owners

    return owners.find_environment(there.read(owners.environments), project, "preview", branch)


def _project(one: Project) -> dict[str, Any]:
    return {"id": one.id, "ref": one.ref, "name": one.name}


def _environment(one: Environment) -> dict[str, Any]:
    return {
        "id": one.id,
        "project": one.project.ref,
        "environment": one.type,
        "branch": one.branch,
        "state": "in force" if one.archived_at is None else "archived",
    }
