"""Tasks of the journeys. Each notes in the ledger that an attempt of it began: run, attempt, task, process."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from holdfast import AbortRun, Queue, Retry, RetryAfter, current_run, step, task, wait

QUICK = Retry(3, min_delay=0.05, max_delay=0.1)
ONE_BY_ONE = Queue("one-by-one", concurrency=1)


def note(name: str) -> None:
    """One write to a file opened for appending is one line, whoever else writes."""
    run = current_run()
    line = f"{run.id} {run.attempt} {name} {os.getpid()}\n"
    descriptor = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


@task
async def double(number: int) -> int:
    note("double")
    return 2 * number


@step
async def asked(number: int) -> str:
    note("step")
    return f"asked {number}"


@task
async def ask(number: int) -> list[Any]:
    note("ask")
    token = await wait.atoken()
    current_run().metadata["url"] = token.url
    return [await asked(number), await token.aresult()]


@task
async def nap(seconds: float) -> str:
    note("nap")
    await asyncio.sleep(seconds)
    return "slept"


@task(retry=QUICK)
async def slow_double(number: int) -> int:
    note("slow_double")
    await asyncio.sleep(0.02 + number % 5 / 100)
    return 2 * number


@task(retry=QUICK)
def sync_double(number: int) -> int:
    note("sync_double")
    time.sleep(0.02 + number % 5 / 100)
    return 2 * number


@task(retry=QUICK)
async def second_time(number: int) -> int:
    note("second_time")
    await asyncio.sleep(0.02)
    if current_run().attempt == 1:
        raise RuntimeError("the first attempt fails")
    return 2 * number


@task(retry=Retry(2, min_delay="1s", max_delay="1s", jitter=False))
async def fail_once() -> int:
    note("fail_once")
    if current_run().attempt == 1:
        raise ValueError("not yet")
    return current_run().attempt


@task(retry=1)
async def fail(text: str) -> None:
    note("fail")
    raise ValueError(text)


@task
async def give_up() -> None:
    raise AbortRun("there is no sense in it")


@task
async def much_later() -> None:
    raise RetryAfter("1h", "the other side is closed")


@task
async def wait_until(file: str) -> str:
    note("wait_until")
    while not Path(file).exists():
        await asyncio.sleep(0.02)
    return "released"


@task(queue=ONE_BY_ONE)
async def alone_in_queue(seconds: float) -> str:
    note("alone_in_queue")
    await asyncio.sleep(seconds)
    return "done"


@task
async def parent(child_seconds: float) -> str:
    note("parent")
    await nap.atrigger(child_seconds)
    await asyncio.sleep(child_seconds)
    return "over"


@task(retry=QUICK)
def kill_process() -> None:
    note("kill_process")
    os.kill(os.getpid(), signal.SIGSEGV)


@task(timeout=5)
async def over_time() -> None:
    note("over_time")
    await asyncio.sleep(60)


@task(timeout=5)
async def stubborn_over_time() -> None:
    note("stubborn_over_time")
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            continue


# ---- what should not be done


@task(retry=1)
async def unwritable() -> Any:
    note("unwritable")
    return object()


@task(retry=1)
async def endless_async(seconds: float) -> str:
    note("endless_async")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return "looped"


@task(retry=1)
def endless_sync(seconds: float) -> str:
    note("endless_sync")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return "looped"


@task(retry=QUICK)
def leave(code: int) -> None:
    note("leave")
    os._exit(code)


@task(retry=1)
def leave_politely(code: int) -> None:
    note("leave_politely")
    sys.exit(code)


@task(retry=1, isolation="process", memory_limit=128 * 1024 * 1024)
def greedy(megabytes: int) -> int:
    note("greedy")
    return len(bytearray(megabytes * 1024 * 1024))


@task(retry=1)
async def ignore_cancellation() -> None:
    note("ignore_cancellation")
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            logging.getLogger("stubborn").warning("no")


@task(retry=1)
def ignore_interruption() -> None:
    note("ignore_interruption")
    while True:
        try:
            time.sleep(0.05)
        except BaseException as error:
            logging.getLogger("stubborn").warning("not because of %r", error)


@task(retry=1)
def shout(megabytes: int) -> str:
    note("shout")
    for _ in range(megabytes * 1024):
        print("x" * 1_023)
    return "hoarse"


class Odd(BaseException):
    """No Exception."""


@task(retry=1)
async def raise_base(kind: str) -> None:
    note("raise_base")
    errors = {
        "odd": Odd("odd"),
        "interrupt": KeyboardInterrupt(),
        "exit": SystemExit(3),
        "close": GeneratorExit(),
    }
    raise errors[kind]


@task(retry=1)
def raise_base_sync(kind: str) -> None:
    note("raise_base_sync")
    errors = {
        "odd": Odd("odd"),
        "interrupt": KeyboardInterrupt(),
        "exit": SystemExit(3),
        "stop": StopIteration(),
    }
    raise errors[kind]
