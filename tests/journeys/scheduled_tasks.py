"""Tasks that run by themselves, each minute."""

from __future__ import annotations

from holdfast import Cron, Tick, task


@task(cron=Cron("* * * * *", overlap="allow"))
async def report(tick: Tick) -> list[str | None]:
    last = tick.last_timestamp
    return [tick.timestamp.isoformat(), None if last is None else last.isoformat(), tick.schedule_id]


@task(cron="* * * * *")
def tidy() -> str:
    return "tidy"
