"""PostgreSQL: for any number of servers. A few writer threads with group commit, readers beside them.

Each transaction holds one use case. Transactions run at READ COMMITTED and lock what they decide on, in this order:
idempotency keys, versions, workers, environments, tokens, then runs, the newest first, so that children come before
their parents. Time is the database's own, so that servers agree.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from holdfast.errors import BadSetting
from holdfast.model.ids import Ids
from holdfast.stores.base import I, O, Store, T, Tx, UseCase
from holdfast.stores.commit import Call, Committer, call_together
from holdfast.stores.link import READING, WRITING, Link, PostgresConnection
from holdfast.stores.notify import Notifier
from holdfast.stores.sql import migrations, refuse_newer

WRITERS = 3
READERS = 2
MIGRATION_LOCK = 7_462_000
CREATE_MIGRATIONS = (
    'create table if not exists migrations (name text collate "C" primary key, applied_at bigint not null)'
)


class PostgresStore(Store):
    """A database, or the schema that the URL's search_path names. `clock` answers epoch milliseconds, for tests."""

    dialect = "postgres"
    keeps_dead_entries = True

    def __init__(
        self,
        url: str,
        *,
        clock: Callable[[], int] | None = None,
        ids: Ids | None = None,
        writers: int = WRITERS,
    ) -> None:
        self.url = checked_url(url)
        self._clock = clock
        self._ids = ids or Ids()
        self._lock = threading.Lock()
        self._own = Link(url)  # for calls on the caller's thread
        self._local = threading.local()
        self._links: queue.SimpleQueue[Link] = queue.SimpleQueue()  # of all threads, to close them
        self._committer = Committer("postgres", writers, self._commit, merge_all=False)
        self._readers = ThreadPoolExecutor(READERS, "postgres-reader")
        self._notifier = Notifier(url, self._wake)

    def migrate(self) -> list[str]:
        applied = []
        with self._lock:
            for name, text in migrations("postgres"):
                if self._own.run(WRITING, partial(apply, name=name, text=text)):
                    applied.append(name)
        return applied

    def migrations(self) -> tuple[list[str], list[str]]:
        with self._lock:
            applied = self._own.run(READING, lambda connection, _: applied_migrations(connection))
        return applied, [name for name, _ in migrations("postgres") if name not in applied]

    def transact(self, use_case: UseCase[I, O], items: Sequence[I]) -> list[O]:
        with self._lock:
            return self._perform(self._own, use_case, items)

    async def write(self, use_case: UseCase[I, O], items: Sequence[I]) -> list[O]:
        self._notifier.start()
        result: list[O] = await self._committer.submit(use_case, items)
        return result

    async def read(self, query: Callable[[Tx], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, query)

    def close(self) -> None:
        self._committer.close()
        self._readers.shutdown()
        self._notifier.close()
        self._own.close()
        while not self._links.empty():
            self._links.get().close()

    def _commit(self, calls: list[Call]) -> None:
        """Performs calls of one use case as one transaction; when that fails, each in one of its own."""
        call_together(lambda use_case, items: self._perform(self._link(), use_case, items), calls)

    def _perform(self, link: Link, use_case: Callable[..., Any], items: Sequence[Any]) -> list[Any]:
        woken: set[str] = set()

        def work(connection: PostgresConnection, now: int) -> list[Any]:
            tx = self._tx(connection, now)
            results = list(use_case(tx, list(items)))
            woken.clear()
            woken.update(tx.wakes)
            return results

        results = link.run(WRITING, work)
        if woken:
            self._wake(woken)
            self._notifier.send(woken)
        return results

    def _read(self, query: Callable[[Tx], T]) -> T:
        return self._link().run(READING, lambda connection, now: query(self._tx(connection, now)))

    def _tx(self, connection: PostgresConnection, now: int) -> Tx:
        return Tx(connection, now if self._clock is None else self._clock(), self._ids)

    def _link(self) -> Link:
        """The connection of this thread."""
        link: Link | None = getattr(self._local, "link", None)
        if link is None:
            link = self._local.link = Link(self.url)
            self._links.put(link)
        return link

    def _wake(self, topics: set[str]) -> None:
        if self.on_wake is not None:
            self.on_wake(topics)


def apply(connection: PostgresConnection, now: int, name: str, text: str) -> bool:
    """Applies a migration unless that was done; says which. One process at a time does."""
    connection.raw.execute(
        "set local statement_timeout = 0; set local lock_timeout = 0"
    )  # an index takes its time
    connection.raw.execute("select pg_advisory_xact_lock(%s)", (MIGRATION_LOCK,))
    connection.raw.execute(CREATE_MIGRATIONS)
    applied = applied_migrations(connection)
    refuse_newer(applied, "postgres")
    if name in applied:
        return False
    connection.raw.execute("insert into migrations (name, applied_at) values (%s, %s)", (name, now))
    connection.raw.execute(text)
    return True


def applied_migrations(connection: PostgresConnection) -> list[str]:
    [[exists]] = connection.raw.execute("select to_regclass('migrations') is not null").fetchall()
    if not exists:
        return []
    rows = connection.raw.execute("select name from migrations order by name").fetchall()
    return [name for (name,) in rows]


def checked_url(url: str) -> str:
    """Raises BadSetting for a URL that the driver can not read; the message does not repeat it, for its password."""
    try:
        conninfo_to_dict(url)
    except psycopg.Error as error:
        raise BadSetting(f"the database URL can not be read: {str(error).strip()}") from None
    return url
