"""Schedules: what a cron expression means in a time zone. Nothing here looks at a clock.

A day of the zone has the ticks that its fields name. Where clocks are set forward, a tick with a fixed hour that falls
into the gap is at the first instant after it, once for all that do; where they are set back, it is at the first of the
two passes only. Expressions with `*` among their hours follow elapsed time: they have no tick in a gap, and one in each
pass. Times are epoch milliseconds.

CronSim reads and explains the expressions. The walk along them is ours: CronSim's own loses ticks where clocks move by
half an hour, and counts `* 2 * * *` among those without a fixed hour.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from hashlib import sha256
from typing import Any
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from holdfast.errors import Unprocessable
from holdfast.model.limits import MAX_CRON, MAX_WINDOW_HOURS

ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
OVERLAPS = ("allow", "skip")
CATCH_UPS = ("one", "none")
UPCOMING = 10  # ticks that a payload tells of
LATE_MS = 60_000  # a tick that is later than this was missed
WINDOW = re.compile(r"(0|[1-9][0-9]{0,3})([mh%])")  # the SDK refuses to read any other
UNIT_MS = {"m": 60_000, "h": 3_600_000}
NO_ZONES = ("Factory", "localtime", "posixrules")  # files beside the zones
SEARCHED_DAYS = 50 * 366  # 29 February on a certain weekday may be 40 years away
SHOWN = 60  # characters of a mistaken value in a message
NAIVE_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  # local times have no zone until they are given one


@dataclass(frozen=True, slots=True)
class ScheduleSpec:
    """When a task is to run.

    expression  five fields of cron, or an alias such as "@daily"; days of the month may be L, days of the week 1L to 7L
    timezone    an IANA name
    window      each run is later than its tick by a stable part of it: "30m", "2h" (at most 24 h), or "30%" of the time
                until the next tick
    overlap     "skip" makes no run while the one before is not finished
    catch_up    "one" makes one late run for what was missed, "none" does not
    """

    expression: str
    timezone: str = "UTC"
    window: str | None = None
    overlap: str = "allow"
    catch_up: str = "one"


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule as it is kept. Times are epoch milliseconds.

    type       DECLARATIVE is what a task declares, IMPERATIVE what the API made
    tick_at    the next tick; without meaning while it is not active
    due_at     when that makes its run: `tick_at` and its part of the window. None while it is not active
    last_at    the tick of the last run it made, `last_run_id`
    last_tick  the latest tick that made a run or was refused one
    """

    id: str
    environment_id: str
    project: str
    type: str
    task: str
    expression: str
    timezone: str
    spread_window: str | None
    overlap: str
    catch_up: str
    external_id: str | None
    deduplication_key: str | None
    active: bool
    tick_at: int
    due_at: int | None
    last_at: int | None
    last_run_id: str | None
    created_at: int
    updated_at: int
    last_tick_at: int | None = None
    last_tick_run_id: str | None = None
    last_tick_refusal: str | None = None

    @property
    def spec(self) -> ScheduleSpec:
        return ScheduleSpec(self.expression, self.timezone, self.spread_window, self.overlap, self.catch_up)


_FIELDS = tuple(field.name for field in fields(Schedule))


def schedule_of(row: Mapping[str, Any]) -> Schedule:
    """A schedule from a row of `select schedules.*`, which may have more columns."""
    return Schedule(**{name: row[name] for name in _FIELDS if name in row} | {"active": bool(row["active"])})


def check(spec: ScheduleSpec) -> None:
    """Raises Unprocessable, which names the field as the wire does: cron, timezone, window, overlap or catchUp."""
    _parsed(spec.expression)
    _zone(spec.timezone)
    if _first(ScheduleSpec(spec.expression), 0) is None:
        raise Unprocessable(f"cron is {_shown(spec.expression)}: no day ever matches it", "cron")
    if spec.window is not None:
        _window_ms(spec.window, UNIT_MS["m"])
    if spec.overlap not in OVERLAPS:
        raise Unprocessable(f"overlap is {_shown(spec.overlap)}: expected allow or skip", "overlap")
    if spec.catch_up not in CATCH_UPS:
        raise Unprocessable(f"catchUp is {_shown(spec.catch_up)}: expected one or none", "catchUp")


