"""The workflow of the chaos test: five steps, a sleep, a token and three children. Each step leaves a line."""

from __future__ import annotations

import asyncio
import os
import secrets
from typing import Any

from holdfast import Retry, arun_all, current_run, step, task, wait

QUICK = Retry(5, min_delay=0.05, max_delay=0.1)


def note(*words: object) -> None:
    """One write to a file opened for appending is one line, whoever else writes."""
    descriptor = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND)
    try:
        os.write(descriptor, (" ".join(map(str, words)) + "\n").encode())
    finally:
        os.close(descriptor)


@step
async def mark(number: int) -> str:
    """Its result is the mark of this very execution."""
    await asyncio.sleep(0.005)
    made = secrets.token_hex(8)
    note(current_run().id, f"step-{number}", made)
    return made


@step
def sync_mark(number: int) -> str:
    made = secrets.token_hex(8)
    note(current_run().id, f"step-{number}", made)
    return made


@task(retry=QUICK)
def square(number: int) -> int:
    return number * number


@task(retry=QUICK)
async def workflow(number: int) -> dict[str, Any]:
    current_run().metadata.increment("begun")
    marks = [await mark(0), await mark(1)]
    await wait.asleep(0.7)
    token = await wait.atoken(int)
    marks += await asyncio.gather(mark(2), mark(3))
    answer = await token.aresult()
    squares = await arun_all(square.bind(number + i) for i in range(3))
    marks.append(await mark(4))
    current_run().metadata.increment("ended")
    return {"marks": marks, "answer": answer, "squares": squares}


@task(retry=QUICK)
def ready() -> int:
    return 1
