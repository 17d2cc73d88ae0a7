"""One registration of a worker, and the runs in its hands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from holdfast.engine.claim import Registered
from holdfast.engine.reporting import Answer
from holdfast.model.run import Run
from simulator.execution import Execution


@dataclass(slots=True)
class Held:
    """A run in this worker's hands."""

    run: Run  # as it was claimed
    lease: int
    alone: bool
    journal: Sequence[Any] | None  # as it came with the claim, on the wire
    operations: int  # how many changes of metadata are written
    retry_at: int | None = None  # between two attempts
    reporting: bool = False  # its outcome is on the way
    begun: bool = False  # user code
    execution: Execution | None = None  # of the attempt under way, as far as it has come here
    awaited: int = 0  # how many answers the code waits for
    answers: list[Answer] = field(default_factory=list)


class Membership:
    """One registration: what the server knows as a worker."""

    def __init__(self, registered: Registered) -> None:
        self.id = registered.worker_id
        self.held: dict[str, Held] = {}
        self.leaving = False
        self.settled = False  # no claim is under way any more, nor will there be one that gives runs
        self.departing = False
        self.awaited: object | None = None  # stands for the claim whose answer it waits for
        self.gone = False

    def stop_claiming(self) -> None:
        """The answer to a claim under way is not waited for: what it gives goes back with the next renewal."""
        self.leaving = True
        self.awaited = None
