"""Tests of tasks: everything in memory, on a clock that the test moves. No server, no worker, no waiting.

    def test_fulfil(holdfast):                                   # the pytest fixture
        run = holdfast.start(fulfil, Order(id="1", tenant="t", cents=500_00))
        run.token.complete(Approval(ok=True, by="ann"))
        holdfast.clock.advance("1d")
        assert run.result() == "ch_1" and holdfast.calls(charge) == 1
        holdfast.assert_crash_safe(fulfil, run.payload)

It is the real engine over SQLite in memory, the real server, and the executor's own code in a thread of
this process. Waits suspend at once. Delays before retries pass by themselves; other time only passes when
the test says so.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from holdfast.engine import Engine
from holdfast.errors import HoldfastError
from holdfast.model.duration import duration_ms
from holdfast.model.status import FINAL, RunStatus
from holdfast.sdk.client import Holdfast, in_place_of_default
from holdfast.sdk.cron import Cron
from holdfast.sdk.options import Duration
from holdfast.sdk.payload import PayloadInvalid
from holdfast.sdk.run import Run
from holdfast.sdk.task import Task
from holdfast.sdk.tick import Tick
from holdfast.sdk.token import Token
from holdfast.server import create_app
from holdfast.stores import open_store
from holdfast.testing.crash import Played, played
from holdfast.testing.worker import LONG_SECONDS, Bridge, Worker
from holdfast.worker.api import AsgiApi

T = TypeVar("T")
R = TypeVar("R")

KEY = "tr_dev_in_memory_only"
URL = "http://in-memory"


class NotYet(HoldfastError):
    """The run has not ended, and only the test can make it go on; the message says what it waits for."""

    code = "not_yet"


class NotCrashSafe(AssertionError):
    """A run that was killed and resumed did something else than one that was left alone."""


class Clock:
    """The time of a test: epoch milliseconds, which only `advance` moves, and the delays before retries."""

    def __init__(self, settle: Callable[[int], None]) -> None:
        self._settle = settle
        self.ms = int(datetime.now(UTC).timestamp()) * 1_000

    def __call__(self) -> int:
        return self.ms

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self.ms / 1_000, UTC)

    def advance(self, duration: Duration) -> None:
        """Let time pass, and everything happen that is due by then, in order."""
        self.reach(self.ms + max(0, duration_ms(duration, "duration")))

    def reach(self, ms: int) -> None:
        """As `advance`, until a moment."""
        self._settle(ms)


class StartedRun(Generic[R]):
    """A run of a test."""

    def __init__(self, world: InMemory, run: Run[R]) -> None:
        self._world = world
        self._run = run

    def __repr__(self) -> str:
        return f"<{self._run.id} of {self._run.task_identifier}, {self.status}>"

    @property
    def id(self) -> str:
        return self._run.id

    @property
    def status(self) -> RunStatus:
        return self._run.refresh().status

    @property
    def payload(self) -> Any:
        """As plain JSON values."""
        return self._run.payload

    @property
    def metadata(self) -> dict[str, Any]:
        return self._run.refresh().metadata

    @property
    def tags(self) -> list[str]:
        return self._run.refresh().tags

    @property
    def journal(self) -> list[dict[str, Any]]:
        """What it has recorded: {"seq", "kind", "name", "ok", …} each, in order."""
        return self._world.journal(self.id)

    @property
    def children(self) -> list[StartedRun[Any]]:
        """The runs it has triggered, oldest first."""
        return [StartedRun(self._world, child) for child in self._run.refresh().related_runs.children]

    @property
    def tokens(self) -> list[WaitingToken]:
        """The tokens it has made that nobody has completed yet, oldest first."""
        return self._world.tokens(self.id)

    @property
    def token(self) -> WaitingToken:
        """The only token it waits for. Raises NotYet when there is none, or more than one."""
        tokens = self.tokens
        if len(tokens) != 1:
            raise NotYet(f"{self!r} has {len(tokens)} tokens that nobody has completed: expected one")
        return tokens[0]

    def result(self) -> R:
        """What it returned; raises as `Run.result`. Raises NotYet when it has not ended."""
        run = self._run.refresh()
        if run.status not in FINAL:
            raise self._world.not_yet(run)
        return run.result(timeout=0)

    def cancel(self) -> None:
        self._run.cancel()
        self._world.settle()


class WaitingToken:
    """A token that a run of the test waits for."""

    def __init__(self, world: InMemory, id: str) -> None:
        self._world = world
        self.id = id

    def complete(self, value: Any = None) -> None:
        """Complete it, and let everything happen that follows from that."""
        token = Token.by_id(self.id)
        token.complete(value)
        self._world.settle()


class InMemory:
    """An engine, a server and a worker in memory. What the fixture `holdfast` gives."""

    def __init__(self) -> None:
        self.clock = Clock(self._pass_time)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="holdfast-in-memory", daemon=True)
        self._thread.start()
        self._stack = ExitStack()
        self._engine = Engine(open_store("sqlite:///:memory:", clock=self.clock))
        self._app = create_app(self._engine, {KEY: "dev"})
        self.worker = self._call(self._new_worker())
        self.client = Holdfast(URL, KEY, transport=Bridge(self._app, self._loop))
        self.client.connection.in_run = True
        self._stack.enter_context(in_place_of_default(self.client))

    def start(self, task: Task[..., R], *args: Any, **kwargs: Any) -> StartedRun[R]:
        """Trigger a run, with options by `task.options(…)`, and let it go as far as it can.

        A scheduled task that is given nothing gets a `Tick` of the present time, if it takes one.
        """
        self._register()
        if task.schedule is not None and not args and not kwargs:
            args, kwargs = _ticked(task, task.schedule, self.clock.ms)
        run = StartedRun(self, task.trigger(*args, **kwargs))
        self.settle()
        return run

    def deploy(self, *tasks: Task[..., Any]) -> None:
        """The tasks as they are declared by now are a new version of the code, which waiting runs go on with."""
        self._call(self.worker.register(anew=True))
        self.settle()

    def calls(self, step: Callable[..., Any]) -> int:
        """How often a step was really executed, in all runs; recorded results do not count."""
        name = getattr(step, "step_name", None)
        if name is None:
            raise TypeError(f"{step!r} is no step: @step makes one")
        return self.worker.performed[name]

    def settle(self) -> None:
        """Let everything happen that can happen now."""
        self._call(self.worker.settle())

    def assert_crash_safe(self, task: Task[..., Any], payload: Any = None) -> None:
        """Run `task` once more for each entry of its journal, killed right after that entry, and resume it.

        Tokens are completed with what they were completed with in this test, in the order in which they are
        made; time passes by itself. Raises NotCrashSafe if a step that was recorded runs again, or if the run
        ends otherwise than one that is not killed.
        """
        completions = [token["output"] for token in self._completed_tokens()]
        expected = _in_a_new_world(task.id, payload, completions, ())
        for entry in range(1, expected.entries + 1):
            found = _in_a_new_world(task.id, payload, completions, (entry,))
            where = f"{task.id}, killed after entry {entry} of {expected.entries} ({found.killed_at})"
            if found.repeated:
                raise NotCrashSafe(f"{where}: recorded and executed again: {found.repeated}")
            if found.outcome != expected.outcome:
                raise NotCrashSafe(
                    f"{where}: it ended {_shown(found.outcome)} and not {_shown(expected.outcome)}"
                )

    def prepare(self, kills: Sequence[int]) -> None:
        """For a run whose process is killed when its journal has so many entries, each time anew."""
        self._register()
        self.worker.kills.extend(kills)

    def next_due(self) -> int | None:
        """When something happens by itself next, in epoch milliseconds."""
        return self._call(self.worker.next_due())

    def waiting_tokens(self) -> list[WaitingToken]:
        """The tokens of all runs that nobody has completed, oldest first."""
        return [WaitingToken(self, id) for id in sorted(token["id"] for token in self._tokens("WAITING"))]

    def not_yet(self, run: Run[Any]) -> NotYet:
        return NotYet(f"{run!r} has not ended: {self.why(run)}")

    def journal(self, run_id: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            query = {"page[size]": "1000", **({"page[after]": str(found[-1]["seq"])} if found else {})}
            page = self._get(f"/api/v1/runs/{run_id}/journal", query)
            found += page["data"]
            if "next" not in page["pagination"]:
                return found

    def tokens(self, run_id: str) -> list[WaitingToken]:
        made = [entry["ref"] for entry in self.journal(run_id) if entry["kind"] == "token"]
        waiting = {token["id"] for token in self._tokens("WAITING")}
        return [WaitingToken(self, id) for id in dict.fromkeys(made) if id in waiting]

    def why(self, run: Run[Any]) -> str:
        """What an unfinished run waits for."""
        tokens = [token.id for token in self.tokens(run.id)]
        if tokens:
            return f"complete {', '.join(tokens)}, or advance the clock"
        if run.status in (RunStatus.WAITING_TO_RESUME, RunStatus.DELAYED):
            return "advance the clock"
        if run.status is RunStatus.WAITING_FOR_DEPLOY:
            last = run.attempts[-1].error if run.attempts else None
            return str((last or {}).get("message", "no task of this name is known"))
        return "it may never go on"

    def close(self) -> None:
        self._stack.close()
        self.client.close()
        self._call(self.worker.close())
        self._engine.store.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # ---- inside

    def _call(self, coro: Coroutine[Any, Any, T]) -> T:
        future: Future[T] = asyncio.run_coroutine_threadsafe(coro, self._loop)
        return future.result(LONG_SECONDS)

    async def _new_worker(self) -> Worker:
        return Worker(self._engine, AsgiApi(self._app, KEY), self.clock)

    def _register(self) -> None:
        self._call(self.worker.register())

    def _pass_time(self, until: int) -> None:
        while True:
            due = self.next_due()
            if due is None or due > until:
                break
            self.clock.ms = max(self.clock.ms, due)
            self.settle()
        self.clock.ms = max(self.clock.ms, until)
        self.settle()

    def _tokens(self, status: str) -> list[dict[str, Any]]:
        """Newest first."""
        found: list[dict[str, Any]] = []
        while True:
            query = {"filter[status]": status, "page[size]": "100"}
            page = self._get(
                "/api/v1/waitpoints/tokens", {**query, **({"page[after]": found[-1]["id"]} if found else {})}
            )
            found += page["data"]
            if not page["pagination"].get("next"):
                return found

    def _completed_tokens(self) -> list[dict[str, Any]]:
        done = sorted(self._tokens("COMPLETED"), key=lambda token: str(token["id"]))
        return [self._get(f"/api/v1/waitpoints/tokens/{token['id']}", {}) for token in done]

    def _get(self, path: str, query: Mapping[str, str]) -> Any:
        from holdfast.sdk.policy import Request, asked

        return self.client.connection.run(asked(Request("GET", path, query=tuple(query.items()))))


def _in_a_new_world(
    task_id: str, payload: Any, completions: list[str | None], kills: Sequence[int]
) -> Played:
    world = InMemory()
    try:
        return played(world, task_id, payload, completions, kills)
    finally:
        world.close()


def _ticked(task: Task[..., Any], cron: Cron, now_ms: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a run that `cron` would make now."""
    from pydantic import TypeAdapter

    from holdfast.model.schedule import UPCOMING, upcoming

    times = [datetime.fromtimestamp(ms / 1_000, UTC) for ms in upcoming(cron.spec, now_ms, UPCOMING)]
    tick = Tick(datetime.fromtimestamp(now_ms / 1_000, UTC), timezone=cron.tz, upcoming=tuple(times))
    try:
        return task.shape.arguments_for(TypeAdapter(Tick).dump_json(tick).decode())
    except PayloadInvalid:
        return (), {}


def _shown(outcome: tuple[str, Any, dict[str, Any]]) -> str:
    status, output, error = outcome
    return f"{status} with {json.dumps(error or output, default=str)[:500]}"
