"""Calls on their way to the store, and everything that may happen to them there."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from holdfast.engine.claim import claim
from holdfast.stores.base import Store, UseCase
from simulator.oracle import Oracle
from simulator.timeline import Timeline, shown


class Lost(Exception):
    """The caller got no answer, or a 503: what it asked for may have happened or not."""


class Node(Protocol):
    name: str
    alive: bool
    frozen: bool


@dataclass(slots=True)
class Call:
    """A request; `answered` is told the results or Lost, once, unless its node is dead by then."""

    node: Node
    use_case: UseCase[Any, Any]
    items: Sequence[Any]
    answered: Callable[[Any], None] | None


@dataclass(slots=True)
class Reply:
    """An answer on its way back."""

    call: Call
    results: Any


class Network:
    """Delivers calls one at a time in any order; `faults` and `merges` are chances."""

    def __init__(
        self,
        source: random.Random,
        store: Store,
        oracle: Oracle,
        timeline: Timeline,
        faults: float,
        merges: float,
    ) -> None:
        self._random = source
        self._store = store
        self._oracle = oracle
        self._timeline = timeline
        self.faults = faults
        self.merges = merges
        self.waiting: list[Call | Reply] = []

    def send(
        self,
        node: Node,
        use_case: UseCase[Any, Any],
        items: Sequence[Any],
        answered: Callable[[Any], None] | None = None,
    ) -> None:
        self.waiting.append(Call(node, use_case, items, answered))

    def deliver(self) -> None:
        """Brings one message to its end, and what is merged with it."""
        if not self.waiting:
            return
        index = 0 if self._random.random() < 0.6 else self._random.randrange(len(self.waiting))
        message = self.waiting.pop(index)
        if isinstance(message, Reply):
            self._answer(message.call, message.results)
            return
        calls = [message]
        if self._random.random() < self.merges:
            same = [
                other
                for other in self.waiting
                if isinstance(other, Call)
                and other.use_case is message.use_case
                and self._random.random() < 0.7
            ]
            calls += same
            self.waiting = [other for other in self.waiting if not any(other is one for one in same)]
        self._commit(calls)

    def _commit(self, calls: list[Call]) -> None:
        fault = self._fault()
        use_case = calls[0].use_case
        items = [item for call in calls for item in call.items]
        names = "+".join(call.node.name for call in calls)
        if self._timeline.keep:
            self._timeline.add(
                names, f"{use_case.__name__}({', '.join(shown(item) for item in items)})", fault
            )
        if fault == "lost before":
            for call in calls:
                self._answer(call, Lost())
            return
        results = self._oracle.perform(self._store, use_case, items, rolled_back=fault == "rolled back")
        if self._timeline.keep:
            self._timeline.add("store", "-> " + ", ".join(shown(result) for result in results or ["nothing"]))
        position = 0
        for call in calls:
            own = None if results is None else results[position : position + len(call.items)]
            position += len(call.items)
            if fault == "repeated":  # a copy of the request comes again, and nobody reads its answer
                self.waiting.append(Call(call.node, call.use_case, call.items, None))
            if own is None or fault == "answer lost" or (fault == "repeated" and use_case is claim):
                self._answer(call, Lost())
            elif fault == "answer late":
                self.waiting.append(Reply(call, own))
            else:
                self._answer(call, own)

    def _answer(self, call: Call, results: Any) -> None:
        if call.answered is None or not call.node.alive:
            return
        if call.node.frozen:
            self.waiting.append(Reply(call, results))
        else:
            call.answered(results)

    def _fault(self) -> str:
        if self._random.random() >= self.faults:
            return ""
        # A claim has no number, so one that is repeated gives two sets of runs. No worker sends one again; what
        # lies between repeats a POST only after the first answer broke off, so the worker is told of neither.
        return self._random.choice(["lost before", "rolled back", "answer lost", "answer late", "repeated"])
