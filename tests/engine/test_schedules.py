"""Schedules: what tasks declare and the API makes, and what becomes of their ticks (rules R111 to R119, R128, R139)."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from clock import Clock
from engine.world import World, task
from holdfast.engine import deploy as deploying
from holdfast.engine import schedules, ticks, upkeep
from holdfast.engine.deploy import NewDeployment, Promotion
from holdfast.engine.projects import NewBranch, create_branches
from holdfast.engine.schedules import ChangeSchedule, NewSchedule, OneSchedule, SchedulePage, SetActive
from holdfast.errors import NotFound, Unprocessable
from holdfast.model import limits
from holdfast.model.environment import DEFAULT_PROJECT
from holdfast.model.run import Run
from holdfast.model.schedule import Schedule, ScheduleSpec, due_ms
from holdfast.stores import Store, open_store
from holdfast.stores.base import Tx
from holdfast.stores.listing import Filters, keep_members, list_runs

MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
PROD = "prod"
HOURLY = ScheduleSpec("0 * * * *")
NOTHING = '{"type": "null"}'  # the schema of a task without a parameter
TICK = '{"type": "object", "required": ["scheduleId", "timestamp", "upcoming"]}'


def iso(at: int) -> str:
    return datetime.fromtimestamp(at / 1_000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Schedules:
    """A world whose schedules are in prod, where the task `send` is known and no worker has to be alive."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.clock = world.clock
        world.register("send", environment=PROD)

    def save(
        self, spec: ScheduleSpec = HOURLY, key: str = "k", environment: str = PROD, **fields: Any
    ) -> Schedule:
        item = NewSchedule(environment, fields.pop("task", "send"), spec, key, **fields)
        saved: Schedule = self.world.do(schedules.save, item)
        return saved

    def change(self, schedule: Schedule, spec: ScheduleSpec, **fields: Any) -> Schedule:
        item = ChangeSchedule(
            schedule.environment_id, schedule.id, fields.pop("task", "send"), spec, **fields
        )
        changed: Schedule = self.world.do(schedules.change, item)
        return changed

    def activate(self, schedule: Schedule, active: bool = True) -> Schedule:
        item = SetActive(schedule.environment_id, schedule.id, active)
        changed: Schedule = self.world.do(schedules.set_active, item)
        return changed

    def delete(self, schedule: Schedule) -> None:
        self.world.do(schedules.delete, OneSchedule(schedule.environment_id, schedule.id))

    def one(self, schedule: Schedule, environment: str = PROD) -> Schedule:
        found: Schedule = self.world.read(lambda tx: schedules.one(tx, environment, schedule.id))
        return found

    def all(self, environment: str = PROD) -> list[Schedule]:
        page: SchedulePage = self.world.read(lambda tx: schedules.page(tx, environment, 0, 100))
        assert page.total == len(page.schedules)
        return list(page.schedules)

    def runs(self, environment: str = PROD, **filters: Any) -> list[Run]:
        """The runs of an environment, oldest first."""
        page = self.world.read(lambda tx: list_runs(tx, environment, Filters(**filters), 100))
        return list(reversed(page.runs))

    def ticks(self) -> list[tuple[int, str | None]]:
        """(tick, its refusal) of all that were decided on, in order."""
        rows = self.world.read(
            lambda tx: tx.select("select tick_at, refusal from ticks order by tick_at", {})
        )
        return [(row[0], row[1]) for row in rows]

    def move_to(self, at: int) -> None:
        self.clock.now = at
        self.world.upkeep()

    def execute(self, statement: str) -> None:
        self.world.read(lambda tx: tx._connection.raw.execute(statement))


@pytest.fixture
def prod(world: World) -> Schedules:
    return Schedules(world)


def told(run: Run) -> dict[str, Any]:
    """The JSON part of a tick's payload."""
    assert run.payload_type == "application/super+json"
    value = json.loads(run.payload or "")["json"]
    assert isinstance(value, dict)
    return value


# What the API makes


