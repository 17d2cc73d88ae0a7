"""A supervisor with real executors and a protocol server, for one test."""

from __future__ import annotations

import asyncio
import functools
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from holdfast.worker.supervisor import Supervisor
from holdfast.worker.talk import Talk
from worker.protocol_server import ProtocolServer, ServedRun

TASKS = str(Path(__file__).with_name("hostile_tasks.py"))


@dataclass
class World:
    server: ProtocolServer
    supervisor: Supervisor
    running: asyncio.Task[None]
    stderr: io.StringIO

    async def finish(self, seconds: float = 20.0) -> None:
        """Until the supervisor's `run` returns."""
        await asyncio.wait_for(asyncio.shield(self.running), seconds)

    async def begun(self, *runs: ServedRun, seconds: float = 10.0) -> None:
        """Until executors have taken these runs up."""
        async with asyncio.timeout(seconds):
            while not all((held := self.supervisor.held(run.id)) is not None and held.begun for run in runs):
                await asyncio.sleep(0.01)

    async def said(self, text: str, seconds: float = 10.0) -> None:
        async with asyncio.timeout(seconds):
            while text not in self.stderr.getvalue():
                await asyncio.sleep(0.01)


@asynccontextmanager
async def world(
    server: ProtocolServer | None = None, *, tasks: tuple[str, ...] = (TASKS,), **options: Any
) -> AsyncIterator[World]:
    server = server or ProtocolServer()
    stderr = io.StringIO()
    talk = Talk(stderr)
    supervisor = Supervisor(server, tasks=tasks, talk=talk, **{"executors": 1, "concurrency": 20, **options})
    running = asyncio.create_task(supervisor.run())
    try:
        await asyncio.wait_for(supervisor.joined.wait(), 20)
        yield World(server, supervisor, running, stderr)
    finally:
        supervisor.stop_now()
        await asyncio.wait_for(running, 20)
        talk.close()


def story(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an async test in a loop of its own."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        async def main() -> None:
            await test(*args, **kwargs)

        uvloop.run(main())

    return run
