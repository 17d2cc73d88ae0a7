"""Schedules: those that tasks declare, and those that the API makes. What becomes of their ticks is in ticks.py."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TypeVar

from holdfast.engine.ticks import payload_for
from holdfast.engine.trigger import read_spec
from holdfast.errors import HoldfastError, NotFound, Unprocessable
from holdfast.model import limits
from holdfast.model.schedule import Schedule, ScheduleSpec, check, due_ms, next_tick, schedule_of
from holdfast.model.task import TaskSpec
from holdfast.stores.base import Tx, batch

I = TypeVar("I")  # noqa: E741  # as in stores/base.py
O = TypeVar("O")  # noqa: E741
_TOLD = ("last_tick_at", "last_tick_run_id", "last_tick_refusal")
_COLUMNS = tuple(field.name for field in fields(Schedule) if field.name not in _TOLD)
_CHANGED = tuple(
    name
    for name in _COLUMNS
    if name not in ("project", "type", "deduplication_key", "last_at", "last_run_id", "created_at")
)


@dataclass(frozen=True, slots=True)
class NewSchedule:
    """A schedule to be made, or to be changed where the project has one with this key."""

    environment_id: str
    task: str
    spec: ScheduleSpec
    deduplication_key: str
    external_id: str | None = None


@dataclass(frozen=True, slots=True)
class OneSchedule:
    """A schedule that is named."""

    environment_id: str
    id: str


@dataclass(frozen=True, slots=True)
class ChangeSchedule(OneSchedule):
    """What a schedule is from now on, all of it."""

    task: str
    spec: ScheduleSpec
    external_id: str | None = None


@dataclass(frozen=True, slots=True)
class SetActive(OneSchedule):
    """Whether a schedule has ticks."""

    active: bool


@dataclass(frozen=True, slots=True)
class SchedulePage:
    """A page of schedules, oldest first, and how many there are on all pages."""

    schedules: Sequence[Schedule]
    total: int


def save(tx: Tx, items: list[NewSchedule]) -> list[Schedule | HoldfastError]:
    """Makes schedules; one whose key is taken is changed, and moves to this environment (rule R128).

    The same values again change nothing, so the next tick stays. One that is not active stays so. Answers Unprocessable
    for a spec that `check` refuses, a task that this environment does not have or that takes no tick, and past
    `MAX_SCHEDULES` in a project.
    """
    return _each(tx, items, _save)


def change(tx: Tx, items: list[ChangeSchedule]) -> list[Schedule | HoldfastError]:
    """Gives schedules other values. Answers as `save`, NotFound, or Unprocessable for one that a task declares."""
    return _each(tx, items, _change)


def set_active(tx: Tx, items: list[SetActive]) -> list[Schedule | HoldfastError]:
    """Pauses schedules or goes on with them, from the next tick on (rule R119); also those that tasks declare.

    Twice is once. Answers NotFound for a schedule that this environment does not have.
    """
    return _each(tx, items, _set_active)


def delete(tx: Tx, items: list[OneSchedule]) -> list[HoldfastError | None]:
    """Deletes schedules; their runs stay. Answers NotFound, or Unprocessable for one that a task declares."""
    return _each(tx, items, _delete)


def one(tx: Tx, environment_id: str, schedule_id: str) -> Schedule:
    """Raises NotFound for a schedule that this environment does not have."""
    row = tx.one("schedule", environment_id=environment_id, id=schedule_id)
    if row is None:
        raise _not_found(schedule_id)
    return schedule_of(row)


def page(tx: Tx, environment_id: str, skipped: int, limit: int) -> SchedulePage:
    """At most `limit` schedules after the first `skipped` ones."""
    rows = tx.all("schedules_page", environment_id=environment_id, skipped=skipped, limit=limit)
    total = tx.one("count_schedules", environment_id=environment_id)
    assert total is not None
    return SchedulePage([schedule_of(row) for row in rows], total["schedules"])


def of_run(tx: Tx, environment_id: str, run_id: str) -> Schedule | None:
    """The schedule that made a run; None where none did, or it is deleted or has moved to another environment."""
    row = tx.one("schedule_of_run", environment_id=environment_id, run_id=run_id)
    return None if row is None else schedule_of(row)


def declare_schedules(tx: Tx, environment_id: str, tasks: Sequence[TaskSpec]) -> None:
    """The schedules of these tasks are what they declare from now on (rule R111).

    One that is unchanged keeps its next tick, one that is paused stays so. `lock_versions` must have been called.
    """
    known = {row["task"] for row in tx.all("declared_schedules", environment_id=environment_id)}
    if not any(task.schedule is not None or task.id in known for task in tasks):
        return
    tx.do("lock_schedules")
    rows = tx.all("declared_schedules", environment_id=environment_id)
    declared = {row["task"]: schedule_of(row) for row in rows}
    for task in sorted(tasks, key=lambda task: task.id):
        old = declared.get(task.id)
        if task.schedule is None:
            if old is not None:
                _forget(tx, old)
        elif old is None:
            project = _project(tx, environment_id)
            _add(tx, _new(tx, environment_id, project, "DECLARATIVE", task.id, task.schedule))
        else:
            _write(tx, old, _with(tx, old, task.schedule))


def retire_schedules(tx: Tx, environment_id: str, tasks: Collection[str]) -> None:
    """Deletes the schedules that other tasks than these declare."""
    rows = tx.all("declared_schedules", environment_id=environment_id)
    if gone := [schedule_of(row) for row in rows if row["task"] not in tasks]:
        tx.do("lock_schedules")
        for schedule in gone:
            _forget(tx, schedule)


def _each(tx: Tx, items: list[I], act: Callable[[Tx, I], O]) -> list[O | HoldfastError]:
    answers: list[O | HoldfastError] = []
    tx.do("lock_schedules")
    for item in items:
        try:
            answers.append(act(tx, item))
        except HoldfastError as error:
            answers.append(error)
    return answers


def _save(tx: Tx, item: NewSchedule) -> Schedule:
    check(item.spec)
    project = _project(tx, item.environment_id)
    row = tx.one("schedule_of_key", project=project, key=item.deduplication_key)
    if row is None:
        count = tx.one("count_project_schedules", project=project)
        if count is not None and count["schedules"] >= limits.MAX_SCHEDULES:
            raise Unprocessable(
                f"this project has {count['schedules']} schedules: at most {limits.MAX_SCHEDULES}; delete some"
            )
        new = _new(tx, item.environment_id, project, "IMPERATIVE", item.task, item.spec)
        new = replace(new, external_id=item.external_id, deduplication_key=item.deduplication_key)
        _check_task(tx, new)
        _add(tx, new)
        return one(tx, item.environment_id, new.id)
    old = schedule_of(row)
    changed = replace(
        _with(tx, old, item.spec),
        environment_id=item.environment_id,
        task=item.task,
        external_id=item.external_id,
    )
    _check_task(tx, changed)
    _write(tx, old, changed)
    return one(tx, item.environment_id, old.id)


def _change(tx: Tx, item: ChangeSchedule) -> Schedule:
    old = _locked(tx, item)
    _refuse_declared(old)
    check(item.spec)
    changed = replace(_with(tx, old, item.spec), task=item.task, external_id=item.external_id)
    _check_task(tx, changed)
    _write(tx, old, changed)
    return one(tx, item.environment_id, old.id)


def _set_active(tx: Tx, item: SetActive) -> Schedule:
    old = _locked(tx, item)
    if item.active != old.active:
        new = replace(old, active=item.active, due_at=None)
        _write(tx, old, _from_next_tick(tx, new) if item.active else new)
    return one(tx, item.environment_id, old.id)


def _delete(tx: Tx, item: OneSchedule) -> None:
    old = _locked(tx, item)
    _refuse_declared(old)
    _forget(tx, old)


def _locked(tx: Tx, item: OneSchedule) -> Schedule:
    row = tx.one("schedule_for_update", environment_id=item.environment_id, id=item.id)
    if row is None:
        raise _not_found(item.id)
    return schedule_of(row)


def _refuse_declared(schedule: Schedule) -> None:
    if schedule.type == "DECLARATIVE":
        raise Unprocessable(
            f"schedule {schedule.id} is declared by the code of task {schedule.task!r}: change it there"
        )


def _check_task(tx: Tx, schedule: Schedule) -> None:
    """Raises Unprocessable where the schedule's task can not be run by it."""
    task = schedule.task
    row = None
    if "\x00" not in task:
        row = tx.one("task_specs", environment_id=schedule.environment_id, ids=batch([task]))
    if row is None or row["retired"]:
        raise Unprocessable(
            f"task is {task[: limits.MAX_TASK_ID]!r}: this environment has no such task; start a worker that has it, "
            "or deploy it",
            "task",
        )
    try:
        payload_for(read_spec(row["spec"]), schedule, schedule.tick_at)
    except Unprocessable as error:
        raise Unprocessable(
            f"task is {task!r}, which can not be scheduled, because its payload is no tick: {error}", "task"
        ) from None


