"""`holdfast runs cancel --tag …`: what is done to all runs that match, by a bulk action of the server."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import click

from holdfast.cli.api import JSON, open_server
from holdfast.cli.output import emit, emit_json, say
from holdfast.errors import HoldfastError

F = TypeVar("F", bound=Callable[..., Any])
LOOK_SECONDS = 0.2


class SomeFailed(HoldfastError):
    """Something could not be done to some of the runs."""

    code = "bulk_action_failed"


def matching_options(command: F) -> F:
    """The options that select runs in the place of their ids."""
    for option in (
        click.option("--tag", multiple=True, help="In the place of RUN: all with this tag."),
        click.option("--task", multiple=True, help="In the place of RUN: all of this task."),
        click.option(
            "--status", multiple=True, metavar="STATUS", help="In the place of RUN: all in this status."
        ),
    ):
        command = option(command)
    return command


def filter_of(status: list[str], task: tuple[str, ...], tag: tuple[str, ...]) -> JSON:
    """What selects the runs, as the API names it; nothing when no option was given."""
    given = {"status": status, "taskIdentifier": list(task), "tag": list(tag)}
    return {name: values for name, values in given.items() if values}


def check_selection(ids: tuple[str, ...], selected: JSON) -> None:
    """Raises UsageError unless either ids or options select runs."""
    if ids and selected:
        raise click.UsageError("give either RUN or --status, --task and --tag: not both")
    if not ids and not selected:
        raise click.UsageError(
            "Missing argument 'RUN...': name runs, or select them by --status, --task or --tag."
        )


def act_on_all(action: str, selected: JSON, server: str | None, form: str | None, as_json: bool) -> None:
    """Has it done and waits for its end. Interrupting the wait does not stop it. `form` "ids" prints its id."""
    with open_server(server) as there:
        bulk_id = there.post("/api/v1/bulk-actions", {"action": action, "filter": selected})["id"]
        say(f"{bulk_id} goes on also when this command is interrupted")
        while (told := there.get(f"/api/v1/bulk-actions/{bulk_id}"))["status"] == "PENDING":
            time.sleep(LOOK_SECONDS)
    counts = told["counts"]
    if as_json:
        emit_json(told)
    elif form == "ids":
        emit(bulk_id)
    else:
        emit(f"{told['status']}: {counts['success']} of {counts['total']} runs")
    if counts["failure"]:
        raise SomeFailed(f"{counts['failure']} runs failed to {action}")
