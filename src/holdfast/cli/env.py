"""`holdfast env`: the environment variables that executors find in their environment."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from holdfast.cli import Family
from holdfast.cli.api import Server, json_option, open_server, server_option
from holdfast.cli.output import emit, emit_json, safe, say, table
from holdfast.errors import InvalidRequest

COLUMNS = ("name", "value", "secret")
branch_option = click.option(
    "--branch", metavar="NAME", help="A preview branch; it has its parent's variables as well."
)
secret_option = click.option("--secret", is_flag=True, help="Nobody but workers can read the value again.")
name_argument = click.argument("name")


class Variables(Family):
    """The verbs in the order of their use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=Variables)
def env() -> None:
    """Read and set environment variables of tasks. Executors that are started later see the change."""


@env.command("list")
@branch_option
@server_option
@json_option
def list_variables(branch: str | None, server: str | None, as_json: bool) -> None:
    """All variables. Secret values are not shown."""
    with open_server(server, branch) as there:
        found = there.get(path(there))
    if as_json:
        emit_json(found)
        return
    table(COLUMNS, [(one["name"], one["value"], "secret" if one["isSecret"] else "") for one in found])
    if not found:
        say("no variables; `holdfast env set NAME` makes one")


@env.command()
@name_argument
@branch_option
@server_option
@json_option
def get(name: str, branch: str | None, server: str | None, as_json: bool) -> None:
    """The value of a variable."""
    with open_server(server, branch) as there:
        found = there.get(f"{path(there)}/{quote(name, safe='')}")
    if as_json:
        emit_json(found)
    else:
        emit(found["value"] if not sys.stdout.isatty() else safe(found["value"]))
    if found["isSecret"]:
        say(f"{safe(name)} is a secret: its value is told to workers only")


@env.command("set")
@name_argument
@click.argument("value", required=False)
@secret_option
@branch_option
@server_option
@json_option
def set_variable(
    name: str, value: str | None, secret: bool, branch: str | None, server: str | None, as_json: bool
) -> None:
    """Make a variable, or give it another value: NAME VALUE, or NAME=VALUE.

    Without VALUE it is asked for, or read from stdin.
    """
    if value is None and "=" in name:  # no name holds one
        name, _, value = name.partition("=")
    imported({name: asked(name) if value is None else value}, True, secret, branch, server, as_json)


@env.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@branch_option
@server_option
@json_option
def unset(names: tuple[str, ...], branch: str | None, server: str | None, as_json: bool) -> None:
    """Delete variables."""
    with open_server(server, branch) as there:
        for name in names:
            answer = there.delete(f"{path(there)}/{quote(name, safe='')}")
            if as_json:
                emit_json(answer)


@env.command("import")
@click.argument("file", metavar="FILE")
@click.option("--override", is_flag=True, help="Change those that are there; else nothing is imported.")
@secret_option
@branch_option
@server_option
@json_option
def import_file(
    file: str, override: bool, secret: bool, branch: str | None, server: str | None, as_json: bool
) -> None:
    """Set the variables of a file of NAME=value lines, all or none; `-` reads stdin."""
    from holdfast.cli.dotenv import parsed

    variables = parsed(contents(file), "stdin" if file == "-" else file)
    imported(variables, override, secret, branch, server, as_json)
    say(f"{len(variables)} variable{'' if len(variables) == 1 else 's'} set")


def imported(
    variables: dict[str, str],
    override: bool,
    secret: bool,
    branch: str | None,
    server: str | None,
    as_json: bool,
) -> None:
    body: dict[str, Any] = {"variables": variables, "override": override}
    if secret:
        body["isSecret"] = True
    with open_server(server, branch) as there:
        answer = there.post(f"{path(there)}/import", body)
    if as_json:
        emit_json(answer)


def asked(name: str) -> str:
    """A value that no history of a shell keeps; the last line break of a pipe is not part of it."""
    if sys.stdin.isatty():
        value: str = click.prompt(
            f"value of {name}", hide_input=True, default="", show_default=False, err=True
        )
        return value
    return sys.stdin.read().removesuffix("\n").removesuffix("\r")


def contents(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InvalidRequest(f"{file} can not be read: {reason}", "FILE") from None


def path(there: Server) -> str:
    """Where the variables of the key's environment are."""
    own = there.get("/api/v1/whoami")
    return f"/api/v1/projects/{own['project']['externalRef']}/envvars/{own['slug']}"
