"""One executor, as the supervisor sees it: process, pipe, lifeline, output, and the runs in it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import holdfast
from holdfast.worker.held import JOURNAL, Held
from holdfast.worker.limits import DEADLINE
from holdfast.worker.pipe import Message, Pipe
from holdfast.worker.talk import Talk

OUTPUT_PER_SECOND = 1024 * 1024  # of what user code prints outside of runs; more is dropped
BLOCKED_SECONDS = 1.0  # without an answer an executor gets no new runs
EXIT_SECONDS = 1.0  # from closing the pipe to being killed
REPORTS = frozenset({"succeeded", "failed", "suspended", "ended", "logs", "metadata", "tags", *JOURNAL})


@dataclass(frozen=True, slots=True)
class ExecutorSettings:
    tasks: tuple[str, ...]
    threads: int
    memory_limit: int | None = None  # bytes beyond what the interpreter and the imports take
    warm_ms: int = 5_000  # how long a run that waits is kept before it is suspended
    environment: dict[str, str] = field(default_factory=dict)  # added to our own


class ChildOwner(Protocol):
    def child_ready(self, child: Child) -> None: ...
    def run_begun(self, held: Held) -> None: ...
    def run_waits(self, held: Held) -> None: ...
    def run_reported(self, child: Child, held: Held, report: Message) -> None: ...
    def child_died(self, child: Child, code: int) -> None: ...


class Child:
    """code < 0 in `child_died` is a signal, as in `subprocess`."""

    def __init__(
        self, name: str, settings: ExecutorSettings, owner: ChildOwner, talk: Talk, alone: bool
    ) -> None:
        self.name = name
        self.alone = alone  # serves one run
        self.reserved: Held | None = None  # the run it is started for
        self.pid = 0  # until it is started
        self.runs: dict[str, Held] = {}
        self.manifest: Message | None = None
        self.retiring = False  # gets no new runs and leaves when it has none
        self.condemned = False  # will be killed as soon as its innocent runs are done, or at a deadline
        self.killed = False  # by us
        self.served = 0
        self.silent_since: float | None = None  # since when it owes an answer (loop time)
        self.told_blocked = False
        self.started_at = 0.0
        self._settings = settings
        self._owner = owner
        self._talk = talk
        self._loop = asyncio.get_running_loop()
        self._unseen: deque[Held] = deque()  # handed over, not yet taken up
        self._closed = asyncio.Event()
        self._dead = False
        self._lifeline = -1
        self._output: asyncio.ReadTransport | None = None
        self._output_ended = asyncio.Event()
        self._burial: asyncio.Task[None] | None = None

    async def start(self, variables: Mapping[str, str] | None = None) -> None:
        """Start the process; `child_ready` follows when it has imported the tasks.

        variables  it sets before that, unless its environment has them. They travel by the pipe: those of a new process
                   may have no more than 128 KiB each and about 2 MiB together, and everybody on the machine who may
                   look at processes reads them
        """
        ours, theirs = socket.socketpair()
        life_read, self._lifeline = os.pipe()
        out_read, out_write = os.pipe()
        os.set_blocking(self._lifeline, False)
        self.started_at = self._loop.time()
        try:
            # Not in a thread: the kernel's death signal is bound to the thread that starts the process.
            self.process = subprocess.Popen(  # noqa: ASYNC220, S603  # our own interpreter and module
                [sys.executable, "-m", "holdfast.worker.executor", str(theirs.fileno()), str(os.getpid())],
                stdin=life_read,
                stdout=out_write,
                stderr=out_write,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                env=_environment(self._settings.environment),
            )
        finally:
            theirs.close()
            os.close(life_read)
            os.close(out_write)
        self.pid = self.process.pid
        ours.setblocking(False)
        self._pipe = Pipe(self._received, self._pipe_closed)
        await self._loop.create_unix_connection(lambda: self._pipe, sock=ours)
        output, _ = await self._loop.connect_read_pipe(
            lambda: _Output(self._talk, self._loop, self._output_ended),
            os.fdopen(out_read, "rb", buffering=0),
        )
        self._output = output
        settings = self._settings
        self._pipe.send(
            {
                "kind": "settings",
                "tasks": settings.tasks,
                "threads": settings.threads,
                "memory_limit": settings.memory_limit,
                "warm_ms": settings.warm_ms,
                "variables": dict(variables or {}),
            }
        )

    @property
    def is_open(self) -> bool:
        """Whether it may be handed a run."""
        return self.manifest is not None and not (
            self.retiring or self.condemned or self.killed or self._dead
        )

    def is_blocked(self, now: float) -> bool:
        """Whether it owes an answer for long: something keeps its loop from turning."""
        return self.silent_since is not None and now - self.silent_since > BLOCKED_SECONDS

    def hand(self, held: Held) -> None:
        held.child = self
        held.begun = False
        held.handed += 1
        self.runs[held.run["id"]] = held
        self._unseen.append(held)
        self.served += 1
        now = self._loop.time()
        held.run["now"] += int((now - held.told_at) * 1_000)
        held.told_at = now
        self._pipe.send({"kind": "run", "run": held.run, "version": held.membership.version})
        if self.silent_since is None:
            self.silent_since = self._loop.time()

    def ask_to_stop(self, held: Held, reason: str) -> None:
        self._pipe.send({"kind": "stop", "run": held.id, "lease": held.lease, "reason": reason})

    def ask_for_place(self, held: Held) -> None:
        self._pipe.send({"kind": "give place", "run": held.id, "lease": held.lease})

    def tell_answered(self, held: Held, report: Message, answer: dict[str, Any]) -> None:
        """What became of a journal report."""
        told = {"kind": "answered", "run": held.id, "lease": held.lease, "first": report["first"]}
        self._pipe.send({**told, "answer": answer})

    def ping(self) -> None:
        """Ask for a sign of life, unless one is owed already."""
        if self.silent_since is None and self.manifest is not None:
            self.silent_since = self._loop.time()
            self._pipe.send({"kind": "ping"})

    def extend_life(self, deadline: float) -> None:
        """Tell when the lease ends; by itself it lives no longer (see `limits.watch_lifeline`)."""
        try:
            os.write(self._lifeline, DEADLINE.pack(deadline))
        except OSError:
            return  # it is dead, or has not read for hours: then the next renewal does as well

    def leave(self) -> None:
        """Let it exit by itself; it is killed if it has not within EXIT_SECONDS."""
        self.killed = True
        self._pipe.send({"kind": "exit"})
        self._loop.call_later(EXIT_SECONDS, self.kill)

    def kill(self) -> None:
        """End it and all it started, now."""
        self.killed = True
        if self.pid and not self._dead:
            self._signal_group()

    def watch(self) -> None:
        """Notice its death; called several times a second."""
        if not self._dead and self._has_exited():
            self._dead = True
            # While it is unreaped its group's id can not be used again: now is the time to kill the rest.
            self._signal_group()
            self._loop.create_task(self._bury())  # ends within a second, its owner is told

    async def _bury(self) -> None:
        # What it sent before it died still counts, and comes before the end of file.
        try:
            async with asyncio.timeout(0.5):
                await self._closed.wait()
        except TimeoutError:
            self._pipe.close()
        code = self.process.wait()
        os.close(self._lifeline)
        try:
            async with asyncio.timeout(0.2):
                await self._output_ended.wait()
        except TimeoutError:
            if self._output is not None:
                self._output.close()  # a process that left the group holds the other end
        self._owner.child_died(self, code)

    def _has_exited(self) -> bool:
        if not hasattr(os, "waitid"):
            return self.process.poll() is not None
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _signal_group(self) -> None:
        assert self.pid  # group 0 would be our own
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return  # nobody is left in it

    def _pipe_closed(self, fault: str | None) -> None:
        self._closed.set()
        if fault is not None:
            self._talk.say(f"{self.name} sent {fault}; it is killed")
            self._signal_group()
        if not self._dead:
            self._loop.call_later(EXIT_SECONDS, self._kill_if_alive)
            self.watch()

    def _kill_if_alive(self) -> None:
        if not self._dead:
            self._signal_group()

    def _received(self, messages: list[Message]) -> None:
        self.silent_since = None
        for message in messages:
            kind = message.get("kind")
            if kind in REPORTS:
                held = self.runs.get(message.get("run", ""))
                if held is not None and held.run["lease"] == message.get("lease"):
                    self._owner.run_reported(self, held, message)
            elif kind == "got":
                for _ in range(min(int(message["count"]), len(self._unseen))):
                    held = self._unseen.popleft()
                    held.begun = True
                    if held.run["maxDuration"] is not None:
                        self._owner.run_begun(held)
            elif kind in ("waiting", "began", "idle", "active"):
                self._waiting(kind, message)
            elif kind == "manifest" and self.manifest is None:
                self.manifest = message
                self._owner.child_ready(self)
        if self._unseen:
            self.silent_since = self._loop.time()

    def _waiting(self, kind: str, message: Message) -> None:
        held = self.runs.get(message.get("run", ""))
        if held is None or held.run["lease"] != message.get("lease"):
            return
        if kind in ("waiting", "began"):
            held.begun = kind == "began"
        held.idle = kind == "idle"
        if kind in ("began", "active"):
            self._owner.run_begun(held)
        else:
            self._owner.run_waits(held)


class _Output(asyncio.Protocol):
    """Reads what an executor prints outside of runs, always, and passes on a bounded part."""

    def __init__(self, talk: Talk, loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
        self._talk = talk
        self._ended = ended
        self._loop = loop
        self._second = 0
        self._left = OUTPUT_PER_SECOND

    def data_received(self, data: bytes) -> None:
        second = int(self._loop.time())
        if second != self._second:
            self._second, self._left = second, OUTPUT_PER_SECOND
        if self._left > 0:
            self._talk.pass_on(data.decode("utf-8", "replace"))
        self._left -= len(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended.set()


def _environment(added: dict[str, str]) -> dict[str, Any]:
    environment = {**os.environ, **added}
    source = Path(holdfast.__path__[0]).parent
    if source.name not in ("site-packages", "dist-packages"):
        # A checkout that is not installed: the child shall find the same one.
        known = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = f"{source}{os.pathsep}{known}" if known else str(source)
    return environment
