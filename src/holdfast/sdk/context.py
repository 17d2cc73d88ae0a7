"""The run that executes now, as its own code sees it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from holdfast.errors import HoldfastError, WaitInStep
from holdfast.model.journal import Entry
from holdfast.model.metadata import Operation
from holdfast.sdk.metadata import MetadataWriter, RunMetadata, RunTags

if TYPE_CHECKING:
    from holdfast.wire.workers import ClaimedRun


T = TypeVar("T")


class NoCurrentRun(HoldfastError, LookupError):
    """Something that belongs to a run was used outside of one."""

    code = "no_current_run"


class Durable(Protocol):
    """What makes an attempt durable: its journal and its waits (worker/durable.py).

    The coroutines run in the loop of the attempt; `blocking` carries one out for a thread of it.
    """

    async def recall(
        self, kind: str, name: str, args: str | None = None, *, among: Collection[str] = ()
    ) -> Entry | None: ...

    async def record(
        self,
        kind: str,
        name: str,
        args: str | None = None,
        *,
        ok: bool = True,
        value: str | None = None,
        ref: str | None = None,
        delay_ms: int | None = None,
    ) -> Entry: ...

    def cancelled(self, kind: str, name: str, args: str | None = None) -> None: ...

    def working(self, step: str) -> AbstractContextManager[None]: ...

    def failed(self, error: BaseException, about: Entry | str) -> None:
        """`error` is raised for what an entry, or the result of a run, records: should it end the attempt, the next
        one tries that anew."""

    async def pause(self, seconds: float) -> None:
        """Sleep within a step."""

    async def trigger(
        self, name: str, args: str | None, items: Sequence[Any]
    ) -> tuple[Entry, list[dict[str, Any]]]: ...

    async def token(self, args: str | None, asked: Mapping[str, Any]) -> dict[str, Any]: ...

    async def sleep(self, name: str, ms: int | None = None, until_ms: int | None = None) -> None: ...

    async def deadline(self, ms: int) -> int: ...

    async def result_of(self, id: str, *, token: bool = False) -> dict[str, Any]: ...

    async def next_results(self, ids: Collection[str], wake: str) -> list[tuple[str, dict[str, Any]]]: ...

    async def first(
        self, runs: Sequence[str], tokens: Sequence[str], due_at: int | None = None
    ) -> tuple[str, dict[str, Any]] | None: ...

    def blocking(self, start: Callable[[], Coroutine[Any, Any, T]]) -> T: ...


class Session(Protocol):
    """What an attempt tells the server while it goes on. Nothing blocks; any thread may call."""

    durable: Durable | None

    @property
    def lease(self) -> tuple[str, int]:
        """The run's id and the lease number of the attempt."""
        ...

    @property
    def repeats_changes(self) -> bool:
        """Whether the next change of metadata was written by an earlier process of the run."""
        ...

    def metadata(
        self,
        operations: list[Operation],
        parent_operations: list[Operation],
        root_operations: list[Operation],
        /,
    ) -> bool: ...

    def tags(self, tags: list[str], /) -> None: ...


class CurrentRun:
    """The run that executes now: `current_run()`, or a parameter annotated `run: CurrentRun`.

    id, attempt        the run, and the number of this attempt, from 1
    tags, metadata     to read and to change: `run.tags.add("user:7")`, `run.metadata["step"] = 3`
    is_test, version   whether it was triggered as a test; the version of the code
    parent, root       ids of the run that triggered it and of the one at the top, or None
    task, queue        their names
    started_at         when its first attempt began, in UTC
    locals             a dict of its own, for what hooks and functions share: clients, sessions. Nothing of it
                       is kept; after a wait that suspended the run it is empty, and `on_resume` may fill it
    """

    __slots__ = (
        "_session",
        "attempt",
        "id",
        "is_test",
        "locals",
        "metadata",
        "parent",
        "queue",
        "root",
        "started_at",
        "tags",
        "task",
        "version",
    )

    def __init__(self, claimed: ClaimedRun, version: str, session: Session) -> None:
        self._session = session
        self.id = claimed["id"]
        self.attempt = claimed["attempt"]
        self.is_test = claimed["isTest"]
        self.version = version
        self.parent = claimed["parentId"]
        self.root = claimed["rootId"]
        self.task = claimed["task"]
        self.queue = claimed["queue"]
        self.started_at = datetime.fromtimestamp(claimed["startedAt"] / 1_000, UTC)
        self.tags = RunTags(claimed["tags"], session.tags)
        self.metadata = RunMetadata(
            claimed["metadata"],
            lambda operations: session.metadata(operations, [], []),
            MetadataWriter(lambda operations: session.metadata([], operations, [])),
            MetadataWriter(lambda operations: session.metadata([], [], operations)),
            lambda: session.repeats_changes,
        )
        self.locals: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"<CurrentRun {self.id} of {self.task}, attempt {self.attempt}>"

    @property
    def durable(self) -> Durable | None:
        """Where its steps and waits are recorded."""
        return self._session.durable

    @property
    def lease(self) -> tuple[str, int]:
        """Run id and lease number: what calls on behalf of this attempt are fenced by."""
        return self._session.lease


_current: ContextVar[CurrentRun | None] = ContextVar("holdfast_current_run", default=None)


def current_run() -> CurrentRun:
    """The run that executes now. Raises NoCurrentRun outside of one."""
    run = _current.get()
    if run is None:
        raise NoCurrentRun("there is no current run: this works only inside a task that a worker runs")
    return run


def current_run_or_none() -> CurrentRun | None:
    return _current.get()


_step: ContextVar[str | None] = ContextVar("holdfast_step", default=None)


def current_durable() -> Durable | None:
    """The durable part of the current run; None outside of one and inside of a step, which is recorded as a whole."""
    run = _current.get()
    return None if run is None or _step.get() is not None else run.durable


def is_in_step() -> bool:
    return _step.get() is not None


def refuse_in_step(what: str) -> None:
    """Raises WaitInStep inside of a step."""
    step = _step.get()
    if step is not None:
        raise WaitInStep(
            f"{what} was used inside the step {step}: a step is recorded as a whole and may not wait; "
            "wait before or after it"
        )


@contextmanager
def in_step(name: str) -> Iterator[None]:
    """While this lasts, this context is inside of a step."""
    token = _step.set(name)
    try:
        yield
    finally:
        _step.reset(token)


@contextmanager
def entered(run: CurrentRun) -> Iterator[CurrentRun]:
    """Makes `run` the current one for this context."""
    token = _current.set(run)
    try:
        yield run
    finally:
        _current.reset(token)


def progress(current: float, total: float, message: str | None = None) -> None:
    """Tell how far the current run is, for progress bars; outside of a run it does nothing.

    It sets the metadata key "progress" to {"current", "total", "message"?}.
    """
    run = _current.get()
    if run is None:
        return
    told: dict[str, Any] = {"current": current, "total": total}
    if message is not None:
        told["message"] = message
    run.metadata["progress"] = told
