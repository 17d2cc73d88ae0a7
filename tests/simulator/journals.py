"""What must be true of journals: they only grow, without gaps, under the live lease, by what was reported."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from holdfast.engine.trigger import NewRun, Triggered
from holdfast.errors import Unprocessable
from holdfast.model.run import Run
from holdfast.model.status import RunStatus
from simulator.ledger import forgotten_by
from simulator.snapshot import Row, Snapshot
from simulator.violation import require

if TYPE_CHECKING:
    from simulator.oracle import Oracle
    from simulator.rules import Rules

JOURNALLED = ("entries", "triggers", "token")
S = RunStatus


def check_journals(name: str, before: Snapshot, after: Snapshot) -> None:
    """After whatever call: rows against those before, and against what their run says of them."""
    touched = after.changed
    if after.journals is not before.journals:
        every = before.journals.keys() | after.journals.keys()
        touched = touched | {id for id in every if after.journals.get(id) is not before.journals.get(id)}
    for run_id in sorted(touched):
        old, rows = before.journals.get(run_id, ()), after.journals.get(run_id, ())
        run = after.runs.get(run_id)
        if run is None:
            require(not rows, "I4", f"{run_id} is deleted, its journal is not")
            continue
        require(rows[: len(old)] == old, "I4", f"{name} changed the journal of {run_id}: {old} -> {rows}")
        require([row.seq for row in rows] == list(range(len(rows))), "I4", f"{run_id} has gaps: {rows}")
        require(len(rows) == len(old) or name == "report", "I3", f"{name} added to the journal of {run_id}")
        size = sum(len((row.value or "").encode()) for row in rows)
        told, counted = (run.entries, run.journal_bytes), (len(rows), size)
        require(told == counted, "I4", f"{run_id} says {told} of its journal, which has {counted}")


def used_by(rows: Sequence[Row]) -> set[str]:
    """The runs and tokens that entries name, whose results may be asked for again."""
    used = {row.ref for row in rows if row.ref is not None}
    for row in rows:
        if row.kind == "trigger":
            used |= {one["id"] for one in json.loads(row.value or "[]") if "id" in one}
    return used


def check_journal_reports(
    oracle: Oracle,
    rules: Rules,
    now: int,
    items: Sequence[Any],
    results: Sequence[Any],
    before: Snapshot,
    after: Snapshot,
) -> set[str]:
    """What reports added to journals is what they said, once. Answers the runs that they made."""
    told: dict[str, dict[int, Any]] = {}  # by run and number
    made: set[str] = set()
    answered: list[tuple[NewRun, Triggered]] = []
    for item, answer in zip(items, results, strict=True):
        said = item.report
        run = before.runs.get(said["run"])
        if run is None or run.lease != said["lease"] or run.worker_id != item.worker_id:
            continue  # told in reports.py
        if said["kind"] == "failed" and said.get("forget") and after.runs[run.id].status is S.REATTEMPTING:
            told.setdefault(run.id, {})[len(after.journals[run.id]) - 1] = said["forget"]
            _forgets(oracle, run, said, after)
        if said["kind"] not in JOURNALLED:
            continue
        what = f"{said} on {run.status} with {run.entries} entries: {answer}"
        if run.status is not S.EXECUTING:
            require(answer.status == "fenced", "I3", what)
            continue
        require(answer.status == "ok" or _may_refuse(said), "I15", what)
        if answer.status != "ok":
            continue
        require(answer.now == now, "I14", what)
        rows = after.journals.get(run.id, ())
        for number, entry in enumerate(_entries(said, answer), said["first"]):
            told.setdefault(run.id, {})[number] = entry
            require(number < len(rows), "I4", f"{what}: entry {number} is not there")
            _same(rows[number], entry, what)
        if said["kind"] == "triggers" and said["first"] >= run.entries:
            answered += _answers(said, json.loads(answer.value))
    for run_id, rows in after.journals.items():
        grown = rows[len(before.journals.get(run_id, ())) :]
        for row in grown:
            require(row.seq in told.get(run_id, {}), "I3", f"nobody who held {run_id} reported {row}")
    # The same report twice in one call is answered twice, and triggers once.
    distinct = {(item.parent_id, answer): (item, answer) for item, answer in answered}
    for item, answer in sorted(distinct.values(), key=lambda pair: pair[1].is_cached):
        rules.check_trigger(now, item, answer, before, after)
        if not answer.is_cached:
            child = after.runs[answer.id]
            require(child.parent_id == item.parent_id, "I15", f"{answer.id} is no child of {item.parent_id}")
            made.add(answer.id)
    return made


def check_given(run_id: str, given: Sequence[Any], store: Snapshot) -> None:
    """An executor is given the whole journal of its run (I16)."""
    rows = store.journals.get(run_id, ())
    told = [(one["kind"], one["name"], one["ref"]) for one in given]
    kept = [(row.kind, row.name, row.ref) for row in rows]
    require(told == kept, "I16", f"{run_id} was given {told} and has {kept}")


def _answers(said: Any, value: list[dict[str, Any]]) -> list[tuple[NewRun, Triggered]]:
    found = []
    for item, told in zip(said["items"], value, strict=True):
        refused = len(set(item.tags)) > 10
        require(("error" in told) == refused, "I15", f"{item} gave {told}")
        if refused:
            require(told["code"] == Unprocessable.code, "I15", f"{item} gave {told}")
        else:
            found.append((item, Triggered(told["id"], told.get("isCached", False))))
    return found


def _entries(said: Any, answer: Any) -> list[dict[str, Any]]:
    """Entries as they must be stored."""
    if said["kind"] == "entries":
        values = answer.values or [None] * len(said["entries"])
        found = []
        for one, value in zip(said["entries"], values, strict=True):
            delayed = "delayMs" in one
            found.append({**one, "value": value if delayed else one["value"]})
            require(not delayed or value is not None, "I13", f"{said} was not told when it ends: {answer}")
        return found
    kind = {"triggers": "trigger", "token": "token"}[said["kind"]]
    ref = json.loads(answer.value)["id"] if kind == "token" else None
    return [{**said, "kind": kind, "ok": True, "value": answer.value, "ref": ref}]


def _same(row: Row, entry: dict[str, Any], what: str) -> None:
    stored = (row.scope, row.kind, row.name, row.args, row.ok, row.value, row.ref)
    ok = None if entry["ok"] is None else int(entry["ok"])
    asked = (entry["scope"], entry["kind"], entry["name"], entry["args"], ok, entry["value"], entry["ref"])
    require(stored == asked, "I4", f"{what}: entry {row.seq} is {stored}, not {asked}")


def _may_refuse(said: Any) -> bool:
    return bool(said["kind"] == "token" and said["new"].timeout == "soon")


def _forgets(oracle: Oracle, run: Run, said: Any, after: Snapshot) -> None:
    """The failure and what it forgets are one commit; no success is forgotten (I16)."""
    rows = after.journals.get(run.id, ())
    what = f"{run.id} forgets {said['forget']}: {rows}"
    require(rows and rows[-1].kind == "forget" and rows[-1].forgets == said["forget"], "I16", what)
    for seq in forgotten_by(rows):
        row = rows[seq]
        failed = row.ok == 0
        if row.kind == "done":
            failed = oracle.outcomes[row.ref or ""][0] != S.COMPLETED_SUCCESSFULLY
        require(failed, "I16", f"{what}: {row} is a success")
