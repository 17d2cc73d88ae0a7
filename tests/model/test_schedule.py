"""What cron expressions mean, above all where clocks change."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim

from holdfast.errors import Unprocessable
from holdfast.model.schedule import (
    ScheduleSpec,
    check,
    description,
    due_ms,
    latest_tick,
    next_tick,
    upcoming,
)

HOUR = 3_600_000


def ms(text: str) -> int:
    """Epoch milliseconds of an ISO date; UTC unless it says otherwise."""
    moment = datetime.fromisoformat(text)
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1_000)


def local(at: int, zone: str) -> str:
    return datetime.fromtimestamp(at / 1_000, ZoneInfo(zone)).isoformat(timespec="minutes")


# Expression, zone, after when, and the first ticks from there on, in local time with its offset.
VECTORS = [
    # Berlin: from 02:00 to 03:00 on 29 March 2026, back from 03:00 to 02:00 on 25 October.
    ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00", "2026-03-29T03:00+02:00 2026-03-30T02:30+02:00"),
    ("0,15,45 2 * * *", "Europe/Berlin", "2026-03-29T00:59", "2026-03-29T03:00+02:00 2026-03-30T02:00+02:00"),
    ("30 2,3 * * *", "Europe/Berlin", "2026-03-28T12:00", "2026-03-29T03:00+02:00 2026-03-29T03:30+02:00"),
    ("* 2 * * *", "Europe/Berlin", "2026-03-28T12:00", "2026-03-29T03:00+02:00 2026-03-30T02:00+02:00"),
    ("0 3 * * *", "Europe/Berlin", "2026-03-28T12:00", "2026-03-29T03:00+02:00 2026-03-30T03:00+02:00"),
    ("30 2 29 3 *", "Europe/Berlin", "2026-01-01", "2026-03-29T03:00+02:00 2027-03-29T02:30+02:00"),
    ("0 * * * *", "Europe/Berlin", "2026-03-29T00:30", "2026-03-29T03:00+02:00 2026-03-29T04:00+02:00"),
    ("*/30 * * * *", "Europe/Berlin", "2026-03-29T00:00", "2026-03-29T01:30+01:00 2026-03-29T03:00+02:00"),
    ("0 */2 * * *", "Europe/Berlin", "2026-03-28T23:30", "2026-03-29T04:00+02:00 2026-03-29T06:00+02:00"),
    ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", "2026-10-25T02:30+02:00 2026-10-26T02:30+01:00"),
    ("*/30 2 * * *", "Europe/Berlin", "2026-10-25T00:10", "2026-10-25T02:30+02:00 2026-10-26T02:00+01:00"),
    ("0 3 * * *", "Europe/Berlin", "2026-10-24T12:00", "2026-10-25T03:00+01:00 2026-10-26T03:00+01:00"),
    ("30 * * * *", "Europe/Berlin", "2026-10-25T00:00", "2026-10-25T02:30+02:00 2026-10-25T02:30+01:00"),
    ("0 9 * * 1-5", "Europe/Berlin", "2026-03-27T12:00", "2026-03-30T09:00+02:00 2026-03-31T09:00+02:00"),
    # New York: forward on 8 March 2026 at 02:00, back on 1 November at 02:00.
    ("15 2 * * *", "America/New_York", "2026-03-07T12:00", "2026-03-08T03:00-04:00 2026-03-09T02:15-04:00"),
    ("30 1 * * *", "America/New_York", "2026-10-31T12:00", "2026-11-01T01:30-04:00 2026-11-02T01:30-05:00"),
    ("0 * * * *", "America/New_York", "2026-11-01T04:30", "2026-11-01T01:00-04:00 2026-11-01T01:00-05:00"),
    ("@daily", "America/New_York", "2026-11-01T00:00", "2026-11-01T00:00-04:00 2026-11-02T00:00-05:00"),
    # Lord Howe moves by half an hour: back from 02:00 to 01:30 on 5 April 2026, from 02:00 to 02:30 on 4 October.
    (
        "45 1 * * *",
        "Australia/Lord_Howe",
        "2026-04-04T12:00",
        "2026-04-05T01:45+11:00 2026-04-06T01:45+10:30",
    ),
    (
        "0 */2 * * *",
        "Australia/Lord_Howe",
        "2026-04-04T13:30",
        "2026-04-05T02:00+10:30 2026-04-05T04:00+10:30",
    ),
    (
        "45 * * * *",
        "Australia/Lord_Howe",
        "2026-04-04T14:30",
        "2026-04-05T01:45+11:00 2026-04-05T01:45+10:30",
    ),
    (
        "15 2 * * *",
        "Australia/Lord_Howe",
        "2026-10-03T12:00",
        "2026-10-04T02:30+11:00 2026-10-05T02:15+11:00",
    ),
    ("0 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00", "2026-10-04T02:30+11:00 2026-10-05T02:00+11:00"),
    (
        "15 * * * *",
        "Australia/Lord_Howe",
        "2026-10-03T15:00",
        "2026-10-04T03:15+11:00 2026-10-04T04:15+11:00",
    ),
    # Casablanca is an hour back in Ramadan: 2026 from 15 February, 03:00, to 22 March, 02:00.
    ("30 2 * * *", "Africa/Casablanca", "2026-02-14T12:00", "2026-02-15T02:30+01:00 2026-02-16T02:30+00:00"),
    ("30 2 * * *", "Africa/Casablanca", "2026-03-21T12:00", "2026-03-22T03:00+01:00 2026-03-23T02:30+01:00"),
    ("0 8 * * *", "Africa/Casablanca", "2026-02-14T12:00", "2026-02-15T08:00+00:00 2026-02-16T08:00+00:00"),
    # Apia went over the date line: it had no 30 December 2011.
    ("0 9 * * *", "Pacific/Apia", "2011-12-29T12:00", "2011-12-29T09:00-10:00 2011-12-31T00:00+14:00"),
    ("0 9 * * *", "Pacific/Apia", "2011-12-30T10:00", "2011-12-31T09:00+14:00 2012-01-01T09:00+14:00"),
    ("0 0 30 12 *", "Pacific/Apia", "2011-06-01", "2011-12-31T00:00+14:00 2012-12-30T00:00+14:00"),
    ("0 * * * *", "Pacific/Apia", "2011-12-30T08:30", "2011-12-29T23:00-10:00 2011-12-31T00:00+14:00"),
    # St John's was set back over midnight, from 00:01 to 23:01 of the day before.
    ("30 * * * *", "America/St_Johns", "2009-11-01T01:30", "2009-10-31T23:30-02:30 2009-10-31T23:30-03:30"),
    ("0 0 * * *", "America/St_Johns", "2009-10-31T12:00", "2009-11-01T00:00-02:30 2009-11-02T00:00-03:30"),
    # Havana goes from midnight to 01:00.
    ("0 0 * * *", "America/Havana", "2026-03-07T12:00", "2026-03-08T01:00-04:00 2026-03-09T00:00-04:00"),
    # UTC, leap days, and days of the month with days of the week: either, unless one of them begins with a star.
    ("0 9 * * *", "UTC", "2026-11-24T09:00", "2026-11-25T09:00+00:00 2026-11-26T09:00+00:00"),
    ("0 9 * * *", "UTC", "2026-11-24T08:59:59.999", "2026-11-24T09:00+00:00 2026-11-25T09:00+00:00"),
    ("0 0 29 2 *", "UTC", "2026-11-24", "2028-02-29T00:00+00:00 2032-02-29T00:00+00:00"),
    ("0 0 29 2 *", "UTC", "2096-03-01", "2104-02-29T00:00+00:00 2108-02-29T00:00+00:00"),
    ("0 0 * 2 1#5", "UTC", "2026-11-24", "2044-02-29T00:00+00:00 2072-02-29T00:00+00:00"),
    ("0 12 13 * 5", "UTC", "2026-11-10", "2026-11-13T12:00+00:00 2026-11-20T12:00+00:00"),
    ("0 12 */13 * 5", "UTC", "2026-11-10", "2026-11-27T12:00+00:00 2027-01-01T12:00+00:00"),
    ("0 12 L * *", "UTC", "2028-02-01", "2028-02-29T12:00+00:00 2028-03-31T12:00+00:00"),
    ("0 12 * * 1L", "UTC", "2026-11-24", "2026-11-30T12:00+00:00 2026-12-28T12:00+00:00"),
    ("0 12 * * 7L", "UTC", "2026-11-24", "2026-11-29T12:00+00:00 2026-12-27T12:00+00:00"),
    ("0 12 * JAN-mar sun", "UTC", "2026-11-24", "2027-01-03T12:00+00:00 2027-01-10T12:00+00:00"),
    ("@hourly", "UTC", "2026-11-24T12:00", "2026-11-24T13:00+00:00 2026-11-24T14:00+00:00"),
    ("@weekly", "UTC", "2026-11-24", "2026-11-29T00:00+00:00 2026-12-06T00:00+00:00"),
    ("@monthly", "UTC", "2026-11-24", "2026-12-01T00:00+00:00 2027-01-01T00:00+00:00"),
    ("@Yearly", "UTC", "2026-11-24", "2027-01-01T00:00+00:00 2028-01-01T00:00+00:00"),
]


@pytest.mark.parametrize(("expression", "zone", "after", "ticks"), VECTORS)
def test_vectors(expression: str, zone: str, after: str, ticks: str) -> None:
    spec = ScheduleSpec(expression, zone)
    check(spec)
    found = upcoming(spec, ms(after), 2)
    assert [local(at, zone) for at in found] == ticks.split()
    assert next_tick(spec, ms(after)) == found[0]
    assert next_tick(spec, found[0]) == found[1]
    assert latest_tick(spec, found[0]) == found[0]
    assert latest_tick(spec, found[1] - 1) == found[0]
    assert latest_tick(spec, found[1] + 999) == found[1]


ZONES = ["Europe/Berlin", "America/New_York", "Africa/Casablanca", "Pacific/Apia", "America/Havana", "UTC"]
EXPRESSIONS = [
    "0 2 * * *",
    "15,45 1-3 * * *",
    "0 * * * *",
    "*/7 * * * *",
    "0 */2 * * *",
    "0 0 * * *",
    "0 12 L * *",
    "0 12 * * 5L",
    "0 0 13 * 5",
    "10 */3 * * 7",
    "0 9 LW * *",
]


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_the_ticks_of_a_year_are_those_of_another_reading(expression: str, zone: str) -> None:
    start = ms("2026-01-01")
    other = CronSim(expression, datetime.fromtimestamp(start / 1_000, ZoneInfo(zone)))
    expected = [round(next(other).timestamp()) * 1_000 for _ in range(500)]
    spec = ScheduleSpec(expression, zone)
    assert upcoming(spec, start, 500) == expected
    for number in random.Random(1).sample(range(1, 500), 20):
        assert latest_tick(spec, expected[number]) == expected[number]
        assert latest_tick(spec, expected[number] - 1) == expected[number - 1]


@pytest.mark.parametrize(
    ("change", "param", "told"),
    [
        ({"expression": ""}, "cron", "0 fields"),
        ({"expression": "every tuesday"}, "cron", "2 fields"),
        ({"expression": "* * * * * *"}, "cron", "6 fields"),
        ({"expression": "@never"}, "cron", "@never"),
        ({"expression": "61 * * * *"}, "cron", "Bad minute"),
        ({"expression": "* * * * MON-"}, "cron", "Bad day-of-week"),
        ({"expression": "*/0 * * * *"}, "cron", "Bad minute"),
        ({"expression": "٣ * * * *"}, "cron", "Bad minute"),
        ({"expression": "0 0 30 2 *"}, "cron", "0 0 30 2 *"),
        ({"expression": "0 0 31 4,6 *"}, "cron", "0 0 31 4,6 *"),
        ({"expression": "0 0 * 4 1#5,8"}, "cron", "Bad day-of-week"),
        ({"expression": "1," * 200 + "1 * * * *"}, "cron", "256"),
        ({"timezone": ""}, "timezone", "IANA"),
        ({"timezone": "Mars/Olympus"}, "timezone", "Mars/Olympus"),
        ({"timezone": "Europe"}, "timezone", "Europe"),
        ({"timezone": "../../etc/passwd"}, "timezone", "IANA"),
        ({"timezone": "right/UTC"}, "timezone", "right/UTC"),
        ({"timezone": "a\x00b"}, "timezone", "IANA"),
        ({"timezone": "Europe/Ber\udc80lin"}, "timezone", "IANA"),
        ({"timezone": "x" * 5_000}, "timezone", "IANA"),
        ({"window": ""}, "window", "30m"),
        ({"window": "30"}, "window", "30m"),
        ({"window": "05m"}, "window", "05m"),
        ({"window": "25h"}, "window", "24 hours"),
        ({"window": "1441m"}, "window", "24 hours"),
        ({"window": "05%"}, "window", "05%"),
        ({"window": "101%"}, "window", "101%"),
        ({"window": "-5m"}, "window", "-5m"),
        ({"overlap": "queue"}, "overlap", "allow or skip"),
        ({"catch_up": "all"}, "catchUp", "one or none"),
    ],
)
def test_what_can_not_be_read_is_refused_with_the_value_and_the_field(
    change: dict[str, str], param: str, told: str
) -> None:
    with pytest.raises(Unprocessable) as refused:
        check(replace(ScheduleSpec("0 9 * * *"), **change))
    assert refused.value.param == param
    assert told in str(refused.value)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("window", [None, "0m", "0%", "1m", "24h", "1440m", "1%", "100%"])
def test_windows_that_are_taken(window: str | None) -> None:
    check(ScheduleSpec("0 9 * * *", window=window))


@pytest.mark.parametrize(
    ("window", "longest"), [("10m", 600_000), ("2h", HOUR), ("24h", HOUR), ("30%", HOUR * 30 // 100)]
)
def test_a_window_moves_each_tick_by_a_stable_part_of_it_and_never_to_the_next(
    window: str, longest: int
) -> None:
    spec = ScheduleSpec("@hourly", "Europe/Berlin", window)
    ticks = upcoming(spec, ms("2026-10-24"), 200)
    shifts = {}
    for schedule in ("sched_1", "sched_2"):
        for tick in ticks:
            due = due_ms(schedule, spec, tick)
            assert due == due_ms(schedule, spec, tick)
            assert tick <= due < tick + longest
            shifts[schedule, tick] = due - tick
    assert len(set(shifts.values())) > 300
    assert max(shifts.values()) > longest * 0.9
    assert min(shifts.values()) < longest * 0.1


def test_without_a_window_a_tick_is_due_at_once() -> None:
    assert due_ms("sched_1", ScheduleSpec("@daily"), ms("2026-11-24")) == ms("2026-11-24")


def test_a_schedule_is_told_in_words() -> None:
    assert description("0 9 * * 1-5") == "At 09:00 on Monday through Friday"
    assert description("@daily") == "At 00:00 every day"
    assert description("nonsense") == "nonsense"
