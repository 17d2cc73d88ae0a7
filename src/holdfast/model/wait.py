"""What a suspended run waits for, and which ends resume it. Without I/O.

Waits are in parts, one for each branch of the code that waits. How an end resumes the run is said by
each wait's `wake`:

    any      its end does
    failure  its end does when it failed, or when nothing else of its part is left
    last     its end does when nothing else of its part is left
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Wake(StrEnum):
    ANY = "any"
    FAILURE = "failure"
    LAST = "last"


_EAGER = {Wake.ANY: 2, Wake.FAILURE: 1, Wake.LAST: 0}


@dataclass(frozen=True, slots=True)
class Wait:
    """For a time (`due_at`), or for the end of a run or token (`target`)."""

    part: int
    wake: Wake
    target: str | None = None
    due_at: int | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """A wait whose time has come or whose target has ended; one that is not there any more has failed."""

    part: int
    wake: Wake
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Waitpoint:
    """A token, as it is stored."""

    id: str
    environment_id: str
    status: str  # WAITING, COMPLETED or TIMED_OUT
    output: str | None  # JSON
    output_is_error: int
    created_at: int
    completed_at: int | None
    timeout_at: int | None
    idempotency_key: str | None
    idempotency_key_expires_at: int | None
    tags: str  # JSON list
    schema: str | None  # JSON Schema that what completes it must fit
    run_id: str | None  # that made it

    @property
    def is_complete(self) -> bool:
        return self.status != "WAITING"


def resumes(ended: Iterable[Ended], waiting: Collection[int]) -> bool:
    """Whether a run goes on after these ends; `waiting` are the parts that have something left."""
    return any(
        one.wake is Wake.ANY or (one.wake is Wake.FAILURE and one.failed) or one.part not in waiting
        for one in ended
    )


def distinct(waits: Sequence[Wait]) -> list[Wait]:
    """Each thing once in a part, with the most eager wake that was asked for: a run may be awaited twice."""
    kept: dict[tuple[int, str | int | None], Wait] = {}
    for wait in waits:
        place = (wait.part, wait.target if wait.target is not None else wait.due_at)
        if place not in kept or _EAGER[wait.wake] > _EAGER[kept[place].wake]:
            kept[place] = wait
    return list(kept.values())


def is_token(target: str) -> bool:
    return target.startswith("waitpoint_")
