"""The tasks that are measured."""

import time

from holdfast import task


@task
async def noop(number: int) -> int:
    return number


@task
async def stamp(sent: float) -> float:
    """Milliseconds from the moment of the trigger to the first line of the task; one machine, one clock."""
    return (time.time() - sent) * 1_000
