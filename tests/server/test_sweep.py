"""The sweep of objects that nobody uses goes on, whatever went wrong."""

from __future__ import annotations

import asyncio

import pytest

from holdfast.errors import ObjectStoreUnavailable, StoreTooNew
from holdfast.server import sweep
from holdfast.server.objects import Objects
from server.world import World

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "error", [ObjectStoreUnavailable("away"), StoreTooNew("0099_new"), RuntimeError("a defect")]
)
async def test_a_sweep_that_failed_is_tried_again(
    world: World, objects: Objects, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    stop, again = asyncio.Event(), asyncio.Event()
    calls = 0

    async def condemned() -> list[str]:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise error
        again.set()
        return []

    monkeypatch.setattr(world.engine, "condemned_packets", condemned)
    monkeypatch.setattr(sweep, "EVERY_SECONDS", 0.01)
    sweeping = asyncio.create_task(sweep.run_sweeps(world.engine, objects, stop))
    await asyncio.wait_for(again.wait(), 10)
    stop.set()
    await asyncio.wait_for(sweeping, 10)
