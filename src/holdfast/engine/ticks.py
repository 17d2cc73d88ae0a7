"""The ticks of schedules: each makes one run or is refused one, in the transaction that moves its schedule on.

What is decided on is the latest tick whose time is past: those that were missed before it, while no server was there,
make no runs. The key of the table of ticks keeps a tick from happening twice, whatever the clock of the store does.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from holdfast.engine.payload import schema_error
from holdfast.engine.trigger import NewRun, read_spec, trigger
from holdfast.errors import HoldfastError, Unprocessable
from holdfast.model.packet import SUPERJSON, python_value
from holdfast.model.schedule import (
    LATE_MS,
    UPCOMING,
    Schedule,
    due_ms,
    latest_tick,
    next_tick,
    schedule_of,
    upcoming,
)
from holdfast.model.status import FINAL, RunStatus
from holdfast.model.task import TaskSpec
from holdfast.stores.base import Tx, batch

AGAIN_MS = 60_000  # so long after a defect a schedule is looked at again
MAX_REFUSAL = 1_000  # characters; the rest is cut off
REFUSALS_KEPT_MS = 30 * 86_400_000  # at most, also where runs are kept for ever

T = TypeVar("T")
O = TypeVar("O")  # noqa: E741
log = logging.getLogger("holdfast.engine")


@dataclass(frozen=True, slots=True)
class _Tick:
    """A tick that is decided on, and the one after it. `row` is the schedule's, with what matters of its environment."""

    row: Mapping[str, Any]
    schedule: Schedule
    at: int
    due_at: int
    next_at: int
    next_due_at: int


@dataclass(frozen=True, slots=True)
class _Known:
    """What the ticks of one pass refer to, loaded at once."""

    ticks: frozenset[tuple[str, int]]
    statuses: Mapping[str, RunStatus]  # of the last runs of schedules
    specs: Mapping[tuple[str, str], str]  # JSON, of the tasks that are not retired
    live: Mapping[str, frozenset[str]]  # by environment for development, the tasks of its live workers


def fire_schedules(tx: Tx, limit: int) -> int:
    """Makes the runs of at most `limit` schedules whose time has come, the most overdue first; how many it looked at.

    A tick is never early by the store's clock. What is refused is kept with the reason, and the schedule goes on. One
    that can not be read is looked at again in a minute, and holds up nobody.
    """
    rows = tx.all("due_schedules", now=tx.now, limit=limit)
    if not rows:
        return 0
    moves: list[list[Any]] = []  # as the statement `move_schedules` takes them
    kept: list[list[Any]] = []  # as `add_ticks` does
    ticks = [tick for row in rows if (tick := _guarded(_tick, tx, row, row, moves)) is not None]
    known = _load(tx, ticks)
    asked: list[tuple[_Tick, NewRun]] = []
    for tick in ticks:
        if (
            tick.schedule.id,
            tick.at,
        ) in known.ticks:  # the clock was set back, or an activation came between
            moves.append(_move(tick))
            continue
        decided = _guarded(_decide, tx, (tick, known), tick.row, moves)
        if isinstance(decided, NewRun):
            asked.append((tick, decided))
        elif decided is not None:
            kept.append([tick.schedule.id, tick.at, None, decided])
            moves.append(_move(tick))
    for (tick, _), answer in zip(asked, trigger(tx, [new for _, new in asked]), strict=True):
        refused = isinstance(answer, HoldfastError)
        run_id = None if isinstance(answer, HoldfastError) else answer.id
        kept.append([tick.schedule.id, tick.at, run_id, str(answer)[:MAX_REFUSAL] if refused else None])
        moves.append(_move(tick, run_id))
    if kept:
        tx.do("add_ticks", ticks=batch(kept), now=tx.now)
    tx.do("move_schedules", moves=batch(moves))
    return len(rows)


def forget_refusals(tx: Tx, keep_ms: int | None, limit: int) -> None:
    """Retention: forgets at most `limit` old ticks that made no run. Those that made one go with it."""
    kept_ms = REFUSALS_KEPT_MS if keep_ms is None else min(keep_ms, REFUSALS_KEPT_MS)
    tx.do("forget_refusals", before=tx.now - kept_ms, limit=limit)


def payload_for(spec: TaskSpec, schedule: Schedule, tick_at: int) -> str | None:
    """The payload of a tick's run, superjson; None for a task that takes no tick, but nothing.

    Raises Unprocessable where its schema refuses both.
    """
    text = _payload(schedule, tick_at)
    if spec.payload_schema is None:
        return text
    of = f"task {spec.id}"
    error = schema_error(spec.payload_schema, python_value(text, SUPERJSON), "payload", of)
    if error is None:
        return text
    if schema_error(spec.payload_schema, None, "payload", of) is None:
        return None
    raise error


