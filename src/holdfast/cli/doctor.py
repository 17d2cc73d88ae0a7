"""`holdfast doctor`: one line for each thing that must be right."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from holdfast.cli.api import Refused, Server, server_option
from holdfast.cli.folder import client_settings
from holdfast.cli.output import emit, emit_json, paint, safe
from holdfast.config import Settings, configured_tasks
from holdfast.errors import HoldfastError

IMPORT_SECONDS = 60.0
# In a process of its own: a module of tasks may do anything when it is imported.
IMPORT_PROGRAM = """
import json, sys
from holdfast.sdk import registry
failures = [str(failure) for failure in registry.load(sys.argv[1:])]
sys.stderr.write("\\n" + json.dumps({"tasks": len(registry.tasks()), "failures": failures}))
"""


@dataclass(frozen=True, slots=True)
class Finding:
    what: str
    ok: bool
    detail: str  # for a problem: what to do about it


@click.command()
@click.argument("tasks", nargs=-1)
@click.option("--database", metavar="URL", help="The database.  [env: HOLDFAST_DATABASE_URL]")
@server_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(tasks: tuple[str, ...], database: str | None, server: str | None, as_json: bool) -> None:
    """Look whether everything is as it must be; exit 1 when something is not."""
    found = []
    for finding in findings(tasks, database, server):
        found.append(finding)
        if not as_json:
            word = (
                paint("✓ ok     ", "green", sys.stdout)
                if finding.ok
                else paint("✕ problem", "red", sys.stdout)
            )
            emit(f"{word}  {finding.what:<9} {safe(finding.detail)}")
    if as_json:
        emit_json([{"what": one.what, "ok": one.ok, "detail": one.detail} for one in found])
    if not all(one.ok for one in found):
        raise click.exceptions.Exit(1)


def findings(tasks: tuple[str, ...], database: str | None, server: str | None) -> Iterator[Finding]:
    """Each finding as soon as it is made."""
    yield Finding("python", sys.version_info >= (3, 11), f"{sys.version.split()[0]} at {sys.executable}")
    new = sqlite3.sqlite_version_info >= (3, 38)
    yield Finding(
        "sqlite",
        new,
        sqlite3.sqlite_version + ("" if new else ": 3.38 is needed; take a newer Python, or PostgreSQL"),
    )
    try:
        settings = Settings.load(database_url=database)
        there = client_settings(Path.cwd(), server)
    except HoldfastError as error:
        yield Finding("settings", False, str(error))
        return
    yield Finding("settings", True, "every variable can be read")
    yield checked("database", lambda: _database(settings.database_url))
    yield checked("server", lambda: _server(there))
    yield checked("key", lambda: _key(there))
    yield checked("tasks", lambda: _tasks(list(tasks) or configured_tasks(Path.cwd())))


def checked(what: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(what, True, look())
    except HoldfastError as error:
        hint = getattr(error, "hint", "")
        return Finding(what, False, f"{error}{f'; {hint}' if hint else ''}")


def _database(url: str) -> str:
    from holdfast.cli.db import migrations

    applied, pending = migrations(url)
    shown = url.partition("@")[2] or url
    if pending and applied:
        raise HoldfastError(f"{shown}: {len(pending)} migrations are pending: holdfast db upgrade")
    return f"{shown}: " + (
        f"{len(applied)} migrations, none pending" if applied else "empty; made at the first start"
    )


def _server(settings: Settings) -> str:
    with Server(settings.api_url, "") as there:
        there.get("/readyz")
    return f"{settings.api_url} answers"


def _key(settings: Settings) -> str:
    if not settings.keys:
        raise HoldfastError("there is none: set HOLDFAST_SECRET_KEY, or start `holdfast dev` in this folder")
    key, environment = next(iter(settings.keys.items()))
    with Server(settings.api_url, key) as there:
        try:
            there.get("/api/v1/runs", {"page[size]": "1"})
        except Refused as error:
            raise HoldfastError(f"{settings.api_url} does not take it: {error}; {error.hint}") from error
    return f"accepted, environment {environment}"


def _tasks(names: list[str]) -> str:
    import json

    if not names:
        return 'none are named; commands take them as arguments, or tasks = ["jobs"] below [tool.holdfast] in pyproject.toml'
    try:
        done = subprocess.run(  # noqa: S603  # this very Python, and a program of ours
            [sys.executable, "-c", IMPORT_PROGRAM, *names],
            check=False,
            capture_output=True,
            text=True,
            timeout=IMPORT_SECONDS,
        )
        answer = json.loads(done.stderr.splitlines()[-1])
    except subprocess.TimeoutExpired:
        raise HoldfastError(
            f"{', '.join(names)}: the import takes longer than {IMPORT_SECONDS:.0f} s"
        ) from None
    except (ValueError, IndexError):
        raise HoldfastError(
            f"{', '.join(names)}: the import ends the process: {done.stderr[-300:]}"
        ) from None
    if answer["failures"]:
        raise HoldfastError("; ".join(answer["failures"]))
    if not answer["tasks"]:
        raise HoldfastError(f"{', '.join(names)}: no function is decorated with @task")
    return f"{answer['tasks']} tasks in {', '.join(names)}"
