"""Metadata, tags and logs that attempts report while they run; they change nothing of the run's course."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from holdfast.engine.reporting import FENCED, OK, Answer, Reported, refused
from holdfast.engine.trigger import clean_tags
from holdfast.errors import HoldfastError
from holdfast.model import limits
from holdfast.model.metadata import applied, check_operations, text_of
from holdfast.model.run import Run
from holdfast.model.status import HELD
from holdfast.stores.base import Tx, batch

ANNOTATIONS = frozenset({"metadata", "tags", "logs"})


def annotate(tx: Tx, items: Sequence[Reported], indexes: Sequence[int], answers: list[Answer | None]) -> None:
    """Applies the reports at `indexes`, which are of these kinds, and answers them."""
    ids = {items[index].report["run"] for index in indexes}
    runs = {run.id: run for run in tx.runs("runs_for_update", ids=batch(sorted(ids)))}
    related = {
        other
        for index in indexes
        if items[index].report.get("parentOperations") or items[index].report.get("rootOperations")
        for run in (runs.get(items[index].report["run"]),)
        if run is not None
        for other in (run.parent_id, run.root_id)
        if other is not None
    } - set(runs)
    if related:
        runs |= {run.id: run for run in tx.runs("runs_for_update", ids=batch(sorted(related)))}
    changed: set[str] = set()
    tags: list[list[str]] = []
    logs: list[list[Any]] = []
    counts: dict[str, int] = {}
    for index in indexes:
        item = items[index]
        said = item.report
        run = runs.get(said["run"])
        if (
            run is None
            or run.lease != said["lease"]
            or run.worker_id != item.worker_id
            or run.status not in HELD
        ):
            answers[index] = FENCED
            continue
        try:
            match said["kind"]:
                case "metadata":
                    changed |= _change_metadata(runs, run, said)
                    if "written" in said:
                        runs[run.id] = _with_written(runs[run.id], said)
                        changed.add(run.id)
                case "tags":
                    merged = clean_tags([*json.loads(run.tags), *said["tags"]])
                    runs[run.id] = _with_written(
                        replace(run, tags=json.dumps(merged, ensure_ascii=False)), said
                    )
                    changed.add(run.id)
                    tags += [[run.environment_id, tag, run.id] for tag in merged]
                case _:
                    logs += _kept_logs(tx, run, said["records"], counts)
        except HoldfastError as error:
            answers[index] = refused(error)
        else:
            answers[index] = OK
    if changed:
        save_metadata(tx, [runs[run_id] for run_id in sorted(changed)])
    if tags:
        tx.do("add_tags", tags=batch(tags))
    if logs:
        tx.do("add_logs", logs=batch(logs))


def _kept_logs(
    tx: Tx, run: Run, records: Sequence[Mapping[str, Any]], counts: dict[str, int]
) -> list[list[Any]]:
    """The records that still fit under the limit of the run."""
    if run.id not in counts:
        row = tx.one("count_logs", run_id=run.id, limit=limits.MAX_LOGS_PER_RUN)
        counts[run.id] = row["records"] if row else 0
    room = max(0, limits.MAX_LOGS_PER_RUN - counts[run.id])
    counts[run.id] += len(records)
    return [
        [
            run.id,
            run.attempt,
            record["at"],
            record["level"],
            record["logger"],
            record["message"].replace("\x00", ""),
        ]
        for record in records[:room]
    ]


def save_metadata(tx: Tx, runs: Sequence[Run]) -> None:
    """Writes the metadata and tags of runs, and tells those who watch them."""
    changes = [[run.id, run.metadata, run.tags, run.operations] for run in runs]
    tx.do("save_metadata", changes=batch(changes), now=tx.now)
    for run in runs:
        tx.wake(f"changed:{run.id}")


def _change_metadata(runs: dict[str, Run], run: Run, said: Mapping[str, Any]) -> set[str]:
    """Applies the operations of a report; all of them or, when one is refused, none."""
    changed: dict[str, Run] = {}
    for name, target in (
        ("operations", run.id),
        ("parentOperations", run.parent_id or run.id),
        ("rootOperations", run.root_id or run.id),
    ):
        operations = said.get(name)
        if not operations:
            continue
        check_operations(operations, name)
        current = changed.get(target) or runs.get(target)
        if current is None:
            continue  # a parent that retention has deleted
        changed[target] = with_metadata(current, operations)
    runs |= changed
    return set(changed)


def _with_written(run: Run, said: Mapping[str, Any]) -> Run:
    """`run` knowing how many of its code's changes are written, so that a replay does not make them again."""
    return replace(run, operations=max(run.operations, said.get("written", 0)))


def with_metadata(run: Run, operations: Sequence[dict[str, Any]]) -> Run:
    """`run` after the operations. Raises PayloadTooLarge over 256 KiB."""
    return replace(run, metadata=text_of(applied(json.loads(run.metadata), operations)))
