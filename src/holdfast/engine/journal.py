"""Reading the journals of runs: for those who execute them again, and for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.engine.inspect import one_run
from holdfast.errors import Fenced
from holdfast.model.run import Run
from holdfast.model.status import HELD
from holdfast.stores.base import Tx, batch

INLINE_BYTES = 16 * 1024 * 1024  # of journals in one answer to a claim
PAGE_CHARACTERS = 8 * 1024 * 1024
PAGE_ENTRIES = 10_000
ENTRY_BYTES = 250  # of an entry beyond its value
OUTCOME_CHARACTERS = 4_096  # a larger result is left with its run

Entry = dict[str, Any]


@dataclass(frozen=True, slots=True)
class JournalPage:
    """Entries in order, whether more follow, and how many changes of metadata the run's code has written."""

    entries: Sequence[Entry]
    more: bool
    operations: int = 0


def journals_of(tx: Tx, runs: Iterable[Run]) -> Mapping[str, Sequence[Entry]]:
    """The whole journals of these runs, by id, as far as they fit into one answer."""
    room = INLINE_BYTES
    wanted: dict[str, list[Entry]] = {}
    environment_id = ""
    for run in runs:
        size = run.journal_bytes + run.entries * ENTRY_BYTES
        if run.entries and size <= room:
            room -= size
            wanted[run.id] = []
            environment_id = run.environment_id
    if not wanted:
        return {}
    for row in tx.all("entries_of", ids=batch(sorted(wanted))):
        wanted[row["run_id"]].append(row)
    _with_outcomes(tx, environment_id, [entry for entries in wanted.values() for entry in entries])
    return wanted


def page_for_worker(
    tx: Tx, environment_id: str, worker_id: str, run_id: str, lease: int, after: int
) -> JournalPage:
    """The entries of a run from the number `after` on, for who holds it. Raises RunNotFound, Fenced."""
    run = one_run(tx, environment_id, run_id)
    if run.lease != lease or run.worker_id != worker_id or run.status not in HELD:
        raise Fenced(run_id)
    return _page(tx, run, after - 1, PAGE_ENTRIES)


def page(tx: Tx, environment_id: str, run_id: str, after: int, limit: int) -> JournalPage:
    """At most `limit` entries of a run after the number `after`. Raises RunNotFound."""
    return _page(tx, one_run(tx, environment_id, run_id), after, limit)


def _page(tx: Tx, run: Run, after: int, limit: int) -> JournalPage:
    rows = tx.all("journal_page", run_id=run.id, after=after, limit=limit, characters=PAGE_CHARACTERS)
    _with_outcomes(tx, run.environment_id, rows)
    last = rows[-1]["seq"] if rows else after
    return JournalPage(rows, last + 1 < run.entries and bool(rows), run.operations)


def _with_outcomes(tx: Tx, environment_id: str, entries: Sequence[Entry]) -> None:
    """Gives entries about the end of a run the `outcome` of that run, unless it is large."""
    about = {
        entry["ref"]: None
        for entry in entries
        if entry["kind"] == "done" and entry["value"] is None and entry["ref"] is not None
    }
    if not about:
        return
    rows = tx.all(
        "outcomes", environment_id=environment_id, ids=batch(sorted(about)), characters=OUTCOME_CHARACTERS
    )
    found = {row["id"]: row for row in rows if not row["is_large"]}
    for entry in entries:
        if entry["kind"] == "done" and entry["value"] is None and entry["ref"] in found:
            entry["outcome"] = found[entry["ref"]]
