"""The pytest fixture `holdfast`: tasks in memory, on a clock that the test moves. See `holdfast.testing`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from holdfast.testing import InMemory


@pytest.fixture
def holdfast() -> Iterator[InMemory]:
    """An engine, a server and a worker in memory, for one test."""
    from holdfast.testing import InMemory

    world = InMemory()
    try:
        yield world
    finally:
        world.close()