def next_tick(spec: ScheduleSpec, after_ms: int) -> int:
    """The first tick after `after_ms`. Raises Unprocessable where there is none within fifty years."""
    found = _first(spec, after_ms)
    if found is None:
        raise Unprocessable(f"cron is {_shown(spec.expression)}: it has no tick any more", "cron")
    return found


def latest_tick(spec: ScheduleSpec, until_ms: int) -> int | None:
    """The last tick at or before `until_ms`; None where there is none within fifty years."""
    until = until_ms // 1_000
    start = datetime.fromtimestamp(until, _zone(spec.timezone)).toordinal() + 1
    for day in _days(spec.expression, start, -1):
        near = (_moments(spec, day), _moments(spec, day - 1))
        if found := [moments[at - 1] for moments in near if (at := bisect_right(moments, until))]:
            return max(found) * 1_000
    return None


def upcoming(spec: ScheduleSpec, after_ms: int, count: int) -> list[int]:
    """The first `count` ticks after `after_ms`."""
    ticks: list[int] = []
    while len(ticks) < count and (after := _first(spec, ticks[-1] if ticks else after_ms)) is not None:
        ticks.append(after)
    return ticks


def due_ms(schedule_id: str, spec: ScheduleSpec, tick_ms: int) -> int:
    """When a tick makes its run: at the tick or, with a window, later, always as much, and before the next tick."""
    if spec.window is None:
        return tick_ms
    interval = next_tick(spec, tick_ms) - tick_ms
    span = max(1, min(_window_ms(spec.window, interval), interval))
    digest = sha256(f"{schedule_id}\n{tick_ms}".encode()).digest()
    return tick_ms + int.from_bytes(digest[:8]) % span


def description(expression: str) -> str:
    """The expression in plain words, such as "At 09:00 every Monday"; itself where there are none for it."""
    try:
        return _parsed(expression).explain()
    except Exception:  # words are no reason to fail
        return expression


def _first(spec: ScheduleSpec, after_ms: int) -> int | None:
    after = after_ms // 1_000
    start = datetime.fromtimestamp(after, _zone(spec.timezone)).toordinal() - 1
    for day in _days(spec.expression, start, 1):
        # Clocks that are set back over midnight bring moments of a day behind the first ones of the next.
        near = (_moments(spec, day), _moments(spec, day + 1))
        if found := [moments[at] for moments in near if (at := bisect_right(moments, after)) < len(moments)]:
            return min(found) * 1_000
    return None


def _days(expression: str, start: int, step: int) -> Iterator[int]:
    """The days that an expression matches, as ordinals, from `start` on."""
    cron = _parsed(expression)
    ordinal, end = start, start + step * SEARCHED_DAYS
    while ordinal * step < end * step:
        day = date.fromordinal(ordinal)
        if day.month not in cron.months:  # to its end, which may be the 28th, or to that of the month before
            ordinal += max(1, 28 - day.day) if step > 0 else -day.day
            continue
        if cron.match_day(day):
            yield ordinal
        ordinal += step


def _matches(cron: CronSim, ordinal: int) -> bool:
    day = date.fromordinal(ordinal)
    return day.month in cron.months and cron.match_day(day)


def _moments(spec: ScheduleSpec, ordinal: int) -> tuple[int, ...]:
    return _moments_of(spec.expression, spec.timezone, ordinal)


