"""What tests of keys share: a server with a vault, keys in its database, clients that send them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from holdfast.engine import Engine
from holdfast.engine.keys import NewKey, create_keys
from holdfast.model.key import ApiKey, KeyKind, digest, new_key, seal_context, shown
from holdfast.server import create_app, lifespan
from holdfast.server.vault import Vault
from holdfast.stores.base import Store

MASTER_KEY = "the master key of the tests is quite long"


class KeyWorld:
    """An engine with a server that has no keys but those in the database, unless `given` says so."""

    def __init__(self, store: Store, given: Mapping[str, str], master_key: str | None = MASTER_KEY) -> None:
        self.engine = Engine(store)
        self.vault = Vault([] if master_key is None else [master_key])
        self.app = create_app(self.engine, given, vault=self.vault)

    def do(self, use_case: Any, item: Any) -> Any:
        [answer] = self.engine.store.transact(use_case, [item])
        if isinstance(answer, Exception):
            raise answer
        return answer

    def made(
        self, kind: KeyKind, environment: str = "dev", type: str = "dev", **more: Any
    ) -> tuple[str, NewKey]:
        """A key, and what is to be kept of it."""
        key = new_key(kind, type)
        sealed = None
        if kind is KeyKind.ROOT:
            sealed = Vault([MASTER_KEY]).seal(key, seal_context(environment, digest(key)))
        return key, NewKey(environment, kind, "test", digest(key), shown(key), sealed, **more)

    def key(
        self, kind: KeyKind, environment: str = "dev", type: str = "dev", **more: Any
    ) -> tuple[str, ApiKey]:
        """A key that is in the database."""
        key, item = self.made(kind, environment, type, **more)
        return key, self.do(create_keys, item)

    def client(self, key: str, **headers: str) -> httpx2.AsyncClient:
        transport = httpx2.ASGITransport(self.app, raise_app_exceptions=False)
        return httpx2.AsyncClient(
            transport=transport,
            base_url="http://holdfast",
            headers={"authorization": f"Bearer {key}", **headers},
        )


@asynccontextmanager
async def key_world(
    store: Store, given: Mapping[str, str] | None = None, master_key: str | None = MASTER_KEY
) -> AsyncIterator[KeyWorld]:
    world = KeyWorld(store, given or {}, master_key)
    async with lifespan(world.engine):
        yield world
