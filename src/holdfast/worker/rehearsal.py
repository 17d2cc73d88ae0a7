"""Executing a run's code against its journal without doing anything: would this code go on with it?

Recorded results are answered, and what is not recorded ends the rehearsal: no step is executed, nothing is
triggered, written or waited for. Code between steps does run. Hooks and middleware do not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any

from holdfast.errors import HoldfastError
from holdfast.model.journal import Entry
from holdfast.sdk.context import CurrentRun, entered
from holdfast.sdk.task import Task
from holdfast.worker.attempt import as_data
from holdfast.worker.durable import Durable
from holdfast.worker.link import PipeLink
from holdfast.worker.parking import Parked
from holdfast.worker.pipe import Message
from holdfast.worker.scope import Branches, task_factory
from holdfast.worker.session import AttemptSession

SECONDS = 10.0  # of code between steps
Fetch = Callable[[Sequence[str], Sequence[str]], Awaitable[dict[str, Any]]]


class EndOfJournal(BaseException):  # not an error: it is where a rehearsal ends
    """The code asked for something that it has not done yet."""


class Silent:
    """A pipe to nobody."""

    def send(self, message: Message) -> None:
        return None


class ReadingLink(PipeLink):
    """Reads results that the journal left with their runs, and writes nothing."""

    def __init__(self, run: Mapping[str, Any], fetch: Fetch) -> None:
        super().__init__(run, Silent())
        self._fetch = fetch

    async def results(self, runs: Sequence[str], tokens: Sequence[str], wait_ms: int) -> dict[str, Any]:
        return await self._fetch(runs, tokens)


class Rehearsal(Durable):
    async def recall(
        self, kind: str, name: str, args: str | None = None, *, among: Collection[str] = ()
    ) -> Entry | None:
        entry = await super().recall(kind, name, args, among=among)
        if entry is None:
            raise EndOfJournal
        return entry

    async def _park(self, parked: Parked) -> dict[str, Any]:
        if not (parked.runs or parked.tokens or parked.due_at):
            return await super()._park(parked)  # what the code cancelled, and will again
        raise EndOfJournal

    async def _made(self, *_: Any) -> Entry:
        raise EndOfJournal


async def rehearse(task: Task[Any, Any], run: Mapping[str, Any], fetch: Fetch) -> str | None:
    """Why the code can not go on with a run, in words; None when it can.

    run    as it would be claimed, with its journal
    fetch  reads results of runs and tokens by id
    """
    loop = asyncio.get_running_loop()
    loop.set_task_factory(task_factory)  # type: ignore[arg-type]  # narrower than what loops accept
    branches, link = Branches(), ReadingLink(run, fetch)

    def make(_: AttemptSession) -> Durable:
        return Rehearsal(run, link, branches, loop, warm_ms=0, before=lambda: None)

    session = AttemptSession(run["id"], run["lease"], lambda _: None, run["operations"], make)
    current = CurrentRun(run, "", session)  # type: ignore[arg-type]  # in the shape of a ClaimedRun
    durable = session.durable
    assert durable is not None
    try:
        args, kwargs = task.decode_payload(run["payload"], current)
    except HoldfastError as error:
        return str(error)
    performing = loop.create_task(_performed(task, current, branches, args, kwargs))
    try:
        async with asyncio.timeout(SECONDS):
            await asyncio.wait((performing,))
    except TimeoutError:
        durable.interrupt()
        performing.cancel()
        return f"its code did not come to the end of the journal within {SECONDS:g} s"
    raised = performing.exception() if not performing.cancelled() else None
    for left in branches.left():
        left.cancel()
    if durable.broken is not None:
        return str(durable.broken)
    if raised is None:
        durable.check_end()
        return None if durable.broken is None else str(durable.broken)
    if _is_end(raised):
        return None
    told = as_data(raised)
    return f"it raises {told['name']}: {told['message']}" if durable.journal.is_replaying else None


async def _performed(
    task: Task[Any, Any],
    current: CurrentRun,
    branches: Branches,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    with entered(current), branches.entered():
        if task.is_async:
            await task.fn(*args, **kwargs)
        else:
            await asyncio.to_thread(task.fn, *args, **kwargs)


def _is_end(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(_is_end(one) for one in error.exceptions)
    return isinstance(error, EndOfJournal)
