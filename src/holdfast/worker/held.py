"""A run that the supervisor answers for, from claim to the report of its end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.worker.child import Child
    from holdfast.worker.membership import Membership

CANCELLED = "cancelled"  # report "closed"; the executor runs on_cancel for this reason only
TIMED_OUT = "timed out"  # report "failed", MAX_DURATION_EXCEEDED
FENCED = "fenced"  # report nothing: the run is somebody else's
RELEASED = "released"  # report "released": this worker stops

JOURNAL = frozenset({"entries", "triggers", "token"})  # reports whose answers the attempt waits for


@dataclass(slots=True)
class Stop:
    """Why an attempt was asked to end, and since when (monotonic seconds)."""

    reason: str
    asked_at: float
    lease: int  # for the report


@dataclass(slots=True, eq=False)
class Held:
    run: dict[str, Any]  # as claimed; lease and attempt change with each attempt
    membership: Membership
    child: Child | None = None  # None: waits for an executor, or between two attempts
    begun: bool = False  # user code may have run
    idle: bool = False  # its code waits for runs, tokens or a time
    stop: Stop | None = None
    timer: asyncio.TimerHandle | None = None  # of the time limit, or of the delay before the next attempt
    active_since: float | None = None  # since when its time limit runs (loop time)
    active_seconds: float = 0.0  # of this attempt before that
    has_journal: bool = False  # also what its claim did not bring
    told_at: float = 0.0  # when the server told its time, `run["now"]` (loop time)
    gone: bool = False  # no more ours
    handed: int = 0  # to executors, of which none took it up

    @property
    def id(self) -> str:
        return str(self.run["id"])

    @property
    def lease(self) -> int:
        return int(self.run["lease"])
