"""The run that executes now, as its own code sees it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from holdfast.errors import HoldfastError
from holdfast.model.metadata import Operation
from holdfast.sdk.metadata import MetadataWriter, RunMetadata, RunTags

if TYPE_CHECKING:
    from holdfast.wire.workers import ClaimedRun


class NoCurrentRun(HoldfastError, LookupError):
    """Something that belongs to a run was used outside of one."""

    code = "no_current_run"


class Session(Protocol):
    """What an attempt tells the server while it goes on. Nothing blocks; any thread may call."""

    @property
    def lease(self) -> tuple[str, int]:
        """The run's id and the lease number of the attempt."""
        ...

    def metadata(
        self,
        operations: list[Operation],
        parent_operations: list[Operation],
        root_operations: list[Operation],
        /,
    ) -> None: ...

    def tags(self, tags: list[str], /) -> None: ...


class CurrentRun:
    """The run that executes now: `current_run()`, or a parameter annotated `run: CurrentRun`.

    id, attempt        the run, and the number of this attempt, from 1
    tags, metadata     to read and to change: `run.tags.add("user:7")`, `run.metadata["step"] = 3`
    is_test, version   whether it was triggered as a test; the version of the code
    parent, root       ids of the run that triggered it and of the one at the top, or None
    task, queue        their names
    started_at         when its first attempt began, in UTC
    """

    __slots__ = (
        "_session",
        "attempt",
        "id",
        "is_test",
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
        )

    def __repr__(self) -> str:
        return f"<CurrentRun {self.id} of {self.task}, attempt {self.attempt}>"

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