@lru_cache(maxsize=128)
def _moments_of(expression: str, timezone: str, ordinal: int) -> tuple[int, ...]:
    """The ticks of a day in epoch seconds, in order; none where the day does not match."""
    cron, zone = _parsed(expression), _zone(timezone)
    if not _matches(cron, ordinal):
        return ()
    follows_elapsed_time = "*" in cron.parts[2]
    midnight = datetime.combine(date.fromordinal(ordinal), time())
    times = [hour * 3_600 + minute * 60 for hour in sorted(cron.hours) for minute in sorted(cron.minutes)]
    ends = [midnight, midnight + timedelta(days=1)]
    if len({_instant(end, zone, fold) - _instant(end, UTC, 0) for end in ends for fold in (0, 1)}) == 1:
        start = _instant(midnight, zone, 0)
        return tuple(start + seconds for seconds in times)
    found: set[int] = set()
    for seconds in times:
        local = midnight + timedelta(seconds=seconds)
        passes = (_instant(local, zone, 0), _instant(local, zone, 1))
        if datetime.fromtimestamp(passes[0], zone).replace(tzinfo=None) == local:
            found.update(passes if follows_elapsed_time else passes[:1])
        elif not follows_elapsed_time:
            found.add(_end_of_gap(zone, passes[1], passes[0]))
    return tuple(sorted(found))


def _instant(local: datetime, zone: tzinfo, fold: int) -> int:
    offset = local.replace(tzinfo=zone, fold=fold).utcoffset()
    assert offset is not None
    return round((local - offset - NAIVE_EPOCH).total_seconds())


def _end_of_gap(zone: tzinfo, before: int, after: int) -> int:
    """The first second with another offset than `before`, of which `after` is one."""
    old = datetime.fromtimestamp(before, zone).utcoffset()
    while after - before > 1:
        middle = (before + after) // 2
        if datetime.fromtimestamp(middle, zone).utcoffset() == old:
            before = middle
        else:
            after = middle
    return after


@lru_cache(maxsize=1_024)
def _parsed(expression: str) -> CronSim:
    """What CronSim reads in an expression: its sets of fields, not its iteration. Raises Unprocessable."""
    text = ALIASES.get(expression.strip().lower(), expression)
    hint = 'expected five fields such as "0 9 * * 1-5": minute, hour, day of month, month, day of week'
    if len(text) > MAX_CRON:
        raise Unprocessable(f"cron has {len(text)} characters: at most {MAX_CRON}", "cron")
    if (count := len(text.split())) != 5:
        raise Unprocessable(f"cron is {_shown(expression)}, which has {count} fields: {hint}", "cron")
    try:
        return CronSim(text, NAIVE_EPOCH)
    except (CronSimError, ValueError, AssertionError, RecursionError) as error:
        raise Unprocessable(f"cron is {_shown(expression)} ({error}): {hint}", "cron") from None


def _zone(name: str) -> tzinfo:
    if name == "UTC":  # which is there on machines without any zones, too
        return UTC
    try:
        if name in NO_ZONES or name.startswith(("right/", "posix/")):
            raise ValueError
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # a folder of zones is an OSError
        raise Unprocessable(
            f'timezone is {_shown(name)}: expected an IANA name that this machine knows, such as "Europe/Berlin"',
            "timezone",
        ) from None


def _window_ms(window: str, interval_ms: int) -> int:
    match = WINDOW.fullmatch(window)
    amount, unit = (int(match[1]), match[2]) if match else (-1, "")
    size = interval_ms * amount // 100 if unit == "%" else amount * UNIT_MS.get(unit, 0)
    if amount < 0 or (amount > 100 if unit == "%" else size > MAX_WINDOW_HOURS * UNIT_MS["h"]):
        raise Unprocessable(
            f'window is {_shown(window)}: expected such as "30m", "2h" (at most {MAX_WINDOW_HOURS} hours) or "30%"',
            "window",
        )
    return size


def _shown(value: str) -> str:
    return repr(value if len(value) <= SHOWN else f"{value[:SHOWN]}…")
