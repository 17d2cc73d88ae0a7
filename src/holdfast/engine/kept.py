"""Runs and tokens that a run uses and did not make: it found them by an idempotency key, or knows their ids.

What a run made stays while it goes on, because it may ask for it again when it is executed anew. What it only uses is
kept for it here (table `kept_for`), which retention respects.
"""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.model.wait import is_token
from holdfast.stores.base import Tx, batch


def keep(tx: Tx, uses: Iterable[tuple[str, str]]) -> None:
    """Keeps runs and tokens for runs that use them: (id, run). Its own children and tokens are passed over; twice is once."""
    runs: list[list[str]] = []
    tokens: list[list[str]] = []
    for target, run_id in sorted(set(uses)):
        (tokens if is_token(target) else runs).append([target, run_id])
    if runs:
        tx.do("keep_runs", uses=batch(runs))
    if tokens:
        tx.do("keep_waitpoints", uses=batch(tokens))
