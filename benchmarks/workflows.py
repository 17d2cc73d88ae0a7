"""The durable tasks that are measured."""

import time

from holdfast import step, task, wait


@step
async def nothing() -> None: ...


@step
async def moment(seconds: float) -> float:
    """That many seconds from now, recorded."""
    return time.time() + seconds


@task
async def five() -> None:
    for _ in range(5):
        await nothing()


@task
async def timed(count: int) -> list[float]:
    """Milliseconds of each of `count` steps, one after another."""
    found = []
    for _ in range(count):
        begun = time.perf_counter()
        await nothing()
        found.append((time.perf_counter() - begun) * 1_000)
    return found


@task
async def long(count: int) -> dict[str, float]:
    """Suspended after `count` steps; seconds of the resumed execution, and from when it was due to now."""
    begun = time.monotonic()
    for _ in range(count):
        await nothing()
    due = await moment(8)
    await wait.auntil(_iso(due))
    return {"replay": time.monotonic() - begun, "after due": time.time() - due}


@task
async def asleep(seconds: float) -> None:
    await wait.asleep(seconds)


@task
async def until(due: float) -> None:
    await wait.auntil(_iso(due))


def _iso(seconds: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).isoformat()
