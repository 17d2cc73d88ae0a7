"""A batch: so many items that arrive by index, each of which becomes a run or is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from holdfast.model.status import FINAL, RunStatus

UNSEALED_MS = 30 * 60_000  # so long a batch waits for its items (engine rule R91)


class BatchStatus(StrEnum):
    """Words of the wire contract, 4.5."""

    PROCESSING = "PROCESSING"  # items are to come, or runs go on
    COMPLETED = "COMPLETED"  # every run has ended, successfully or not
    PARTIAL_FAILED = "PARTIAL_FAILED"  # the same, but some items never became runs
    ABORTED = "ABORTED"  # no item became a run, or not all of them arrived in time


@dataclass(frozen=True, slots=True)
class Batch:
    """A row of `batches`. Times are epoch milliseconds."""

    id: str
    environment_id: str
    run_count: int
    arrived: int  # items
    created_at: int
    updated_at: int
    sealed_at: int | None  # when all items had arrived
    aborted_at: int | None
    due_at: int | None  # when it is aborted, unless it is sealed
    key_digest: str | None
    key_shown: str | None
    key_expires_at: int | None
    parent_id: str | None


@dataclass(frozen=True, slots=True)
class BatchItem:
    """An item that arrived.

    run_id  of its run; another trigger may have made it, with the same idempotency key
    error   JSON text {"error", "code", "param"?} of one that was refused and has no run
    status  and when it was updated last: of the run; None when retention has deleted it
    """

    index: int
    task: str
    run_id: str | None
    error: str | None
    status: RunStatus | None
    run_updated_at: int | None


def batch_status(batch: Batch, items: Sequence[BatchItem]) -> BatchStatus:
    """Computed from the runs whenever it is asked for: finishing a run costs nothing for its batch."""
    if batch.aborted_at is not None:
        return BatchStatus.ABORTED
    if batch.sealed_at is None or any(item.status is not None and item.status not in FINAL for item in items):
        return BatchStatus.PROCESSING
    refused = sum(item.run_id is None for item in items)
    if refused == 0:
        return BatchStatus.COMPLETED
    return BatchStatus.ABORTED if refused == len(items) else BatchStatus.PARTIAL_FAILED
