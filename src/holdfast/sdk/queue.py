"""Queues: how many runs may work at the same time."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from holdfast.model.limits import MAX_QUEUE_NAME
from holdfast.sdk import registry

if TYPE_CHECKING:
    from holdfast.wire.manifests import WireQueue


class Queue:
    """A queue with limits: `payments = Queue("payments", concurrency=25, per_key=2)`.

    name         at most 128 characters
    concurrency  how many of its runs may hold a slot at once; None for no limit of its own
    per_key      how many of them for each concurrency key

    Making one registers it. The same name with other limits raises DuplicateName, unless it is the
    same module that declares it again.
    """

    __slots__ = ("concurrency", "module", "name", "per_key")

    def __init__(self, name: str, concurrency: int | None = None, per_key: int | None = None) -> None:
        if not isinstance(name, str) or not name.strip() or len(name) > MAX_QUEUE_NAME:
            raise ValueError(f"the name of a queue is {name!r}: expected 1 to {MAX_QUEUE_NAME} characters")
        for field, limit in (("concurrency", concurrency), ("per_key", per_key)):
            if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 0):
                raise ValueError(
                    f"{field} of queue {name} is {limit!r}: expected a whole number from 0, or None"
                )
        self.name = name
        self.concurrency = concurrency
        self.per_key = per_key
        self.module = str(sys._getframe(1).f_globals.get("__name__", ""))
        registry.add_queue(self)

    def __repr__(self) -> str:
        return f"Queue({self.name!r}, concurrency={self.concurrency}, per_key={self.per_key})"

    def manifest(self) -> WireQueue:
        """What a worker tells the server about it."""
        told: WireQueue = {"name": self.name}
        if self.concurrency is not None:
            told["concurrencyLimit"] = self.concurrency
        if self.per_key is not None:
            told["perKeyLimit"] = self.per_key
        return told
