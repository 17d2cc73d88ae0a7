"""Task code that does what it should not do, in real executors beside runs that must not notice."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from journeys.structure import check, seconds
from journeys.world import World, until


def error_of(run: dict[str, Any]) -> dict[str, Any]:
    check(run)
    found: dict[str, Any] = run["attempts"][-1]["error"]
    return found


def succeed(world: World, count: int = 5) -> None:
    """Innocent runs come and go."""
    for run_id in [world.trigger("double", number) for number in range(count)]:
        run = world.reaches(run_id, "COMPLETED_SUCCESSFULLY")
        assert run["output"] == 2 * run["payload"]


@pytest.fixture
def world(shared: World) -> World:
    """A healthy world; executors that an earlier test has killed are back."""
    worker = shared.workers[0]
    until(lambda: len(shared.executors(worker)) == 2, "two executors")
    succeed(shared, 2)
    return shared


def test_a_module_that_does_not_import_is_named_and_the_others_run(world: World, tmp_path: Path):
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "good.py").write_text(
        "from holdfast import task\n\n@task\nasync def good() -> str:\n    return 'ok'\n"
    )
    (folder / "bad.py").write_text("import no_such_module\n")
    worker = world.start_worker(str(folder), executors=1)
    assert world.reaches(world.trigger("good"), "COMPLETED_SUCCESSFULLY")["output"] == "ok"
    told = worker.errors.read_text()
    assert "bad" in told
    assert "No module named 'no_such_module'" in told
    assert worker.end() == 0


def test_an_output_that_is_no_json_fails_the_run_and_names_its_type(world: World):
    run = world.reaches(world.trigger("unwritable"), "COMPLETED_WITH_ERRORS")
    assert error_of(run)["code"] == "TASK_OUTPUT_ERROR"
    assert "returned a object" in error_of(run)["message"]


def test_an_async_task_that_never_yields_keeps_its_lease_and_its_neighbours_go_elsewhere(world: World):
    run_id = world.trigger("endless-async", 7)  # more than two leases
    world.begun(run_id)
    worker = world.workers[0]
    until(lambda: "endless-async" in worker.errors.read_text(), "the worker says who blocks")
    succeed(world, 20)
    assert world.run(run_id)["status"] == "EXECUTING"
    run = world.reaches(run_id, "COMPLETED_SUCCESSFULLY")
    assert [attempt["status"] for attempt in run["attempts"]] == ["COMPLETED"]
    assert seconds(run["startedAt"], run["finishedAt"]) >= 6.9


def test_a_sync_task_that_never_yields_keeps_its_lease_and_its_neighbours_go_on(world: World):
    run_id = world.trigger("endless-sync", 4)
    world.begun(run_id)
    succeed(world, 20)
    assert world.run(run_id)["status"] == "EXECUTING"
    run = world.reaches(run_id, "COMPLETED_SUCCESSFULLY")
    assert [attempt["status"] for attempt in run["attempts"]] == ["COMPLETED"]


@pytest.mark.parametrize("code", [0, 3])
def test_a_task_that_exits_its_process_crashes_after_it_did_so_alone(world: World, code: int):
    run_id = world.trigger("leave", code)
    run = world.reaches(run_id, "CRASHED", seconds=30)
    assert error_of(run)["code"] == "TASK_PROCESS_EXITED_WITH_NON_ZERO_CODE"
    assert f"exited with code {code}" in error_of(run)["message"]
    assert [attempt["status"] for attempt in run["attempts"]] == ["FAILED", "FAILED"]
    assert len({words[3] for words in world.begun(run_id, 2)}) == 2
    succeed(world)


def test_sys_exit_fails_the_attempt_and_not_the_process(world: World):
    run_id = world.trigger("leave-politely", 3)
    run = world.reaches(run_id, "COMPLETED_WITH_ERRORS")
    assert error_of(run)["name"] == "SystemExit"
    assert psutil.pid_exists(int(world.begun(run_id)[0][3]))


@pytest.mark.parametrize(
    ("task", "kind", "name"),
    [
        ("raise-base", "odd", "Odd"),
        ("raise-base", "interrupt", "KeyboardInterrupt"),
        ("raise-base", "exit", "SystemExit"),
        ("raise-base", "close", "GeneratorExit"),
        ("raise-base-sync", "odd", "Odd"),
        ("raise-base-sync", "interrupt", "KeyboardInterrupt"),
        ("raise-base-sync", "exit", "SystemExit"),
        ("raise-base-sync", "stop", "StopIteration"),
    ],
)
def test_an_error_that_is_no_exception_fails_the_attempt_and_not_the_process(
    world: World, task: str, kind: str, name: str
):
    run_id = world.trigger(task, kind)
    run = world.reaches(run_id, "COMPLETED_WITH_ERRORS")
    assert error_of(run)["name"] == name
    assert psutil.pid_exists(int(world.begun(run_id)[0][3]))


def test_memory_beyond_the_limit_of_a_task_ends_that_run_only(world: World):
    small, large = world.trigger("greedy", 8), world.trigger("greedy", 1_024)
    assert world.reaches(small, "COMPLETED_SUCCESSFULLY")["output"] == 8 * 1024 * 1024
    run = world.reaches(large, "COMPLETED_WITH_ERRORS", "CRASHED")
    assert error_of(run).get("name") == "MemoryError" or error_of(run)["code"] == "TASK_PROCESS_OOM_KILLED"
    succeed(world)


@pytest.mark.parametrize("task", ["ignore-cancellation", "ignore-interruption"])
def test_a_task_that_ignores_its_cancellation_is_killed_within_ten_seconds(world: World, task: str):
    run_id = world.trigger(task)
    process = int(world.begun(run_id)[0][3])
    world.cancel(run_id)
    at_once = world.run(run_id)
    assert (at_once["status"], at_once["finishedAt"]) == ("CANCELLED", None)
    check(at_once)
    closed = until(lambda: (run := world.run(run_id))["finishedAt"] and run, "it is closed", 12)
    check(closed)
    assert 4 < seconds(at_once["updatedAt"], closed["finishedAt"]) < 10
    assert not psutil.pid_exists(process)
    succeed(world)


def test_a_task_that_prints_megabytes_does_not_hurt_its_worker(world: World):
    run_id = world.trigger("shout", 5)
    run = world.reaches(run_id, "COMPLETED_SUCCESSFULLY", seconds=40)
    assert [attempt["status"] for attempt in run["attempts"]] == ["COMPLETED"]
    first = world.logs(run_id)[0]
    assert (first["logger"], first["message"], first["attempt"]) == ("stdout", "x" * 1_023, 1)
    assert world.workers[0].popen.poll() is None


def test_a_drained_worker_waits_for_short_runs_and_hands_long_ones_back_uncounted(
    lonely: World, tmp_path: Path
):
    lonely.start_server()
    worker = lonely.start_worker(executors=1, HOLDFAST_DRAIN="2")
    short, long = lonely.trigger("nap", 1.0), lonely.trigger("wait-until", str(tmp_path / "go"))
    lonely.begun(short)
    lonely.begun(long)
    assert worker.end(signal.SIGTERM) == 0
    finished = lonely.run(short)
    assert finished["status"] == "COMPLETED_SUCCESSFULLY"
    handed_back = lonely.run(long)
    check(handed_back)
    assert handed_back["status"] == "QUEUED"
    assert [attempt["status"] for attempt in handed_back["attempts"]] == ["CANCELLED"]
    (tmp_path / "go").touch()
    lonely.start_worker(executors=1)
    run = lonely.reaches(long, "COMPLETED_SUCCESSFULLY")
    check(run)
    assert [words[1] for words in lonely.begun(long)] == ["1", "1"]  # still the first attempt


def test_a_second_signal_does_not_wait_for_anything(lonely: World, tmp_path: Path):
    lonely.start_server()
    worker = lonely.start_worker(executors=1, HOLDFAST_DRAIN="10m")
    long = lonely.trigger("ignore-cancellation", maxAttempts=2)
    lonely.begun(long)
    worker.popen.send_signal(signal.SIGTERM)
    until(lambda: "once more stops at once" in worker.errors.read_text(), "it drains")
    worker.popen.send_signal(signal.SIGTERM)
    assert worker.popen.wait(8) == 0
    run = lonely.run(long)
    check(run)
    assert run["status"] == "QUEUED"
    lonely.cancel(long)
