"""A connection to PostgreSQL that is opened when it is needed, and what its errors mean.

Every transaction begins with its own settings, in the round trip that begins it, and nothing else is kept in the
session. So a pooler in transaction mode may stand in between. One that can not keep prepared statements is noticed by
its first error, and from then on statements are sent without.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import psycopg

from holdfast.errors import StoreUnavailable
from holdfast.stores.sql import PARAMETER, statements

T = TypeVar("T")

TRIES = 4
CONNECT_SECONDS = 5
MAX_PREPARED = 1_000
FIRST_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 0.05, 5.0

# Deadlock, serialization, lock timeout, and a unique key that another server was first to write: the whole
# transaction is tried again, and then sees what the other one did.
CONFLICTS = frozenset({"40P01", "40001", "55P03", "23505"})
# The name of a prepared statement is unknown, or taken: a pooler gave the transaction to another session.
NOT_PREPARED = frozenset({"26000", "42P05"})
# Out of disk, memory or connections, read-only after a failover, cancelled by a timeout, shutting down or starting.
AWAY_CLASSES = ("08", "53", "57", "58")
AWAY = frozenset({"25006", "25P03", *CONFLICTS - {"23505"}})

# The statements are few and each has its index. What the planner knows is often older than the table is large (it was
# empty a minute ago), and one plan that reads the whole table, once prepared, stays: a claim of 500 took 700 ms. So it
# is told not to, and to plan anew for the size that the table has now, which costs 0.1 to 0.4 ms.
SETTINGS = """
set local statement_timeout = '30s';
set local lock_timeout = '10s';
set local idle_in_transaction_session_timeout = '30s';
set local plan_cache_mode = force_custom_plan;
set local enable_seqscan = off;
set local enable_hashjoin = off;
set local enable_mergejoin = off;
set local enable_bitmapscan = off;
set local jit = off;
select floor(extract(epoch from clock_timestamp()) * 1000)::bigint
"""
WRITING = f"begin isolation level read committed read write;{SETTINGS}"
READING = f"begin isolation level repeatable read read only;{SETTINGS}"


def connect(url: str) -> psycopg.Connection[tuple[Any, ...]]:
    """A connection without transactions of its own. Raises StoreUnavailable."""
    try:
        return psycopg.connect(
            url,
            autocommit=True,
            connect_timeout=CONNECT_SECONDS,
            fallback_application_name="holdfast",
            client_encoding="utf8",
            keepalives_idle=30,
            keepalives_interval=10,
            keepalives_count=3,
        )
    except psycopg.Error as error:
        raise StoreUnavailable(f"PostgreSQL can not be reached: {error}") from error


class PostgresConnection:
    """Named statements over one connection."""

    dialect = "postgres"

    def __init__(self, raw: psycopg.Connection[tuple[Any, ...]]) -> None:
        self.raw = raw
        self.raw.prepared_max = MAX_PREPARED
        self.prepare = True
        self._texts = texts()

    def begin(self, how: str) -> int:
        """Begins a transaction and answers the database's clock: epoch milliseconds."""
        cursor = self.raw.execute(how, prepare=False)  # several statements, one round trip
        while cursor.nextset():
            pass
        row = cursor.fetchone()
        assert row is not None
        return int(row[0])

    def rows(self, statement: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        cursor = self.raw.execute(self._texts[statement], parameters, prepare=self.prepare)
        return cursor.fetchall() if cursor.description else []

    def dicts(self, statement: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        return named(self.raw.execute(self._texts[statement], parameters, prepare=self.prepare))

    def together(self, asked: Sequence[tuple[str, Mapping[str, Any]]]) -> list[list[dict[str, Any]]]:
        with self.raw.pipeline():
            cursors = [
                self.raw.execute(self._texts[statement], parameters, prepare=self.prepare)
                for statement, parameters in asked
            ]
        return [named(cursor) for cursor in cursors]

    def many(self, statement: str, names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
        columns = zip(*rows, strict=True)
        parameters = {name: array(column) for name, column in zip(names, columns, strict=True)}
        self.raw.execute(self._texts[statement], parameters, prepare=self.prepare)

    def select(self, text: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        return self.raw.execute(converted(text), parameters, prepare=False).fetchall()


class Link:
    """Keeps one connection for one thread at a time; opens it again, with growing pauses, after it was lost."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: PostgresConnection | None = None
        self._failures = 0
        self._not_before = 0.0
        self._refused: StoreUnavailable | None = None
        self._prepare = True

    def run(self, how: str, work: Callable[[PostgresConnection, int], T]) -> T:
        """`work(connection, now)` in a transaction begun by `how`, committed afterwards.

        Tries again after a conflict, up to TRIES times, and when an idle connection turns out to be dead. Raises
        StoreUnavailable when the database is away; after the commit was sent it may have happened or not.
        """
        tries = 0
        while True:
            tries += 1
            connection = self._opened()
            begun = False
            try:
                now = connection.begin(how)
                begun = True
                result = work(connection, now)
                connection.raw.execute("commit")
                return result
            except psycopg.Error as error:
                lost = self._undone(error)
                if error.sqlstate in NOT_PREPARED:
                    self._prepare = False
                    self.close()
                again = error.sqlstate in CONFLICTS | NOT_PREPARED or (lost and not begun)
                if not (again and tries < TRIES):
                    if lost or is_away(error):
                        raise StoreUnavailable(f"PostgreSQL: {str(error).strip()}") from error
                    raise
            except BaseException:
                self._undone(None)
                raise
            time.sleep(random.uniform(0.0, 0.02 * tries))

    def close(self) -> None:
        if self._connection is not None:
            self._connection.raw.close()
            self._connection = None

    def _opened(self) -> PostgresConnection:
        if self._connection is None:
            if self._refused is not None and time.monotonic() < self._not_before:
                raise StoreUnavailable(str(self._refused))
            try:
                self._connection = PostgresConnection(connect(self._url))
            except StoreUnavailable as error:
                pause = min(MAX_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2**self._failures)
                self._failures += 1
                self._not_before = time.monotonic() + pause * random.uniform(0.5, 1.0)
                self._refused = error
                raise
            self._connection.prepare = self._prepare
            self._failures, self._refused = 0, None
        return self._connection

    def _undone(self, error: psycopg.Error | None) -> bool:
        """Rolls back; answers whether the connection is gone. One to a server that turned read-only goes, too."""
        connection = self._connection
        if connection is None:
            return True
        try:
            if not connection.raw.closed and (error is None or error.sqlstate != "25006"):
                connection.raw.execute("rollback")
                return False
        except psycopg.Error:
            pass  # the server undoes what a lost connection had begun
        self.close()
        return True


def named(cursor: psycopg.Cursor[tuple[Any, ...]]) -> list[dict[str, Any]]:
    """The rows of a cursor as dictionaries."""
    if not cursor.description:
        return []
    names = [column.name for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def is_away(error: psycopg.Error) -> bool:
    """Whether the error speaks of the database itself and not of the statement."""
    state = error.sqlstate
    if state is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return state in AWAY or state[:2] in AWAY_CLASSES


@lru_cache(maxsize=512)
def converted(text: str) -> str:
    """A statement with `:name` as psycopg writes it: `%(name)s`."""
    return PARAMETER.sub(r"%(\1)s", text.replace("%", "%%"))


@lru_cache(maxsize=1)
def texts() -> dict[str, str]:
    return {name: converted(statement.text) for name, statement in statements("postgres").items()}


def array(values: Iterable[Any]) -> str:
    """An array as PostgreSQL writes it. Ten times as fast as the driver, which looks at every item's type."""
    items = []
    for value in values:
        if value is None:
            items.append("NULL")
        elif isinstance(value, str):
            items.append('"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"')
        else:
            items.append(str(int(value)))
    return "{" + ",".join(items) + "}"
