"""Empty stores for a world, with its clock and its ids."""

from __future__ import annotations

from collections.abc import Callable

from holdfast.model.ids import Ids
from holdfast.stores.base import Store
from holdfast.stores.sqlite import SqliteStore
from simulator.world import OpenStore


def opener(kind: str, url: str | None = None) -> OpenStore:
    """Opens stores of a kind: "sqlite" (in memory) or "postgres" (at `url`, whose content is deleted)."""
    if kind == "sqlite":
        return _sqlite
    raise SystemExit("--store postgres needs --url")


def _sqlite(clock: Callable[[], int], ids: Ids) -> Store:
    store = SqliteStore("sqlite:///:memory:", clock=clock, ids=ids, threads=False)
    store.migrate()
    return store
