"""`holdfast schedules`: list schedules and the times to come, pause and resume them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import click

from holdfast.cli import Family
from holdfast.cli.api import JSON, Server, json_option, open_server, server_option
from holdfast.cli.output import emit_json, say, table
from holdfast.errors import InvalidRequest, NotFound
from holdfast.model.limits import MAX_PAGE
from holdfast.model.schedule import ScheduleSpec, due_ms, upcoming
from holdfast.wire.runs import moment

PATH = "/api/v1/schedules"
COLUMNS = ("schedule", "task", "cron", "timezone", "next", "last", "state")
NEXT_COLUMNS = ("tick", "runs at", "schedule", "task")
SCHEDULE_ID = re.compile(r"sched_[0-9a-z]{21,26}")
MAX_NEXT = 1_000
schedule_argument = click.argument("schedule", metavar="SCHEDULE")


class Schedules(Family):
    """The verbs in the order of their use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=Schedules)
def schedules() -> None:
    """List, pause and resume schedules.

    SCHEDULE is an id, a deduplication key, or the id of the task whose code declares it.
    """


@schedules.command("list")
@server_option
@json_option
def list_schedules(server: str | None, as_json: bool) -> None:
    """All schedules, with their next tick and what became of the last one."""
    with open_server(server) as there:
        found = list(all_schedules(there))
    if as_json:
        emit_json(found)
        return
    table(COLUMNS, [row_of(one) for one in found])
    if not found:
        say("no schedules: `@task(cron=…)` declares one when a worker registers, the API makes others")


@schedules.command("next")
@click.argument("schedule", metavar="[SCHEDULE]", required=False)
@click.option(
    "--limit", type=click.IntRange(1, MAX_NEXT), default=5, show_default=True, help="How many at most."
)
@server_option
@json_option
def next_ticks(schedule: str | None, limit: int, server: str | None, as_json: bool) -> None:
    """The next ticks of a schedule, or of all, in the time of its zone; paused ones have none."""
    with open_server(server) as there:
        found = list(all_schedules(there)) if schedule is None else [named(there, schedule)]
    ticks = sorted(
        (tick for one in found for tick in ticks_of(one, limit)), key=lambda tick: tick["nextRun"]
    )[:limit]
    if as_json:
        emit_json(ticks)
        return
    table(NEXT_COLUMNS, [tick_row(tick) for tick in ticks])
    if schedule is not None and not found[0]["active"]:
        say(f"it is paused: `holdfast schedules resume {found[0]['id']}` lets it go on")
    elif not ticks:
        say("no schedule is active")


@schedules.command()
@schedule_argument
@server_option
@json_option
def pause(schedule: str, server: str | None, as_json: bool) -> None:
    """Make no more runs of the schedule; those that are there go on."""
    switched(schedule, "deactivate", server, as_json)


@schedules.command()
@schedule_argument
@server_option
@json_option
def resume(schedule: str, server: str | None, as_json: bool) -> None:
    """Go on with the next tick; those that passed meanwhile are not made up for."""
    switched(schedule, "activate", server, as_json)


def all_schedules(there: Server) -> Iterator[JSON]:
    number = 1
    while True:
        page = there.get(PATH, {"page": str(number), "perPage": str(MAX_PAGE)})
        yield from page["data"]
        if number >= page["pagination"]["totalPages"]:
            return
        number += 1


def named(there: Server, word: str) -> JSON:
    """The schedule that is meant. Raises NotFound, or InvalidRequest where it may be several."""
    if SCHEDULE_ID.fullmatch(word):
        found: JSON = there.get(f"{PATH}/{word}")
        return found
    meant = [one for one in all_schedules(there) if word in names_of(one)]
    if not meant:
        raise NotFound(f"Schedule not found: {word!r}")
    if len(meant) > 1:
        ids = ", ".join(one["id"] for one in meant)
        raise InvalidRequest(
            f"{word!r} is the name of several schedules: say which by its id, {ids}", "SCHEDULE"
        )
    return meant[0]


def names_of(schedule: JSON) -> list[str]:
    names = [schedule["deduplicationKey"]] if "deduplicationKey" in schedule else []
    return [*names, schedule["task"]] if schedule["type"] == "DECLARATIVE" else names


def switched(schedule: str, verb: str, server: str | None, as_json: bool) -> None:
    with open_server(server) as there:
        now = there.post(f"{PATH}/{named(there, schedule)['id']}/{verb}", {})
    if as_json:
        emit_json(now)
    else:
        table(COLUMNS, [row_of(now)])


def ticks_of(schedule: JSON, count: int) -> list[dict[str, Any]]:
    """The first ticks from the next one on, which the server knows; times as in the API."""
    if "nextRun" not in schedule:
        return []
    spec = ScheduleSpec(schedule["generator"]["expression"], schedule["timezone"], schedule.get("window"))
    first = round(datetime.fromisoformat(schedule["nextRun"]).timestamp() * 1_000)
    return [
        {
            "id": schedule["id"],
            "task": schedule["task"],
            "timezone": schedule["timezone"],
            "nextRun": moment(tick),
            "nextRunEffectiveAt": moment(due_ms(schedule["id"], spec, tick)),
        }
        for tick in (first, *upcoming(spec, first, count - 1))
    ]


def tick_row(tick: dict[str, Any]) -> tuple[str, ...]:
    times = (in_zone(text, tick["timezone"]) for text in (tick["nextRun"], tick["nextRunEffectiveAt"]))
    return *times, tick["id"], tick["task"]


def row_of(schedule: JSON) -> tuple[str, ...]:
    zone = schedule["timezone"]
    last = schedule["lastTick"]
    became = "-"
    if last is not None:
        refused = f"refused: {last['refusal']}" if "refusal" in last else last.get("runId", "")
        became = f"{in_zone(last['at'], zone)} {refused}".rstrip()
    return (
        schedule["id"],
        schedule["task"],
        schedule["generator"]["expression"],
        zone,
        in_zone(schedule["nextRun"], zone) if "nextRun" in schedule else "-",
        became,
        "active" if schedule["active"] else "paused",
    )


def in_zone(text: str, zone: str) -> str:
    """A moment by the clock of a zone; in UTC where this machine does not know it."""
    place: tzinfo = UTC
    with suppress(LookupError, ValueError):
        place = ZoneInfo(zone)
    return datetime.fromisoformat(text).astimezone(place).isoformat(timespec="seconds")
