"""Answers that never arrive: what the server believes that a worker holds, and what the worker knows."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from journeys.proxy import Proxy
from journeys.structure import check
from journeys.world import World, until


@pytest.fixture
def proxied(lonely: World) -> Iterator[tuple[World, Proxy]]:
    """A server, and the way to it that may lose an answer."""
    lonely.start_server()
    proxy = Proxy(lonely.port)
    try:
        yield lonely, proxy
    finally:
        proxy.close()


def register(world: World, *tasks: str) -> str:
    """A worker whose side of the protocol is the test."""
    retry = {
        "maxAttempts": 3,
        "factor": 1.0,
        "minTimeoutInMs": 100,
        "maxTimeoutInMs": 100,
        "randomize": False,
    }
    body = {"name": "test", "fingerprint": "f", "tasks": [{"id": task, "retry": retry} for task in tasks]}
    return str(world.call("POST", "/api/v1/workers", body)["workerId"])


def claim(world: World, worker: str, slots: int = 10, wait_ms: int = 0) -> list[dict[str, Any]]:
    answer = world.call("POST", f"/api/v1/workers/{worker}/claim", {"slots": slots, "waitMs": wait_ms})
    found: list[dict[str, Any]] = answer["runs"]
    return found


def report(world: World, worker: str, run: dict[str, Any], kind: str, **more: Any) -> dict[str, Any]:
    said = {"kind": kind, "run": run["id"], "lease": run["lease"], **more}
    answer: dict[str, Any] = world.call("POST", f"/api/v1/workers/{worker}/reports", {"reports": [said]})[
        "answers"
    ][0]
    return answer


def test_a_run_whose_claim_was_never_answered_runs_elsewhere_while_its_worker_is_busy(
    proxied: tuple[World, Proxy], tmp_path: Path
):
    world, proxy = proxied
    world.start_worker(executors=1, HOLDFAST_API_URL=proxy.url)
    busy = world.trigger("wait-until", str(tmp_path / "go"))
    world.begun(busy)
    proxy.lose = b'"runs":[{'
    lost = world.trigger("double", 7, maxAttempts=1)
    run = world.reaches(lost, "COMPLETED_SUCCESSFULLY", seconds=15)
    assert proxy.lost.is_set()
    check(run)
    assert run["output"] == 14
    assert [attempt["status"] for attempt in run["attempts"]] == ["COMPLETED"]  # the lost claim began nothing
    assert len(world.begun(lost)) == 1
    assert world.run(busy)["status"] == "EXECUTING"
    (tmp_path / "go").touch()
    done = world.reaches(busy, "COMPLETED_SUCCESSFULLY")
    assert [attempt["status"] for attempt in done["attempts"]] == ["COMPLETED"]


def test_an_outcome_whose_answer_was_lost_is_reported_again_and_counts_once(proxied: tuple[World, Proxy]):
    world, proxy = proxied
    world.start_worker(executors=1, HOLDFAST_API_URL=proxy.url)
    proxy.lose = b'"answers":[{"status":"ok"'
    run = world.reaches(world.trigger("double", 8), "COMPLETED_SUCCESSFULLY")
    assert proxy.lost.wait(5)
    assert run["output"] == 16
    again = world.reaches(world.trigger("double", 9), "COMPLETED_SUCCESSFULLY")
    assert again["output"] == 18
    assert world.run(run["id"]) == run


def test_a_heartbeat_that_names_all_it_holds_gives_the_rest_back_uncounted(lonely: World):
    lonely.start_server()
    worker, other = register(lonely, "job"), register(lonely, "job")
    known = lonely.trigger("job", 1)
    [held] = claim(lonely, worker)
    unknown = [lonely.trigger("job", 2, maxAttempts=1), lonely.trigger("job", 3)]
    lost = claim(lonely, worker)
    assert [run["id"] for run in lost] == unknown
    beat = f"/api/v1/workers/{worker}/heartbeat"
    lonely.call("POST", beat, {})
    assert [lonely.run(run_id)["status"] for run_id in unknown] == ["EXECUTING"] * 2
    lonely.call("POST", beat, {"held": [held["id"], "run_of_somebody_else"]})
    lonely.call("POST", beat, {"held": [held["id"]]})
    for run_id in unknown:
        run = lonely.run(run_id)
        assert (run["status"], run["attempts"]) == ("QUEUED", [])
    assert lonely.run(known)["status"] == "EXECUTING"
    assert report(lonely, worker, lost[0], "succeeded", output="1")["status"] == "fenced"
    again = claim(lonely, other)
    assert [(run["id"], run["attempt"]) for run in again] == [(run_id, 1) for run_id in unknown]
    for claimer, run in ((worker, held), (other, again[0]), (other, again[1])):
        assert report(lonely, claimer, run, "succeeded", output="1")["status"] == "ok"
    assert lonely.stuck() == []


def test_a_claim_ends_the_wait_of_an_earlier_one_whose_caller_is_gone(lonely: World):
    lonely.start_server()
    worker = register(lonely, "job")
    found: list[list[dict[str, Any]]] = []
    first = threading.Thread(target=lambda: found.append(claim(lonely, worker, wait_ms=20_000)))
    first.start()
    while first.is_alive():  # until the first one is waiting there is nothing to end
        assert claim(lonely, worker, slots=0, wait_ms=50) == []
    run_id = lonely.trigger("job", 1)
    assert found == [[]]
    [run] = claim(lonely, worker)
    assert run["id"] == run_id
    assert report(lonely, worker, run, "succeeded", output="1")["status"] == "ok"


def test_a_server_that_stops_answers_the_claims_that_wait_and_ends_at_once(lonely: World):
    server = lonely.start_server()
    worker = register(lonely, "job")
    found: list[list[dict[str, Any]]] = []
    waiting = threading.Thread(target=lambda: found.append(claim(lonely, worker, wait_ms=20_000)))
    waiting.start()
    asked = time.monotonic()
    process = psutil.Process(server.popen.pid)

    def second_connection() -> bool:
        assert lonely.client.get("/readyz").status_code == 200
        return sum(one.status == psutil.CONN_ESTABLISHED for one in process.net_connections("tcp")) > 1

    until(second_connection, "the claim waits on a connection of its own")
    assert server.end() == 0
    assert time.monotonic() - asked < 2
    waiting.join(1)
    assert found == [[]]


@pytest.mark.parametrize("started", [True, False])
def test_a_run_between_two_attempts_may_be_handed_back(lonely: World, started: bool):
    lonely.start_server()
    worker, other = register(lonely, "job"), register(lonely, "job")
    run_id = lonely.trigger("job", 1)
    [run] = claim(lonely, worker)
    error = {"type": "STRING_ERROR", "raw": "no"}
    retry = report(lonely, worker, run, "failed", error=error, retryDelayMs=1_000)
    assert retry == {"status": "retry", "lease": run["lease"] + 1, "attempt": 2, "delayMs": 1_000}
    assert report(lonely, worker, {**run, "lease": retry["lease"]}, "released", started=started) == {
        "status": "ok"
    }
    between = lonely.run(run_id)
    check(between)
    assert between["status"] == "REATTEMPTING"
    assert [attempt["status"] for attempt in between["attempts"]] == ["FAILED"]
    assert claim(lonely, other) == []  # a retry is never early
    [again] = claim(lonely, other, wait_ms=10_000)
    assert (again["id"], again["attempt"]) == (run_id, 2)
    assert report(lonely, other, again, "succeeded", output="1")["status"] == "ok"
