"""Databases in trouble: locked, full, newer than the code, away. Nothing that was answered is lost."""

from __future__ import annotations

import resource
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psycopg
import pytest

from cli.world import Process
from journeys.cluster import Cluster
from journeys.world import World, until, world


@pytest.fixture
def on_sqlite(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path, f"sqlite:///{tmp_path}/holdfast.db") as made:
        yield made


@pytest.fixture
def on_postgres(tmp_path: Path, cluster: Cluster) -> Iterator[World]:
    with world(tmp_path, cluster.database()) as made:
        yield made


def insist(world: World, number: int) -> tuple[str, list[int]]:
    """A run that was triggered at last, and the statuses of all answers on the way there."""
    statuses: list[int] = []
    headers = {"x-trigger-request-idempotency-key": f"insist-{number}"}

    def sent() -> str | None:
        answer = world.client.post("/api/v1/tasks/double/trigger", json={"payload": number}, headers=headers)
        statuses.append(answer.status_code)
        assert answer.status_code in (200, 503), answer.text
        if answer.status_code == 503:
            assert answer.json()["code"] == "store_unavailable"
            assert answer.headers["retry-after"] == "1"
            return None
        return str(answer.json()["id"])

    return until(sent, f"trigger {number} is answered", 40), statuses


@pytest.mark.parametrize(
    "is_short", [True, False]
)  # below and above the ten seconds a writer waits for the lock
def test_a_database_that_another_process_locks_loses_no_trigger(on_sqlite: World, is_short: bool):
    on_sqlite.start_server()
    path = on_sqlite.url.removeprefix("sqlite:///")
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("begin immediate")
    if is_short:
        free = threading.Timer(2, other.rollback)
        free.start()
    else:
        body = {"payload": 0}
        headers = {"x-trigger-request-idempotency-key": "insist-0"}  # as the first of those below
        refused = on_sqlite.client.post(
            "/api/v1/tasks/double/trigger", json=body, headers=headers, timeout=60
        )
        assert (refused.status_code, refused.json()["code"]) == (503, "store_unavailable")
        free = threading.Timer(0.1, other.rollback)
        free.start()
    answers = [insist(on_sqlite, number) for number in range(3)]
    free.join()
    other.close()
    assert len({run_id for run_id, _ in answers}) == 3
    assert [statuses[-1] for _, statuses in answers] == [200] * 3
    if is_short:
        assert [statuses for _, statuses in answers] == [[200]] * 3
    on_sqlite.start_worker(executors=1)
    for number, (run_id, _) in enumerate(answers):
        assert on_sqlite.reaches(run_id, "COMPLETED_SUCCESSFULLY")["output"] == 2 * number
    assert len(on_sqlite.call("GET", "/api/v1/runs")["data"]) == 3
    assert on_sqlite.stuck() == []


def test_a_full_disk_is_answered_503_and_everything_goes_on_when_there_is_room(on_sqlite: World):
    server = on_sqlite.start_server()
    first, _ = insist(on_sqlite, 1)
    log = Path(on_sqlite.url.removeprefix("sqlite:///") + "-wal")
    # No file of the server may grow: to its writes this is what a full disk is.
    limit_files(server, log.stat().st_size)
    acknowledged = []
    statuses = set()
    for _ in range(20):
        body = {"payload": "x" * 100_000}
        answer = on_sqlite.client.post("/api/v1/tasks/double/trigger", json=body)
        statuses.add(answer.status_code)
        if answer.status_code == 200:
            acknowledged.append(answer.json()["id"])
    assert 503 in statuses
    assert statuses <= {200, 503}
    assert on_sqlite.client.get("/livez").status_code == 200
    assert on_sqlite.run(first)["status"] == "WAITING_FOR_DEPLOY"
    limit_files(server, resource.RLIM_INFINITY)
    second, _ = insist(on_sqlite, 2)
    for run_id in acknowledged:
        assert on_sqlite.run(run_id)["status"] == "WAITING_FOR_DEPLOY"
    on_sqlite.start_worker(executors=1)
    assert on_sqlite.reaches(first, "COMPLETED_SUCCESSFULLY")["output"] == 2
    assert on_sqlite.reaches(second, "COMPLETED_SUCCESSFULLY")["output"] == 4
    assert on_sqlite.stuck() == []


def limit_files(server: Process, size: int) -> None:
    _, hard = resource.prlimit(server.popen.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.popen.pid, resource.RLIMIT_FSIZE, (size, hard))


def refusal(world: World) -> str:
    """What a server says that does not start."""
    process = world.launch("server", "--port", str(world.port), "--json")
    assert process.popen.stdout is not None
    with process.popen.stdout:
        assert process.popen.wait(40) == 1
        assert process.popen.stdout.read() == ""
    text = process.errors.read_text()
    assert "Traceback" not in text
    return text


def test_a_server_refuses_an_sqlite_database_of_a_newer_release(on_sqlite: World):
    server = on_sqlite.start_server()
    assert server.end() == 0
    with sqlite3.connect(on_sqlite.url.removeprefix("sqlite:///")) as connection:
        connection.execute("insert into migrations (name, applied_at) values ('9999_flying_cars', 0)")
    connection.close()
    text = refusal(on_sqlite)
    assert "9999_flying_cars" in text
    assert "newer Holdfast" in text


def test_a_server_refuses_a_postgres_database_of_a_newer_release(on_postgres: World):
    server = on_postgres.start_server()
    assert server.end() == 0
    with psycopg.connect(on_postgres.url) as connection:
        connection.execute("insert into migrations (name, applied_at) values ('9999_flying_cars', 0)")
    text = refusal(on_postgres)
    assert "9999_flying_cars" in text
    assert "newer Holdfast" in text


def test_a_server_that_starts_while_postgres_is_down_says_so(on_postgres: World, cluster: Cluster):
    cluster.stop()
    try:
        text = refusal(on_postgres)
    finally:
        cluster.start()
    assert "PostgreSQL can not be reached" in text
    on_postgres.start_server()


def test_a_server_answers_503_while_postgres_is_down_and_goes_on_afterwards(
    on_postgres: World, cluster: Cluster
):
    on_postgres.start_server()
    on_postgres.start_worker(executors=1)
    before, _ = insist(on_postgres, 1)
    cluster.stop("immediate")
    try:
        answer = on_postgres.client.post("/api/v1/tasks/double/trigger", json={"payload": 2})
        assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
        assert on_postgres.client.get("/readyz").status_code == 503
        assert on_postgres.client.get("/livez").status_code == 200
    finally:
        cluster.start()
    after, _ = insist(on_postgres, 3)
    for run_id in (before, after):
        on_postgres.reaches(run_id, "COMPLETED_SUCCESSFULLY", seconds=30)
    assert on_postgres.stuck() == []


def test_a_worker_that_starts_before_its_server_waits_for_it(on_sqlite: World):
    worker = on_sqlite.launch(
        "worker", "--executors", "1", "--json", str(Path(__file__).with_name("tasks.py"))
    )
    on_sqlite.workers.append(worker)
    with pytest.raises(httpx2.ConnectError):
        on_sqlite.client.get("/livez")
    on_sqlite.start_server()
    worker.ready()
    run_id, _ = insist(on_sqlite, 4)
    assert on_sqlite.reaches(run_id, "COMPLETED_SUCCESSFULLY")["output"] == 8
