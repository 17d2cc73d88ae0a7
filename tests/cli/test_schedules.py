"""Commands about schedules, against a server in a process of its own."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime

import httpx2
import pytest

from cli.world import KEY, Holdfast
from holdfast.cli.schedules import row_of

CRON = {"expression": "0 9 1 1 *", "timezone": "Europe/Berlin", "overlap": "skip", "catchUp": "one"}


@pytest.fixture
def made(server_url: str) -> Iterator[dict[str, str]]:
    """A task that declares a schedule, and two schedules that were made; their ids by their names."""
    with httpx2.Client(
        base_url=server_url, headers={"authorization": f"Bearer {KEY}"}, trust_env=False
    ) as there:
        tasks = [{"id": "nightly", "schedule": CRON}, {"id": "report"}]
        registered = there.post("/api/v1/workers", json={"name": "w", "fingerprint": "f", "tasks": tasks})
        assert registered.status_code == 200, registered.text
        for key, cron in (("tenant-1", "0 12 * * *"), ("tenant-2", "30 12 * * *")):
            body = {"task": "report", "cron": cron, "deduplicationKey": key}
            answer = there.post("/api/v1/schedules", json=body)
            assert answer.status_code == 200, answer.text
        found = there.get("/api/v1/schedules").json()["data"]
        for one in found:
            there.post(f"/api/v1/schedules/{one['id']}/activate")
        yield {one.get("deduplicationKey", one["task"]): one["id"] for one in found}


def test_schedules_are_listed(client: Holdfast, made: dict[str, str]):
    done = client("schedules", "list")
    assert done.code == 0, done.err
    rows = {row.split("\t")[0]: row.split("\t")[1:] for row in done.lines}
    assert set(rows) == set(made.values())
    task, cron, zone, next_tick, last, state = rows[made["nightly"]]
    assert (task, cron, zone, last, state) == ("nightly", "0 9 1 1 *", "Europe/Berlin", "-", "active")
    assert next_tick.endswith("-01-01T09:00:00+01:00")
    listed = json.loads(client("schedules", "list", "--json").out)
    assert {one["id"] for one in listed} == set(made.values())


def test_the_next_ticks_of_one_are_told_in_its_zone(client: Holdfast, made: dict[str, str]):
    done = client("schedules", "next", "nightly", "--limit", "3")
    assert done.code == 0, done.err
    rows = [row.split("\t") for row in done.lines]
    years = [int(row[0][:4]) for row in rows]
    assert years == [years[0], years[0] + 1, years[0] + 2]
    for tick, runs_at, schedule, task in rows:
        assert tick.endswith("-01-01T09:00:00+01:00")
        assert (runs_at, schedule, task) == (tick, made["nightly"], "nightly")
    told = json.loads(client("schedules", "next", made["nightly"], "--limit", "1", "--json").out)
    assert [(one["id"], one["task"], one["timezone"]) for one in told] == [
        (made["nightly"], "nightly", "Europe/Berlin")
    ]
    assert told[0]["nextRun"].endswith("-01-01T08:00:00.000Z")


def test_the_next_ticks_of_all_come_in_their_order(client: Holdfast, made: dict[str, str]):
    rows = [row.split("\t") for row in client("schedules", "next").lines]
    assert len(rows) == 5
    times = [datetime.fromisoformat(row[0]) for row in rows]
    assert times == sorted(times)
    assert times[0] > datetime.now(UTC)
    assert {row[2] for row in rows} >= {made["tenant-1"], made["tenant-2"]}


def test_a_schedule_is_paused_and_resumed_by_each_of_its_names(client: Holdfast, made: dict[str, str]):
    for name in ("nightly", "tenant-1", made["tenant-2"]):
        for _ in range(2):
            done = client("schedules", "pause", name)
            assert done.code == 0, done.err
            assert done.lines[0].split("\t")[4:] == ["-", "-", "paused"]
        done = client("schedules", "next", name)
        assert (done.code, done.lines) == (0, [])
        assert "is paused" in done.err
        assert json.loads(client("schedules", "resume", name, "--json").out)["active"] is True


def test_nothing_comes_next_where_all_are_paused(client: Holdfast, made: dict[str, str]):
    for id in made.values():
        client("schedules", "pause", id)
    done = client("schedules", "next")
    assert (done.code, done.lines) == (0, [])
    assert "no schedule is active" in done.err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("pause",), 2),
        (("pause", "none"), 4),
        (("pause", "report"), 4),
        (("resume", "sched_" + "0" * 24), 4),
        (("next", "none"), 4),
        (("next", "--limit", "0"), 2),
    ],
)
@pytest.mark.usefixtures("made")
def test_what_can_not_be_done_is_refused(client: Holdfast, arguments: tuple[str, ...], code: int):
    assert client("schedules", *arguments).code == code


def test_a_name_that_may_mean_several_is_refused(client: Holdfast, made: dict[str, str], server_url: str):
    body = {"task": "report", "cron": "@daily", "deduplicationKey": "nightly"}
    headers = {"authorization": f"Bearer {KEY}"}
    other = httpx2.post(f"{server_url}/api/v1/schedules", json=body, headers=headers, trust_env=False).json()
    done = client("schedules", "pause", "nightly")
    assert done.code == 2
    assert other["id"] in done.err
    assert made["nightly"] in done.err
    httpx2.delete(f"{server_url}/api/v1/schedules/{other['id']}", headers=headers, trust_env=False)


@pytest.mark.parametrize(
    ("last", "shown"),
    [
        (None, "-"),
        ({"at": "2027-01-01T08:00:00.000Z", "runId": "run_1"}, "2027-01-01T09:00:00+01:00 run_1"),
        ({"at": "2027-01-01T08:00:00.000Z", "refusal": "no"}, "2027-01-01T09:00:00+01:00 refused: no"),
    ],
)
def test_a_row_tells_what_became_of_the_last_tick(last: dict[str, str] | None, shown: str):
    told = {
        "id": "sched_1",
        "task": "report",
        "active": True,
        "generator": {"expression": "0 9 * * *"},
        "timezone": "Europe/Berlin",
        "lastTick": last,
    }
    assert row_of(told)[5] == shown
    assert row_of({**told, "timezone": "Mars/Olympus"})[3:5] == ("Mars/Olympus", "-")
