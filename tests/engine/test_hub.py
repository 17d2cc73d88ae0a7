"""Wakes reach those who wait for their topic, from any thread, and the others not."""

from __future__ import annotations

import asyncio
import threading
import time

from holdfast.engine.hub import POLL_SECONDS, Hub


async def woken(listener: object) -> bool:
    """Whether the listener is woken before it would poll by itself."""
    begun = time.monotonic()
    await listener.wait(60.0)  # type: ignore[attr-defined]  # a Listener
    return time.monotonic() - begun < POLL_SECONDS / 2


def test_a_topic_wakes_its_listeners_and_no_others() -> None:
    async def play() -> list[bool]:
        hub = Hub()
        with hub.listen(["a", "b"]) as one, hub.listen(["b"]) as two, hub.listen(["c"]) as three:
            threading.Thread(target=hub.wake, args=({"b", "nobody"},)).start()
            return list(await asyncio.gather(woken(one), woken(two), woken(three)))

    assert asyncio.run(play()) == [True, True, False]


def test_a_star_wakes_everyone() -> None:
    async def play() -> list[bool]:
        hub = Hub()
        with hub.listen(["a"]) as one, hub.listen(["b"]) as two:
            hub.wake({"*"})
            return list(await asyncio.gather(woken(one), woken(two)))

    assert asyncio.run(play()) == [True, True]


def test_a_wake_before_the_wait_is_not_missed_and_counts_once() -> None:
    async def play() -> list[bool]:
        hub = Hub()
        with hub.listen(["a"]) as one:
            hub.wake({"a"})
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return [await woken(one), await woken(one)]

    assert asyncio.run(play()) == [True, False]


def test_a_wake_that_is_ignored_now_counts_when_it_is_not() -> None:
    async def play() -> list[bool]:
        hub = Hub()
        with hub.listen(["a", "b"]) as one:
            hub.wake({"a"})
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            told = [await woken(one)]  # what came before the wait is known not to be ignored
            waiting = asyncio.create_task(one.wait(60.0, ignored="a"))
            await asyncio.sleep(0)
            hub.wake({"a"})
            await asyncio.sleep(0.05)
            told.append(waiting.done())
            hub.wake({"b"})
            await waiting
            return [*told, await woken(one)]

    assert asyncio.run(play()) == [True, False, False]


def test_a_wake_after_the_loop_is_gone_does_nothing() -> None:
    hub = Hub()
    hub.wake({"a"})

    async def play() -> None:
        with hub.listen(["a"]):
            pass

    asyncio.run(play())
    hub.wake({"a", "*"})
    hub.wake_all()
