"""A report of a worker, and the answer to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.errors import HoldfastError
from holdfast.model.run import Run
from holdfast.model.status import RunStatus


@dataclass(frozen=True, slots=True)
class Reported:
    """One report of a worker, in the shape of wire/workers.py: `report["kind"]` tells which.

    But what a report asks to be made is there as the engine takes it: `items` of "triggers" are
    NewRuns, or refusals in their place; "token" has a `new` NewToken and `sign`, which makes of its
    id and time of creation what its holder is given.
    """

    worker_id: str
    environment_id: str
    report: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a report: ok, retry, started, fenced or refused.

    now     the store's time, where the worker has to know it
    values  of journal entries, as far as they were filled in here
    value   of the one entry that was made here
    """

    status: str
    lease: int | None = None
    attempt: int | None = None
    delay_ms: int | None = None
    error: str | None = None
    code: str | None = None
    now: int | None = None
    values: Sequence[str | None] | None = None
    value: str | None = None


OK = Answer("ok")
FENCED = Answer("fenced")


def refused(error: HoldfastError) -> Answer:
    return Answer("refused", error=str(error), code=error.code)


def is_live(run: Run | None, item: Reported) -> bool:
    """Whether the report is of the attempt under way."""
    return (
        run is not None
        and run.status is RunStatus.EXECUTING
        and run.lease == item.report["lease"]
        and run.worker_id == item.worker_id
    )