def _guarded(
    decide: Callable[[Tx, T], O | None], tx: Tx, item: T, row: Mapping[str, Any], moves: list[list[Any]]
) -> O | None:
    """What `decide` answers; None where it fails, and then the schedule of `row` is looked at again later."""
    try:
        return decide(tx, item)
    except Exception:
        log.exception(
            "schedule %s of task %s can not be read: it is tried again in a minute", row["id"], row["task"]
        )
        moves.append([row["id"], row["tick_at"], tx.now + AGAIN_MS, row["last_at"], row["last_run_id"]])
        return None


def _tick(tx: Tx, row: Mapping[str, Any]) -> _Tick:
    """The latest tick of a schedule whose time is past."""
    schedule = schedule_of(row)
    id, spec = schedule.id, schedule.spec
    at = latest_tick(spec, tx.now)
    if (
        at is not None and due_ms(id, spec, at) > tx.now
    ):  # then that of the one before is past: windows end before a tick
        at = latest_tick(spec, at - 1)
    at = max(at or 0, schedule.tick_at)
    next_at = next_tick(spec, at)
    return _Tick(row, schedule, at, due_ms(id, spec, at), next_at, due_ms(id, spec, next_at))


def _load(tx: Tx, ticks: Sequence[_Tick]) -> _Known:
    places = [[tick.schedule.id, tick.at] for tick in ticks]
    last = sorted({run_id for tick in ticks if (run_id := tick.schedule.last_run_id) is not None})
    tasks: dict[str, set[str]] = {}
    live: dict[str, frozenset[str]] = {}
    for tick in ticks:
        tasks.setdefault(tick.schedule.environment_id, set()).add(tick.schedule.task)
        if tick.row["environment_type"] == "dev":
            live[tick.schedule.environment_id] = frozenset()
    specs: dict[tuple[str, str], str] = {}
    for environment_id, names in tasks.items():
        for row in tx.all("task_specs", environment_id=environment_id, ids=batch(sorted(names))):
            if not row["retired"]:
                specs[environment_id, row["id"]] = row["spec"]
    for environment_id in live:
        workers = tx.ids("tasks_of_live_workers", environment_id=environment_id, now=tx.now)
        live[environment_id] = frozenset(task for tasks in workers for task in json.loads(tasks))
    return _Known(
        frozenset((row["schedule_id"], row["tick_at"]) for row in tx.all("known_ticks", ticks=batch(places))),
        {row["id"]: RunStatus(row["status"]) for row in tx.all("run_states", ids=batch(last))},
        specs,
        live,
    )


def _decide(tx: Tx, item: tuple[_Tick, _Known]) -> NewRun | str:
    """The run that a tick asks for, or why it asks for none."""
    tick, known = item
    schedule, own = tick.schedule, tick.schedule.environment_id
    spec = known.specs.get((own, schedule.task))
    late_ms = tx.now - tick.due_at
    if tick.row["archived_at"] is not None:
        return "its environment is archived"
    if schedule.catch_up == "none" and late_ms > LATE_MS:
        return f"it was missed: no server made its run until {late_ms // 1_000} seconds later, and it is not caught up on"
    if spec is None:
        return f"task {schedule.task} is not there: no worker has registered it, or the current deployment lacks it"
    if own in known.live and schedule.task not in known.live[own]:
        return f"no worker was running task {schedule.task}, and in an environment for development no run waits for one"
    last = known.statuses.get(schedule.last_run_id or "")
    if schedule.overlap == "skip" and last is not None and last not in FINAL:
        return f"run {schedule.last_run_id} of the tick before was not finished"
    try:
        payload = payload_for(read_spec(spec), schedule, tick.at)
    except Unprocessable as error:
        return str(error)[:MAX_REFUSAL]
    type = None if payload is None else SUPERJSON
    return NewRun(environment_id=own, task=schedule.task, payload=payload, payload_type=type)


def _move(tick: _Tick, run_id: str | None = None) -> list[Any]:
    schedule = tick.schedule
    last = [schedule.last_at, schedule.last_run_id] if run_id is None else [tick.at, run_id]
    return [schedule.id, tick.next_at, tick.next_due_at, *last]


def _payload(schedule: Schedule, tick_at: int) -> str:
    last_at = schedule.last_at
    dates = {"timestamp": tick_at} | ({} if last_at is None else {"lastTimestamp": last_at})
    following = upcoming(schedule.spec, tick_at, UPCOMING)
    value = {
        "scheduleId": schedule.id,
        "type": schedule.type,
        **{name: _iso(at) for name, at in dates.items()},
        **({} if schedule.external_id is None else {"externalId": schedule.external_id}),
        "timezone": schedule.timezone,
        "upcoming": [_iso(at) for at in following],
    }
    places = [*dates, *(f"upcoming.{number}" for number in range(len(following)))]
    return json.dumps({"json": value, "meta": {"values": {place: ["Date"] for place in places}}})


def _iso(at: int) -> str:
    return datetime.fromtimestamp(at / 1_000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
