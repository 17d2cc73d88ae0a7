"""Failures that are recorded, and which of them an attempt has failed of."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from holdfast.model.journal import Entry, Journal


@dataclass(frozen=True, slots=True)
class _Raised:
    error: BaseException
    entry: Entry
    changes: int
    task: asyncio.Task[Any] | None  # that it was raised in

    @property
    def may_have_ended_its_branch(self) -> bool:
        task = self.task
        if task is None or not task.done() or task.cancelled():
            return True
        return any(one is self.error for one in _causes(task.exception(), set()))


class Failures:
    """The exceptions that were raised for recorded failures."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._raised: dict[int, _Raised] = {}  # by identity
        self._cancelled: list[Entry] = []

    def add(self, error: BaseException, entry: Entry, changes: int) -> None:
        """`error` is raised for the failure that `entry` records, after so many changes of metadata."""
        try:
            task = asyncio.current_task()
        except RuntimeError:
            task = None  # a thread
        self._raised[id(error)] = _Raised(error, entry, changes, task)

    def changes_before(self, forgotten: Collection[int], otherwise: int) -> int:
        """How many changes of metadata the code had made when the first of these failures reached it."""
        made = [raised.changes for raised in self._raised.values() if raised.entry.seq in forgotten]
        return min(made, default=otherwise)

    def cancelled(self, entry: Entry) -> None:
        """The code cancelled what `entry` is about."""
        self._cancelled.append(entry)

    def to_forget(self, error: BaseException) -> list[int]:
        """The failures that ended the attempt with `error`, by seq: the next attempt tries them anew.

        Those it was raised for, and those that ended other branches, after which nothing was recorded. So
        is what was cancelled then: the next attempt, in which nothing fails, may not cancel it.
        """
        gone = {self._raised[id(one)].entry.seq for one in _causes(error, set()) if id(one) in self._raised}
        others = [
            one.entry for one in self._raised.values() if one.entry.scope and one.may_have_ended_its_branch
        ]
        ended = [entry for entry in (*others, *self._cancelled) if not self._went_on(entry)]
        return sorted(gone.union(entry.seq for entry in ended))

    def _went_on(self, failed: Entry) -> bool:
        """Whether its branch, or one that this one is part of, has recorded something since."""
        return any(
            seq > failed.seq and (scope == failed.scope or not scope or failed.scope.startswith(f"{scope}/"))
            for scope, seq in self._journal.latest.items()
        )


def _causes(error: BaseException | None, seen: set[int]) -> Iterator[BaseException]:
    """An error, those it was raised from or while handling, and the members of groups."""
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        if isinstance(error, BaseExceptionGroup):
            for member in error.exceptions:
                yield from _causes(member, seen)
        if error.__cause__ is not None:
            yield from _causes(error.__cause__, seen)
        error = error.__context__
