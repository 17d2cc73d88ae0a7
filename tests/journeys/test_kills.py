"""Two thousand runs while everything that can be killed is killed: each ends exactly once, none is lost."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from cli.world import KEY
from journeys.cluster import Cluster
from journeys.structure import check
from journeys.world import World, until, world

RUNS = 2_000
BATCH = 40
AHEAD = 300  # triggers keep so many runs before the attempts that began
TASKS = ("slow-double", "sync-double", "slow-double", "second-time")
SECONDS = 90.0  # of patience; an idle machine needs a third of it


class Triggers(threading.Thread):
    """Triggers all runs by batches, each with a key of its own, and again with the same key until it is answered."""

    def __init__(self, world: World) -> None:
        super().__init__(name="triggers", daemon=True)
        self.world = world
        self.runs: dict[str, int] = {}  # acknowledged ids and their numbers
        self.repeated = 0
        self.failure: BaseException | None = None
        self.given_up = threading.Event()

    def run(self) -> None:
        try:
            for first in range(0, RUNS, BATCH):
                self._trigger(first)
        except BaseException as error:
            self.failure = error

    def _trigger(self, first: int) -> None:
        items = [
            {"task": TASKS[number % len(TASKS)], "payload": number} for number in range(first, first + BATCH)
        ]
        until(lambda: first < self.world.begun_count() + AHEAD, "attempts begin", SECONDS)
        headers = {"Authorization": f"Bearer {KEY}", "x-trigger-request-idempotency-key": f"batch-{first}"}
        address = str(self.world.client.base_url)

        def sent() -> list[dict[str, Any]] | None:
            assert not self.given_up.is_set()
            try:
                with httpx2.Client(base_url=address, headers=headers, timeout=10, trust_env=False) as client:
                    answer = client.post("/api/v1/tasks/batch", json={"items": items})
            except httpx2.TransportError:
                self.repeated += 1
                return None
            if answer.status_code == 503:
                self.repeated += 1
                return None
            assert answer.status_code == 200, answer.text
            found: list[dict[str, Any]] = answer.json()["runs"]
            if any(item.get("code") == "store_unavailable" for item in found):
                self.repeated += 1
                return None
            return found

        answered = until(sent, f"batch {first} is answered", SECONDS)
        for number, item in enumerate(answered, first):
            self.runs[item["id"]] = number


@pytest.fixture
def on_sqlite(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path, f"sqlite:///{tmp_path}/holdfast.db") as made:
        yield made


@pytest.fixture
def on_postgres(tmp_path: Path, cluster: Cluster) -> Iterator[World]:
    with world(tmp_path, cluster.database()) as made:
        yield made


def kill_worker(world: World) -> None:
    world.kill(world.workers[-1])
    world.start_worker()


def kill_executor(world: World) -> None:
    executor = min(world.executors(world.workers[-1]), key=lambda process: process.create_time())
    executor.kill()
    executor.wait(5)


def kill_server(world: World) -> None:
    assert world.server is not None
    world.kill(world.server)
    world.start_server()


def kill_all(world: World, start_worker: Callable[[], Any] | None = None) -> None:
    """At once: nobody has time to say goodbye."""
    assert world.server is not None
    processes = [world.server, *(worker for worker in world.workers if worker.popen.poll() is None)]
    for process in processes:
        for child in psutil.Process(process.popen.pid).children():
            child.kill()
        process.popen.kill()
    for process in processes:
        world.kill(process)
    world.start_server()
    (start_worker or world.start_worker)()


def survive(world: World, *faults: Callable[[World], None]) -> None:
    """Runs everything through the faults, evenly spread, and checks what became of every run."""
    world.start_server()
    world.start_worker()
    until(lambda: world.ends(world.trigger("double", 1)), "the tasks are known")
    triggers = Triggers(world)
    triggers.start()
    try:
        for number, fault in enumerate(faults, 1):
            share = RUNS * number // (len(faults) + 1)
            until(lambda: world.begun_count() >= share or triggers.failure, f"{share} began", SECONDS)  # noqa: B023
            fault(world)
        triggers.join(SECONDS)
    finally:
        triggers.given_up.set()
        triggers.join(SECONDS)
    if triggers.failure is not None:
        raise triggers.failure
    assert sorted(triggers.runs.values()) == list(range(RUNS))  # acknowledged, no number twice
    until(lambda: all_ended(world), "every run has ended", SECONDS)
    check_all(world, triggers.runs)
    assert world.stuck() == []


def all_ended(world: World) -> bool:
    """Nobody knows while a database that was just restarted does not answer yet."""
    query = {"filter[status]": "QUEUED,DELAYED,EXECUTING,REATTEMPTING,WAITING_FOR_DEPLOY", "page[size]": "1"}
    answer = world.client.get("/api/v1/runs", params=query)
    assert answer.status_code in (200, 503), answer.text
    return answer.status_code == 200 and answer.json()["data"] == []


def check_all(world: World, numbers: dict[str, int]) -> None:
    """Exactly the acknowledged runs are there, and each succeeded once, with its own output."""
    listed = []
    page: dict[str, str] = {}
    while True:
        answer = world.call("GET", "/api/v1/runs", params={"page[size]": "100", **page})
        listed += [
            (item["id"], item["status"]) for item in answer["data"] if item["taskIdentifier"] != "double"
        ]
        if "next" not in answer["pagination"]:
            break
        page = {"page[after]": answer["pagination"]["next"]}
    assert len(listed) == len(set(listed)) == RUNS
    assert {run_id for run_id, _ in listed} == set(numbers)
    assert Counter(status for _, status in listed) == {"COMPLETED_SUCCESSFULLY": RUNS}
    began = Counter((words[0], words[1]) for words in world.entries())
    for run_id, number in numbers.items():
        run = world.run(run_id)
        check(run)
        assert (run["payload"], run["output"]) == (number, 2 * number)
        statuses = [attempt["status"] for attempt in run["attempts"]]
        assert statuses[-1] == "COMPLETED"
        assert statuses.count("COMPLETED") == 1
        if run["taskIdentifier"] == "second-time":
            # The first counted attempt fails, unless the executor died under it: then it failed of that.
            assert began[run_id, "1"] >= 1
            assert began[run_id, "2"] >= 1
            assert "FAILED" in statuses
        else:
            assert began[run_id, "1"] >= 1


def test_two_thousand_runs_on_sqlite_survive_every_kill(on_sqlite: World):
    survive(on_sqlite, kill_worker, kill_executor, kill_server, kill_all)


def test_two_thousand_runs_on_postgres_survive_every_kill_and_two_restarts(
    on_postgres: World, cluster: Cluster
):
    def restart_in_order(_: World) -> None:
        cluster.restart("fast")

    def crash(_: World) -> None:
        cluster.restart("immediate")

    survive(on_postgres, kill_worker, restart_in_order, kill_executor, kill_server, crash)
