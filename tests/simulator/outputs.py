"""What a run must give: computed from its program and from what it waited for, whatever happened meanwhile."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.model.run import Run
from simulator.ledger import forgotten_by
from simulator.program import (
    Await,
    Both,
    First,
    Join,
    NewOne,
    Operation,
    Spawn,
    Step,
    bad_child,
    program_of,
    summary,
)
from simulator.snapshot import Row, Snapshot
from simulator.violation import require

Outcomes = Mapping[str, tuple[str, str | None]]  # of runs and tokens that ended: status, output


def check_output(run: Run, output: str | None, rows: Sequence[Row], outcomes: Outcomes) -> None:
    """Raises Violation unless a run that succeeds gives what its program defines."""
    defined = program_of(run.id, run.task, run.depth)
    expected = [given for operation in defined if (given := _of(operation, run, rows, outcomes)) is not None]
    given = json.loads(output or "null")
    same = len(given) == len(expected) and all(map(_fits, given, expected))
    require(same, "I16", f"{run.id} gives {given}, its program {expected}")


def check_failure(run: Run, error: dict[str, Any], after: Snapshot, outcomes: Outcomes) -> None:
    """Raises Violation unless a program may fail like this."""
    name, about = error.get("name"), error.get("message", "")
    rows = after.journals.get(run.id, ())
    if rows and rows[-1].kind == "forget":  # by this report
        rows = rows[:-1]
    forgotten = forgotten_by(rows)
    operations = {operation.name: operation for operation in program_of(run.id, run.task, run.depth)}
    where = f"{run.id} fails with {error}"
    match name:
        case "StepFailed":
            step = operations[about]
            failures = [row for row in rows if row.name == about and not row.ok]
            require(isinstance(step, Step) and 0 < len(failures) <= step.fails, "I16", f"{where}: {failures}")
            require(any(row.seq not in forgotten for row in failures), "I16", f"{where}: it is forgotten")
        case "ChildFailed":
            status, _ = outcomes[about]
            require(status != "COMPLETED_SUCCESSFULLY", "I7", f"{where}: {about} is {status}")
        case "Gone":
            require(False, "I7", f"{where}: nothing that a run uses may go while it goes on")
        case "Refused":
            asked = operations[about]
            bad = isinstance(asked, NewOne) and asked.timeout == "soon"
            require(bad, "I15", f"{where}: {asked}")


def _of(operation: Operation, run: Run, rows: Sequence[Row], outcomes: Outcomes) -> Any:
    match operation:
        case Step(caught=True):
            return "it failed"
        case Step():
            return operation.value(run.id)
        case Join():
            return _joined(operation.of, run, rows, outcomes)
        case Both():
            return [_joined(of, run, rows, outcomes) for of in operation.of]
        case First():
            told = [row for row in rows if row.kind == "first" and row.name == operation.name]
            if not told:  # it was not recorded, because nothing came after it
                ids = [one["id"] for one in _made(operation.of, rows)[0] if "id" in one]
                if not ids and operation.within is None:
                    return None
                ended = [_summary(id, outcomes) for id in ids if id in outcomes]
                return {"any": [*ended, "nobody"]}
            return "nobody" if told[-1].ref is None else _summary(told[-1].ref, outcomes)
        case Await():
            [made] = [row for row in rows if row.kind == "token" and row.name == operation.of]
            return _summary(made.ref or "", outcomes)
        case _:
            return None


def _joined(of: str, run: Run, rows: Sequence[Row], outcomes: Outcomes) -> list[Any]:
    """For each child what may be told of it: of several triggers, the end of any."""
    made = _made(of, rows)
    [spawn] = [
        one for one in program_of(run.id, run.task, run.depth) if isinstance(one, Spawn) and one.name == of
    ]
    if len(made) == 1:
        return [_summary(one["id"], outcomes) if "id" in one else ["refused"] for one in made[0]]
    every = [_summary(one["id"], outcomes) for answers in made for one in answers if "id" in one]
    return [["refused"] if one == bad_child() else {"any": every} for one in spawn.children]


def _made(of: str, rows: Sequence[Row]) -> list[list[dict[str, Any]]]:
    """What the triggers of a Spawn were answered."""
    return [json.loads(row.value or "[]") for row in rows if row.kind == "trigger" and row.name == of]


def _summary(id: str, outcomes: Outcomes) -> list[Any]:
    require(id in outcomes, "I7", f"{id} has not ended, and was not waited for")
    return summary(id, *outcomes[id])


def _fits(given: Any, expected: Any) -> bool:
    if isinstance(expected, dict):
        return given in expected["any"]
    if isinstance(expected, list) and isinstance(given, list) and len(expected) == len(given):
        return all(map(_fits, given, expected))
    return bool(given == expected)
