"""Wakes whoever waits for a commit. A wake is a hint: everyone who waits also polls once a second."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

POLL_SECONDS = 1.0


class Listener:
    """Woken by any of its topics; `wait` also ends by itself after about a second."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._topics: set[str] = set()  # that were woken since the last wait
        self._ignored = ""

    def wake(self, topic: str) -> None:
        self._topics.add(topic)
        if topic != self._ignored:
            self._event.set()

    async def wait(self, timeout_seconds: float = POLL_SECONDS, ignored: str = "") -> None:
        """Until a topic other than `ignored` was woken since the last wait, or the time is over.

        The time is jittered, so that many do not poll at once.
        """
        self._ignored = ignored
        if self._topics <= {ignored}:
            self._event.clear()
        timeout = min(timeout_seconds, POLL_SECONDS * random.uniform(0.75, 1.0))
        try:
            async with asyncio.timeout(max(0.0, timeout)):
                await self._event.wait()
        except TimeoutError:
            pass
        self._event.clear()
        self._topics.clear()
        self._ignored = ""


class Hub:
    """Topics and their listeners; `wake` may be called from any thread. The topic "*" wakes everyone."""

    def __init__(self) -> None:
        self._listeners: dict[str, set[Listener]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def wake(self, topics: set[str]) -> None:
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        if "*" in topics:
            self.wake_all()
            return
        wanted = [topic for topic in topics if topic in self._listeners]
        if wanted:
            loop.call_soon_threadsafe(self._fire, wanted)

    def wake_all(self) -> None:
        """Everyone looks again: notifications may have been missed."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(lambda: self._fire(list(self._listeners)))

    @contextmanager
    def listen(self, topics: Iterable[str]) -> Iterator[Listener]:
        """Listens from here on; look at the state after entering, and nothing is missed."""
        self._loop = asyncio.get_running_loop()
        listener, topics = Listener(), list(topics)
        for topic in topics:
            self._listeners.setdefault(topic, set()).add(listener)
        try:
            yield listener
        finally:
            for topic in topics:
                own = self._listeners[topic]
                own.discard(listener)
                if not own:
                    del self._listeners[topic]

    def _fire(self, topics: list[str]) -> None:
        for topic in topics:
            for listener in tuple(self._listeners.get(topic, ())):
                listener.wake(topic)
