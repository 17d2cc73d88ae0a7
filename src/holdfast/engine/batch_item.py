"""Items of a batch: each becomes a run once, however often it is sent."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from holdfast.engine.batch import NewBatch, add_batch, closed
from holdfast.engine.trigger import NewRun, new_run, trigger
from holdfast.errors import HoldfastError, Unprocessable
from holdfast.model.batch import Batch
from holdfast.model.error import internal_error, refusal
from holdfast.model.run import Run, ended
from holdfast.model.status import RunStatus
from holdfast.stores.base import Tx, batch

Refusal = Mapping[str, Any]  # {"error", "code", "param"?}, as model.error.refusal makes it


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """An item of a batch on its way in.

    run     what it asks for, or why it is refused
    opens   the batch, where its items come in the same call as itself
    failed  whether a refused item becomes a run that has failed already (engine rule R94); else it has none
    """

    environment_id: str
    batch_id: str
    index: int
    task: str
    run: NewRun | Refusal
    opens: NewBatch | None = None
    failed: bool = True


@dataclass(frozen=True, slots=True)
class Placed:
    """What became of a line: a run or a refusal; and its batch after the call.

    is_new     whether this line made it so; else an earlier one of the same index
    is_cached  whether its idempotency key found the run
    """

    run_id: str | None
    refusal: Refusal | None
    is_new: bool
    is_cached: bool
    batch: Batch


def place_items(tx: Tx, items: list[Line]) -> list[Placed | HoldfastError]:
    """Makes a run for each line, or tells what an earlier line of the same index has become.

    Refused with Unprocessable, in the place of a line: an unknown or aborted batch, and an index that it does not have.
    What is wrong with the run itself never fails the line (see `Line.failed`).
    """
    batches = _locked(tx, items)
    before = _earlier(tx, items, batches)
    answers: list[Placed | HoldfastError | None] = [None] * len(items)
    new: dict[tuple[str, int], int] = {}  # the first line of each index
    for place, line in enumerate(items):
        try:
            _check(line, batches.get(line.batch_id))
        except HoldfastError as error:
            answers[place] = error
        else:
            if (line.batch_id, line.index) not in before:
                new.setdefault((line.batch_id, line.index), place)
    made = _made(tx, [items[place] for place in new.values()], batches)
    if made:
        tx.add_batch_items(
            [
                (*key, items[place].task, run_id, int(is_cached), json.dumps(refused) if refused else None)
                for (key, place), (run_id, is_cached, refused) in zip(new.items(), made, strict=True)
            ]
        )
        counts: dict[str, int] = {}
        for batch_id, _ in new:
            counts[batch_id] = counts.get(batch_id, 0) + 1
        for row in tx.all("count_items", counts=batch(sorted(counts.items())), now=tx.now):
            batches[row["id"]] = Batch(**row)
        before |= dict(zip(new, made, strict=True))
    for place, line in enumerate(items):
        if answers[place] is None:
            key = (line.batch_id, line.index)
            run_id, is_cached, refused = before[key]
            answers[place] = Placed(run_id, refused, new.get(key) == place, is_cached, batches[line.batch_id])
    return [answer for answer in answers if answer is not None]


def _locked(tx: Tx, lines: list[Line]) -> dict[str, Batch]:
    """The batches of lines, locked: nobody else places their items until the commit. Made, where lines open them."""
    opened = {line.batch_id: line.opens for line in lines if line.opens is not None}
    for batch_id, item in sorted(opened.items()):
        add_batch(tx, item, batch_id, due_at=None, digest=None, expires_at=0)
    ids = sorted({line.batch_id for line in lines})
    return {row["id"]: Batch(**row) for row in tx.all("batches_for_update", ids=batch(ids))}


Made = tuple[str | None, bool, Refusal | None]  # run, whether it was there, or why there is none


def _earlier(tx: Tx, lines: list[Line], batches: Mapping[str, Batch]) -> dict[tuple[str, int], Made]:
    places = [
        [line.batch_id, line.index]
        for line in lines
        if line.batch_id in batches and batches[line.batch_id].arrived
    ]
    if not places:
        return {}
    return {
        (row["batch_id"], row["number"]): (
            row["run_id"],
            bool(row["is_cached"]),
            None if row["error"] is None else json.loads(row["error"]),
        )
        for row in tx.all("items_at", places=batch(places))
    }


def _check(line: Line, found: Batch | None) -> None:
    """Raises Unprocessable."""
    if found is None or found.environment_id != line.environment_id:
        raise closed(line.batch_id, None)
    if found.aborted_at is not None:
        raise closed(line.batch_id, found)
    check_index(line.index, found)


def check_index(index: int, found: Batch) -> None:
    """Raises Unprocessable."""
    if index >= found.run_count:
        raise Unprocessable(
            f"index is {index}: the batch was created for {found.run_count} items, "
            f"so the last one is {found.run_count - 1}",
            "index",
        )


def _made(tx: Tx, lines: Sequence[Line], batches: Mapping[str, Batch]) -> list[Made]:
    """What becomes of lines that are the first of their index."""
    answers = iter(trigger(tx, [line.run for line in lines if isinstance(line.run, NewRun)]))
    made: list[Made] = []
    failed: list[tuple[int, Refusal]] = []
    for place, line in enumerate(lines):
        answer = next(answers) if isinstance(line.run, NewRun) else line.run
        if isinstance(answer, HoldfastError):
            answer = refusal(answer)
        if isinstance(answer, Mapping):
            made.append((None, False, answer))
            if line.failed:
                failed.append((place, answer))
        else:
            made.append((answer.id, answer.is_cached, None))
    if failed:
        runs = _failed(tx, [(lines[place], said) for place, said in failed], batches)
        for (place, _), run in zip(failed, runs, strict=True):
            if run is not None:
                made[place] = (run.id, False, None)
    return made


def _failed(
    tx: Tx, refused: Sequence[tuple[Line, Refusal]], batches: Mapping[str, Batch]
) -> list[Run | None]:
    """Runs that have failed already, so that their batch has a result for every item."""
    wanted = sorted({parent for line, _ in refused if (parent := batches[line.batch_id].parent_id)})
    parents = {run.id: run for run in tx.runs("runs_by_id", ids=batch(wanted))} if wanted else {}
    before: dict[str, Run] = {}
    runs: list[Run | None] = []
    for line, said in refused:
        parent = batches[line.batch_id].parent_id
        item = NewRun(
            environment_id=line.environment_id,
            task=line.task,
            batch_id=line.batch_id,
            parent_id=parent if parent in parents else None,
        )
        try:
            run = replace(new_run(tx, item, None, parents), status=RunStatus.QUEUED)
        except HoldfastError:  # even its task can not be named
            runs.append(None)
            continue
        before[run.id] = run
        too_large = said["code"] == "payload_too_large"
        code = "PAYLOAD_TOO_LARGE" if too_large else "BATCH_ITEM_COULD_NOT_TRIGGER"
        runs.append(ended(run, RunStatus.FAILED_TO_RUN, tx.now, internal_error(code, str(said["error"]))))
    tx.add_runs(list(before.values()))
    tx.save_runs(before, [run for run in runs if run is not None])
    return runs
