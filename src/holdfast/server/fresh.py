"""What the database says, known for a moment: so that not every request has to ask it who its key is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from time import monotonic
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
FRESH_SECONDS = 0.8  # a revoked key is refused within a second, also where no notification arrives
MOST = 10_000
MOST_ABSENT = 1_000


class Fresh(Generic[K, V]):
    """Answers of `load`, each for FRESH_SECONDS, or until `changes` counts further; simultaneous calls load once.

    What is absent (None) is remembered apart and less of it: whoever asks for what does not exist pushes out only such.
    """

    def __init__(self, load: Callable[[K], Awaitable[V | None]], changes: Callable[[], int]) -> None:
        self._load = load
        self._changes = changes
        self._known: dict[K, tuple[V | None, float, int]] = {}
        self._absent: dict[K, tuple[V | None, float, int]] = {}
        self._loading: dict[tuple[K, int], asyncio.Task[V | None]] = {}

    async def get(self, key: K) -> V | None:
        changes = self._changes()
        held = self._known.get(key) or self._absent.get(key)
        if held is not None and held[2] == changes and monotonic() < held[1]:
            return held[0]
        loading = self._loading.get((key, changes))
        if loading is None:
            loading = asyncio.create_task(self._loaded(key, changes))
            self._loading[key, changes] = loading
            loading.add_done_callback(lambda done: self._done(key, changes, done))
        return await asyncio.shield(loading)  # a caller that gives up does not end it for the others

    async def _loaded(self, key: K, changes: int) -> V | None:
        until = monotonic() + FRESH_SECONDS
        value = await self._load(key)
        self._known.pop(key, None)
        self._absent.pop(key, None)
        held, most = (self._absent, MOST_ABSENT) if value is None else (self._known, MOST)
        held[key] = (value, until, changes)
        if len(held) > most:
            del held[next(iter(held))]
        return value

    def _done(self, key: K, changes: int, task: asyncio.Task[V | None]) -> None:
        self._loading.pop((key, changes), None)
        if not task.cancelled():
            task.exception()  # told to those who wait; where nobody does any more, nobody need be told