def _new(tx: Tx, environment_id: str, project: str, type: str, task: str, spec: ScheduleSpec) -> Schedule:
    new = Schedule(
        id=tx.new_id("sched"),
        environment_id=environment_id,
        project=project,
        type=type,
        task=task,
        expression=spec.expression,
        timezone=spec.timezone,
        spread_window=spec.window,
        overlap=spec.overlap,
        catch_up=spec.catch_up,
        external_id=None,
        deduplication_key=None,
        active=True,
        tick_at=0,
        due_at=None,
        last_at=None,
        last_run_id=None,
        created_at=tx.now,
        updated_at=tx.now,
    )
    return _from_next_tick(tx, new)


def _with(tx: Tx, old: Schedule, spec: ScheduleSpec) -> Schedule:
    """`old` with another spec; the next tick is another one if the times are."""
    new = replace(
        old,
        expression=spec.expression,
        timezone=spec.timezone,
        spread_window=spec.window,
        overlap=spec.overlap,
        catch_up=spec.catch_up,
    )
    if (old.expression, old.timezone) != (spec.expression, spec.timezone):
        return _from_next_tick(tx, new)
    if old.spread_window == spec.window or not old.active:
        return new
    # A tick that is past and waits for its part of the window would be lost with the next one in its place.
    return replace(new, due_at=due_ms(new.id, spec, new.tick_at))


