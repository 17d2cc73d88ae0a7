"""`holdfast runs`: list, read, watch, cancel, replay and reschedule runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import Any
from urllib.parse import quote

import click

from holdfast.cli import Family
from holdfast.cli.api import JSON, Server, json_option, open_server, server_option
from holdfast.cli.bulk import act_on_all, check_selection, filter_of, matching_options
from holdfast.cli.output import ago, emit, emit_json, safe, say, table
from holdfast.cli.trigger import check_durations, error_text, payload_of
from holdfast.errors import HoldfastError
from holdfast.model.status import RunStatus

COLUMNS = ("run", "task", "status", "created", "tags")
output_option = click.option(
    "-o", "--output", "form", type=click.Choice(["ids"]), help="`ids` prints one id per line."
)
ids_argument = click.argument("ids", nargs=-1, required=True, metavar="RUN...")
maybe_ids_argument = click.argument("ids", nargs=-1, metavar="[RUN...]")


class Runs(Family):
    """The verbs in the order of their use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=Runs)
def runs() -> None:
    """List, read and change runs. RUN is an id; `-` reads ids from stdin."""


@runs.command("list")
@click.option(
    "--status", multiple=True, metavar="STATUS", help="Such as EXECUTING; also `failed` and `active`."
)
@click.option("--task", multiple=True, help="The id of a task.")
@click.option("--tag", multiple=True, help="A tag.")
@click.option("--queue", multiple=True, help="A queue; that of a task is task/ID.")
@click.option("--version", multiple=True, help="A version of the code, such as 20261124.1.")
@click.option("--machine", multiple=True, help="A machine preset.")
@click.option("--batch", help="The id of a batch.")
@click.option("--schedule", help="The id of a schedule.")
@click.option("--test/--no-test", default=None, help="Only tests, or none of them.")
@click.option("--from", "since", metavar="DATE", help="Created at this moment or later.")
@click.option("--to", "until", metavar="DATE", help="Created at this moment or earlier.")
@click.option("--period", help="Created in the last so much, such as 1h.")
@click.option("--limit", type=click.IntRange(min=1), default=25, show_default=True, help="How many at most.")
@output_option
@server_option
@json_option
def list_runs(limit: int, form: str | None, server: str | None, as_json: bool, **filters: Any) -> None:
    """Runs, newest first. An option given several times widens, different ones narrow."""
    with open_server(server) as there:
        found = there.runs(query_of(**filters), limit)
        if as_json:
            emit_json(list(found))
        elif form == "ids":
            for run in found:
                emit(run["id"])
        else:
            show_table(found)


@runs.command()
@ids_argument
@server_option
@json_option
def get(ids: tuple[str, ...], server: str | None, as_json: bool) -> None:
    """The whole run, as the API answers it."""
    each(ids, server, lambda there, run_id: emit_json(there.run(run_id)))


@runs.command()
@ids_argument
@click.option("--timeout", type=click.FloatRange(min=0), help="Seconds, after which to exit with 124.")
@server_option
@json_option
def watch(ids: tuple[str, ...], timeout: float | None, server: str | None, as_json: bool) -> None:
    """Follow a run until it ends; exit 1 when it did not succeed."""
    from holdfast.cli.watch import follow

    def one(there: Server, run_id: str) -> None:
        run = follow(there, run_id, timeout)
        if as_json:
            emit_json(run)
        if run["status"] != RunStatus.COMPLETED_SUCCESSFULLY:
            error = next((a["error"] for a in reversed(run["attempts"]) if a["error"]), None)
            raise RunEndedBadly(
                f"run {run_id} ended {run['status']}" + (f": {error_text(error)}" if error else "")
            )

    each(ids, server, one)


@runs.command()
@maybe_ids_argument
@matching_options
@output_option
@server_option
@json_option
def cancel(
    ids: tuple[str, ...],
    status: tuple[str, ...],
    task: tuple[str, ...],
    tag: tuple[str, ...],
    form: str | None,
    server: str | None,
    as_json: bool,
) -> None:
    """Cancel runs and what they have triggered."""
    check_selection(ids, selected := filter_of(all_statuses(status), task, tag))
    if selected:
        act_on_all("cancel", selected, server, form, as_json)
        return
    each(ids, server, lambda there, run_id: show_id(there.post(f"{path('v2', run_id)}/cancel", {}), as_json))


@runs.command()
@maybe_ids_argument
@matching_options
@click.option("--payload", help="Another payload, as JSON; only with RUN.")
@output_option
@server_option
@json_option
def replay(
    ids: tuple[str, ...],
    status: tuple[str, ...],
    task: tuple[str, ...],
    tag: tuple[str, ...],
    payload: str | None,
    form: str | None,
    server: str | None,
    as_json: bool,
) -> None:
    """Run again with the same payload and options; prints the ids of the new runs of RUN."""
    check_selection(ids, selected := filter_of(all_statuses(status), task, tag))
    if selected:
        if payload is not None:
            raise click.UsageError(
                "--payload is for runs that are named: the payloads of those that match stay"
            )
        act_on_all("replay", selected, server, form, as_json)
        return
    body = {} if payload is None else {"payload": payload_of(payload)}
    each(
        ids, server, lambda there, run_id: show_id(there.post(f"{path('v1', run_id)}/replay", body), as_json)
    )


