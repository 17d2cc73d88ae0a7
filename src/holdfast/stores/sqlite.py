"""SQLite: one writer thread with group commit, readers beside it.

WAL with `synchronous=FULL`: a commit is on disk when it is answered; group commit pays for it. Every
write transaction begins IMMEDIATE, so that it never has to upgrade and "database is locked" can only
mean that another process writes for longer than the busy timeout.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from holdfast.errors import BadSetting, StoreUnavailable
from holdfast.model.ids import Ids
from holdfast.stores.base import I, O, Store, T, Tx, UseCase
from holdfast.stores.commit import Call, Committer, call_together
from holdfast.stores.sql import PARAMETER, migrations, refuse_newer, statements

BUSY_TIMEOUT_SECONDS = 10.0
READERS = 2
CHECKPOINT_WAL_BYTES = 32 * 1024 * 1024
CHECKPOINT_EVERY_COMMITS = 64
MEMORY = ":memory:"
# Busy, locked, no memory, read-only, I/O error, corrupt, full, can not open, protocol, not a database. Other errors
# are defects of a statement.
UNAVAILABLE = frozenset({5, 6, 7, 8, 10, 11, 13, 14, 15, 26})
MINIMUM_VERSION = (3, 38, 0)  # `->>`


def wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


class SqliteConnection:
    """Named statements over one connection."""

    dialect = "sqlite"

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.raw = connection
        self._statements = statements("sqlite")
        self._texts: dict[str, str] = {}

    def rows(self, statement: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        return self.raw.execute(self._statements[statement].text, parameters).fetchall()

    def dicts(self, statement: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        cursor = self.raw.execute(self._statements[statement].text, parameters)
        names = [column[0] for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def together(self, asked: Sequence[tuple[str, Mapping[str, Any]]]) -> list[list[dict[str, Any]]]:
        return [self.dicts(statement, parameters) for statement, parameters in asked]

    def many(self, statement: str, names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
        self.raw.executemany(self._numbered(statement, tuple(names)), rows)

    def _numbered(self, statement: str, names: tuple[str, ...]) -> str:
        """The statement with numbers for its parameters, so that rows need not be dictionaries."""
        text = self._texts.get(statement)
        if text is None:
            places = {name: f"?{index}" for index, name in enumerate(names, 1)}
            text = PARAMETER.sub(lambda match: places[match[1]], self._statements[statement].text)
            self._texts[statement] = text
        return text

    def select(self, text: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        return self.raw.execute(text, parameters).fetchall()


class SqliteStore(Store):
    """One database file, or `:memory:` for tests. `clock` answers epoch milliseconds."""

    dialect = "sqlite"

    def __init__(
        self,
        url: str,
        *,
        clock: Callable[[], int] = wall_clock_ms,
        ids: Ids | None = None,
        threads: bool = True,
    ) -> None:
        if sqlite3.sqlite_version_info < MINIMUM_VERSION:
            raise StoreUnavailable(f"SQLite {sqlite3.sqlite_version} is too old: 3.38 or newer is needed")
        self.url = url
        self._path = database_path(url)
        self._clock = clock
        self._ids = ids or Ids()
        self._lock = threading.Lock()
        self._commits = 0
        self._writer = SqliteConnection(self._connect())
        self._idle: queue.SimpleQueue[SqliteConnection] = queue.SimpleQueue()
        self._committer = Committer("sqlite", 1, self._commit, merge_all=True) if threads else None
        self._readers = ThreadPoolExecutor(READERS, "sqlite-reader") if threads else None

    def migrate(self) -> list[str]:
        with self._lock, self._available():
            raw = self._writer.raw
            raw.execute("begin immediate")
            try:
                applied = self._applied()
                refuse_newer(applied, "sqlite")
                new = [(name, text) for name, text in migrations("sqlite") if name not in applied]
                for name, text in new:
                    for statement in split_script(text):
                        raw.execute(statement)
                    raw.execute(
                        "insert into migrations (name, applied_at) values (?, ?)", (name, self._clock())
                    )
                raw.execute("commit")
            except BaseException:
                raw.execute("rollback")
                raise
        return [name for name, _ in new]

    def migrations(self) -> tuple[list[str], list[str]]:
        with self._lock, self._available():
            applied = self._applied(create=False)
        return applied, [name for name, _ in migrations("sqlite") if name not in applied]

    def transact(self, use_case: UseCase[I, O], items: Sequence[I]) -> list[O]:
        with self._lock:
            tx = self._begin()
            try:
                results = list(use_case(tx, list(items)))
                self._end("commit")
            except BaseException:
                self._end("rollback")
                raise
        self._woken(tx.wakes)
        return results

    async def write(self, use_case: UseCase[I, O], items: Sequence[I]) -> list[O]:
        assert self._committer is not None
        result: list[O] = await self._committer.submit(use_case, items)
        return result

    async def read(self, query: Callable[[Tx], T]) -> T:
        assert self._readers is not None
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, query)

    def close(self) -> None:
        if self._committer is not None:
            self._committer.close()
        if self._readers is not None:
            self._readers.shutdown()
        while True:
            try:
                self._idle.get_nowait().raw.close()
            except queue.Empty:
                break
        with suppress(sqlite3.Error):  # another process may hold the log; it will checkpoint then
            self._writer.raw.execute("pragma wal_checkpoint(truncate)")
        self._writer.raw.close()

    def _commit(self, calls: list[Call]) -> None:
        """Performs calls in one transaction, each use case behind its own savepoint."""
        with self._lock:
            tx = self._begin()
            try:
                for group in by_use_case(calls):
                    call_together(lambda use_case, items: self._guarded(tx, use_case, items), group)
                self._end("commit")
            except BaseException:
                self._end("rollback")
                raise
            self._commits += 1
            if self._commits % CHECKPOINT_EVERY_COMMITS == 0:
                self._checkpoint()
        self._woken(tx.wakes)

    def _guarded(self, tx: Tx, use_case: Callable[..., Any], items: list[Any]) -> Sequence[Any]:
        raw = self._writer.raw
        raw.execute("savepoint one_call")
        try:
            with self._available():
                results: Sequence[Any] = use_case(tx, items)
        except BaseException:
            if raw.in_transaction:  # a full disk rolls the whole transaction back by itself
                raw.execute("rollback to one_call")
                raw.execute("release one_call")
            raise
        raw.execute("release one_call")
        return results

    def _begin(self) -> Tx:
        with self._available():
            self._writer.raw.execute("begin immediate")
        return Tx(self._writer, self._clock(), self._ids)

    def _end(self, how: str) -> None:
        if self._writer.raw.in_transaction:
            with self._available():
                self._writer.raw.execute(how)
        elif how == "commit":
            raise StoreUnavailable("the database gave the transaction up, as it does when the disk is full")

    def _read(self, query: Callable[[Tx], T]) -> T:
        if self._path == MEMORY:  # it belongs to its only connection
            with self._lock:
                return query(Tx(self._writer, self._clock(), self._ids))
        with self._available():
            try:
                connection = self._idle.get_nowait()
            except queue.Empty:
                connection = SqliteConnection(self._connect())
            connection.raw.execute("begin")
            try:
                return query(Tx(connection, self._clock(), self._ids))
            finally:
                connection.raw.execute("rollback")
                self._idle.put(connection)

    def _connect(self) -> sqlite3.Connection:
        with self._available():
            if self._path != MEMORY:
                Path(self._path).absolute().parent.mkdir(parents=True, exist_ok=True)
            raw = sqlite3.connect(
                self._path,
                timeout=BUSY_TIMEOUT_SECONDS,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=256,
            )
            for pragma in (
                "journal_mode = wal",
                "synchronous = full",
                "foreign_keys = on",
                "temp_store = memory",
                "cache_size = -16000",
                "wal_autocheckpoint = 4000",
            ):
                raw.execute(f"pragma {pragma}")
        return raw

    def _applied(self, create: bool = True) -> list[str]:
        raw = self._writer.raw
        if create:
            raw.execute(
                "create table if not exists migrations (name text primary key, applied_at integer not null)"
            )
        elif not raw.execute("select 1 from sqlite_master where name = 'migrations'").fetchone():
            return []
        return [row[0] for row in raw.execute("select name from migrations order by name")]

    def _checkpoint(self) -> None:
        """Empties the log when it has grown past its bound; a reader in the way postpones it."""
        log = Path(self._path + "-wal")
        with suppress(OSError, sqlite3.Error):
            if log.stat().st_size > CHECKPOINT_WAL_BYTES:
                self._writer.raw.execute("pragma wal_checkpoint(truncate)")

    def _woken(self, topics: set[str]) -> None:
        if topics and self.on_wake is not None:
            self.on_wake(topics)

    @contextmanager
    def _available(self) -> Iterator[None]:
        """Turns what the database says about itself into StoreUnavailable."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF in UNAVAILABLE:
                raise StoreUnavailable(f"SQLite database {self._path}: {error}") from error
            raise


def database_path(url: str) -> str:
    """The path in sqlite:///relative.db, sqlite:////absolute.db, or sqlite:///:memory:. Raises BadSetting."""
    path = url.removeprefix("sqlite:///")
    if path == url or not path:
        raise BadSetting(f"database URL {url!r}: expected sqlite:///path/to/file.db")
    return path


def split_script(text: str) -> list[str]:
    """The statements of a migration; a semicolon ends one only at the end of a line."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("--")]
    return [part for part in "\n".join(lines).replace(";\n", ";\x00").split("\x00") if part.strip()]


def by_use_case(calls: Sequence[Call]) -> list[list[Call]]:
    """Calls grouped by use case, in the order in which each came first."""
    groups: dict[Callable[..., Any], list[Call]] = {}
    for call in calls:
        groups.setdefault(call.use_case, []).append(call)
    return list(groups.values())