def test_a_new_schedule_waits_for_its_next_tick(prod: Schedules) -> None:
    spec = ScheduleSpec("30 9 * * *", "Europe/Berlin")
    made = prod.save(spec, external_id="user_42")
    assert made.id.startswith("sched_")
    assert made.id.removeprefix("sched_").isalnum()
    assert (made.type, made.task, made.active, made.project) == (
        "IMPERATIVE",
        "send",
        True,
        DEFAULT_PROJECT,
    )
    assert (made.external_id, made.deduplication_key, made.spec) == ("user_42", "k", spec)
    assert iso(made.tick_at) == "2026-11-25T08:30:00.000Z"
    assert made.due_at == made.tick_at
    assert (made.last_at, made.last_run_id, made.last_tick_at) == (None, None, None)
    assert prod.one(made) == made
    assert prod.all() == [made]
    assert prod.all("dev") == []
    with pytest.raises(NotFound, match="Schedule not found"):
        prod.one(made, "dev")


def test_the_same_key_is_the_same_schedule(prod: Schedules) -> None:
    made = prod.save()
    prod.clock.advance(MINUTE)
    assert prod.save() == made
    changed = prod.save(ScheduleSpec("@daily"), external_id="user")
    assert (changed.id, changed.created_at, changed.expression) == (made.id, made.created_at, "@daily")
    assert iso(changed.tick_at) == "2026-11-25T00:00:00.000Z"
    assert changed.updated_at == prod.clock.now
    assert prod.save(key="other").id != made.id
    assert len(prod.all()) == 2


def test_what_is_changed_is_changed_as_a_whole(prod: Schedules) -> None:
    made = prod.save(ScheduleSpec("@daily", "Europe/Berlin", "30m"), external_id="user")
    changed = prod.change(made, HOURLY)
    assert (changed.spec, changed.external_id, changed.deduplication_key) == (HOURLY, None, "k")
    assert iso(changed.tick_at) == "2026-11-24T13:00:00.000Z"
    with pytest.raises(NotFound):
        prod.change(replace(made, environment_id="dev"), HOURLY)
    with pytest.raises(NotFound):
        prod.change(replace(made, id="sched_0"), HOURLY)


@pytest.mark.parametrize(
    ("spec", "fields", "param"),
    [
        (ScheduleSpec("every tuesday"), {}, "cron"),
        (ScheduleSpec("@daily", "Mars/Olympus"), {}, "timezone"),
        (ScheduleSpec("@daily", window="a while"), {}, "window"),
        (HOURLY, {"task": "nobody's"}, "task"),
        (HOURLY, {"task": "\x00"}, "task"),
        (HOURLY, {"task": "number"}, "task"),
        (HOURLY, {"environment": "dev"}, "task"),
    ],
)
def test_what_is_refused_is_not_made(
    prod: Schedules, spec: ScheduleSpec, fields: dict[str, Any], param: str
) -> None:
    prod.world.register(task("number", payload_schema='{"type": "number"}'), environment=PROD)
    with pytest.raises(Unprocessable) as refused:
        prod.save(spec, **fields)
    assert refused.value.param == param
    made = prod.save(key="other")
    if "environment" not in fields:
        with pytest.raises(Unprocessable):
            prod.change(made, spec, **fields)
    assert prod.all() == [made]


def test_a_key_moves_its_schedule_between_the_environments_of_a_project(prod: Schedules) -> None:
    made = prod.save()
    prod.world.register("send")
    moved = prod.save(environment="dev")
    assert (moved.id, moved.environment_id, moved.tick_at) == (made.id, "dev", made.tick_at)
    assert prod.all() == []
    assert prod.all("dev") == [moved]
    with pytest.raises(NotFound):
        prod.delete(made)
    prod.move_to(made.tick_at)
    assert (len(prod.runs("dev")), len(prod.runs())) == (0, 0)
    assert "no worker" in (prod.ticks()[0][1] or "")


