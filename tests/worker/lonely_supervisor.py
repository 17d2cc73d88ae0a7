"""A supervisor in a process of its own, with a run that blocks its executor: prints the executor's id."""

import asyncio
import sys
from pathlib import Path

from holdfast.worker.supervisor import Supervisor
from worker.protocol_server import ProtocolServer


async def main() -> None:
    server = ProtocolServer(lease_ms=int(sys.argv[1]))
    tasks = str(Path(__file__).with_name("hostile_tasks.py"))
    supervisor = Supervisor(server, tasks=[tasks], executors=1)
    running = asyncio.create_task(supervisor.run())
    await supervisor.joined.wait()
    run = await server.trigger("block-loop", 60)
    while (held := supervisor.held(run.id)) is None or not held.begun:
        await asyncio.sleep(0.01)
    print(*supervisor.executor_pids, flush=True)
    await running


asyncio.run(main())
