"""Fixtures of the SDK's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.sdk.client import default_client
from sdk.world import KEY, Served


@pytest.fixture(autouse=True)
def own_registry(nothing_registered: None) -> None:
    """Each test declares its own tasks."""


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A server that the environment names."""
    server = Served(tmp_path)
    monkeypatch.setenv("HOLDFAST_API_URL", server.url)
    monkeypatch.setenv("HOLDFAST_SECRET_KEY", KEY)
    yield server
    default_client().close()
    server.close()