def test_there_is_a_most_of_schedules_in_a_project(prod: Schedules, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_SCHEDULES", 2)
    prod.save(key="1")
    prod.save(key="2")
    with pytest.raises(Unprocessable, match="at most 2"):
        prod.save(key="3")
    prod.save(ScheduleSpec("@daily"), key="2")


def test_pages_hold_each_schedule_once_oldest_first(prod: Schedules) -> None:
    made = []
    for number in range(5):
        prod.clock.advance(1)
        made.append(prod.save(key=str(number)).id)
    seen = []
    for skipped in range(0, 6, 2):
        page = prod.world.read(lambda tx, skipped=skipped: schedules.page(tx, PROD, skipped, 2))
        assert page.total == 5
        seen += [schedule.id for schedule in page.schedules]
    assert seen == made


def test_a_deleted_schedule_is_gone_and_its_runs_stay(prod: Schedules) -> None:
    made = prod.save()
    prod.move_to(made.tick_at)
    [run] = prod.runs()
    assert prod.world.read(lambda tx: schedules.of_run(tx, PROD, run.id)).id == made.id
    prod.delete(made)
    assert prod.all() == []
    assert prod.runs(schedule=made.id) == [run]
    assert prod.world.read(lambda tx: schedules.of_run(tx, PROD, run.id)) is None
    with pytest.raises(NotFound):
        prod.delete(made)
    prod.clock.advance(2 * HOUR)
    assert prod.world.upkeep() == 0


# Ticks


def test_a_tick_makes_one_run_and_never_early(prod: Schedules) -> None:
    made = prod.save(external_id="user")
    prod.move_to(made.tick_at - 1)
    assert prod.runs() == []
    prod.move_to(made.tick_at)
    [first] = prod.runs()
    assert first.status == "QUEUED"
    assert first.created_at == made.tick_at
    prod.world.upkeep()
    assert prod.runs() == [first]
    now = prod.one(made)
    assert (now.last_at, now.last_run_id, now.last_tick_at) == (made.tick_at, first.id, made.tick_at)
    assert (now.last_tick_run_id, now.last_tick_refusal) == (first.id, None)
    assert now.tick_at == now.due_at == made.tick_at + HOUR
    prod.move_to(now.tick_at + 20)
    _, second = prod.runs()
    ahead = [iso(now.tick_at + number * HOUR) for number in range(1, 11)]
    assert told(second) == {
        "scheduleId": made.id,
        "type": "IMPERATIVE",
        "timestamp": iso(now.tick_at),
        "lastTimestamp": iso(made.tick_at),
        "externalId": "user",
        "timezone": "UTC",
        "upcoming": ahead,
    }
    assert "lastTimestamp" not in told(first)
    types = json.loads(second.payload or "")["meta"]["values"]
    assert types == {
        place: ["Date"]
        for place in ("timestamp", "lastTimestamp", *(f"upcoming.{number}" for number in range(10)))
    }


def test_upkeep_knows_when_the_next_tick_is(prod: Schedules) -> None:
    made = prod.save()
    assert prod.world.do(upkeep.upkeep, upkeep.Due(lose_workers=False)).next_due_at == made.tick_at
    prod.activate(made, False)
    assert prod.world.do(upkeep.upkeep, upkeep.Due(lose_workers=False)).next_due_at is None


def test_missed_ticks_make_one_run_for_the_latest(prod: Schedules) -> None:
    made = prod.save()
    prod.move_to(made.tick_at + 5 * HOUR + 10 * MINUTE)
    [run] = prod.runs()
    assert told(run)["timestamp"] == iso(made.tick_at + 5 * HOUR)
    assert told(run)["upcoming"][0] == iso(made.tick_at + 6 * HOUR)
    assert prod.one(made).tick_at == made.tick_at + 6 * HOUR
    assert len(prod.ticks()) == 1


def test_one_that_does_not_catch_up_makes_none_and_tells(prod: Schedules) -> None:
    made = prod.save(replace(HOURLY, catch_up="none"))
    prod.move_to(made.tick_at + 3 * HOUR + MINUTE + 1)
    assert prod.runs() == []
    [(at, refusal)] = prod.ticks()
    assert (at, "missed" in (refusal or "")) == (made.tick_at + 3 * HOUR, True)
    now = prod.one(made)
    assert (now.last_at, now.last_tick_at, now.last_tick_refusal) == (None, at, refusal)
    prod.move_to(now.tick_at + MINUTE)  # late, but not too late
    assert len(prod.runs()) == 1


def test_where_runs_must_not_overlap_a_tick_is_refused_until_the_last_one_ended(prod: Schedules) -> None:
    made = prod.save(replace(HOURLY, overlap="skip"))
    prod.move_to(made.tick_at)
    [first] = prod.runs()
    prod.move_to(made.tick_at + HOUR)
    assert prod.runs() == [first]
    now = prod.one(made)
    assert first.id in (now.last_tick_refusal or "")
    assert (now.last_at, now.last_run_id) == (made.tick_at, first.id)
    worker = prod.world.worker("send", environment=PROD)
    [claimed] = prod.world.claim(worker, environment=PROD)
    prod.world.succeed(worker, claimed)
    prod.move_to(made.tick_at + 2 * HOUR)
    _, second = prod.runs()
    assert told(second)["lastTimestamp"] == iso(made.tick_at)


def test_unless_told_otherwise_runs_may_overlap(prod: Schedules) -> None:
    made = prod.save()
    prod.move_to(made.tick_at)
    prod.move_to(made.tick_at + HOUR)
    assert len(prod.runs()) == 2


def test_in_development_there_are_no_ticks_without_a_worker(prod: Schedules) -> None:
    world = prod.world
    worker = world.worker(task("send", schedule=HOURLY))
    [made] = prod.all("dev")
    world.leave(worker)
    prod.move_to(made.tick_at)
    assert prod.runs("dev") == []
    now = prod.one(made, "dev")
    assert (now.last_at, "no worker" in (now.last_tick_refusal or "")) == (None, True)
    world.worker("other", fingerprint="other")  # one that does not have it
    prod.move_to(now.tick_at)
    assert prod.runs("dev") == []
    worker = world.worker(task("send", schedule=HOURLY))
    prod.clock.now = now.tick_at + HOUR - 1
    world.renew(worker)
    prod.move_to(now.tick_at + HOUR)
    [run] = prod.runs("dev")
    assert "lastTimestamp" not in told(run)


def test_an_inactive_schedule_has_no_ticks_and_begins_again_with_the_next(prod: Schedules) -> None:
    made = prod.save()
    assert prod.activate(made) == made
    off = prod.activate(made, False)
    assert (off.active, off.due_at) == (False, None)
    assert prod.activate(made, False) == off
    prod.move_to(made.tick_at + 3 * HOUR + MINUTE)
    assert prod.ticks() == []
    changed = prod.save(ScheduleSpec("30 * * * *"))
    assert (changed.active, changed.due_at) == (False, None)
    on = prod.activate(made)
    assert (on.active, on.due_at) == (True, made.tick_at + 3 * HOUR + 30 * MINUTE)
    prod.world.upkeep()
    assert prod.runs() == []
    prod.move_to(on.tick_at)
    assert len(prod.runs()) == 1
    with pytest.raises(NotFound):
        prod.activate(replace(made, environment_id="dev"))


def test_within_its_window_a_tick_is_later_but_tells_its_own_time(prod: Schedules) -> None:
    made = [prod.save(replace(HOURLY, window="30m"), key=str(number)) for number in range(20)]
    for schedule in made:
        assert schedule.due_at == due_ms(schedule.id, schedule.spec, schedule.tick_at)
    assert len({schedule.due_at for schedule in made}) > 15
    for schedule in sorted(made, key=lambda schedule: schedule.due_at or 0):
        assert schedule.due_at is not None
        prod.move_to(schedule.due_at - 1)
        assert prod.runs(schedule=schedule.id) == []
        prod.move_to(schedule.due_at)
        [run] = prod.runs(schedule=schedule.id)
        assert told(run)["timestamp"] == iso(schedule.tick_at)
        assert prod.one(schedule).tick_at == schedule.tick_at + HOUR


@pytest.mark.parametrize("window", [None, "10m", "100%"])
def test_another_window_loses_no_tick_that_waits_for_its_part_of_the_old_one(
    prod: Schedules, window: str | None
) -> None:
    made = prod.save(replace(HOURLY, window="59m"))
    prod.move_to(made.tick_at)
    assert prod.runs() == []
    changed = prod.save(replace(HOURLY, window=window))
    assert changed.tick_at == made.tick_at
    assert changed.due_at == due_ms(made.id, changed.spec, made.tick_at)
    prod.move_to(made.tick_at + HOUR - 1)
    assert [told(run)["timestamp"] for run in prod.runs()] == [iso(made.tick_at)]
    prod.activate(made, False)
    assert prod.save(replace(HOURLY, window="5m")).due_at is None


def test_a_missed_tick_whose_window_is_not_over_is_left_for_its_time(prod: Schedules) -> None:
    made = prod.save(replace(HOURLY, window="100%"))
    third = made.tick_at + 2 * HOUR
    due = due_ms(made.id, made.spec, third)
    prod.move_to(due - 1)
    [run] = prod.runs()
    assert told(run)["timestamp"] == iso(third - HOUR)
    prod.move_to(due)
    assert [told(run)["timestamp"] for run in prod.runs()] == [iso(third - HOUR), iso(third)]


def test_a_trigger_that_is_refused_is_kept_with_the_reason_and_the_schedule_goes_on(prod: Schedules) -> None:
    made = prod.save()
    prod.world.register(
        task("send", payload_schema='{"type": "number"}'), environment=PROD, fingerprint="new"
    )
    prod.move_to(made.tick_at)
    assert prod.runs() == []
    assert "payload" in (prod.one(made).last_tick_refusal or "")
    prod.world.register("send", environment=PROD, fingerprint="newer")
    prod.move_to(made.tick_at + HOUR)
    assert len(prod.runs()) == 1
    assert [refusal is None for _, refusal in prod.ticks()] == [False, True]


@pytest.mark.parametrize(("schema", "has_payload"), [(NOTHING, False), (TICK, True), ("{}", True)])
def test_a_task_is_given_the_tick_unless_it_takes_nothing(
    prod: Schedules, schema: str, has_payload: bool
) -> None:
    prod.world.register(task("other", payload_schema=schema), environment=PROD)
    made = prod.save(task="other")
    prod.move_to(made.tick_at)
    [run] = prod.runs()
    assert (run.payload is not None) == has_payload
    assert (run.payload_type is not None) == has_payload


def test_a_clock_that_is_set_back_makes_no_tick_twice(prod: Schedules) -> None:
    made = prod.save()
    prod.move_to(made.tick_at + HOUR)
    prod.clock.now = made.tick_at - MINUTE
    prod.activate(made, False)
    prod.activate(made)
    for at in range(made.tick_at, made.tick_at + 3 * HOUR, 10 * MINUTE):
        prod.move_to(at)
    times = [told(run)["timestamp"] for run in prod.runs()]
    assert sorted(times) == [iso(made.tick_at + number * HOUR) for number in range(3)]


def test_a_schedule_that_can_not_be_read_stops_neither_upkeep_nor_the_others(
    prod: Schedules, caplog: pytest.LogCaptureFixture
) -> None:
    bad = [prod.save(key=f"bad-{number}") for number in range(4)]
    good = prod.save(key="good")
    prod.world.register("broken", environment=PROD)
    other = prod.save(key="broken", task="broken")
    prod.execute(f"update schedules set timezone = 'Mars/Olympus' where id = '{bad[0].id}'")
    prod.execute(f"update schedules set expression = 'nonsense' where id = '{bad[1].id}'")
    prod.execute(f"update schedules set spread_window = 'a while' where id = '{bad[2].id}'")
    prod.execute(f"update schedules set expression = '0 0 30 2 *' where id = '{bad[3].id}'")
    prod.execute("update tasks set spec = '{}' where id = 'broken'")
    delayed = prod.world.trigger("send", PROD, delay="1h")
    prod.move_to(good.tick_at)
    [run] = prod.runs(schedule=good.id)
    assert told(run)["scheduleId"] == good.id
    assert len(prod.ticks()) == 1
    assert all(schedule.id in caplog.text for schedule in (*bad, other))
    assert prod.world.upkeep() == 0  # not again at once
    assert prod.world.run(delayed, PROD).status == "QUEUED"
    prod.execute(f"update schedules set timezone = 'Europe/Berlin' where id = '{bad[0].id}'")
    prod.clock.advance(MINUTE)
    assert prod.world.upkeep() == 5
    [run] = prod.runs(schedule=bad[0].id)
    assert told(run)["timestamp"] == iso(good.tick_at)
    assert len(prod.all()) == 6


def test_a_task_that_is_gone_makes_no_runs_that_wait_for_it(prod: Schedules) -> None:
    made = prod.save()
    world = prod.world
    world.do(deploying.deploy, NewDeployment(environment_id=PROD, fingerprint="1", tasks=[task("other")]))
    prod.move_to(made.tick_at)
    assert prod.runs() == []
    assert "task send is not there" in (prod.one(made).last_tick_refusal or "")


def test_an_archived_branch_has_no_ticks(prod: Schedules) -> None:
    branch = prod.world.do(create_branches, NewBranch(DEFAULT_PROJECT, "try"))
    prod.world.register("send", environment=branch.id)
    made = prod.save(environment=branch.id)
    prod.execute(f"update environments set archived_at = 1 where id = '{branch.id}'")
    prod.move_to(made.tick_at)
    assert prod.runs(branch.id) == []
    assert "archived" in (prod.ticks()[0][1] or "")


def test_many_ticks_at_once_are_taken_in_turns(prod: Schedules) -> None:
    made = [prod.save(key=str(number)) for number in range(upkeep.SCHEDULES_BATCH + 5)]
    prod.clock.now = made[0].tick_at
    assert prod.world.do(upkeep.upkeep, upkeep.Due()).more
    assert not prod.world.do(upkeep.upkeep, upkeep.Due()).more
    assert len(prod.ticks()) == len(made)


# What tasks declare


def test_a_task_declares_its_schedule_by_registering(prod: Schedules) -> None:
    world = prod.world
    spec = ScheduleSpec("0 9 * * *", "Europe/Berlin", "30m", "skip", "none")
    world.register(task("send", schedule=spec), environment=PROD)
    [made] = prod.all()
    assert (made.type, made.task, made.spec, made.deduplication_key) == ("DECLARATIVE", "send", spec, None)
    prod.clock.advance(MINUTE)
    world.register(task("send", schedule=spec), environment=PROD)
    assert prod.all() == [made]
    world.register(task("send", schedule=HOURLY), environment=PROD, fingerprint="2")
    [changed] = prod.all()
    assert (changed.id, changed.spec, iso(changed.tick_at)) == (made.id, HOURLY, "2026-11-24T13:00:00.000Z")
    world.register("other", environment=PROD, fingerprint="3")  # another worker says nothing about it
    assert prod.all() == [changed]
    world.register("send", environment=PROD, fingerprint="4")
    assert prod.all() == []


def test_what_only_concerns_runs_keeps_the_next_tick(prod: Schedules) -> None:
    prod.world.register(task("send", schedule=HOURLY), environment=PROD)
    [made] = prod.all()
    prod.clock.now = made.tick_at  # it is due, and no upkeep came yet
    prod.world.register(task("send", schedule=replace(HOURLY, overlap="skip")), environment=PROD)
    assert prod.all()[0].tick_at == made.tick_at
    prod.world.upkeep()
    assert len(prod.runs()) == 1


def test_a_declared_schedule_is_paused_by_the_api_and_changed_by_its_code_only(prod: Schedules) -> None:
    prod.world.register(task("send", schedule=HOURLY), environment=PROD)
    [made] = prod.all()
    with pytest.raises(Unprocessable, match="declared by the code"):
        prod.change(made, ScheduleSpec("@daily"))
    with pytest.raises(Unprocessable, match="declared by the code"):
        prod.delete(made)
    prod.activate(made, False)
    prod.world.register(task("send", schedule=ScheduleSpec("@daily")), environment=PROD, fingerprint="2")
    [changed] = prod.all()
    assert (changed.expression, changed.active, changed.due_at) == ("@daily", False, None)
    assert prod.activate(made).due_at == changed.tick_at


def test_schedules_go_with_the_deployment_that_is_current(prod: Schedules) -> None:
    world = prod.world

    def deploy(code: str, *tasks: Any, promote: bool = True) -> str:
        item = NewDeployment(environment_id=PROD, fingerprint=code, tasks=tasks, promote=promote)
        version: str = world.do(deploying.deploy, item).version
        return version

    first = deploy("1", task("send", schedule=HOURLY), task("other", schedule=HOURLY))
    imperative = prod.save(key="mine")
    assert sorted(schedule.task for schedule in prod.all()) == ["other", "send", "send"]
    second = deploy("2", task("send", schedule=ScheduleSpec("@daily")), promote=False)
    assert {schedule.expression for schedule in prod.all()} == {"0 * * * *"}
    world.register(task("send", schedule=ScheduleSpec("@weekly")), environment=PROD, fingerprint="3")
    assert {schedule.expression for schedule in prod.all()} == {"0 * * * *"}
    world.do(deploying.promote, Promotion(PROD, second))
    assert sorted(schedule.expression for schedule in prod.all()) == ["0 * * * *", "@daily"]
    assert imperative.id in {schedule.id for schedule in prod.all()}
    world.do(deploying.promote, Promotion(PROD, first))
    assert sorted(schedule.task for schedule in prod.all()) == ["other", "send", "send"]


def test_an_optional_field_that_is_not_used_makes_no_new_version(prod: Schedules) -> None:
    world = prod.world
    spec = task("send")
    assert "schedule" not in spec.as_stored()
    version = world.register(spec, environment=PROD).version
    assert world.register(spec, environment=PROD).version == version
    assert world.register(replace(spec, schedule=HOURLY), environment=PROD).version != version


# Lists and retention


def test_lists_and_bulk_actions_find_the_runs_of_a_schedule(prod: Schedules) -> None:
    made, other = prod.save(key="1"), prod.save(key="2")
    for _ in range(5):
        prod.clock.advance(HOUR)
        prod.world.upkeep()
    found = [run.id for run in prod.runs(schedule=made.id)]
    assert len(found) == 5
    assert not set(found) & {run.id for run in prod.runs(schedule=other.id)}

    def page(**cursor: str) -> Any:
        return prod.world.read(lambda tx: list_runs(tx, PROD, Filters(schedule=made.id), 2, **cursor))

    first = page()
    second = page(after=first.next)
    third = page(after=second.next)
    seen = [run.id for runs in (first, second, third) for run in runs.runs]
    assert (seen, third.next) == (found[::-1], None)
    assert page(before=third.previous).runs == second.runs
    assert prod.runs(schedule=made.id, task=["other"]) == []
    assert prod.runs(schedule=made.id, tag=["a"]) == []
    assert prod.runs("dev", schedule=made.id) == []

    def members(tx: Tx) -> int:
        tx._connection.select(
            "insert into bulk_actions (id, environment_id, type, status, scanned, acted, total, success, failure,"
            " created_at, updated_at) values ('bulk_1', 'prod', 'CANCEL', 'PENDING', '', '', 0, 0, 0, 1, 1)"
            " returning id",
            {},
        )
        return keep_members(tx, PROD, Filters(schedule=made.id), "bulk_1", found[0], found[3], True)

    assert prod.world.read(members) == 3
    assert [run.id for run in prod.runs(schedule=made.id, bulk_id="bulk_1")] == found[1:4]


def test_ticks_go_with_their_runs_and_refusals_with_their_age(prod: Schedules) -> None:
    world = prod.world
    made = prod.save(replace(HOURLY, overlap="skip"))
    prod.move_to(made.tick_at)
    prod.move_to(made.tick_at + HOUR)
    worker = world.worker("send", environment=PROD)
    [run] = world.claim(worker, environment=PROD)
    world.succeed(worker, run)
    prod.activate(made, False)
    assert len(prod.ticks()) == 2
    prod.clock.advance(2 * DAY)
    for keep_ms, left in ((3 * DAY, 2), (DAY, 0)):
        for environment in ("dev", PROD):
            world.do(upkeep.retain, upkeep.Retention(environment, keep_ms))
        assert len(prod.ticks()) == left
    assert prod.one(made).last_tick_at is None


def test_old_refusals_are_forgotten_as_fast_as_they_come(prod: Schedules) -> None:
    """A project may have thousands of schedules with a tick every minute, and a pass of retention is once a minute."""
    many = 10 * upkeep.BATCH
    refused = [["sched_1", at, None, "missed"] for at in range(many)]
    prod.world.read(lambda tx: tx.do("add_ticks", ticks=json.dumps(refused), now=tx.now))
    prod.clock.advance(2 * DAY)
    prod.world.do(upkeep.retain, upkeep.Retention(PROD, DAY))
    assert prod.ticks() == []


def test_where_runs_are_kept_for_ever_refusals_are_kept_for_a_month(prod: Schedules) -> None:
    made = prod.save(replace(HOURLY, catch_up="none"))
    prod.move_to(made.tick_at + DAY + 10 * MINUTE)
    prod.activate(made, False)
    for days, left in ((29, 1), (2, 0)):
        prod.clock.advance(days * DAY)
        prod.world.do(upkeep.retain, upkeep.Retention(PROD, None))
        assert len(prod.ticks()) == left


# Several servers


@pytest.mark.parametrize("store_url", ["postgres"], indirect=True)  # SQLite has one writer: they never meet
def test_three_servers_make_each_tick_once(migrated_postgres_url: str, store: Store, clock: Clock) -> None:
    prod = Schedules(World(store, clock))
    made = [prod.save(key=str(number)) for number in range(150)]
    servers = [store, *(open_store(migrated_postgres_url, clock=clock) for _ in range(2))]
    failed: list[BaseException] = []

    def keep(server: Store, turns: threading.Barrier) -> None:
        try:
            turns.wait()
            while server.transact(upkeep.upkeep, [upkeep.Due()])[0].moved:
                pass
        except BaseException as error:
            failed.append(error)

    try:
        for hour in range(4):
            clock.now = made[0].tick_at + hour * HOUR
            turns = threading.Barrier(3, timeout=30)
            threads = [threading.Thread(target=keep, args=(server, turns)) for server in servers]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert failed == []
            # What one passed over because another held it, that one has done.
            assert len(prod.ticks()) == (hour + 1) * len(made)
            rows = prod.world.read(lambda tx: tx.select("select count(*) from runs", {}))
            assert rows[0][0] == (hour + 1) * len(made)
    finally:
        for server in servers[1:]:
            server.close()


@pytest.mark.parametrize("store_url", ["postgres"], indirect=True)  # SQLite has one writer: they never meet
def test_a_change_while_its_tick_is_made_waits_for_it(
    migrated_postgres_url: str, store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither makes the tick twice, nor undoes what the other did."""
    prod = Schedules(World(store, clock))
    made = prod.save()
    other = open_store(migrated_postgres_url, clock=clock)
    holds, goes_on = threading.Event(), threading.Event()
    fire: Callable[[Tx, int], int] = ticks.fire_schedules

    def slowly(tx: Tx, limit: int) -> int:
        fired = fire(tx, limit)
        holds.set()
        goes_on.wait(30)
        return fired

    monkeypatch.setattr(upkeep, "fire_schedules", slowly)
    clock.now = made.tick_at
    keeper = threading.Thread(target=lambda: other.transact(upkeep.upkeep, [upkeep.Due()]))
    keeper.start()
    try:
        assert holds.wait(30)
        changed: list[Schedule] = []
        changer = threading.Thread(target=lambda: changed.append(prod.save(ScheduleSpec("*/10 * * * *"))))
        changer.start()
        changer.join(0.3)
        assert changer.is_alive()
        goes_on.set()
        changer.join(30)
        keeper.join(30)
    finally:
        goes_on.set()
        other.close()
    monkeypatch.undo()
    now = prod.one(made)
    assert (now.expression, now.last_at, now.tick_at) == (
        "*/10 * * * *",
        made.tick_at,
        made.tick_at + 10 * MINUTE,
    )
    prod.world.upkeep()
    assert len(prod.runs()) == 1
