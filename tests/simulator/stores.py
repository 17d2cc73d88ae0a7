"""Empty stores for a world, with its clock and its ids."""

from __future__ import annotations

from collections.abc import Callable

from holdfast.model.ids import Ids
from holdfast.stores.base import Store, Tx
from holdfast.stores.sqlite import SqliteStore
from simulator.world import OpenStore


def opener(kind: str, url: str | None = None) -> OpenStore:
    """Opens stores of a kind: "sqlite" (in memory) or "postgres" (at `url`, whose content is deleted)."""
    if kind == "sqlite":
        return _sqlite
    if url is None:
        raise SystemExit("--store postgres needs --url")
    return lambda clock, ids: _postgres(url, clock, ids)


def _sqlite(clock: Callable[[], int], ids: Ids) -> Store:
    store = SqliteStore("sqlite:///:memory:", clock=clock, ids=ids, threads=False)
    store.migrate()
    return store


def _postgres(url: str, clock: Callable[[], int], ids: Ids) -> Store:
    from holdfast.stores.postgres import PostgresStore

    store = PostgresStore(url, clock=clock, ids=ids, writers=0)
    store.migrate()
    store.transact(_emptied, [None])
    return store


def _emptied(tx: Tx, items: list[None]) -> list[None]:
    """Everything but the three environments is deleted."""
    for table in (
        "waits",
        "journal",
        "waitpoints",
        "logs",
        "requests",
        "idempotency_keys",
        "run_tags",
        "attempts",
        "runs",
    ):
        tx._connection.select(f"delete from {table} returning 1", {})
    for table in ("workers", "queues", "tasks", "deployments", "external_deployments", "versions"):
        tx._connection.select(f"delete from {table} returning 1", {})
    fresh = "concurrency_limit = 1000, paused = 0, type = id, branch = null, current_version = null"
    tx._connection.select(f"update environments set {fresh} returning id", {})
    return items
