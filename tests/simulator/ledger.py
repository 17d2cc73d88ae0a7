"""What was really done, by whom and when: the effects of programs, as the world saw them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from holdfast.model.status import RunStatus
from simulator.program import NewOne, Sleep, Spawn, Step, program_of
from simulator.snapshot import Row, Snapshot
from simulator.violation import require

RECORDED = (Step, Spawn, NewOne)  # operations with an entry of their name, before which nothing later happens


@dataclass(slots=True)
class Ledger:
    """How often each operation of each run was performed."""

    done: Counter[tuple[str, str]] = field(default_factory=Counter)

    def performed(self, run_id: str, lease: int, worker_id: str, name: str, store: Snapshot) -> None:
        """An executor performs an operation now. Raises Violation if it had to know that it was done (I4).

        One that lost its run and has not heard of it yet can not know; it gets no further than this.
        """
        self.done[run_id, name] += 1
        run = store.runs.get(run_id)
        if run is None or (run.status, run.lease, run.worker_id) != (RunStatus.EXECUTING, lease, worker_id):
            return
        rows = store.journals.get(run_id, ())
        forgotten = forgotten_by(rows)
        done = [row for row in rows if row.name == name and row.seq not in forgotten]
        require(not done, "I4", f"{run_id} {name} is performed again by {worker_id}: {done}")
        recorded = {row.name for row in rows}
        for operation in program_of(run_id, run.task, run.depth):
            if operation.name == name:
                break
            if isinstance(operation, RECORDED) or (isinstance(operation, Sleep) and operation.ms > 5_000):
                before = f"{run_id} {name} is performed before the entry of {operation.name}"
                require(operation.name in recorded, "I4", before)


def forgotten_by(rows: tuple[Row, ...] | list[Row]) -> set[int]:
    """The entries that others forget."""
    return {seq for row in rows if row.kind == "forget" for seq in row.forgets}
