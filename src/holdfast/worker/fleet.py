"""The executors: started, chosen, watched, recycled, replaced."""

from __future__ import annotations

import asyncio
import math
import random
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace

from holdfast.worker.child import Child, ChildOwner, ExecutorSettings
from holdfast.worker.deaths import describe
from holdfast.worker.held import Held
from holdfast.worker.limits import resident_bytes
from holdfast.worker.pipe import Message
from holdfast.worker.talk import Talk

PING_SECONDS = 1.0
STARTS_PER_RUN = 3  # hand-overs to executors that died before they took the run up
MAX_BACKOFF_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class FleetSettings:
    tasks: tuple[str, ...]
    executors: int
    share: int  # runs at once in one executor
    threads: int
    environment: dict[str, str] = field(default_factory=dict)
    recycle_after: int | None = None  # runs
    recycle_memory: int | None = None  # bytes of resident memory
    warm_ms: int = 5_000  # how long a run that waits is kept before it is suspended
    variables: Callable[[], Awaitable[Mapping[str, str]]] | None = None  # the environment's, as they are now


class Fleet:
    def __init__(self, settings: FleetSettings, owner: ChildOwner, talk: Talk) -> None:
        self.settings = settings
        self.children: list[Child] = []
        self.manifest: Message | None = None  # of the newest code
        self.manifests = 0
        self.changed = asyncio.Event()  # a child became ready, or died
        self.closing = False
        self._owner = owner
        self._talk = talk
        self._loop = asyncio.get_running_loop()
        self._numbers = 0
        self._early_deaths = 0
        self._deadline: float | None = None
        self._waiting: deque[Held] = deque()
        self._waiting_alone: deque[Held] = deque()
        self._pinged_at = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    # ---- runs

    def dispatch(self, held: Held) -> None:
        """Hand a run to the least loaded executor, or keep it until there is room."""
        memory = self.manifest["memory"] if self.manifest is not None else {}
        if held.run["alone"] or held.run["task"] in memory:
            self._waiting_alone.append(held)
            self._fill_alone()
        elif (child := self._least_loaded()) is not None:
            child.hand(held)
        else:
            self._waiting.append(held)

    def forget(self, held: Held) -> None:
        """Take a run that waits for an executor out again."""
        for line in (self._waiting, self._waiting_alone):
            if held in line:
                line.remove(held)

    def fill(self) -> None:
        """Hand out what waits; called when room may have come up."""
        while self._waiting and (child := self._least_loaded()) is not None:
            child.hand(self._waiting.popleft())
        self._fill_alone()

    def room(self) -> int:
        """How many more runs could be handed out now."""
        now = self._loop.time()
        room = -len(self._waiting) - len(self._waiting_alone)
        for child in self.children:
            if not child.alone and child.is_open and not child.is_blocked(now):
                room += self.settings.share - len(child.runs)
        return max(0, room)

    def _least_loaded(self) -> Child | None:
        best, least = None, self.settings.share
        now = self._loop.time()
        for child in self.children:
            if child.alone or len(child.runs) >= least or not child.is_open:
                continue
            if child.is_blocked(now):
                continue
            best, least = child, len(child.runs)
        return best

    def _fill_alone(self) -> None:
        limit = max(2, self.settings.executors)
        alone = sum(child.alone for child in self.children)
        while self._waiting_alone and alone < limit and not self.closing:
            held = self._waiting_alone.popleft()
            alone += 1
            memory = self.manifest["memory"].get(held.run["task"]) if self.manifest is not None else None
            self._start(alone=held, memory_limit=memory)

    # ---- processes

    def start(self) -> None:
        """Bring the number of executors up to what it shall be."""
        staying = sum(
            not (child.alone or child.retiring or child.condemned or child.killed) for child in self.children
        )
        for _ in range(self.settings.executors - staying):
            self._start()

    def _start(self, alone: Held | None = None, memory_limit: int | None = None, delay: float = 0.0) -> Child:
        self._numbers += 1
        settings = ExecutorSettings(
            self.settings.tasks,
            1 if alone is not None else self.settings.threads,
            memory_limit,
            self.settings.warm_ms,
            self.settings.environment,
        )
        name = f"executor {self._numbers}"
        child = Child(name, settings, self._owner, self._talk, alone is not None)
        self.children.append(child)
        child.reserved = alone
        task = self._loop.create_task(self._launch(child, delay))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return child

    async def _launch(self, child: Child, delay: float) -> None:
        if delay:
            await asyncio.sleep(delay)
        variables = {} if self.settings.variables is None else await self.settings.variables()
        if self.closing or child.killed:
            self.children.remove(child)
            return
        try:
            await child.start(variables)
        except OSError as error:
            self._talk.say(f"{child.name} can not be started: {error}")
            self.children.remove(child)
            await asyncio.sleep(self._backoff())
            if child.reserved is not None:
                self.dispatch(child.reserved)
            else:
                self.start()

    def ready(self, child: Child) -> None:
        """`child` sent its manifest."""
        assert child.manifest is not None
        if self._deadline is not None:
            child.extend_life(self._deadline)
        if child.alone:
            held, child.reserved = child.reserved, None
            if held is None or held.gone:
                child.kill()
            else:
                child.hand(held)
                child.retiring = True
        else:
            self._early_deaths = 0
            if self.manifest is None:
                self.manifest = child.manifest
        self.changed.set()
        self.fill()

    def run_over(self, child: Child) -> None:
        """A run left `child`; the last one of a retiring child lets it go."""
        if child.retiring and not child.runs and not child.killed:
            child.leave()
        elif self.settings.recycle_after is not None and child.served >= self.settings.recycle_after:
            self._recycle(child)
        if self._waiting:
            self.fill()

    def died(self, child: Child, code: int) -> None:
        """`child` is gone and its runs are accounted for: replace it."""
        self.children.remove(child)
        if not self.closing:
            staying = sum(not (c.alone or c.retiring or c.condemned or c.killed) for c in self.children)
            early = child.manifest is None and not child.alone
            if not child.alone and staying < self.settings.executors:
                self._start(delay=self._backoff() if early else 0.0)
            if early:
                self._early_deaths += 1
                self._talk.say(f"{child.name} died while it started ({describe(code)}); starting another one")
        self.changed.set()
        self.fill()

    def _backoff(self) -> float:
        return random.uniform(0.5, 1.0) * min(MAX_BACKOFF_SECONDS, 0.2 * 2.0 ** min(self._early_deaths, 10))

    def _recycle(self, child: Child) -> None:
        """Let `child` finish and leave; its successor starts first."""
        if child.retiring or child.alone or not child.is_open:
            return
        others = [c for c in self.children if c.is_open and not c.alone and c is not child]
        starting = any(c.manifest is None and not c.alone for c in self.children)
        if not others and not starting:
            self._start()
            return  # called again: it retires when there is somebody to take over
        if not others:
            return
        child.retiring = True
        if not starting:
            self.start()
        if not child.runs:
            child.leave()

    def extend_life(self, deadline: float) -> None:
        """Tell the executors until when they may live, by `lease_clock`; infinity when they hold no lease."""
        self._deadline = deadline if deadline < math.inf else None
        for child in self.children:
            if child.manifest is not None:
                child.extend_life(deadline)

    def tick(self) -> None:
        """Several times a second: deaths, signs of life, memory, and runs that wait."""
        now = self._loop.time()
        for child in list(self.children):
            if child.pid:
                child.watch()
        if now - self._pinged_at >= PING_SECONDS:
            self._pinged_at = now
            for child in list(self.children):
                self._look_at(child, now)
        if self._waiting or self._waiting_alone:
            self.fill()

    def _look_at(self, child: Child, now: float) -> None:
        if child.manifest is None or child.killed:
            return
        child.ping()
        if child.is_blocked(now) and not child.told_blocked:
            child.told_blocked = True
            tasks = ", ".join(sorted({str(held.run["task"]) for held in child.runs.values()})) or "no task"
            self._talk.say(
                f"{child.name} (process {child.pid}) does not answer: user code blocks its event loop "
                f"(running: {tasks}). It gets no new runs until it answers."
            )
        limit, settings = self.settings.recycle_memory, self.settings
        grown = limit is not None and not child.alone and resident_bytes(child.pid) > limit
        if grown or (settings.recycle_after is not None and child.served >= settings.recycle_after):
            self._recycle(child)

    # ---- new code, and the end

    async def reload(self, tasks: tuple[str, ...] | None = None) -> bool:
        """Start executors with the code as it is now; the old ones finish their runs and leave.

        False, and nothing changed, when the new code brings no task at all, only import errors.
        """
        if tasks is not None:
            self.settings = replace(self.settings, tasks=tasks)
        old = [child for child in self.children if not child.alone]
        scout = self._start()
        while scout.manifest is None and scout in self.children:
            self.changed.clear()
            await self.changed.wait()
        found = scout.manifest
        if found is None or (found["failures"] and not found["tasks"]):
            for failure in found["failures"] if found is not None else ["the new code does not start"]:
                self._talk.say(failure)
            self._talk.say("the new code can not be loaded: the old one goes on")
            scout.retiring = True
            if found is not None:
                scout.leave()
            return False
        self.manifest = found
        for child in old:
            child.retiring = True
            if not child.runs and child.pid:
                child.leave()
        self.start()
        return True

    def kill_all(self) -> None:
        self.closing = True
        for child in self.children:
            child.kill()

    async def gone(self, timeout: float) -> None:
        """Until no process is left, at most `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                while any(child.pid for child in self.children):
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            self._talk.say("some executors could not be ended")