@runs.command()
@ids_argument
@click.option("--delay", required=True, help='From now on, such as "1h30m", or a date.')
@output_option
@server_option
@json_option
def reschedule(ids: tuple[str, ...], delay: str, form: str | None, server: str | None, as_json: bool) -> None:
    """Move the start of a run that is still delayed."""
    check_durations(delay)
    each(
        ids,
        server,
        lambda there, run_id: show_id(
            there.post(f"{path('v1', run_id)}/reschedule", {"delay": delay}), as_json
        ),
    )


@runs.command()
@ids_argument
@server_option
@json_option
def logs(ids: tuple[str, ...], server: str | None, as_json: bool) -> None:
    """What the run has logged and printed."""

    def one(there: Server, run_id: str) -> None:
        for record in there.logs(run_id):
            if as_json:
                emit_json(record)
            else:
                emit(safe(f"{record['at']}  {record['attempt']}  {record['level']:<7}  {record['message']}"))

    each(ids, server, one)


@runs.command()
@ids_argument
@server_option
@json_option
def journal(ids: tuple[str, ...], server: str | None, as_json: bool) -> None:
    """What the run has recorded: the steps, waits, triggers and tokens that it will not do again."""

    def one(there: Server, run_id: str) -> None:
        for entry in there.journal(run_id):
            if as_json:
                emit_json(entry)
            else:
                ended = {True: "ok", False: "failed", None: "open"}[entry["ok"]]
                value = (entry["value"] or "")[:100]
                emit(safe(f"{entry['seq']:>5}  {entry['kind']:<8}  {ended:<6}  {entry['name']}  {value}"))

    each(ids, server, one)


class RunEndedBadly(HoldfastError):
    """A run that was watched did not succeed."""

    code = "run_failed"


def each(ids: tuple[str, ...], server: str | None, act: Callable[[Server, str], None]) -> None:
    """Acts on every run. One that fails does not keep the others; the first failure gives the exit code."""
    from holdfast.cli import report

    first: int | None = None
    with open_server(server) as there:
        for run_id in ids_of(ids):
            try:
                act(there, run_id)
            except HoldfastError as error:
                if run_id not in str(error):
                    error.args = (f"{run_id}: {error}",)
                code = report(error)
                first = first or code
                if code == 3 or getattr(error, "code", "") == "server_unreachable":
                    break
    if first:
        raise click.exceptions.Exit(first)


def ids_of(arguments: tuple[str, ...]) -> Iterator[str]:
    """The ids given, with those of stdin in place of `-`."""
    for argument in arguments:
        if argument == "-":
            yield from (line.strip() for line in sys.stdin if line.strip())
        else:
            yield argument


def query_of(
    *,
    status: tuple[str, ...],
    task: tuple[str, ...],
    tag: tuple[str, ...],
    queue: tuple[str, ...],
    version: tuple[str, ...],
    machine: tuple[str, ...],
    batch: str | None,
    schedule: str | None,
    test: bool | None,
    since: str | None,
    until: str | None,
    period: str | None,
) -> dict[str, str]:
    """The filters as the API names them."""
    lists = {"taskIdentifier": task, "tag": tag, "queue": queue, "version": version, "machine": machine}
    lists["status"] = tuple(all_statuses(status))
    query = {f"filter[{name}]": ",".join(values) for name, values in lists.items() if values}
    query |= {f"filter[{name}]": value for name, value in (("batch", batch), ("schedule", schedule)) if value}
    if test is not None:
        query["filter[isTest]"] = "true" if test else "false"
    for name, value in (("from", since), ("to", until), ("period", period)):
        if value:
            query[f"filter[createdAt][{name}]"] = value
    return query


def all_statuses(words: tuple[str, ...]) -> list[str]:
    return list(chain.from_iterable(statuses(word) for word in words))


def statuses(word: str) -> list[str]:
    """The statuses that a word of the command line means."""
    from holdfast.model.status import ACTIVE, FINAL

    groups = {
        "FAILED": FINAL - {RunStatus.COMPLETED_SUCCESSFULLY, RunStatus.CANCELLED},
        "ACTIVE": ACTIVE,
        "SUCCEEDED": {RunStatus.COMPLETED_SUCCESSFULLY},
    }
    found: list[str] = []
    for given in word.split(","):
        name = given.strip().upper()
        if name in groups:
            found += sorted(groups[name])
        elif name in set(RunStatus):
            found.append(name)
        else:
            raise click.BadParameter(
                f"{given!r} is no status; there are {', '.join(RunStatus)}, and failed, active, succeeded",
                param_hint="--status",
            )
    return found


def show_table(found: Iterator[JSON]) -> None:
    """In pieces of a page, so that a long list begins at once."""
    shown = 0
    while piece := list(islice(found, 100)):
        table(
            COLUMNS,
            [
                (
                    run["id"],
                    run["taskIdentifier"],
                    run["status"],
                    ago(run["createdAt"]) if sys.stdout.isatty() else run["createdAt"],
                    ", ".join(run["tags"]),
                )
                for run in piece
            ],
        )
        shown += len(piece)
    if not shown:
        say("no runs; `holdfast trigger TASK` makes one")


def show_id(answer: Any, as_json: bool) -> None:
    if as_json:
        emit_json(answer)
    else:
        emit(answer["id"])


def path(version: str, run_id: str) -> str:
    return f"/api/{version}/runs/{quote(run_id, safe='')}"
