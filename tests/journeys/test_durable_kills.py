"""Five hundred workflows while everything is killed: no recorded step twice, every run ends with the right result."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from cli.world import KEY
from journeys.cluster import Cluster
from journeys.test_kills import kill_all, kill_executor, kill_server
from journeys.world import World, until, world

RUNS = 500
BATCH = 50
SECONDS = 180.0  # of patience
TASKS = str(Path(__file__).with_name("durable_tasks.py"))
UNFINISHED = "QUEUED,DELAYED,EXECUTING,REATTEMPTING,WAITING_FOR_DEPLOY,WAITING_TO_RESUME"
PLAN = {"HOLDFAST_WARM_WAIT": "0.2"}


class Answers(threading.Thread):
    """Somebody outside, who completes every token, with the number of the order in which they were seen."""

    def __init__(self, world: World) -> None:
        super().__init__(name="answers", daemon=True)
        self.given: dict[str, int] = {}
        self.over = threading.Event()
        self._address = str(world.client.base_url)

    def run(self) -> None:
        while not self.over.wait(0.05):
            try:
                self._answer()
            except (httpx2.TransportError, httpx2.HTTPStatusError, ValueError):
                continue  # the server is being killed

    def _answer(self) -> None:
        headers = {"Authorization": f"Bearer {KEY}"}
        path = "/api/v1/waitpoints/tokens"
        with httpx2.Client(base_url=self._address, headers=headers, timeout=10, trust_env=False) as client:
            query = {"filter[status]": "WAITING", "page[size]": "100"}
            for token in client.get(path, params=query).raise_for_status().json()["data"]:
                given = self.given.setdefault(token["id"], len(self.given))
                client.post(f"{path}/{token['id']}/complete", json={"data": given}).raise_for_status()


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/holdfast.db"
    else:
        cluster: Cluster = request.getfixturevalue("cluster")
        url = cluster.database()
    with world(tmp_path, url) as made:
        yield made


def kill_durable_worker(world: World) -> None:
    world.kill(world.workers[-1])
    world.start_worker(TASKS, concurrency=100, **PLAN)


def kill_everything(world: World) -> None:
    kill_all(world, lambda: world.start_worker(TASKS, concurrency=100, **PLAN))


FAULTS: tuple[Callable[[World], None], ...] = (
    kill_durable_worker,
    kill_executor,
    kill_server,
    kill_everything,
)


def test_five_hundred_workflows_survive_every_kill(place: World) -> None:
    place.start_server()
    place.start_worker(TASKS, concurrency=100, **PLAN)
    until(lambda: place.ends(place.trigger("ready")), "the tasks are known")
    answers = Answers(place)
    answers.start()
    try:
        numbers: dict[str, int] = {}
        for first in range(0, RUNS, BATCH):
            items = [{"task": "workflow", "payload": number} for number in range(first, first + BATCH)]
            for number, run in enumerate(
                place.call("POST", "/api/v1/tasks/batch", {"items": items})["runs"], first
            ):
                numbers[run["id"]] = number
        source = random.Random(4)
        until_end = time.monotonic() + SECONDS
        for fault in (*FAULTS, *source.choices(FAULTS, k=4)):
            time.sleep(source.uniform(0.3, 1.5))  # a random moment is the point
            fault(place)
        until(lambda: unfinished(place) == 0, "every run has ended", until_end - time.monotonic())
    finally:
        answers.over.set()
        answers.join(20)
    check_all(place, numbers, answers)
    assert place.stuck() == []


def unfinished(world: World) -> int:
    query = {"filter[status]": UNFINISHED, "page[size]": "1"}
    return len(world.call("GET", "/api/v1/runs", params=query)["data"])


def check_all(world: World, numbers: dict[str, int], answers: Answers) -> None:
    lines: dict[tuple[str, str], list[str]] = defaultdict(list)
    for run_id, step, mark in world.entries():
        lines[run_id, step].append(mark)
    repeated = 0
    for run_id, number in numbers.items():
        run = world.run(run_id)
        assert run["status"] == "COMPLETED_SUCCESSFULLY", run
        output = run["output"]
        journal = world.call("GET", f"/api/v1/runs/{run_id}/journal", params={"page[size]": "1000"})["data"]
        recorded = [json.loads(entry["value"]) for entry in journal if entry["kind"] == "step"]
        # What is recorded is what the code was given, and stands once in the ledger: as the last of its step,
        # since nothing that is recorded runs again. What was interrupted before may stand before it.
        assert sorted(recorded) == sorted(output["marks"])
        assert len(set(recorded)) == 5
        for place, mark in enumerate(output["marks"]):
            seen = lines[run_id, f"step-{place}"]
            assert seen[-1] == mark, (run_id, place, seen)
            assert seen.count(mark) == 1
            repeated += len(seen) - 1
        [token] = [entry["ref"] for entry in journal if entry["kind"] == "token"]
        assert output["answer"] == answers.given[token]
        assert output["squares"] == [(number + i) ** 2 for i in range(3)]
        assert len(run["relatedRuns"]["children"]) == 3
        assert run["metadata"] == {"begun": 1, "ended": 1}
    # Kills interrupt some steps, but only those that were under way.
    assert repeated < 8 * 200
