"""Killing a run after every entry of its journal, and comparing how it ends."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pydantic_core import to_json

from holdfast.model.status import FINAL
from holdfast.sdk.policy import Request, asked
from holdfast.sdk.run import Run

if TYPE_CHECKING:
    from holdfast.testing import InMemory


@dataclass(frozen=True, slots=True)
class Played:
    """How a run went that was driven to its end.

    entries   how many its journal has
    outcome   status, output and error
    repeated  steps that were executed again after they had been recorded, and how often
    """

    entries: int
    outcome: tuple[str, Any, dict[str, Any]]
    repeated: dict[str, int]
    killed_at: str


def played(
    world: InMemory, task_id: str, payload: Any, completions: list[str | None], kills: Sequence[int]
) -> Played:
    """Runs a task in a world of its own; its process dies when its journal has as many entries as `kills` says."""
    world.prepare(kills)
    path = f"/api/v1/tasks/{quote(task_id, safe='')}/trigger"
    request = Request("POST", path, to_json({"payload": payload}))
    connection = world.client.connection
    run: Run[Any] = Run(connection, connection.run(asked(request)))
    world.settle()
    waiting = deque(completions)
    while run.refresh().status not in FINAL:
        tokens = world.waiting_tokens()
        due = world.next_due()
        if tokens and waiting:
            tokens[0].complete(json.loads(waiting.popleft() or "null"))
        elif due is not None:
            world.clock.reach(due)
        else:
            raise world.not_yet(run)
    worker = world.worker
    error = (run.attempts[-1].error if run.attempts else None) or {}
    told = {key: value for key, value in error.items() if key != "stackTrace"}
    again = worker.performed - worker.recorded - worker.lost
    return Played(
        len(world.journal(run.id)),
        (str(run.status), run.output, told),
        dict(again) if kills else {},
        worker.killed_at,
    )
