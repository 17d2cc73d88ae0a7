"""What the code of a run needs of the world before it goes on, and how it ends otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WARM_MS = 5_000  # a sleep up to this is recorded when it is over


@dataclass(frozen=True, slots=True)
class Performing:
    """The effect that an operation has on the world happens now."""

    name: str


@dataclass(frozen=True, slots=True)
class Telling:
    """Reports, each of which must be answered before the code goes on; it is given the answers."""

    reports: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Parked:
    """The code waits for ends: of runs or tokens, or a time. It is given those that have ended, by id."""

    ids: Sequence[str] = ()
    wake: str = "any"
    due_at: int | None = None

    def on_wire(self, group: int) -> list[dict[str, Any]]:
        head = {"wake": self.wake, "group": group}
        waits = [] if self.due_at is None else [{"on": "time", "dueAt": self.due_at, **head}]
        return [
            *waits,
            *({"on": "token" if id.startswith("waitpoint") else "run", "id": id, **head} for id in self.ids),
        ]


@dataclass(frozen=True, slots=True)
class Waiting:
    """All branches of the code are parked."""

    parts: tuple[Parked, ...]

    def is_short(self, now: int) -> bool:
        """Whether it is over so soon that the run is kept: a short sleep is not recorded before it is over."""
        return all(
            not part.ids and part.due_at is not None and part.due_at - now <= WARM_MS for part in self.parts
        )


Need = Performing | Telling | Waiting
Ends = Mapping[str, dict[str, Any]]  # by id, as wire/runs.py and wire/waits.py tell them


class Failed(Exception):
    """The code raised. `forget` are the recorded failures that the next attempt tries anew."""

    def __init__(self, name: str, about: str, forget: Sequence[int] = (), final: bool = False) -> None:
        self.error = {"type": "BUILT_IN_ERROR", "name": name, "message": about}
        self.forget = list(forget)
        self.final = final


class Gone(Exception):
    """A run or token that was asked for does not exist any more."""


class Sign:
    """Stands for the server's signature of a token."""

    def __call__(self, id: str, now: int) -> dict[str, str]:
        return {"url": f"https://example.com/{id}", "publicAccessToken": f"{id} {now}"}

    def __repr__(self) -> str:
        return "Sign()"
