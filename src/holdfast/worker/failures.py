"""Failures that are recorded, and which of them an attempt has failed of."""

from __future__ import annotations

from collections.abc import Iterator

from holdfast.model.journal import Entry, Journal


class Failures:
    """The exceptions that were raised for recorded failures."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._raised: dict[int, tuple[BaseException, Entry]] = {}  # by identity
        self._cancelled: list[Entry] = []

    def add(self, error: BaseException, entry: Entry) -> None:
        """`error` is raised for the failure that `entry` records."""
        self._raised[id(error)] = (error, entry)

    def cancelled(self, entry: Entry) -> None:
        """The code cancelled what `entry` is about."""
        self._cancelled.append(entry)

    def to_forget(self, error: BaseException) -> list[int]:
        """The failures that ended the attempt with `error`, by seq: the next attempt tries them anew.

        Those it was raised for, and those that ended other branches, after which nothing was recorded. So
        is what was cancelled then: the next attempt, in which nothing fails, may not cancel it.
        """
        gone = {self._raised[id(one)][1].seq for one in _causes(error, set()) if id(one) in self._raised}
        others = [entry for _, entry in self._raised.values() if entry.scope]
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
