"""`holdfast check`: would the code at hand go on with the runs that wait now?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import click

from holdfast.cli.api import JSON, Server, json_option, open_server, server_option
from holdfast.cli.output import emit_json, fail, safe, say, table

WAITING = "WAITING_TO_RESUME,WAITING_FOR_DEPLOY,REATTEMPTING,QUEUED"
MOST = 1_000_000


@click.command()
@click.argument("tasks", nargs=-1)
@server_option
@json_option
def check(tasks: tuple[str, ...], server: str | None, as_json: bool) -> None:
    """Replays the journals of all runs that wait now against the code at hand, and does nothing.

    Lists the runs that this code would break; exit code 1 if there are any. Code between steps is
    executed, steps, hooks and triggers are not.
    """
    from holdfast.cli.serve import named
    from holdfast.sdk import registry

    if failures := registry.load(named(tasks)):
        for failure in failures:
            fail(str(failure))
        raise click.exceptions.Exit(1)
    with open_server(server) as there:
        checked, broken = 0, []
        for run in waiting(there):
            checked += 1
            if (why := verdict(there, run)) is not None:
                broken.append({"id": run["id"], "taskIdentifier": run["taskIdentifier"], "why": why})
    if as_json:
        emit_json({"checked": checked, "broken": broken})
    else:
        table(("run", "task", "why"), [[one["id"], one["taskIdentifier"], one["why"]] for one in broken])
        say(f"{checked} waiting runs were checked, {len(broken)} would break")
    if broken:
        raise click.exceptions.Exit(1)


def waiting(there: Server) -> Iterator[JSON]:
    """The runs that have recorded something and wait."""
    for run in there.runs({"filter[status]": WAITING}, MOST):
        if run["startedAt"] is not None:
            yield run


def verdict(there: Server, listed: JSON) -> str | None:
    """Why the code at hand breaks a run; None when it does not, or when there is nothing recorded."""
    import asyncio

    from holdfast.sdk import registry
    from holdfast.worker.rehearsal import rehearse

    journal = list(there.journal(listed["id"]))
    if not journal:
        return None
    task = registry.tasks().get(listed["taskIdentifier"])
    if task is None:
        return f"there is no task {safe(listed['taskIdentifier'])}"
    found = there.run(listed["id"])
    if "payload" not in found:
        found["payload"] = json.loads(there.content(listed["id"], "payload"))
    run = as_claimed(found, journal)

    async def fetch(runs: Sequence[str], tokens: Sequence[str]) -> dict[str, Any]:
        return await asyncio.to_thread(there.results, list(runs), list(tokens))

    return asyncio.run(rehearse(task, run, fetch))


def as_claimed(run: JSON, journal: list[JSON]) -> JSON:
    """A run as a worker would get it."""
    related = run["relatedRuns"]
    return {
        "id": run["id"],
        "lease": 0,
        "task": run["taskIdentifier"],
        "attempt": max(1, len(run["attempts"])),
        "payload": None if run["payload"] is None else json.dumps(run["payload"]),
        "tags": run["tags"],
        "metadata": run["metadata"],
        "queue": "",
        "isTest": run["isTest"],
        "startedAt": milliseconds(run["startedAt"]),
        "now": milliseconds(run["updatedAt"]),
        "parentId": related["parent"] and related["parent"]["id"],
        "rootId": related["root"] and related["root"]["id"],
        "operations": 2**53,  # nothing of it is written
        "journal": journal,
    }


def milliseconds(moment: str) -> int:
    return round(datetime.fromisoformat(moment).timestamp() * 1_000)
