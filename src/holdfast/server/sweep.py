"""Deletes objects that no run uses any more: beside upkeep, because no transaction waits for an object store."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from holdfast.engine import Engine
from holdfast.errors import ObjectStoreUnavailable, StoreUnavailable
from holdfast.server.objects import Objects

log = logging.getLogger("holdfast.server")

EVERY_SECONDS = 60.0


async def run_sweeps(engine: Engine, objects: Objects, stop: asyncio.Event) -> None:
    """Until `stop`. Whatever goes wrong is tried again a minute later."""
    while not stop.is_set():
        try:
            while not stop.is_set() and await sweep(engine, objects):
                pass
            await objects.tidy()
        except (ObjectStoreUnavailable, StoreUnavailable) as error:
            log.warning("packets that nobody uses are deleted later: %s", error)
        except Exception:  # a task that ended would never be missed
            log.exception("packets that nobody uses could not be deleted; it is tried again in a minute")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(EVERY_SECONDS):
                await stop.wait()


async def sweep(engine: Engine, objects: Objects) -> int:
    """Deletes a batch; answers how many objects it had."""
    keys = await engine.condemned_packets()
    if keys:
        await objects.delete(keys)
        await engine.delete_packets(keys)
    return len(keys)
