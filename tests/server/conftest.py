"""Fixtures for tests of the server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from holdfast.engine import Engine
from holdfast.server import create_app, lifespan
from holdfast.server.objects import Objects, open_objects
from holdfast.stores import open_store
from server.described import as_described
from server.world import DEV_KEY, KEYS, PROD_KEY, Clock, World


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    """Where large payloads and outputs are."""
    return open_objects(f"file://{tmp_path}/objects")


@pytest.fixture
async def world(tmp_path: Path, objects: Objects) -> AsyncIterator[World]:
    """A server over an empty database, in this process."""
    clock = Clock()
    store = open_store(f"sqlite:///{tmp_path}/holdfast.db", clock=clock)
    engine = Engine(store)
    app = create_app(engine, KEYS, objects=objects)

    def client(key: str) -> httpx2.AsyncClient:
        # What the server does not answer is an answer too: 500, as a client would see it.
        transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
        return httpx2.AsyncClient(
            transport=transport,
            base_url="http://holdfast",
            headers={"Authorization": f"Bearer {key}"},
            event_hooks={"response": [as_described]},
        )

    async with lifespan(engine), client(DEV_KEY) as dev, client(PROD_KEY) as prod:
        yield World(engine, clock, dev, prod, app)
    store.close()
