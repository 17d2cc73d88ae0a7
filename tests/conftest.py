"""Fixtures that all suites share: PostgreSQL, and both stores with a clock that the test moves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

import buckets
import databases
from clock import Clock
from holdfast.sdk import registry
from holdfast.sdk.hooks import KINDS, global_hooks
from holdfast.stores import Store, open_store

# A busy machine is no failure, and nothing is written beside the tests.
settings.register_profile("holdfast", deadline=None, database=None)
settings.load_profile("holdfast")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a PostgreSQL, one for each process of the test run."""
    with databases.server() as url:
        yield url


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """The URL of an empty schema of this test."""
    with databases.empty_schema(postgres_server) as url:
        yield url


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of an S3, one for each process of the test run."""
    with buckets.server() as url:
        yield url


@pytest.fixture
def bucket_url(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty place in an S3 that the environment names."""
    for name, value in buckets.variables(s3_server).items():
        monkeypatch.setenv(name, value)
    return buckets.new_bucket(s3_server)


@pytest.fixture(scope="session")
def migrated_postgres_url(postgres_server: str) -> Iterator[str]:
    """The URL of a schema that is up to date; tests take turns and empty it."""
    with databases.empty_schema(postgres_server) as url:
        open_store(url).close()
        yield url


@pytest.fixture
def nothing_registered() -> Iterator[None]:
    """The test begins with no tasks, queues or global hooks; what others have imported is there again afterwards."""
    tasks, queues = registry.tasks(), registry.queues()
    hooks = {kind: list(getattr(global_hooks, kind)) for kind in KINDS}
    registry.clear()
    global_hooks.clear()
    yield
    registry.clear()
    global_hooks.clear()
    for task in tasks.values():
        registry.add_task(task)
    for queue in queues.values():
        registry.add_queue(queue)
    for kind, known in hooks.items():
        getattr(global_hooks, kind).extend(known)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store, once of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/holdfast.db"
    url: str = request.getfixturevalue("migrated_postgres_url")
    databases.emptied(url)
    return url


@pytest.fixture
def store(store_url: str, clock: Clock) -> Iterator[Store]:
    """An empty store, once of each kind; nothing in it may be stuck when the test is over (invariant I11)."""
    store = open_store(store_url, clock=clock)
    try:
        yield store
        [stuck] = store.transact(lambda tx, _: [tx.all("stuck_runs")], [None])
        assert stuck == []
    finally:
        store.close()
