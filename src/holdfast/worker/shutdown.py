"""How a worker ends: stop claiming, let runs finish, ask, kill, hand the rest back."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from holdfast.worker.custody import ASK_SECONDS, Custody
from holdfast.worker.held import RELEASED
from holdfast.worker.membership import Membership
from holdfast.worker.talk import Talk

FLUSH_SECONDS = 5.0
KILL_SECONDS = 2.0


async def shut_down(
    custody: Custody,
    memberships: Collection[Membership],
    stopped: asyncio.Event,
    drain_seconds: float,
    talk: Talk,
) -> None:
    """Go through the stages. With `stopped` set, runs are neither waited for nor given time to obey."""
    for membership in memberships:
        membership.stop_claiming()
    try:
        async with asyncio.timeout(drain_seconds):
            while custody.held and not stopped.is_set():
                custody.release_idle()
                await _either(custody.changed, stopped)
    except TimeoutError:
        talk.say(f"{len(custody.held)} runs go on after {drain_seconds:.0f} s: they are handed back")
    custody.ask_all(RELEASED)
    try:
        async with asyncio.timeout(0 if stopped.is_set() else ASK_SECONDS):
            while custody.held and not stopped.is_set():
                await _either(custody.changed, stopped)
    except TimeoutError:
        talk.say(f"{len(custody.held)} runs did not end when asked: their processes are killed")
    custody.fleet.kill_all()
    await custody.fleet.gone(KILL_SECONDS)
    custody.release_all()
    for membership in list(memberships):
        await membership.flushed(FLUSH_SECONDS)
        await membership.delete()


async def _either(changed: asyncio.Event, stopped: asyncio.Event) -> None:
    """Until one of them is set, or a tenth of a second has passed."""
    changed.clear()
    waits = [asyncio.ensure_future(changed.wait()), asyncio.ensure_future(stopped.wait())]
    try:
        await asyncio.wait(waits, timeout=0.1, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
