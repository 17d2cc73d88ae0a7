"""Where runs are kept: one contract, two databases."""

from __future__ import annotations

from collections.abc import Callable

from holdfast.errors import BadSetting
from holdfast.model.ids import Ids
from holdfast.stores.base import Store, Tx

__all__ = ["Store", "Tx", "open_store"]


def open_store(
    url: str, *, clock: Callable[[], int] | None = None, ids: Ids | None = None, migrate: bool = True
) -> Store:
    """Opens the store that `url` names and brings its schema up to date.

    url      sqlite:///relative/path.db, sqlite:////absolute/path.db or postgresql://user@host/database
    clock    epoch milliseconds, for tests; otherwise the machine's clock (SQLite) or the database's
    migrate  False leaves the schema as it is, for those who only look at it

    Raises BadSetting for another kind of URL, StoreUnavailable when the database can not be
    reached, StoreTooNew when a newer release has written it.
    """
    store: Store
    if url.startswith("sqlite:"):
        from holdfast.stores.sqlite import SqliteStore, wall_clock_ms

        store = SqliteStore(url, clock=clock or wall_clock_ms, ids=ids)
    elif url.startswith(("postgresql:", "postgres:")):
        try:
            from holdfast.stores.postgres import PostgresStore
        except ModuleNotFoundError as error:
            raise BadSetting("PostgreSQL needs its driver: pip install 'holdfast[postgres]'") from error

        store = PostgresStore(url, clock=clock, ids=ids)
    else:
        scheme = url.partition(":")[0][:20]
        raise BadSetting(f"database URL starts with {scheme!r}: expected sqlite:/// or postgresql://")
    try:
        if migrate:
            store.migrate()
    except BaseException:
        store.close()
        raise
    return store
