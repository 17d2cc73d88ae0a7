"""Both fronts of the client: what blocks, and its twin for event loops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest

FRONTS = pytest.mark.parametrize("front", ["blocking", "async"])
ITERATORS = {("Runs", "list"), ("Runs", "logs"), ("Tokens", "list"), ("Queues", "list")}
ITERATORS |= {("BulkActions", "list"), ("Deployments", "list"), ("Schedules", "list")}


def twin(name: str) -> str:
    """The name of a method's twin: of `wait` it would be a word of the language."""
    return "await_" if name == "wait" else f"a{name}"


class Front:
    """Calls methods of a resource by their blocking names, on one front."""

    def __init__(self, resource: Any, front: str) -> None:
        self._resource = resource
        self._front = front

    def __getattr__(self, name: str) -> Any:
        iterates = (type(self._resource).__name__, name) in ITERATORS
        if self._front == "blocking":
            method = getattr(self._resource, name)
            return (lambda *args, **kwargs: list(method(*args, **kwargs))) if iterates else method
        method = getattr(self._resource, twin(name))

        def call(*args: Any, **kwargs: Any) -> Any:
            async def main() -> Any:
                made = method(*args, **kwargs)
                return await _collected(made) if iterates else await _awaited(made)

            return asyncio.run(main())

        return call


async def _collected(things: AsyncIterator[Any]) -> list[Any]:
    return [thing async for thing in things]


async def _awaited(thing: Awaitable[Any]) -> Any:
    return await thing
