"""Tasks with large payloads and outputs. Each notes in the ledger that an attempt of it began: run, attempt, task."""

from __future__ import annotations

import os

from holdfast import Retry, current_run, task


def note(name: str) -> None:
    descriptor = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND)
    try:
        os.write(descriptor, f"{current_run().id} {current_run().attempt} {name}\n".encode())
    finally:
        os.close(descriptor)


@task(retry=Retry(20, min_delay=0.05, max_delay=0.5))
def measure(text: str) -> int:
    note("measure")
    return len(text)


@task
def produce(size: int) -> str:
    note("produce")
    return "x" * size


@task
async def relay(size: int) -> int:
    """A parent that reads the output of its child, out of its journal when it is executed again."""
    note("relay")
    child = await produce.options(delay=1).atrigger(size)  # so that this run is suspended for it
    text = await child.aresult()
    assert text == "x" * size
    return len(text)
