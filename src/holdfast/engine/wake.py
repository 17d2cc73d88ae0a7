"""Who is woken by what becomes of a run."""

from __future__ import annotations

from holdfast.model.run import Run
from holdfast.model.status import FINAL, RunStatus
from holdfast.stores.base import Tx


def wake_before_others(tx: Tx, environment_id: str) -> None:
    """A run is ready at a place before others: claims have to look from the start of its line."""
    tx.wake(f"front:{environment_id}")
    tx.wake(f"ready:{environment_id}")


def wake_after_attempt(tx: Tx, run: Run) -> None:
    """An attempt has come to its end, or is suspended."""
    if run.status in FINAL:
        tx.wake(f"run:{run.id}")
        tx.wake(f"room:{run.environment_id}")
    elif run.status is RunStatus.QUEUED:
        wake_before_others(tx, run.environment_id)
    elif run.worker_id is None:
        tx.wake(f"room:{run.environment_id}")
    if run.due_at is not None or run.status is RunStatus.WAITING_FOR_DEPLOY:
        tx.wake("upkeep")
