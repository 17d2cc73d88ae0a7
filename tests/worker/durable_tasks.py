"""Tasks with steps and waits for the tests on workers."""

import asyncio
import os

from holdfast import Retry, RetryAfter, current_run, step, task, wait

QUICK = Retry(3, min_delay=0.05, max_delay=0.1)


@step
async def flaky() -> int:
    return 1


@step
async def after(number: int) -> int:
    return number + 1


@task(retry=QUICK)
async def two_steps() -> int:
    return await after(await flaky())


@task
async def sleeps(seconds: float) -> str:
    await wait.asleep(seconds)
    return "slept"


@task
def sleeps_sync(seconds: float) -> str:
    try:
        wait.sleep(seconds)
    except Exception:
        return "swallowed"
    return "slept"


@task
async def works_and_sleeps(seconds: float, work: float) -> str:
    await asyncio.sleep(work)
    await wait.asleep(seconds)
    await asyncio.sleep(work)
    return "done"


@task(retry=1)
async def does_not_unwind() -> None:
    try:
        await wait.asleep("1d")
    finally:
        await asyncio.sleep(60)


@task(isolation="process")
async def alone() -> list[int]:
    pids = [await pid()]
    await wait.asleep("1d")
    return [*pids, os.getpid()]


@step
async def pid() -> int:
    return os.getpid()


@task(retry=2)
async def until_moment(moment: str) -> str:
    if current_run().attempt == 1:
        raise RetryAfter(1.5)
    await wait.auntil(moment)
    return "on time"
