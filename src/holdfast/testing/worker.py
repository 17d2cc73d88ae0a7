"""A worker in memory: one executor, in the event loop of this process, that can be killed."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import httpx2
from pydantic_core import from_json, to_json

from holdfast.engine import Engine
from holdfast.engine import upkeep as keeping
from holdfast.errors import HoldfastError
from holdfast.sdk import registry
from holdfast.worker.api import AsgiApi
from holdfast.worker.executor import Executor, Running
from holdfast.worker.held import JOURNAL
from holdfast.worker.link import Outbox, PipeLink
from holdfast.worker.pipe import Message

if TYPE_CHECKING:
    from holdfast.testing import Clock
    from holdfast.wire.manifests import WireTask

SLOTS = 500
THREADS = 64
LONG_SECONDS = 60.0  # of real time, for the code of one test
ENDED = frozenset({"succeeded", "failed", "suspended", "ended"})
STREAMED = frozenset({"logs", "metadata", "tags"})
NEXT_RETRY = """
select runs.* from runs where status = 'REATTEMPTING' and worker_id is null and due_at is not null
 order by due_at limit 1
"""


class Worker:
    """A supervisor in memory: claims for one executor, delivers what it says, and can be killed."""

    def __init__(self, engine: Engine, api: AsgiApi, clock: Clock) -> None:
        self.performed: Counter[str] = Counter()
        self.recorded: Counter[str] = Counter()
        self.kills: deque[int] = deque()  # after how many entries the process dies, in order
        self.killed_at = ""
        self.lost: Counter[str] = Counter()  # steps that a kill interrupted
        self._engine = engine
        self._api = api
        self._clock = clock
        self._id: str | None = None
        self._version = ""
        self._known: tuple[str, ...] = ()
        self._deploys = 0
        self._running: dict[str, dict[str, Any]] = {}
        self._retries: list[tuple[int, dict[str, Any]]] = []
        self._said: deque[tuple[int, Message]] = deque()
        self._life = 0  # kills so far: what an executor says after its death is not heard
        self._news = asyncio.Event()
        self._executor = self._new_executor()

    def _new_executor(self) -> Executor:
        life = self._life
        outbox = Said(lambda message: self._hear(life, message))
        return Executor(registry.tasks(), THREADS, 0, outbox, lambda run, pipe: MemoryLink(run, pipe, self))

    # ---- what its executor says

    def _hear(self, life: int, message: Message) -> None:
        self._said.append((life, message))
        self._news.set()

    def perform(self, step: str) -> None:
        self.performed[step] += 1

    @property
    def clock(self) -> Clock:
        return self._clock

    # ---- the life of a worker

    async def register(self, replaces: str | None = None, anew: bool = False) -> None:
        """Tell the server of the tasks there are; `anew` makes it another version of the code. Nothing runs now."""
        tasks = registry.tasks()
        known = tuple(sorted(tasks))
        if known == self._known and replaces is None and not anew:
            return
        self._deploys += anew
        self._executor._tasks = tasks
        body: dict[str, Any] = {
            "name": "in memory",
            "fingerprint": f"{self._deploys}:{','.join(known)}"[:128],
            "tasks": [_without_schedule(task.manifest()) for _, task in sorted(tasks.items())],
            "queues": [queue.manifest() for queue in registry.queues().values()],
        }
        if replaces is not None:
            body["replaces"] = replaces
        answer = await self._post("/api/v1/workers", body)
        if self._id is not None and replaces is None:
            await self._engine.leave(self._id, "dev")
        self._id, self._version, self._known = answer["workerId"], answer["version"], known

    async def settle(self) -> None:
        """Until nothing runs, nothing is queued that may run, and nothing waits for a retry."""
        while True:
            await self.upkeep()
            claimed = await self._claim()
            if await self._deliver() or claimed or self._said:
                continue
            if self._running:
                self._news.clear()
                if not self._said:
                    await self._news.wait()
            elif self._retries:
                await self._retry()
            elif not await self._is_retrying():
                return

    async def upkeep(self) -> None:
        while (await self.pass_once()).more:
            pass

    async def next_due(self) -> int | None:
        return (await self.pass_once()).next_due_at

    async def close(self) -> None:
        for running in list(self._executor._running.values()):
            _kill(running)
        await asyncio.sleep(0)

    async def pass_once(self) -> keeping.Passed:
        [passed] = await self._engine.store.write(keeping.upkeep, [keeping.Due(lose_workers=False)])
        return passed

    async def _claim(self) -> bool:
        if self._id is None:
            return False
        answer = await self._post(f"/api/v1/workers/{self._id}/claim", {"slots": SLOTS, "waitMs": 0})
        for cancelled in answer["cancelled"]:
            run = self._running.pop(cancelled["id"], None)
            if run is not None:
                self._executor.received(
                    [{"kind": "stop", "run": run["id"], "lease": run["lease"], "reason": "cancelled"}]
                )
            await self._report([{"kind": "closed", "run": cancelled["id"], "lease": cancelled["lease"]}])
        for run in answer["runs"]:
            await self._begin({**run, "now": answer["now"]})
        return bool(answer["runs"])

    async def _begin(self, run: dict[str, Any]) -> None:
        if run["journal"] is None and run["entries"]:
            run = {**run, **await self._journal(run)}
        self._running[run["id"]] = run
        self._executor.received([{"kind": "run", "run": run, "version": self._version}])

    async def _journal(self, run: Mapping[str, Any]) -> dict[str, Any]:
        entries: list[Any] = []
        while True:
            body = {"run": run["id"], "lease": run["lease"], "after": len(entries)}
            page = await self._post(f"/api/v1/workers/{self._id}/journal", body)
            entries += page["entries"]
            if not page["more"]:
                return {"entries": len(entries), "journal": entries, "operations": page["operations"]}

    async def _deliver(self) -> bool:
        """Passes on what the executor has said, in order; whether there was something."""
        said = bool(self._said)
        while self._said:
            reports: list[Message] = []
            while self._said:
                life, message = self._said.popleft()
                known = self._running.get(message.get("run", ""))
                if life == self._life and known is not None and known["lease"] == message.get("lease"):
                    reports.append(message)
            reports = [one for one in reports if one["kind"] in ENDED | JOURNAL | STREAMED]
            for report in reports:
                [answer] = await self._report([report])
                await self._answered(report, answer)
                if report["kind"] in JOURNAL and self._is_killed(report):
                    await self._die(report)
                    return True
        return said

    async def _answered(self, report: Message, answer: Mapping[str, Any]) -> None:
        kind, run = report["kind"], self._running.get(report["run"])
        if run is None:
            return
        if kind in JOURNAL:
            for entry in report.get("entries", ()):
                if entry["kind"] == "step" and answer["status"] == "ok":
                    self.recorded[entry["name"]] += 1
            if not self._is_killed(report):
                told = {"kind": "answered", "run": run["id"], "lease": run["lease"], "first": report["first"]}
                self._executor.received([{**told, "answer": answer}])
        elif kind in ENDED:
            del self._running[run["id"]]
            if answer["status"] == "retry":
                again = {**run, "lease": answer["lease"], "attempt": answer["attempt"], "resumed": False}
                self._retries.append((self._clock.ms + answer["delayMs"], again))

    async def _retry(self) -> None:
        self._retries.sort(key=lambda retry: retry[0])
        due, run = self._retries.pop(0)
        self._clock.ms = max(self._clock.ms, due)
        [answer] = await self._report([{"kind": "started", "run": run["id"], "lease": run["lease"]}])
        if answer["status"] == "started":
            run = {**run, "lease": answer["lease"], "now": self._clock.ms}
            await self._begin({**run, **await self._journal(run)})

    async def _is_retrying(self) -> bool:
        """Whether a run waits in the queue for its next attempt: time passes until then."""
        runs = await self._engine.store.read(lambda tx: tx.select_runs(NEXT_RETRY, {}))
        if not runs:
            return False
        self._clock.ms = max(self._clock.ms, runs[0].due_at or 0)
        return True

    async def _report(self, reports: list[Message]) -> list[dict[str, Any]]:
        answer = await self._post(f"/api/v1/workers/{self._id}/reports", {"reports": reports})
        answers: list[dict[str, Any]] = answer["answers"]
        return answers

    async def _post(self, path: str, body: Any) -> Any:
        status, data = await self._api.post(path, to_json(body), 60.0)
        answer = from_json(data)
        if status != 200:
            raise HoldfastError(f"{path}: {status} {answer}")
        return answer

    # ---- being killed

    def _is_killed(self, report: Message) -> bool:
        if not self.kills or self._running.get(report["run"], {}).get("parentId") is not None:
            return False
        return bool(report["first"] + len(report.get("entries", [None])) >= self.kills[0])

    async def _die(self, report: Message) -> None:
        """Everything that runs stops where it is, and another worker takes its place."""
        names = [entry["name"] for entry in report.get("entries", ())] or [report["name"]]
        self.killed_at = names[-1]
        self.kills.popleft()
        self.lost = self.performed - self.recorded
        self._life += 1
        for running in list(self._executor._running.values()):
            _kill(running)
        for _ in range(3):
            await asyncio.sleep(0)
        self._running.clear()
        self._retries.clear()
        self._said.clear()
        self._executor = self._new_executor()
        await self.register(replaces=self._id)


def _without_schedule(told: WireTask) -> dict[str, Any]:
    """Nothing runs in a test that the test did not start."""
    return {name: value for name, value in told.items() if name != "schedule"}


def _kill(running: Running) -> None:
    running.stopping = True
    if running.session.made is not None:
        running.session.made.interrupt()
    running.task.cancel("killed")
    for branch in running.branches.left():
        branch.cancel()


class Said:
    """The pipe of an executor in memory."""

    def __init__(self, hear: Callable[[Message], None]) -> None:
        self._hear = hear

    def send(self, message: Message) -> None:
        self._hear(message)


class MemoryLink(PipeLink):
    """A run's way to the store, on the clock of the test."""

    def __init__(self, run: Mapping[str, Any], pipe: Outbox, worker: Worker) -> None:
        super().__init__(run, pipe)
        self._worker = worker

    async def pause(self, seconds: float) -> None:
        self._worker.clock.ms += round(seconds * 1_000)

    def now_ms(self) -> int:
        return self._worker.clock.ms

    def heard(self, now_ms: int) -> None:
        return None

    def performs(self, step: str) -> None:
        self._worker.perform(step)


class Bridge(httpx2.BaseTransport, httpx2.AsyncBaseTransport):
    """Requests of any thread and loop to the server in memory."""

    def __init__(self, app: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = httpx2.ASGITransport(app=app)
        self._loop = loop

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        asking = self._ask(request.method, request.url, request.headers, request.read())
        return asyncio.run_coroutine_threadsafe(asking, self._loop).result(LONG_SECONDS)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        asking = self._ask(request.method, request.url, request.headers, await request.aread())
        if asyncio.get_running_loop() is self._loop:
            return await asking
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(asking, self._loop))

    async def _ask(self, method: str, url: Any, headers: Any, body: bytes) -> httpx2.Response:
        answer = await self._transport.handle_async_request(
            httpx2.Request(method, url, headers=headers, content=body)
        )
        content = await answer.aread()
        return httpx2.Response(answer.status_code, headers=answer.headers, content=content)
