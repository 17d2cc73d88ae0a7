"""Scheduled tasks in memory: nothing runs that the test did not start."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from holdfast import Cron, CurrentRun, Tick, step, task
from holdfast.testing import InMemory


def test_a_schedule_does_not_fire_however_far_the_clock_is_moved(holdfast: InMemory) -> None:
    begun: list[str] = []

    @task(cron="* * * * *")
    def digest() -> None:
        begun.append("digest")

    @task
    def other() -> None: ...

    holdfast.start(other)
    holdfast.clock.advance("7d")
    assert begun == []
    holdfast.start(digest)
    holdfast.clock.advance("7d")
    assert begun == ["digest"]


def test_starting_a_scheduled_task_gives_it_a_tick_of_the_present_time(holdfast: InMemory) -> None:
    seen: list[Tick] = []

    @task(cron=Cron("0 9 * * *", tz="Asia/Tokyo"))
    def digest(tick: Tick, run: CurrentRun) -> str:
        seen.append(tick)
        return run.task

    assert holdfast.start(digest).result() == "digest"
    [tick] = seen
    assert (tick.timestamp, tick.timezone) == (holdfast.clock.now, "Asia/Tokyo")
    assert len(tick.upcoming) == 10
    assert tick.upcoming[1] - tick.upcoming[0] == timedelta(days=1)
    assert tick.upcoming[0].hour == 0

    mine = Tick(datetime(2026, 1, 1, tzinfo=UTC))
    holdfast.start(digest, mine)
    assert seen[1] == mine


def test_a_scheduled_task_that_takes_no_tick_is_started_without_one(holdfast: InMemory) -> None:
    @task(cron="@daily")
    def tidy(days: int = 7) -> int:
        return days

    @task(cron="@daily")
    def plain(tick: dict[str, Any], /) -> str:
        return str(tick["timezone"])

    assert holdfast.start(tidy).result() == 7
    assert holdfast.start(tidy, 3).result() == 3
    assert holdfast.start(plain).result() == "UTC"


def test_a_scheduled_task_is_crash_safe_like_any_other(holdfast: InMemory) -> None:
    @step
    def collect(until: datetime) -> str:
        return until.isoformat()

    @task(cron="@daily")
    def digest(tick: Tick) -> str:
        return collect(tick.timestamp)

    run = holdfast.start(digest)
    assert run.result() == holdfast.clock.now.isoformat()
    holdfast.assert_crash_safe(digest, run.payload)
