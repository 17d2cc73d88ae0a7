"""`holdfast queues`: list, pause and resume queues, and put other limits in the place of the declared ones."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import click

from holdfast.cli import Family
from holdfast.cli.api import JSON, Server, json_option, open_server, server_option
from holdfast.cli.output import emit_json, say, table
from holdfast.model.limits import MAX_PAGE, MAX_QUEUE_LIMIT

COLUMNS = ("queue", "running", "queued", "limit", "state")
QUEUE_ID = re.compile(r"queue_[0-9a-z]{21,26}")
queue_argument = click.argument("queue", metavar="QUEUE")


class Queues(Family):
    """The verbs in the order of their use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=Queues)
def queues() -> None:
    """List, pause and limit queues. QUEUE is a name; the queue of a task is task/ID."""


@queues.command("list")
@server_option
@json_option
def list_queues(server: str | None, as_json: bool) -> None:
    """All queues, with what goes on in them now."""
    with open_server(server) as there:
        found = all_queues(there)
        if as_json:
            emit_json(list(found))
            return
        rows = [row_of(queue) for queue in found]
    table(COLUMNS, rows)
    if not rows:
        say("no queues yet: they appear when a worker registers its tasks")


@queues.command()
@queue_argument
@server_option
@json_option
def pause(queue: str, server: str | None, as_json: bool) -> None:
    """Start no more runs of the queue; those that run go on."""
    changed(queue, "pause", {"action": "pause"}, server, as_json)


@queues.command()
@queue_argument
@server_option
@json_option
def resume(queue: str, server: str | None, as_json: bool) -> None:
    """Start runs of the queue again."""
    changed(queue, "pause", {"action": "resume"}, server, as_json)


@queues.command()
@queue_argument
@click.argument("limit", type=click.IntRange(0, MAX_QUEUE_LIMIT), required=False)
@click.option("--reset", is_flag=True, help="Put the limit that the code declares in force again.")
@server_option
@json_option
def limit(queue: str, limit: int | None, reset: bool, server: str | None, as_json: bool) -> None:
    """Let at most LIMIT runs of the queue run at once, whatever the code declares."""
    if (limit is None) is not reset:
        raise click.UsageError("give either a LIMIT or --reset", click.get_current_context())
    if reset:
        changed(queue, "concurrency/reset", {}, server, as_json)
    else:
        changed(queue, "concurrency/override", {"concurrencyLimit": limit}, server, as_json)


def all_queues(there: Server) -> Iterator[JSON]:
    number = 1
    while True:
        page = there.get("/api/v1/queues", {"page": str(number), "perPage": str(MAX_PAGE)})
        yield from page["data"]
        if number >= page["pagination"]["totalPages"]:
            return
        number += 1


def changed(queue: str, verb: str, body: dict[str, Any], server: str | None, as_json: bool) -> None:
    kind, name = named(queue)
    # As the SDK does: a slash is written as %2F, and then all of it is encoded.
    path = f"/api/v1/queues/{quote(name.replace('/', '%2F'), safe='')}/{verb}"
    with open_server(server) as there:
        now = there.post(path, {"type": kind, **body})
    if as_json:
        emit_json(now)
    else:
        table(COLUMNS, [row_of(now)])


def named(queue: str) -> tuple[str, str]:
    """The type and the name by which the API knows a queue."""
    if QUEUE_ID.fullmatch(queue):
        return "id", queue
    return ("task", queue.removeprefix("task/")) if queue.startswith("task/") else ("custom", queue)


def row_of(queue: JSON) -> tuple[str, ...]:
    limit, own = queue["concurrencyLimit"], queue["concurrency"]
    shown = "-" if limit is None else str(limit)
    if own["override"] is not None:
        shown += f" (declared: {'-' if own['base'] is None else own['base']})"
    name = f"task/{queue['name']}" if queue["type"] == "task" else queue["name"]
    return name, str(queue["running"]), str(queue["queued"]), shown, "paused" if queue["paused"] else "active"
