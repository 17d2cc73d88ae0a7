"""Runs that wait in real processes: isolated ones, time limits, drain, and a queue that has one place only."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from journeys.world import World, until

TASKS = str(Path(__file__).with_name("waiting_tasks.py"))


@pytest.fixture
def place(lonely: World) -> World:
    """A server and no worker yet, once for each store."""
    lonely.start_server()
    return lonely


def test_an_isolated_run_goes_on_in_another_process_and_children_find_a_place_in_their_parents_queue(
    place: World,
) -> None:
    place.start_worker(TASKS, HOLDFAST_WARM_WAIT="0.2")
    alone, parent = place.trigger("alone", "1s"), place.trigger("parent", 1)
    assert place.ends(parent, seconds=8)["output"] == 3  # each held the only place while the other one waited
    run = place.ends(alone, seconds=8)
    first, second = run["output"]
    assert first != second
    assert len(run["attempts"]) == 1


def test_a_full_worker_lets_go_of_what_waits_for_runs_that_need_its_places(place: World) -> None:
    """However long it may be kept otherwise. A short sleep is not begun anew for that."""
    place.start_worker(TASKS, executors=1, concurrency=2, HOLDFAST_WARM_WAIT="1h")
    sleeper = place.trigger("short-sleeper")
    callers = [place.trigger("caller", number) for number in range(1, 5)]
    sync = [place.trigger("caller-sync", number) for number in range(3)]
    for number, run in enumerate(callers, 1):
        assert place.ends(run, seconds=30)["output"] == [number + 1, *range(1, number + 1)]
    assert [place.ends(run, seconds=30)["output"] for run in sync] == [2, 3, 4]
    assert place.ends(sleeper, seconds=30)["output"] == "slept"
    assert all(len(place.run(run)["attempts"]) == 1 for run in (*callers, *sync, sleeper))


def test_waits_do_not_count_as_time_at_work(place: World) -> None:
    place.start_worker(TASKS, HOLDFAST_WARM_WAIT="5.2")
    suspended, warm = place.trigger("patient", 5.4), place.trigger("patient-sync", 5.15)
    place.reaches(suspended, "WAITING_TO_RESUME", seconds=5)
    for run in (warm, suspended):
        assert place.ends(run, seconds=12)["output"] == "in time"


def test_a_worker_that_is_told_to_leave_suspends_what_waits_and_finishes_what_works(place: World) -> None:
    worker = place.start_worker(TASKS, HOLDFAST_WARM_WAIT="1.5")
    asks, works = place.trigger("asks"), place.trigger("works")
    place.begun(works)
    token = until(lambda: place.run(asks)["metadata"].get("token"), "the token is made")
    began = time.monotonic()
    worker.popen.send_signal(signal.SIGTERM)
    assert worker.popen.wait(10) == 0
    assert time.monotonic() - began < 6
    assert place.run(works)["output"] == "slow"
    assert place.run(asks)["status"] == "WAITING_TO_RESUME"
    place.call("POST", f"/api/v1/waitpoints/tokens/{token}/complete", {"data": 5})
    place.start_worker(TASKS)
    assert place.ends(asks)["output"] == 5
    assert [words[1] for words in place.entries()] == ["slow"]
