"""The child process: imports the tasks once, then runs the attempts it is handed.

    python -m holdfast.worker.executor DESCRIPTOR PARENT

DESCRIPTOR is its end of the socket pair, PARENT the supervisor's process id; standard input is the
lifeline. The first frame it gets holds its settings, the first one it sends its manifest. Then

    {"kind": "run", "run": ClaimedRun, "version": "…"}     begin an attempt
    {"kind": "stop", "run", "lease", "reason"}             ask it to end; answered by "ended"
    {"kind": "answered", "run", "lease", "first", "answer"}  what became of a journal report
    {"kind": "give place", "run", "lease"}                 suspend it if it only waits: others want to run
    {"kind": "ping"}                                       answered by "pong"
    {"kind": "exit"}                                       leave, now that nothing runs

It sends {"kind": "got", "count": n} for each batch of runs before their code begins; "waiting" and
"began" for a sync run that finds all threads busy; "idle" and "active" for a run all of whose branches
wait; and reports in the shapes of `wire.workers`.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json

from holdfast.model.error import internal_error
from holdfast.model.packet import STORE
from holdfast.sdk import registry
from holdfast.sdk.context import CurrentRun
from holdfast.sdk.task import Task
from holdfast.worker import capture, limits, manifest
from holdfast.worker.attempt import Outcome, as_data, run_attempt
from holdfast.worker.durable import Durable
from holdfast.worker.link import Outbox, PipeLink
from holdfast.worker.loop import loop_factory
from holdfast.worker.pipe import HEADER, MAX_FRAME, Message, Pipe
from holdfast.worker.scope import Branches, task_factory
from holdfast.worker.session import FLUSH_SECONDS, AttemptSession
from holdfast.worker.threads import ThreadPool


@dataclass(slots=True, eq=False)
class Running:
    """An attempt in this process."""

    run: dict[str, Any]
    session: AttemptSession
    link: PipeLink
    branches: Branches
    task: asyncio.Task[None] = field(init=False)
    begun: bool = False
    began_at: float = field(default_factory=time.monotonic)
    stopping: bool = False


class Executor:
    """warm_ms    how long a run that waits is kept before it is suspended
    pipe       to the supervisor; by default one that is still to be connected
    make_link  the way of a run's journal to the store
    """

    def __init__(
        self,
        tasks: dict[str, Task[Any, Any]],
        threads: int,
        warm_ms: int,
        pipe: Outbox | None = None,
        make_link: Callable[[dict[str, Any], Outbox], PipeLink] = PipeLink,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_task_factory(task_factory)  # type: ignore[arg-type]  # narrower than what loops accept
        self._warm_ms = warm_ms
        self._tasks = tasks
        self._pool = ThreadPool(threads)
        self._running: dict[str, Running] = {}
        self._dirty: set[AttemptSession] = set()
        self._gone = self._loop.create_future()
        self.pipe: Outbox = pipe if pipe is not None else Pipe(self.received, self._closed)
        self._make_link = make_link

    async def serve(self) -> None:
        """Until the supervisor says exit."""
        await self._gone

    def received(self, messages: list[Message]) -> None:
        """What the supervisor says."""
        runs = 0
        for message in messages:
            kind = message["kind"]
            if kind == "run":
                if not runs:
                    self.pipe.send({"kind": "got", "count": sum(m["kind"] == "run" for m in messages)})
                runs += 1
                self._begin(message["run"], message["version"])
            elif kind == "stop":
                self._stop(message)
            elif kind == "answered":
                running = self._running.get(message["run"])
                if running is not None and running.run["lease"] == message["lease"]:
                    running.link.answered(message)
            elif kind == "give place":
                self._give_place(message)
            elif kind == "ping":
                self.pipe.send({"kind": "pong"})
            elif kind == "exit" and not self._gone.done():
                self._gone.set_result(None)

    def _closed(self, fault: str | None) -> None:
        limits.kill_own_group()

    def _begin(self, run: dict[str, Any], version: str) -> None:
        task = self._tasks.get(run["task"])
        if task is None:
            known = ", ".join(sorted(self._tasks)) or "none"
            error = internal_error(
                "COULD_NOT_FIND_TASK", f"this worker has no task {run['task']!r}; it has {known}"
            )
            self._send(run, Outcome(error=error))
            return
        link, branches = self._make_link(run, self.pipe), Branches()

        def make_durable(session: AttemptSession) -> Durable:
            return Durable(
                run,
                link,
                branches,
                self._loop,
                warm_ms=self._warm_ms,
                before=lambda: self._send_all(session.reports()),
                changes=lambda: session.operations,
                began=lambda: running.began_at,
            )

        # Changes of metadata are only passed over where it is known how far the code had come.
        went_on = run["entries"] or run["resumed"]
        written = run["operations"] if went_on else 0
        session = AttemptSession(run["id"], run["lease"], self._touched, written, make_durable)
        running = Running(run, session, link, branches)
        self._running[run["id"]] = running
        current = CurrentRun(run, version, session)  # type: ignore[arg-type]  # a ClaimedRun as it was parsed
        running.task = self._loop.create_task(self._attempt(running, task, current))
        if went_on:
            assert session.durable is not None  # what is recorded must be asked for again, if only at the end

    async def _attempt(self, running: Running, task: Task[Any, Any], current: CurrentRun) -> None:
        running.begun = True
        capture.recording.set(running.session)
        run = running.run
        outcome: Outcome | None = None
        try:
            outcome = await run_attempt(
                task,
                current,
                running.link.payload if run.get("payloadType") == STORE else run["payload"],
                max_attempts=run["maxAttempts"],
                in_thread=self._in_thread(running),
                branches=running.branches,
                durable=lambda: running.session.made,
                resumed=run["resumed"],
            )
        except asyncio.CancelledError:
            pass  # it was asked to stop, and did
        except BaseException as error:
            # Nothing of the user's gets here; whatever does must end this attempt, not this process.
            outcome = Outcome(
                error={**internal_error("TASK_EXECUTION_FAILED", ""), "message": as_data(error)["message"]}
            )
        durable = running.session.made
        if durable is not None:
            await durable.close()
        if self._running.get(run["id"]) is running:
            del self._running[run["id"]]
        self._send_all(running.session.close())
        if running.stopping or outcome is None:
            self.pipe.send({"kind": "ended", "run": run["id"], "lease": run["lease"]})
        else:
            self._send(run, outcome, durable, running.session)

    def _in_thread(self, running: Running) -> Callable[[Callable[[], Any]], Awaitable[Any]]:
        run = running.run

        def tell(kind: str) -> None:
            running.began_at = time.monotonic()
            self.pipe.send({"kind": kind, "run": run["id"], "lease": run["lease"]})

        def call(function: Callable[[], Any]) -> Awaitable[Any]:
            if not self._pool.is_full:
                return self._pool.run(function)
            tell("waiting")
            return self._pool.run(function, lambda: tell("began"))

        return call

    def _send(
        self,
        run: dict[str, Any],
        outcome: Outcome,
        durable: Durable | None = None,
        session: AttemptSession | None = None,
    ) -> None:
        report: Message = {"kind": "succeeded", "run": run["id"], "lease": run["lease"]}
        if outcome.suspended and durable is not None:
            durable.flush()
            report.update(kind="suspended", activeMs=durable.active_ms, waits=durable.waits)
        elif outcome.error is not None:
            report.update(kind="failed", error=outcome.error, retryDelayMs=outcome.retry_delay_ms)
            if durable is not None and session is not None and outcome.retry_delay_ms is not None:
                durable.flush()
                report.update(forget=list(outcome.forget), operations=durable.operations)
        else:
            report["output"] = outcome.output
        self.pipe.send(report)

    def _send_all(self, reports: Iterable[Message]) -> None:
        for report in reports:
            self.pipe.send(report)

    def _stop(self, message: Message) -> None:
        running = self._running.get(message["run"])
        if running is None or running.run["lease"] != message["lease"] or running.stopping:
            return
        if not running.begun:
            # A task that is cancelled before its first step never enters its body: let it enter.
            self._loop.call_soon(self._stop, message)
            return
        running.stopping = True
        if running.session.made is not None:
            running.session.made.interrupt()
        running.task.cancel(message["reason"])

    def _give_place(self, message: Message) -> None:
        running = self._running.get(message["run"])
        if running is not None and running.run["lease"] == message["lease"] and running.session.made:
            running.session.made.give_place()

    def _touched(self, session: AttemptSession) -> None:
        self._loop.call_soon_threadsafe(self._schedule_flush, session)

    def _schedule_flush(self, session: AttemptSession) -> None:
        if not self._dirty:
            self._loop.call_later(FLUSH_SECONDS, self._flush)
        self._dirty.add(session)

    def _flush(self) -> None:
        dirty, self._dirty = self._dirty, set()
        for session in dirty:
            self._send_all(session.reports())


async def serve(connection: socket.socket, settings: Message, found: Message) -> None:
    executor = Executor(registry.tasks(), settings["threads"], settings["warm_ms"])
    pipe = executor.pipe
    assert isinstance(pipe, Pipe)
    await asyncio.get_running_loop().create_unix_connection(lambda: pipe, sock=connection)
    executor.pipe.send(found)
    await executor.serve()


def main() -> None:
    connection = socket.socket(fileno=int(sys.argv[1]))
    limits.die_with_parent(int(sys.argv[2]))
    lifeline = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    limits.watch_lifeline(lifeline)
    faulthandler.enable(file=2)
    capture.install()
    settings = _settings(connection)
    for name, value in settings.pop("variables").items():  # what is set already stays
        os.environb.setdefault(name.encode(), value.encode())
    # Imported before there is a loop: a module may run one of its own while it is imported.
    found = manifest.collect(settings["tasks"])
    if settings["memory_limit"] is not None:
        limits.limit_memory(settings["memory_limit"])
    connection.setblocking(False)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(serve(connection, settings, found))


def _settings(connection: socket.socket) -> Message:
    with connection.makefile("rb", buffering=0) as file:

        def exactly(count: int) -> bytes:
            data = b""
            while len(data) < count:
                piece = file.read(count - len(data))
                if not piece:
                    limits.kill_own_group()
                data += piece or b""
            return data

        (length,) = HEADER.unpack(exactly(HEADER.size))
        assert length <= MAX_FRAME
        settings: Message = from_json(exactly(length))[0]
        return settings


if __name__ == "__main__":
    main()
