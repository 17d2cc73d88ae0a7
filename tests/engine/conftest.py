"""Fixtures of the timelines."""

from __future__ import annotations

import pytest

from clock import Clock
from engine.world import World
from holdfast.stores import Store


@pytest.fixture
def world(store: Store, clock: Clock) -> World:
    """An empty store, once of each kind, and its clock."""
    return World(store, clock)
