"""Fixtures of the journeys: both stores behind real processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from journeys import cluster as clusters
from journeys.cluster import Cluster
from journeys.world import World, world


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL that may be restarted."""
    with clusters.cluster() as running:
        yield running


def open_url(request: pytest.FixtureRequest, folder: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{folder}/holdfast.db"
    running: Cluster = request.getfixturevalue("cluster")
    return running.database()


@pytest.fixture(params=["sqlite", "postgres"])
def lonely(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A world without any process, once for each store."""
    with world(tmp_path, open_url(request, tmp_path)) as made:
        yield made
        if made.server is not None and made.server.popen.poll() is None:
            assert made.stuck() == []


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A server and a worker that the tests of a module share, once for each store."""
    folder = tmp_path_factory.mktemp("world")
    with world(folder, open_url(request, folder)) as made:
        made.start_server()
        made.start_worker()
        yield made
        assert made.stuck() == []
