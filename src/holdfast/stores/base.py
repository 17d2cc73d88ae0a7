"""The contract of a store: what a transaction offers, and how use cases reach one.

A use case is a plain function `use_case(tx, items) -> results`, lists in and lists out, with one
result for each item. `Store.write` merges the calls that wait at the same moment into one call and
one commit. An item that is refused is a HoldfastError *in* the list of results; an exception rolls
the whole call back, and calls that were merged with it are then tried alone.

Inside a transaction: no network, no sleep, no user code.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any, Protocol, TypeVar

import pydantic_core

from holdfast.model.ids import Ids
from holdfast.model.run import Attempt, Run
from holdfast.model.status import AttemptStatus, RunStatus

Row = Mapping[str, Any]
I = TypeVar("I")  # noqa: E741  # an item; the two letters stand for a function from items to results
O = TypeVar("O")  # noqa: E741
T = TypeVar("T")

RUN_COLUMNS = tuple(field.name for field in fields(Run))
_STATUSES = {str(status): status for status in RunStatus}
_STATUS, _ALONE, _IS_TEST, _SUSPENDED = (
    RUN_COLUMNS.index(name) for name in ("status", "alone", "is_test", "suspended")
)
NEW = [
    "id",
    "environment_id",
    "status",
    "task",
    "version_lock",
    "queue",
    "concurrency_key",
    "priority",
    "score",
    "max_attempts",
    "max_duration",
    "machine",
    "ttl_ms",
    "due_at",
    "delayed_until",
    "created_at",
    "idempotency_key",
    "parent_id",
    "root_id",
    "depth",
    "batch_id",
    "replay_of",
    "tags",
    "metadata",
    "payload",
    "payload_type",
    "idempotency_key_shown",
    "external_deployment",
    "ttl_shown",
    "is_test",
]
_new_columns = attrgetter(*NEW[:-1])
SAVED = [
    "status",
    "lease",
    "score",
    "attempt",
    "losses",
    "alone",
    "worker_id",
    "due_at",
    "delayed_until",
    "updated_at",
    "finished_at",
    "attempt_started_at",
    "error",
    "output",
    "queue",
    "concurrency_key",
    "entries",
    "journal_bytes",
    "suspended",
    "active_ms",
    "operations",
    "output_type",
    "version",
    "version_lock",
]
BATCH_ITEM = ["batch_id", "number", "task", "run_id", "is_cached", "error"]
ENTRY = ["run_id", "seq", "scope", "kind", "name", "args", "ok", "value", "ref"]


def run_of(row: Sequence[Any]) -> Run:
    """A run from a row of `select runs.*`: the columns stand in the order of the fields."""
    values = list(row)
    values[_STATUS] = _STATUSES[values[_STATUS]]
    values[_ALONE] = bool(values[_ALONE])
    values[_IS_TEST] = bool(values[_IS_TEST])
    values[_SUSPENDED] = bool(values[_SUSPENDED])
    return Run(*values)


def new_row(run: Run) -> tuple[Any, ...]:
    """What `add_runs` takes of a new run, in the order of NEW; the other columns begin the same for all."""
    return (*_new_columns(run), int(run.is_test))


def batch(rows: Iterable[Any]) -> str:
    """A batch as the one JSON parameter that statements take."""
    return pydantic_core.to_json(list(rows)).decode()


class Connection(Protocol):
    """What a dialect supplies: named statements over one open transaction."""

    dialect: str

    def rows(self, statement: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]: ...

    def dicts(self, statement: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]: ...

    def together(self, asked: Sequence[tuple[str, Mapping[str, Any]]]) -> list[list[dict[str, Any]]]: ...

    def many(self, statement: str, names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
        """Executes a statement for all rows, whose columns stand in the order of the parameters `names`."""

    def select(self, text: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]: ...


class Tx:
    """One open transaction. `now` is the store's clock in epoch milliseconds, the same all through it."""

    def __init__(self, connection: Connection, now: int, ids: Ids) -> None:
        self._connection = connection
        self.dialect = connection.dialect
        self._ids = ids
        self.now = now
        self.wakes: set[str] = set()

    def new_id(self, prefix: str) -> str:
        return self._ids.new(prefix, self.now)

    def wake(self, topic: str) -> None:
        """After the commit, wakes whoever waits for `topic`: a hint, never the only way to find out."""
        self.wakes.add(topic)

    def all(self, statement: str, **parameters: Any) -> list[dict[str, Any]]:
        """The rows of a named statement."""
        return self._connection.dicts(statement, parameters)

    def one(self, statement: str, **parameters: Any) -> dict[str, Any] | None:
        """The first row of a named statement, or None."""
        rows = self._connection.dicts(statement, parameters)
        return rows[0] if rows else None

    def together(self, asked: Sequence[tuple[str, Mapping[str, Any]]]) -> list[list[dict[str, Any]]]:
        """The rows of several named statements that do not need one another's, in one round trip."""
        return self._connection.together(asked)

    def ids(self, statement: str, **parameters: Any) -> list[str]:
        """The first column of a named statement."""
        return [row[0] for row in self._connection.rows(statement, parameters)]

    def runs(self, statement: str, **parameters: Any) -> list[Run]:
        """The runs of a named statement that answers `runs.*`."""
        return [run_of(row) for row in self._connection.rows(statement, parameters)]

    def do(self, statement: str, **parameters: Any) -> None:
        """Executes a named statement that answers nothing of interest."""
        self._connection.rows(statement, parameters)

    def select_runs(self, text: str, parameters: Mapping[str, Any]) -> list[Run]:
        """Runs of a statement built for a list page; see stores/listing.py."""
        return [run_of(row) for row in self._connection.select(text, parameters)]

    def select(self, text: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """The rows of another such statement."""
        return self._connection.select(text, parameters)

    def attempts(self, run_id: str) -> list[Attempt]:
        """The earlier attempts of a run, oldest first."""
        return [
            Attempt(row[0], row[1], row[2], AttemptStatus(row[3]), row[4], row[5], row[6])
            for row in self._connection.rows("attempts", {"run_id": run_id})
        ]

    def add_runs(self, runs: Sequence[Run]) -> None:
        """Adds new runs."""
        if runs:
            self._connection.many("add_runs", NEW, [new_row(run) for run in runs])

    def save_runs(self, before: Mapping[str, Run], after: Iterable[Run]) -> set[str]:
        """Writes runs that were decided on; `before` holds them as they were read.

        Returns the ids that really moved: one whose lease is no longer that of `before` stays as
        it is.
        """
        changes = [[run.id, before[run.id].lease, *(getattr(run, name) for name in SAVED)] for run in after]
        return set(self.ids("save_runs", changes=batch(changes))) if changes else set()

    def add_attempts(self, attempts: Sequence[Attempt]) -> None:
        """Keeps attempts that were followed by another one; adding one again changes nothing."""
        if attempts:
            rows = [
                [a.id, a.run_id, a.number, a.status, a.started_at, a.completed_at, a.error] for a in attempts
            ]
            self.do("add_attempts", attempts=batch(rows))

    def add_batch_items(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Adds items of batches, whose columns stand in the order of BATCH_ITEM."""
        if rows:
            self._connection.many("add_batch_items", BATCH_ITEM, rows)

    def add_entries(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Adds journal entries, whose columns stand in the order of ENTRY."""
        if rows:
            self._connection.many("add_entries", ENTRY, rows)


UseCase = Callable[[Tx, list[I]], Sequence[O]]
Woken = Callable[[set[str]], None]


class Store(ABC):
    """Where runs are kept. Any number of servers may open the same one."""

    url: str
    dialect: str
    keeps_dead_entries = False  # whether indexes hold what was changed until someone cleans up
    on_wake: Woken | None = None

    @abstractmethod
    def migrate(self) -> list[str]:
        """Brings the schema up to date; returns the migrations that were applied.

        Safe to call from several processes at once. Raises StoreTooNew when the database was
        written by a newer release, StoreUnavailable when it can not be reached.
        """

    @abstractmethod
    def migrations(self) -> tuple[list[str], list[str]]:
        """The names of the applied migrations and of those still to apply."""

    @abstractmethod
    def transact(self, use_case: UseCase[I, O], items: Sequence[I]) -> list[O]:
        """Runs one use case in a transaction of its own, on the calling thread."""

    @abstractmethod
    async def write(self, use_case: UseCase[I, O], items: Sequence[I]) -> list[O]:
        """Runs a use case, merged with other calls that wait now; answers after the commit.

        Raises StoreUnavailable when the database does not answer. It may then be committed or
        not: use cases are safe to call again.
        """

    @abstractmethod
    async def read(self, query: Callable[[Tx], T]) -> T:
        """Runs a function that only reads. It sees everything that was answered before."""

    @abstractmethod
    def close(self) -> None:
        """Lets the calls that wait finish, then closes every connection."""
