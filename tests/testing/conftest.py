"""Fixtures of the tests on durable execution, in memory."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def own_registry(nothing_registered: None) -> None:
    """Each test declares its own tasks."""