def _from_next_tick(tx: Tx, schedule: Schedule) -> Schedule:
    tick_at = next_tick(schedule.spec, tx.now)
    due_at = due_ms(schedule.id, schedule.spec, tick_at) if schedule.active else None
    return replace(schedule, tick_at=tick_at, due_at=due_at)


def _add(tx: Tx, new: Schedule) -> None:
    values = asdict(new)
    names = [name for name in _COLUMNS if name not in ("last_at", "last_run_id")]
    tx.do("add_schedule", **{name: values[name] for name in names} | {"active": int(new.active)})
    tx.wake("upkeep")


def _write(tx: Tx, old: Schedule, new: Schedule) -> None:
    if new == old:
        return
    values = asdict(new) | {"active": int(new.active), "updated_at": tx.now}
    tx.do("change_schedule", **{name: values[name] for name in _CHANGED})
    tx.wake("upkeep")


def _forget(tx: Tx, schedule: Schedule) -> None:
    tx.do("delete_schedule", id=schedule.id)
    tx.do("delete_refusals", schedule_id=schedule.id)


def _project(tx: Tx, environment_id: str) -> str:
    row = tx.one("schedule_project", id=environment_id)
    if row is None:
        raise NotFound(f"Environment not found: {environment_id!r}")
    return str(row["project"])


def _not_found(schedule_id: str) -> NotFound:
    return NotFound(f"Schedule not found: {schedule_id[:60]!r}")
