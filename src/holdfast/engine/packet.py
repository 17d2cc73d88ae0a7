"""Which runs use which objects of the object store, and which objects nobody uses any more.

A key stands here before its object is made, so a crash leaves nothing behind that is not known. An object is deleted in
two steps: it is condemned, from when on no run may begin to use it, and forgotten when it is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from holdfast.errors import Unprocessable
from holdfast.model.limits import UNUSED_PACKET_HOURS
from holdfast.model.run import Run
from holdfast.stores.base import Tx, batch

UNUSED_MS = UNUSED_PACKET_HOURS * 3_600_000
AGAIN_MS = 10 * 60_000  # a deletion that was not confirmed is tried again


@dataclass(frozen=True, slots=True)
class Sweep:
    """A look at packets whose time has come."""

    limit: int = 200


def add_packets(tx: Tx, keys: list[str]) -> list[Unprocessable | None]:
    """Makes room for objects. One that a run uses can not be written again: Unprocessable."""
    wanted = batch(sorted(set(keys)))
    free = set(tx.ids("add_packets", keys=wanted, now=tx.now, due_at=tx.now + UNUSED_MS))
    free -= set(tx.ids("packets_in_use", keys=wanted))
    return [
        None
        if key in free
        else Unprocessable(f"packet {key.partition('/')[2]!r} is in use by a run: upload under another name")
        for key in keys
    ]


def usable(tx: Tx, keys: Iterable[str]) -> set[str]:
    """Those of the keys that runs may begin to use until the commit. Locks, so it comes after the locks of runs."""
    wanted = sorted(set(keys))
    return set(tx.ids("packets_to_use", keys=batch(wanted))) if wanted else set()


def use(tx: Tx, uses: Iterable[tuple[str, str]]) -> None:
    """Keeps packets for runs: (key, run)."""
    if rows := sorted(set(uses)):
        tx.do("use_packets", uses=batch(rows))


def release(tx: Tx, run_ids: Sequence[str]) -> None:
    """These runs are no more. What only they used is due at once."""
    if run_ids:
        tx.do("release_packets", runs=batch(run_ids), now=tx.now)
        tx.do("forget_packet_runs", runs=batch(run_ids))


def runs_of_packet(tx: Tx, key: str, limit: int) -> list[Run] | None:
    """The newest runs that use a packet; None where there is no such packet."""
    if tx.one("packet", key=key) is None:
        return None
    ids = tx.ids("runs_of_packet", key=key, limit=limit)
    return tx.runs("runs_by_id", ids=batch(ids)) if ids else []


def condemn(tx: Tx, items: list[Sweep]) -> list[list[str]]:
    """The keys of objects to be deleted, which no run uses and none will. `delete_packets` says that it is done."""
    answers = []
    for item in items:
        keys = tx.ids("due_packets", now=tx.now, limit=item.limit)
        # In a statement of its own, which begins when they are locked: see wait.py.
        condemned = tx.ids("condemn_packets", keys=batch(keys), due_at=tx.now + AGAIN_MS) if keys else []
        if kept := sorted(set(keys) - set(condemned)):
            tx.do("keep_packets", keys=batch(kept))
        answers.append(condemned)
    return answers


def delete_packets(tx: Tx, keys: list[str]) -> list[None]:
    """The objects of these keys are gone."""
    tx.do("delete_packets", keys=batch(sorted(set(keys))))
    return [None] * len(keys)
