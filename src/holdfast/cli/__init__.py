"""The command line: each command is a few lines over the rest, and imports what it needs when it runs.

stdout is data, stderr is talk. Exit codes: 0 ok, 1 failed, 2 usage, 3 not authorised, 4 not found,
5 conflict, 124 timed out waiting, 130 interrupted.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from holdfast import errors
from holdfast.cli.output import fail

COMMANDS = {
    "dev": "holdfast.cli.dev:dev",
    "start": "holdfast.cli.serve:start",
    "server": "holdfast.cli.serve:server",
    "worker": "holdfast.cli.serve:worker",
    "trigger": "holdfast.cli.trigger:trigger",
    "runs": "holdfast.cli.runs:runs",
    "queues": "holdfast.cli.queues:queues",
    "schedules": "holdfast.cli.schedules:schedules",
    "deploy": "holdfast.cli.deploy:deploy",
    "deployments": "holdfast.cli.deployments:deployments",
    "keys": "holdfast.cli.keys:keys",
    "projects": "holdfast.cli.projects:projects",
    "environments": "holdfast.cli.projects:environments",
    "env": "holdfast.cli.env:env",
    "check": "holdfast.cli.check:check",
    "db": "holdfast.cli.db:db",
    "doctor": "holdfast.cli.doctor:doctor",
}
EXIT_CODES: dict[type[BaseException], int] = {
    errors.InvalidRequest: 2,
    errors.BadSetting: 2,
    errors.NotAuthorised: 3,
    errors.NotFound: 4,
    errors.RunNotFound: 4,
    errors.Fenced: 5,
    errors.ResultTimeout: 124,
}
INTERRUPTED = 130


def main() -> NoReturn:
    """The program `holdfast`."""
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # Python would complain once more while it closes the stream at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Runs one command line; returns its exit code. What went wrong is told on stderr."""
    try:
        code = commands.main(list(arguments), "holdfast", standalone_mode=False)
    except Exception as error:
        return report(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    return code if isinstance(code, int) else 0


class Commands(click.Group):
    """The top group: commands are imported when asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        refuse_unknown(ctx, args[0], list(COMMANDS))
        return super().resolve_command(ctx, args)


class Family(click.Group):
    """A group such as `holdfast runs`: an unknown verb suggests the near one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        refuse_unknown(ctx, args[0], list(self.commands))
        return super().resolve_command(ctx, args)


def refuse_unknown(ctx: click.Context, name: str, known: list[str]) -> None:
    if name in known or name.startswith("-"):
        return
    near = difflib.get_close_matches(name, known, 1, 0.5)
    hint = f" Did you mean `{near[0]}`?" if near else f" There are: {', '.join(known)}."
    raise click.UsageError(f"no such command: {name}.{hint}", ctx)


def report(error: Exception) -> int:
    """Says what went wrong in one line and a hint; returns the exit code."""
    if os.environ.get("HOLDFAST_DEBUG") == "1":
        import traceback

        traceback.print_exception(error)
    if isinstance(error, click.Abort):
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):
        return 0  # the reader of our output has seen enough
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return 2
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx else "holdfast"
        fail(error.format_message(), f"`{path} --help` shows how it is used")
        return 2
    if isinstance(error, click.ClickException):
        fail(error.format_message())
        return error.exit_code
    if isinstance(error, errors.HoldfastError):
        fail(str(error), getattr(error, "hint", ""))
        code = getattr(error, "exit_code", None)
        return code if isinstance(code, int) else _code_of(type(error))
    fail(f"{type(error).__name__}: {error}", "this is a fault of Holdfast; HOLDFAST_DEBUG=1 shows where")
    return 1


def _code_of(kind: type[BaseException]) -> int:
    return next((EXIT_CODES[base] for base in kind.__mro__ if base in EXIT_CODES), 1)


def _show_version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from importlib.metadata import version

    click.echo(f"holdfast {version('holdfast')}")
    ctx.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version.",
)
def commands() -> None:
    """Background jobs and durable execution for Python."""
