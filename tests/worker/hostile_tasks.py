"""Tasks that behave, and tasks that do not: the worker's tests run them in real executors."""

import asyncio
import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from holdfast.sdk.context import current_run
from holdfast.sdk.decorator import task


@task
async def noop() -> None:
    return None


@task
def add(left: int, right: int) -> int:
    return left + right


@task
async def greet(name: str) -> str:
    await asyncio.sleep(0)
    return f"hello {name}"


@task
async def fail(text: str) -> None:
    raise ValueError(text)


@task
async def fail_first() -> int:
    attempt = current_run().attempt
    if attempt == 1:
        raise RuntimeError("not yet")
    return attempt


@task
async def unwritable() -> Any:
    return object()


@task
async def sleep_async(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "slept"


@task
def loop_sync(seconds: float) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return "looped"


@task
async def ignore_cancellation(seconds: float) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            await asyncio.sleep(end - time.monotonic())
        except asyncio.CancelledError:
            continue
    return "ignored"


@task
async def block_loop(seconds: float) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return "blocked"


@task
def hold_interpreter(seconds: int) -> str:
    ctypes.PyDLL(None).sleep(seconds)  # a C call that does not let go of the interpreter
    return "held"


@task
def leave(code: int) -> None:
    os._exit(code)


@task
def leave_politely(code: int) -> None:
    sys.exit(code)


@task
def crash(name: str) -> None:
    os.kill(os.getpid(), getattr(signal, name))
    time.sleep(10)


@task
def out_of_memory() -> None:
    raise MemoryError("too much")


@task(isolation="process", memory_limit=64 * 1024 * 1024)
def greedy(megabytes: int) -> int:
    return len(bytearray(megabytes * 1024 * 1024))


@task(isolation="process")
def own_process() -> int:
    return os.getpid()


@task
def process_id() -> int:
    return os.getpid()


@task
def talk() -> None:
    logging.getLogger("shop").warning("stock is %d", 3)
    logging.getLogger("shop").debug("too fine")
    print("printed", "words")
    print("to stderr", file=sys.stderr)
    print("no newline\x00", end="")


@task
def chatter(lines: int) -> None:
    for number in range(lines):
        print(number)


@task
def leave_grandchild(file: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    Path(file).write_text(str(child.pid))
    os._exit(1)


@task
def tell() -> str:
    run = current_run()
    run.metadata["step"] = 1
    run.metadata["step"] = 2
    run.tags.add("user:7")
    return run.id
