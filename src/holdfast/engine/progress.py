"""What the code of a live run did: entries of its journal, and what is made together with one.

The worker numbers entries. They are taken under its lease, and only when the first one is the next number
of the run: so a report that comes again finds its entries there, and is answered as the first time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.engine.kept import keep
from holdfast.engine.reporting import FENCED, Answer, Reported, is_live, refused
from holdfast.engine.token import create_tokens, token_key
from holdfast.engine.trigger import NewRun, Triggered, trigger
from holdfast.errors import HoldfastError, InvalidRequest, JournalFull
from holdfast.model import limits
from holdfast.model.error import refusal
from holdfast.model.run import Run
from holdfast.stores.base import Tx, batch

JOURNALLED = frozenset({"entries", "triggers", "token"})
USING = frozenset({"done", "first"})  # entries that name a run or token whose result is needed again
FORGETTING: Mapping[str, Any] = {
    "scope": "",
    "kind": "forget",
    "name": "",
    "args": None,
    "ok": True,
    "ref": None,
}


def record(tx: Tx, items: Sequence[Reported], indexes: Sequence[int], answers: list[Answer | None]) -> None:
    """Applies the reports at `indexes`, which are of these kinds, and answers them. Those of one run go in order."""
    _lock_keys(tx, items, indexes)
    left = list(indexes)
    while left:
        # One report of each run, then the next ones: nearly always there is one.
        now: list[int] = []
        later: list[int] = []
        seen: set[str] = set()
        for index in left:
            run_id = items[index].report["run"]
            (later if run_id in seen else now).append(index)
            seen.add(run_id)
        plain = [index for index in now if items[index].report["kind"] == "entries"]
        if plain:
            _append(tx, items, plain, answers)
        if made := [index for index in now if items[index].report["kind"] != "entries"]:
            _make(tx, items, made, answers)
        left = later


def entry_row(run_id: str, seq: int, entry: Mapping[str, Any]) -> tuple[Any, ...]:
    """A journal entry as `Tx.add_entries` takes it."""
    ok = entry["ok"]
    return (
        run_id,
        seq,
        entry["scope"],
        entry["kind"],
        entry["name"],
        entry["args"],
        None if ok is None else int(ok),
        entry["value"],
        entry["ref"],
    )


def _append(tx: Tx, items: Sequence[Reported], indexes: Sequence[int], answers: list[Answer | None]) -> None:
    """The hot path: one guarded statement and one insert, however many runs there are."""
    filled = {
        index: [_filled(entry, tx.now) for entry in items[index].report["entries"]] for index in indexes
    }
    changes = []
    for index in indexes:
        said, entries = items[index].report, filled[index]
        size = sum(len(entry["value"].encode()) for entry in entries if entry["value"] is not None)
        changes.append(
            [said["run"], said["lease"], items[index].worker_id, said["first"], len(entries), size]
        )
    taken = set(
        tx.ids(
            "append_entries",
            changes=batch(changes),
            now=tx.now,
            max_entries=limits.MAX_JOURNAL_ENTRIES,
            max_bytes=limits.MAX_JOURNAL_BYTES,
        )
    )
    rows: list[tuple[Any, ...]] = []
    used: list[tuple[str, str]] = []
    for index in indexes:
        said = items[index].report
        if said["run"] in taken:
            used += [
                (entry["ref"], said["run"])
                for entry in filled[index]
                if entry["kind"] in USING and entry["ref"]
            ]
            rows += [
                entry_row(said["run"], seq, entry) for seq, entry in enumerate(filled[index], said["first"])
            ]
            values = [
                entry["value"] if "delayMs" in asked else None
                for entry, asked in zip(filled[index], said["entries"], strict=True)
            ]
            answers[index] = Answer("ok", now=tx.now, values=values if any(values) else None)
    tx.add_entries(rows)
    keep(tx, used)
    if others := [index for index in indexes if answers[index] is None]:
        runs = _runs(tx, items, others)
        for index in others:
            said = items[index].report
            answers[index] = _repeated(tx, runs.get(said["run"]), items[index], len(said["entries"]))


def _make(tx: Tx, items: Sequence[Reported], indexes: Sequence[int], answers: list[Answer | None]) -> None:
    """Makes children and tokens, and the entries that name them."""
    runs = _runs(tx, items, indexes)
    making: dict[int, Run] = {}
    for index in indexes:
        item = items[index]
        run = runs.get(item.report["run"])
        if run is None or not is_live(run, item) or run.entries != item.report["first"] or _is_full(run):
            answers[index] = _repeated(tx, run, item, 1)
        else:
            making[index] = run
    children = _children(tx, {index: items[index].report for index in making})
    changes: list[list[Any]] = []
    rows: list[tuple[Any, ...]] = []
    found: list[tuple[str, str]] = []
    for index, run in making.items():
        said = items[index].report
        entry = {**said, "kind": "trigger", "ok": True, "ref": None}
        if index in children:
            entry["value"] = json.dumps(children[index], ensure_ascii=False)
            found += [(told["id"], run.id) for told in children[index] if told.get("isCached")]
        else:
            [made] = create_tokens(tx, [said["new"]])
            if isinstance(made, HoldfastError):
                answers[index] = refused(made)
                continue
            told = {"id": made.id, "isCached": made.is_cached, **said["sign"](made.id, tx.now)}
            entry |= {"kind": "token", "value": json.dumps(told), "ref": made.id}
            if made.is_cached:
                found.append((made.id, run.id))
        size = len(entry["value"].encode())
        changes.append([run.id, run.lease, items[index].worker_id, said["first"], 1, size])
        rows.append(entry_row(run.id, said["first"], entry))
        answers[index] = Answer("ok", now=tx.now, value=entry["value"])
    if changes:
        # What names the things that were made is bounded by the report, so it is not refused for its bytes.
        tx.do("append_entries", changes=batch(changes), now=tx.now, max_entries=2**53, max_bytes=2**53)
        tx.add_entries(rows)
        keep(tx, found)


def _children(tx: Tx, asked: Mapping[int, Mapping[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    """What became of each item of the reports that trigger, by their index."""
    triggers = {index: said["items"] for index, said in asked.items() if said["kind"] == "triggers"}
    new = [item for items in triggers.values() for item in items if isinstance(item, NewRun)]
    made = iter(trigger(tx, new) if new else ())
    return {
        index: [_triggered(next(made)) if isinstance(item, NewRun) else item for item in items]
        for index, items in triggers.items()
    }


def _triggered(answer: Triggered | HoldfastError) -> dict[str, Any]:
    if isinstance(answer, HoldfastError):
        return refusal(answer)
    return {"id": answer.id, "isCached": True} if answer.is_cached else {"id": answer.id}


def _lock_keys(tx: Tx, items: Sequence[Reported], indexes: Sequence[int]) -> None:
    """Idempotency keys are locked before any run, here as everywhere."""
    keys: list[list[str]] = []
    for said in (items[index].report for index in indexes):
        if said["kind"] == "triggers":
            keys += [
                [item.environment_id, item.task, item.idempotency_key]
                for item in said["items"]
                if isinstance(item, NewRun) and item.idempotency_key is not None
            ]
        elif said["kind"] == "token" and said["new"].idempotency_key is not None:
            keys.append(token_key(said["new"]))
    if keys:
        tx.do("lock_keys", keys=batch(sorted(keys)))


def _is_full(run: Run) -> bool:
    return run.entries >= limits.MAX_JOURNAL_ENTRIES or run.journal_bytes >= limits.MAX_JOURNAL_BYTES


def _repeated(tx: Tx, run: Run | None, item: Reported, count: int) -> Answer:
    """The answer to a report that was not taken: that of the first time, or why it never will be."""
    said = item.report
    if run is None or not is_live(run, item):
        return FENCED
    first, until = said["first"], said["first"] + count
    if until <= run.entries:
        rows = tx.all("values_between", run_id=run.id, first=first, until=until)
        if said["kind"] != "entries":
            return Answer("ok", now=tx.now, value=rows[0]["value"])
        values = [row["value"] if row["kind"] == "sleep" else None for row in rows]
        return Answer("ok", now=tx.now, values=values if any(values) else None)
    if first != run.entries:
        error = f"first is {first}: the journal of {run.id} has {run.entries} entries"
        return refused(InvalidRequest(error, "first"))
    most = f"{limits.MAX_JOURNAL_ENTRIES} entries and {limits.MAX_JOURNAL_BYTES} bytes"
    return refused(
        JournalFull(
            f"the journal of {run.id} has {run.entries} entries, {run.journal_bytes} bytes: at most {most}"
        )
    )


def _runs(tx: Tx, items: Sequence[Reported], indexes: Sequence[int]) -> dict[str, Run]:
    ids = sorted({items[index].report["run"] for index in indexes})
    return {run.id: run for run in tx.runs("runs_for_update", ids=batch(ids))}


def _filled(entry: Mapping[str, Any], now: int) -> Mapping[str, Any]:
    """An entry with the due time of a sleep."""
    return {**entry, "value": str(now + entry["delayMs"])} if "delayMs" in entry else entry
