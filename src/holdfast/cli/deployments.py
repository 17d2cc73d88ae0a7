"""`holdfast deployments`: list what was deployed, and say which version plain runs go to."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from urllib.parse import quote

import click

from holdfast.cli import Family
from holdfast.cli.api import JSON, Server, json_option, open_server, server_option
from holdfast.cli.output import ago, emit, emit_json, say, table
from holdfast.model.deployment import DeploymentStatus
from holdfast.model.limits import MAX_PAGE

COLUMNS = ("version", "status", "created", "runtime", "commit", "external id")


class Deployments(Family):
    """The verbs in the order of their use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=Deployments)
def deployments() -> None:
    """List and promote deployments. `holdfast deploy` makes them."""


@deployments.command("list")
@click.option(
    "--status", type=click.Choice([str(status) for status in DeploymentStatus], case_sensitive=False)
)
@click.option("--period", help="Made in the last so much, such as 7d.")
@click.option("--limit", type=click.IntRange(min=1), default=25, show_default=True, help="How many at most.")
@server_option
@json_option
def list_deployments(
    status: str | None, period: str | None, limit: int, server: str | None, as_json: bool
) -> None:
    """Deployments, newest first; * is the current one."""
    query = {name: value for name, value in (("status", status), ("period", period)) if value}
    with open_server(server) as there:
        found = list(pages(there, query, limit))
        if as_json:
            emit_json(found)
            return
        now = current_version(there)
    table(COLUMNS, [row_of(one, now) for one in found])
    if not found:
        say("no deployments; `holdfast deploy TASKS` makes one")


@deployments.command()
@click.argument("version")
@server_option
@json_option
def promote(version: str, server: str | None, as_json: bool) -> None:
    """Send plain runs to VERSION from now on; an older one rolls back. What has begun stays where it is."""
    with open_server(server) as there:
        promoted = there.post(f"/api/v1/deployments/{quote(version, safe='')}/promote", {})
    if as_json:
        emit_json(promoted)
    else:
        emit(promoted["version"])
        say("plain runs go to workers of this version now")


@deployments.command()
@server_option
@json_option
def current(server: str | None, as_json: bool) -> None:
    """The version that plain runs go to; exit 4 when none was deployed."""
    with open_server(server) as there:
        found = there.get("/api/v1/deployments/current")
    if as_json:
        emit_json(found)
    else:
        emit(found["version"])


def pages(there: Server, filters: dict[str, str], limit: int) -> Iterator[JSON]:
    """At most `limit` deployments, newest first."""
    query = dict(filters)
    while limit > 0:
        query["page[size]"] = str(min(limit, MAX_PAGE))
        page = there.get("/api/v1/deployments", query)
        yield from page["data"]
        limit -= len(page["data"])
        following = page["pagination"].get("next")
        if not following:
            return
        query["page[after]"] = following


def current_version(there: Server) -> str | None:
    from holdfast.cli.api import Refused

    try:
        version: str = there.get("/api/v1/deployments/current")["version"]
    except Refused as error:
        if error.status != 404:
            raise
        return None
    return version


def row_of(one: JSON, now: str | None) -> tuple[str, ...]:
    git = one.get("git") or {}
    runtime = f"{one['runtime'] or '-'} {one['runtimeVersion'] or ''}".strip()
    return (
        f"{one['version']}{' *' if one['version'] == now else ''}",
        one["status"],
        ago(one["createdAt"]) if sys.stdout.isatty() else one["createdAt"],
        runtime,
        str(git.get("commitSha") or "-")[:12] + ("+" if git.get("dirty") else ""),
        one["externalId"] or "-",
    )
