"""Tasks that run by themselves: what a `Cron` is, and what their functions may take."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from holdfast import Cron, CurrentRun, PayloadInvalid, Task, Tick, task
from sdk.world import Session, claimed

PAYLOAD = (
    '{"scheduleId":"sched_1","type":"IMPERATIVE","timestamp":"2026-11-24T08:00:00.000Z",'
    '"timezone":"Europe/Berlin","externalId":"customer 7","later":1,'
    '"upcoming":["2026-11-25T08:00:00.000Z","2026-11-26T08:00:00.000Z"]}'
)


def given(scheduled: Task[..., Any], payload: str | None = PAYLOAD) -> list[Any]:
    """What a run of the task is called with."""
    run = CurrentRun(claimed(), "20260101.1", Session())
    args, kwargs = scheduled.decode_payload(payload, run)
    return [*args, *kwargs.values()]


@pytest.mark.parametrize(
    ("arguments", "options", "error", "text"),
    [
        (("0 9 * *",), {}, ValueError, r"expression of a Cron is '0 9 \* \*', which has 4 fields"),
        (("0 9 * * * *",), {}, ValueError, "6 fields"),
        (("0 25 * * *",), {}, ValueError, "expression of a Cron is '0 25"),
        (("0 0 30 2 *",), {}, ValueError, "expression of a Cron is '0 0 30 2"),
        (("* " * 200,), {}, ValueError, "at most 256"),
        ((7,), {}, TypeError, "expression of a Cron is 7: expected a text"),
        (("@daily",), {"tz": "Europe/Atlantis"}, ValueError, "tz of a Cron is 'Europe/Atlantis'"),
        (("@daily",), {"tz": UTC}, TypeError, "tz of a Cron is "),
        (("@daily",), {"overlap": "queue"}, ValueError, 'expected "skip" or "allow"'),
        (("@daily",), {"catch_up": True}, ValueError, 'expected "one" or "none"'),
        (("@daily",), {"window": "1h30m"}, ValueError, "window of a Cron is '1h30m'"),
        (("@daily",), {"window": timedelta(hours=25)}, ValueError, "window of a Cron is '1500m'"),
        (("@daily",), {"window": timedelta(seconds=-1)}, ValueError, "expected none that is negative"),
        (("@daily",), {"window": 30}, TypeError, "window of a Cron is 30: expected a timedelta"),
    ],
)
def test_what_can_be_no_time_is_refused_where_it_stands(
    arguments: tuple[Any, ...], options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        Cron(*arguments, **options)


def test_the_manifest_tells_the_server_when_the_task_runs() -> None:
    cron = Cron(
        "0 9 * * 1-5", tz="Europe/Paris", overlap="allow", catch_up="none", window=timedelta(hours=1.5)
    )

    @task(cron=cron)
    def digest() -> None: ...

    @task(cron="@daily")
    def clean_up() -> None: ...

    @task
    def other() -> None: ...

    assert digest.schedule == cron
    assert digest.manifest().get("schedule") == {
        "expression": "0 9 * * 1-5",
        "timezone": "Europe/Paris",
        "window": "90m",
        "overlap": "allow",
        "catchUp": "none",
    }
    assert clean_up.manifest().get("schedule") == {
        "expression": "@daily",
        "timezone": "UTC",
        "overlap": "skip",
        "catchUp": "one",
    }
    assert (other.schedule, "schedule" in other.manifest()) == (None, False)


def test_a_task_takes_a_cron_or_an_expression() -> None:
    with pytest.raises(TypeError, match="cron of task work is 5: expected a Cron, or an expression"):
        task(id="work", cron=5)(lambda: None)  # type: ignore[call-overload]  # that is the point
    with pytest.raises(ValueError, match="which has 1 fields"):
        task(id="work", cron="daily")(lambda: None)


def test_the_parameter_gets_the_tick_with_times_that_have_a_zone() -> None:
    @task(cron="@daily")
    def digest(tick: Tick) -> None: ...

    [tick] = given(digest)
    assert tick == Tick(
        datetime(2026, 11, 24, 8, tzinfo=UTC),
        schedule_id="sched_1",
        type="IMPERATIVE",
        timezone="Europe/Berlin",
        external_id="customer 7",
        upcoming=(datetime(2026, 11, 25, 8, tzinfo=UTC), datetime(2026, 11, 26, 8, tzinfo=UTC)),
    )
    assert tick.last_timestamp is None
    assert tick.local_time.isoformat() == "2026-11-24T09:00:00+01:00"


def test_a_tick_that_was_made_by_hand_reads_the_same_on_the_other_side() -> None:
    @task
    def digest(tick: Tick | None = None) -> None: ...

    made = Tick(datetime(2026, 11, 24, tzinfo=UTC), datetime(2026, 11, 23, tzinfo=UTC), external_id="7")
    payload = digest.bind(made).payload
    assert '"lastTimestamp":"2026-11-23T00:00:00Z"' in str(payload)
    assert given(digest, payload) == [made]
    with pytest.raises(ValueError, match="has no zone"):
        Tick(datetime(2026, 11, 24))
    with pytest.raises(PayloadInvalid, match="has no zone"):
        given(digest, '{"timestamp": "2026-11-24T09:00:00"}')


def test_a_scheduled_function_may_take_a_tick_or_nothing() -> None:
    @task(cron="@daily")
    def nothing() -> None: ...

    @task(cron="@daily")
    def the_run(run: CurrentRun) -> None: ...

    @task(cron="@daily")
    def both(tick: Tick, run: CurrentRun) -> None: ...

    @task(cron="@daily")
    def plain(tick: dict[str, Any]) -> None: ...

    @task(cron="@daily")
    def anything(tick) -> None: ...  # type: ignore[no-untyped-def]  # that is the point

    @task(cron="@daily")
    def one_option(days: int = 1) -> None: ...

    @task(cron="@daily")
    def options(days: int = 1, *, dry: bool = False) -> None: ...

    scheduled: tuple[Task[..., Any], ...] = (nothing, the_run, both, plain, anything, one_option, options)
    assert ["schedule" in one.manifest() for one in scheduled] == [True] * 7
    assert given(nothing, None) == given(one_option, None) == given(options, None) == []
    assert given(plain)[0]["scheduleId"] == given(anything)[0]["scheduleId"] == "sched_1"


def test_a_scheduled_function_that_takes_something_else_is_refused_when_it_registers() -> None:
    @task(cron="@daily")
    def count(to: int) -> None: ...

    @task(cron="@daily")
    def two(tick: Tick, to: int = 1) -> None: ...

    for one in (count, two):
        with pytest.raises(
            TypeError, match=f"task {one.id} is scheduled, and its parameters do not fit a tick"
        ):
            one.manifest()


def test_hints_that_can_not_be_read_are_told_as_such() -> None:
    @task(cron="@daily")
    def lost(tick: Tikc) -> None: ...  # type: ignore[name-defined]  # noqa: F821  # that is the point

    with pytest.raises(PayloadInvalid, match="name 'Tikc' is not defined"):
        lost.manifest()
