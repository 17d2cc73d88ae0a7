"""Fixtures of the tests on durable execution, in memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from holdfast.sdk import registry
from holdfast.sdk.hooks import global_hooks


@pytest.fixture(autouse=True)
def nothing_registered() -> Iterator[None]:
    """Each test begins and ends with no tasks, queues or global hooks."""
    registry.clear()
    global_hooks.clear()
    yield
    registry.clear()
    global_hooks.clear()
