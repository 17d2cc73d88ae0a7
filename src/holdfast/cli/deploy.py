"""`holdfast deploy`: register the code at hand with the server, ahead of its workers."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click

from holdfast.cli.api import json_option, open_server, server_option
from holdfast.cli.output import emit, emit_json, fail, say
from holdfast.model.limits import MAX_EXTERNAL_ID

GIT_SECONDS = 10
MAX_COMMIT_MESSAGE = 1_000  # characters that are told of it


@click.command()
@click.argument("tasks", nargs=-1)
@click.option("--skip-promotion", is_flag=True, help="Do not send plain runs to it yet.")
@click.option("--external-id", metavar="ID", help="What another system calls this deployment.")
@server_option
@json_option
def deploy(
    tasks: tuple[str, ...], skip_promotion: bool, external_id: str | None, server: str | None, as_json: bool
) -> None:
    """Register TASKS as a deployment, with their queues, schedules and payload schemas. Prints its version.

    It runs nothing: workers of the same code have this version, and get the runs. The same code again is the same
    version. Exits with 1 when a module does not import.
    """
    from holdfast.cli.serve import named
    from holdfast.worker.manifest import collect

    if external_id is not None and not 1 <= len(external_id.strip()) <= MAX_EXTERNAL_ID:
        raise click.UsageError(f"--external-id has 1 to {MAX_EXTERNAL_ID} characters")
    names = named(tasks)
    manifest = collect(names)
    if manifest["failures"] or not manifest["tasks"]:
        for failure in manifest["failures"] or [f"no tasks were found in {', '.join(names)}"]:
            fail(failure)
        say("nothing was deployed")
        raise click.exceptions.Exit(1)
    body: dict[str, Any] = {
        **{name: manifest[name] for name in ("fingerprint", "tasks", "queues")},
        "runtime": platform.python_implementation().lower().replace("cpython", "python"),
        "runtimeVersion": platform.python_version(),
        "skipPromotion": skip_promotion,
    }
    if commit := git_commit(Path.cwd()):
        body["git"] = commit
    if external_id is not None:
        body["externalId"] = external_id.strip()
    with open_server(server) as there:
        deployed = there.post("/api/v1/deployments", body)
    if as_json:
        emit_json(deployed)
        return
    emit(deployed["version"])
    count = len(manifest["tasks"])
    what = f"{count} task{'' if count == 1 else 's'} and {len(manifest['queues'])} declared queues"
    if skip_promotion:
        say(f"deployed {what}; `holdfast deployments promote {deployed['version']}` sends plain runs to it")
    else:
        say(f"deployed {what}; plain runs go to workers of this code now")


def git_commit(folder: Path) -> dict[str, Any] | None:
    """The commit that is checked out, as the API names its parts; None where there is none, or no git."""
    program = shutil.which("git")
    sha = None if program is None else _git(program, folder, "rev-parse", "HEAD")
    if program is None or not sha:
        return None
    changes = _git(program, folder, "status", "--porcelain", "--untracked-files=no")
    told: dict[str, Any] = {"commitSha": sha, "dirty": bool(changes)}
    branch = _git(program, folder, "rev-parse", "--abbrev-ref", "HEAD")
    if branch and branch != "HEAD":  # which it says when no branch is checked out
        told["commitRef"] = branch
    if message := _git(program, folder, "log", "-1", "--format=%B"):
        told["commitMessage"] = message[:MAX_COMMIT_MESSAGE]
    if author := _git(program, folder, "log", "-1", "--format=%an"):
        told["commitAuthorName"] = author[:MAX_COMMIT_MESSAGE]
    return told


def _git(program: str, folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603  # git, with arguments of ours
            [program, "-C", str(folder), *arguments],
            capture_output=True,
            timeout=GIT_SECONDS,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return (
        done.stdout.decode("utf-8", "replace").replace("\x00", "").strip() if done.returncode == 0 else None
    )
