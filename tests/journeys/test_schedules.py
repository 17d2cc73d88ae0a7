"""Schedules in real processes. What passed while nothing ran, a test makes by setting a schedule back an hour."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from cli.world import Process
from holdfast.stores import open_store
from holdfast.stores.base import Tx, batch
from journeys.conftest import open_url
from journeys.world import World, free_port, until, world

TASKS = str(Path(__file__).with_name("scheduled_tasks.py"))
HOUR_MS = 3_600_000


@pytest.fixture(params=["sqlite", "postgres"])
def production(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A world of the production environment, without any process yet, once for each store."""
    with world(tmp_path, open_url(request, tmp_path), "tr_prod_of_the_tests") as made:
        yield made


def schedule_of(place: World, task: str) -> dict[str, Any]:
    [found] = [one for one in place.call("GET", "/api/v1/schedules")["data"] if one["task"] == task]
    return dict(found)


def runs_of(place: World, schedule: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = place.call("GET", f"/api/v1/runs?filter[schedule]={schedule['id']}")["data"]
    return found


def set_back(place: World, schedule: dict[str, Any]) -> None:
    """As if nothing had run for an hour. Servers see it when they start, or within a few seconds."""
    tick_at = round(datetime.fromisoformat(schedule["nextRun"]).timestamp() * 1_000) - HOUR_MS
    store = open_store(place.url, migrate=False)

    def move(tx: Tx, _: Any) -> list[None]:
        tx.do("move_schedules", moves=batch([[schedule["id"], tick_at, tick_at, None, None]]))
        return [None]

    try:
        store.transact(move, [None])
    finally:
        store.close()


def second_server(place: World) -> Process:
    process = place.launch("server", "--port", str(free_port()), "--json")
    place.workers.append(process)  # to be ended with them
    process.ready()
    return process


def test_after_downtime_one_run_is_made_for_the_latest_time_whatever_servers_do(production: World) -> None:
    place = production
    server = place.start_server()
    place.start_worker(TASKS)
    report = schedule_of(place, "report")
    assert (report["type"], report["generator"]["expression"]) == ("DECLARATIVE", "* * * * *")
    place.kill(server)
    set_back(place, report)

    server, other = place.start_server(), second_server(place)
    first = until(lambda: runs_of(place, report), "the run that was missed")[-1]
    timestamp, last, schedule_id = place.ends(first["id"])["output"]
    created = datetime.fromisoformat(place.run(first["id"])["createdAt"])
    assert 0 <= (created - datetime.fromisoformat(timestamp)).total_seconds() < 60, "the latest one"
    assert (last, schedule_id) == (None, report["id"])

    for _ in range(3):  # the same minutes once more, while servers die
        set_back(place, report)
        place.kill(server)
        server = place.start_server()
    assert other.popen.poll() is None
    until(lambda: schedule_of(place, "report")["nextRun"] > timestamp, "it goes on with the next time")
    ended = [place.ends(run["id"])["output"] for run in runs_of(place, report)]
    times = [output[0] for output in ended]
    assert len(times) == len(set(times)) <= 3, "one for each minute that this test takes"


def test_nothing_runs_by_itself_in_dev_without_a_worker_and_the_refusal_is_kept(lonely: World) -> None:
    server = lonely.start_server()
    worker = lonely.start_worker(TASKS)
    report, tidy = (schedule_of(lonely, task) for task in ("report", "tidy"))
    assert worker.end(signal.SIGTERM) == 0
    lonely.kill(server)
    set_back(lonely, report)
    lonely.start_server()
    refused = until(lambda: schedule_of(lonely, "report").get("lastTick"), "the time is refused")
    assert "no worker" in refused["refusal"]
    assert runs_of(lonely, report) == []

    lonely.start_worker(TASKS)
    set_back(lonely, tidy)
    [run] = until(lambda: runs_of(lonely, tidy), "a run with a worker there")
    assert lonely.ends(run["id"])["output"] == "tidy"
    assert schedule_of(lonely, "tidy")["lastTick"]["runId"] == run["id"]
