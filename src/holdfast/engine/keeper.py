"""The upkeep of a server: when it passes over what is due, deletes what is old, and may declare workers lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Awaitable
from typing import Any

from holdfast.engine import bulk
from holdfast.engine import projects as owners
from holdfast.engine import upkeep as keeping
from holdfast.engine.hub import POLL_SECONDS, Hub
from holdfast.errors import StoreUnavailable
from holdfast.stores.base import Store

log = logging.getLogger("holdfast.engine")
PASS_SECONDS = 0.01
RETENTION_EVERY_SECONDS = 60.0
COMPLAIN_EVERY_SECONDS = 60.0


class Keeper:
    """Any number of servers may have one: see upkeep.py. `retention_ms` None keeps finished runs for ever."""

    def __init__(self, store: Store, hub: Hub, lease_ms: int, retention_ms: int | None) -> None:
        self.retention_ms = retention_ms
        self.retention_at = 0.0  # of the monotonic clock
        self._store = store
        self._hub = hub
        self._lease_ms = lease_ms
        self._passed_at: float | None = None
        self._trusted_from = 0.0
        self._complained: dict[str, float] = {}  # when each defect was told last

    async def run(self, stop: asyncio.Event) -> None:
        """Passes over what is due until `stop`: when the next thing is due, when woken, at least once a second."""
        with self._hub.listen({"upkeep"}) as listener:
            while not stop.is_set():
                try:
                    delay = await self.upkeep()
                except Exception:  # whatever is wrong now, what is due later must not be left for ever
                    self._complain("upkeep failed; it is tried again in a second")
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(stop.wait(), POLL_SECONDS)
                    continue
                if delay > 0:
                    waiting: list[Awaitable[Any]] = [listener.wait(delay), stop.wait()]
                    tasks = [asyncio.ensure_future(waited) for waited in waiting]
                    _, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                    for task in pending:
                        task.cancel()
                    await asyncio.gather(*pending, return_exceptions=True)
                    await asyncio.sleep(PASS_SECONDS)  # under load every commit wakes it

    async def upkeep(self) -> float:
        """One pass; answers the seconds until the next one. A store that is away is tried again in a second."""
        try:
            return await self._pass(time.monotonic())
        except StoreUnavailable:
            return POLL_SECONDS

    async def _pass(self, now: float) -> float:
        [passed] = await self._store.write(keeping.upkeep, [keeping.Due(lose_workers=self._may_lose(now))])
        self._passed_at = now
        advanced = passed.bulk_actions and await self._advance_bulk_action()
        if now >= self.retention_at:
            full = await self._retain()
            self.retention_at = now + (0.0 if full else RETENTION_EVERY_SECONDS)
        if passed.more or advanced:
            return 0.0
        if passed.next_due_at is None:
            return POLL_SECONDS
        store_now = await self._store_now()
        return min(POLL_SECONDS, max(0.001, (passed.next_due_at - store_now) / 1_000))

    async def _advance_bulk_action(self) -> bool:
        """One chunk in a commit of its own, between which everything else is done; whether there may be more."""
        try:
            [advanced] = await self._store.write(bulk.advance, [bulk.Chunk()])
        except StoreUnavailable:
            raise
        except Exception:  # a defect must not stop what else upkeep does
            self._complain("a bulk action could not be gone on with; it is tried again")
            return False
        return advanced

    def _may_lose(self, now: float) -> bool:
        """Whether a worker's silence is its own.

        While this server was down, frozen or without its store, nobody could renew: workers are given
        one lease from then on before any is declared lost (invariant I14).
        """
        lease = self._lease_ms / 1_000
        if self._passed_at is None or now - self._passed_at > POLL_SECONDS + lease / 3:
            self._trusted_from = now + lease
        return now >= self._trusted_from

    async def _retain(self) -> bool:
        """Whether there is more to delete."""
        try:
            environments = await self._store.read(owners.environment_ids)
            deleted = await self._store.write(
                keeping.retain,
                [keeping.Retention(environment, self.retention_ms) for environment in environments],
            )
        except StoreUnavailable:
            raise
        except Exception:  # what is old can wait, what is due can not
            self._complain("what is old could not be deleted; it is tried again in a minute")
            return False
        return any(count == keeping.BATCH for count in deleted)

    def _complain(self, message: str) -> None:
        """Logs the error at hand, unless the same message was logged within the last minute."""
        now = time.monotonic()
        if now >= self._complained.get(message, -math.inf) + COMPLAIN_EVERY_SECONDS:
            self._complained[message] = now
            log.exception(message)

    async def _store_now(self) -> int:
        return await self._store.read(lambda tx: tx.now)
