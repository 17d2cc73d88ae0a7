"""Tasks that wait, in processes of their own, for longer than their time limit, and for children of their own queue."""

from __future__ import annotations

import asyncio
import os

from holdfast import Queue, arun_all, current_run, step, task, wait

ONE = Queue("one", concurrency=1)


@step
async def pid() -> int:
    return os.getpid()


@task(isolation="process")
async def alone(token_wait: str) -> list[int]:
    first = await pid()
    await wait.asleep(token_wait)
    return [first, os.getpid()]


@task(timeout=5, retry=1)
async def patient(seconds: float) -> str:
    await asyncio.sleep(1)
    await wait.asleep(seconds)
    await asyncio.sleep(1)
    return "in time"


@task(timeout=5, retry=1)
def patient_sync(seconds: float) -> str:
    wait.sleep(seconds)
    return "in time"


@task(queue=ONE)
async def child(number: int) -> int:
    return number + 1


@task(queue=ONE)
async def parent(number: int) -> int:
    return await child.arun(await child.arun(number))


@task
async def elsewhere(number: int) -> int:
    return number + 1


@task
async def caller(number: int) -> list[int]:
    return [await elsewhere.arun(number), *await arun_all(elsewhere.bind(one) for one in range(number))]


@task
def caller_sync(number: int) -> int:
    return elsewhere.run(elsewhere.run(number))


@task(retry=1)
async def short_sleeper() -> str:
    await wait.asleep(2)
    return "slept"


@step
async def slow() -> str:
    with open(os.environ["LEDGER"], "a") as ledger:
        ledger.write(f"{current_run().id} slow\n")
    await asyncio.sleep(2)
    return "slow"


@task
async def works() -> str:
    return await slow()


@task
async def asks() -> int:
    token = await wait.atoken(int)
    current_run().metadata["token"] = token.id
    return await token.aresult()
