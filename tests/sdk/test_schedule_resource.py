"""`client.schedules` against a server, on both fronts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from holdfast import Holdfast, LastTick, errors, task
from sdk.fronts import FRONTS, Front
from sdk.world import KEY, Served


@pytest.fixture
def client(served: Served) -> Any:
    there = Holdfast(served.url, KEY)
    yield there
    there.close()


def declared(served: Served) -> Any:
    """A task that a worker has registered."""

    @task(id="report")
    def report(tick: dict[str, Any] | None = None) -> None: ...

    served.hand().close()
    return report


@FRONTS
def test_schedules_are_made_changed_and_deleted(client: Holdfast, served: Served, front: str) -> None:
    schedules = Front(client.schedules, front)
    report = declared(served)
    assert schedules.list() == []
    made = schedules.create(
        report,
        "0 9 * * *",
        deduplication_key="k",
        timezone="Europe/Paris",
        window="30m",
        external_id="user_42",
    )
    assert (made.type, made.task, made.active, made.cron, made.timezone, made.window) == (
        "IMPERATIVE",
        "report",
        True,
        "0 9 * * *",
        "Europe/Paris",
        "30m",
    )
    assert (made.deduplication_key, made.external_id, made.last_tick) == ("k", "user_42", None)
    assert made.description
    assert datetime.now(UTC) < made.next_run <= made.next_run_effective_at
    assert made.next_run_effective_at - made.next_run < timedelta(minutes=30)
    assert schedules.retrieve(made.id) == made
    assert schedules.list() == [made]

    same = schedules.create("report", "@daily", deduplication_key="k")
    assert (same.id, same.cron, same.timezone, same.window, same.external_id) == (
        made.id,
        "@daily",
        "UTC",
        None,
        None,
    )
    changed = schedules.update(made.id, report, "@hourly", external_id="user_43")
    assert (changed.id, changed.cron, changed.external_id, changed.deduplication_key) == (
        made.id,
        "@hourly",
        "user_43",
        "k",
    )
    for _ in range(2):
        paused = schedules.deactivate(made.id)
        assert (paused.active, paused.next_run, paused.next_run_effective_at) == (False, None, None)
    for _ in range(2):
        assert schedules.activate(made.id).active
    schedules.delete(made.id)
    for call in (
        lambda: schedules.retrieve(made.id),
        lambda: schedules.delete(made.id),
        lambda: schedules.activate(made.id),
        lambda: schedules.deactivate("a/b"),
        lambda: schedules.update(made.id, report, "@daily"),
    ):
        with pytest.raises(errors.NotFound):
            call()


@FRONTS
def test_schedules_are_listed_over_all_pages(
    client: Holdfast, served: Served, front: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from holdfast.sdk.resources import base

    monkeypatch.setattr(base, "PAGE", 2)
    declared(served)
    made = {client.schedules.create("report", "@daily", deduplication_key=key).id for key in "abcde"}
    listed = [one.id for one in Front(client.schedules, front).list()]
    assert len(listed) == 5
    assert set(listed) == made


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"cron": "every tuesday"}, "cron"),
        ({"timezone": "Mars/Olympus"}, "timezone"),
        ({"window": "25h"}, "window"),
        ({"task": "no-such-task"}, "task"),
    ],
)
def test_what_can_be_no_schedule_is_refused(
    client: Holdfast, served: Served, fields: dict[str, Any], named: str
) -> None:
    declared(served)
    given = {"task": "report", "cron": "@daily", **fields}
    with pytest.raises(errors.Unprocessable) as refusal:
        client.schedules.create(**given, deduplication_key="k")
    assert refusal.value.param == named


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"task": None}, "task"),
        ({"task": ""}, "task"),
        ({"cron": 5}, "cron"),
        ({"timezone": UTC}, "timezone"),
        ({"window": timedelta(minutes=5)}, "window"),
        ({"external_id": 7}, "external_id"),
        ({"deduplication_key": ""}, "deduplication_key"),
        ({"deduplication_key": 7}, "deduplication_key"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_before_anything_is_asked(
    fields: dict[str, Any], named: str
) -> None:
    client = Holdfast("http://localhost:1", "k")
    given = {"task": "report", "cron": "@daily", "deduplication_key": "k", **fields}
    with pytest.raises(errors.InvalidRequest) as refusal:
        client.schedules.create(**given)
    assert refusal.value.param == named


@FRONTS
def test_what_became_of_the_last_tick_is_told(front: str) -> None:
    told = {
        "id": "sched_1",
        "type": "DECLARATIVE",
        "task": "report",
        "active": True,
        "generator": {"type": "CRON", "expression": "@daily", "description": "At 00:00 every day"},
        "timezone": "UTC",
        "nextRun": "2026-11-26T00:00:00.000Z",
        "nextRunEffectiveAt": "2026-11-26T00:00:00.000Z",
        "environments": [{"id": "dev", "type": "DEVELOPMENT"}],
        "lastTick": {"at": "2026-11-25T00:00:00.000Z", "refusal": "overlap"},
    }
    answered = httpx2.MockTransport(lambda request: httpx2.Response(200, json=told))
    schedules = Front(Holdfast("http://localhost:1", "k", transport=answered).schedules, front)
    midnight = datetime(2026, 11, 25, tzinfo=UTC)
    found = schedules.retrieve("sched_1")
    assert found.last_tick == LastTick(midnight, None, "overlap")
    assert (found.deduplication_key, found.next_run) == (None, midnight + timedelta(days=1))
    told["lastTick"] = {"at": "2026-11-25T00:00:00.000Z", "runId": "run_1"}
    assert schedules.retrieve("sched_1").last_tick == LastTick(midnight, "run_1", None)


def test_a_schedule_whose_answer_was_lost_is_made_once(client: Holdfast, served: Served) -> None:
    declared(served)
    there, lost = httpx2.HTTPTransport(), []

    def answer(request: httpx2.Request) -> httpx2.Response:
        answered = there.handle_request(request)
        answered.read()
        if not lost:
            lost.append(request)
            raise httpx2.ReadError("gone")
        return httpx2.Response(answered.status_code, headers=answered.headers, content=answered.content)

    losing = Holdfast(served.url, KEY, transport=httpx2.MockTransport(answer))
    made = losing.schedules.create("report", "@daily", deduplication_key="k")
    assert len(lost) == 1
    assert [one.id for one in client.schedules.list()] == [made.id]
    there.close()
