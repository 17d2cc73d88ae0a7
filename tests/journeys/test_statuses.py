"""Every status of a run, and of an attempt, reached by real processes and read back over HTTP."""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.model.status import AttemptStatus, RunStatus
from journeys.structure import check, seconds
from journeys.world import World, until

PROMISED: set[str] = set()  # what the tests of this module reach, as they say
SEEN: set[str] = set()  # what the test that is running has read


def reaches(*statuses: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The test reads runs, and attempts, in these statuses; it fails if it did not."""

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        PROMISED.update(statuses)

        @functools.wraps(test)
        def run(*args: Any, **kwargs: Any) -> None:
            SEEN.clear()
            test(*args, **kwargs)
            assert set(statuses) <= SEEN

        return run

    return decorate


def read(run: dict[str, Any], *attempts: str) -> dict[str, Any]:
    """`run`, checked to the letter; `attempts` are the statuses of its attempts."""
    check(run)
    assert [attempt["status"] for attempt in run["attempts"]] == list(attempts)
    SEEN.update(f"attempt {status}" for status in attempts)
    SEEN.add(run["status"])
    return run


def error_of(run: dict[str, Any], index: int = -1) -> dict[str, Any]:
    found: dict[str, Any] = run["attempts"][index]["error"]
    return found


@pytest.fixture
def bystander(shared: World, tmp_path: Path) -> Iterator[str]:
    """A run that goes on while a test does bad things elsewhere; it must succeed all the same."""
    file = tmp_path / "go"
    run_id = shared.trigger("wait-until", str(file))
    shared.begun(run_id)
    yield run_id
    file.touch()
    done = shared.reaches(run_id, "COMPLETED_SUCCESSFULLY")
    check(done)
    assert done["output"] == "released"


@reaches("DELAYED", "COMPLETED_SUCCESSFULLY", "attempt COMPLETED")
def test_delayed_then_queued_then_completed(shared: World):
    run_id = shared.trigger("double", 21, delay="1s", tags=["a", "b"], metadata={"step": 0}, test=True)
    waiting = read(shared.run(run_id))
    assert waiting["status"] == "DELAYED"
    assert (waiting["version"], waiting["startedAt"], waiting["payload"]) == (None, None, 21)
    assert (waiting["isTest"], waiting["tags"], waiting["metadata"]) == (True, ["a", "b"], {"step": 0})
    assert waiting["relatedRuns"] == {"root": None, "parent": None, "children": []}
    done = read(shared.reaches(run_id, "COMPLETED_SUCCESSFULLY"), "COMPLETED")
    assert done["output"] == 42
    assert seconds(done["createdAt"], done["startedAt"]) >= 1


@reaches("WAITING_FOR_DEPLOY", "COMPLETED_SUCCESSFULLY")
def test_waiting_for_deploy_until_a_worker_brings_the_task(shared: World, tmp_path: Path):
    run_id = shared.trigger("brought-later", "x")
    assert read(shared.run(run_id))["status"] == "WAITING_FOR_DEPLOY"
    module = tmp_path / "later.py"
    module.write_text(
        "from holdfast import task\n\n@task\nasync def brought_later(text: str) -> str:\n    return text * 2\n"
    )
    worker = shared.start_worker(str(module), executors=1)
    done = read(shared.reaches(run_id, "COMPLETED_SUCCESSFULLY"), "COMPLETED")
    assert done["output"] == "xx"
    assert done["version"] is not None
    assert worker.end() == 0


@reaches("QUEUED", "EXECUTING", "attempt EXECUTING")
def test_queued_while_its_queue_is_full(shared: World):
    first = shared.trigger("alone-in-queue", 1.0)
    shared.begun(first)
    second = shared.trigger("alone-in-queue", 0.0)
    assert read(shared.run(second))["status"] == "QUEUED"
    executing = read(shared.run(first), "EXECUTING")
    assert executing["status"] == "EXECUTING"
    assert executing["startedAt"] is not None
    read(shared.reaches(first, "COMPLETED_SUCCESSFULLY"), "COMPLETED")
    after = read(shared.reaches(second, "COMPLETED_SUCCESSFULLY"), "COMPLETED")
    assert after["startedAt"] >= shared.run(first)["finishedAt"]


@reaches("QUEUED", "EXPIRED")
def test_queued_while_there_is_no_worker_and_expired_when_its_ttl_is_over(lonely: World):
    lonely.start_server()
    worker = lonely.start_worker(executors=1)
    assert worker.end() == 0
    patient = lonely.trigger("double", 1)
    hurried = lonely.trigger("double", 2, ttl="1s")
    assert read(lonely.run(hurried))["status"] == "QUEUED"
    expired = read(lonely.reaches(hurried, "EXPIRED"))
    assert (expired["startedAt"], expired["version"]) == (None, None)
    assert seconds(expired["createdAt"], expired["finishedAt"]) >= 1
    assert read(lonely.run(patient))["status"] == "QUEUED"
    lonely.start_worker(executors=1)
    read(lonely.reaches(patient, "COMPLETED_SUCCESSFULLY"), "COMPLETED")
    assert [words[0] for words in lonely.entries()] == [patient]


@reaches("REATTEMPTING", "attempt FAILED")
def test_reattempting_in_the_worker_and_then_completed(shared: World):
    run_id = shared.trigger("fail-once")
    between = read(shared.reaches(run_id, "REATTEMPTING"), "FAILED")
    assert error_of(between)["name"] == "ValueError"
    assert error_of(between)["message"] == "not yet"
    assert "tasks.py" in error_of(between)["stackTrace"]
    done = read(shared.reaches(run_id, "COMPLETED_SUCCESSFULLY"), "FAILED", "COMPLETED")
    assert done["output"] == 2
    failed, completed = done["attempts"]
    assert seconds(failed["completedAt"], completed["startedAt"]) >= 1
    assert done["startedAt"] == failed["startedAt"]


@reaches("REATTEMPTING", "CANCELLED")
def test_reattempting_through_the_queue_holds_no_place_and_can_be_cancelled(shared: World):
    run_id = shared.trigger("much-later")
    between = read(shared.reaches(run_id, "REATTEMPTING"), "FAILED")
    assert error_of(between)["name"] == "RetryAfter"
    shared.cancel(run_id)
    cancelled = read(shared.run(run_id), "FAILED")
    assert cancelled["status"] == "CANCELLED"
    assert cancelled["finishedAt"] is not None


@reaches("COMPLETED_WITH_ERRORS")
def test_completed_with_errors(shared: World):
    run_id = shared.trigger("fail", "no such customer")
    failed = read(shared.reaches(run_id, "COMPLETED_WITH_ERRORS"), "FAILED")
    assert error_of(failed)["message"] == "no such customer"
    given_up = shared.trigger("give-up")
    assert error_of(read(shared.reaches(given_up, "COMPLETED_WITH_ERRORS"), "FAILED"))["name"] == "AbortRun"


@reaches("CANCELLED")
def test_cancelled_while_it_is_queued(shared: World):
    first = shared.trigger("alone-in-queue", 1.0)
    shared.begun(first)
    queued = shared.trigger("alone-in-queue", 0.0)
    shared.cancel(queued)
    cancelled = read(shared.run(queued))
    assert cancelled["status"] == "CANCELLED"
    assert (cancelled["startedAt"], cancelled["version"]) == (None, None)
    assert cancelled["finishedAt"] is not None
    shared.cancel(queued)
    assert shared.run(queued) == cancelled
    shared.ends(first)


@reaches("CANCELLED", "attempt CANCELLED")
def test_cancelled_while_it_is_executing(shared: World, bystander: str):
    run_id = shared.trigger("nap", 60)
    shared.begun(run_id)
    shared.cancel(run_id)
    at_once = read(shared.run(run_id), "CANCELLED")
    assert at_once["status"] == "CANCELLED"
    closed = wait_for_finish(shared, run_id)
    assert seconds(closed["attempts"][0]["startedAt"], closed["finishedAt"]) < 10
    assert error_of(closed) == {
        "type": "INTERNAL_ERROR",
        "code": "TASK_RUN_CANCELLED",
        "message": "Canceled by user",
    }


@reaches("CANCELLED", "attempt CANCELLED")
def test_cancelling_a_parent_cancels_its_descendants(shared: World):
    parent_id = shared.trigger("parent", 60)
    shared.begun(parent_id)

    def children() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = shared.run(parent_id)["relatedRuns"]["children"]
        return found

    [child] = until(children, "the child is there")
    shared.begun(child["id"])
    shared.cancel(parent_id)
    own = wait_for_finish(shared, child["id"])
    assert own["status"] == "CANCELLED"
    assert own["relatedRuns"]["parent"]["id"] == own["relatedRuns"]["root"]["id"] == parent_id
    above = read(wait_for_finish(shared, parent_id), "CANCELLED")
    assert [item["status"] for item in above["relatedRuns"]["children"]] == ["CANCELLED"]


@reaches("CRASHED", "attempt FAILED", "attempt CANCELLED")
def test_crashed_when_it_kills_its_process_twice_and_its_neighbours_succeed(lonely: World, tmp_path: Path):
    lonely.start_server()
    lonely.start_worker(executors=1)
    file = tmp_path / "go"
    innocent = [lonely.trigger("wait-until", str(file)) for _ in range(3)]
    for run_id in innocent:
        lonely.begun(run_id)
    guilty = lonely.trigger("kill-process")
    lonely.begun(guilty)
    file.touch()
    crashed = read(lonely.reaches(guilty, "CRASHED", seconds=30), "CANCELLED", "FAILED")
    assert error_of(crashed)["code"] == "TASK_PROCESS_SIGSEGV"
    assert len(lonely.begun(guilty)) == 2
    for run_id in innocent:
        run = read(lonely.reaches(run_id, "COMPLETED_SUCCESSFULLY", seconds=30), "CANCELLED", "COMPLETED")
        assert run["output"] == "released"


@reaches("FAILED_TO_RUN", "attempt FAILED")
def test_failed_to_run_when_a_worker_has_lost_a_task_that_it_registered(lonely: World, tmp_path: Path):
    lonely.start_server()
    module = tmp_path / "shrinking.py"
    text = "from holdfast import task\n\n@task\nasync def stays() -> int:\n    return 1\n"
    module.write_text(text + "\n@task\nasync def goes() -> int:\n    return 2\n")
    worker = lonely.start_worker(str(module), executors=1)
    module.write_text(text)
    [executor] = lonely.executors(worker)
    executor.send_signal(signal.SIGKILL)
    executor.wait(5)
    run_id = lonely.trigger("goes")
    failed = read(lonely.reaches(run_id, "FAILED_TO_RUN"), "FAILED")
    assert error_of(failed) == {
        "type": "INTERNAL_ERROR",
        "code": "COULD_NOT_FIND_TASK",
        "message": "this worker has no task 'goes'; it has stays",
    }
    read(lonely.reaches(lonely.trigger("stays"), "COMPLETED_SUCCESSFULLY"), "COMPLETED")


@reaches("TIMED_OUT", "attempt FAILED")
def test_timed_out_when_asked_and_when_killed(shared: World, bystander: str):
    asked, killed = shared.trigger("over-time"), shared.trigger("stubborn-over-time")
    for run_id, how in ((asked, "it ended when it was asked"), (killed, "its process was killed")):
        run = read(shared.reaches(run_id, "TIMED_OUT"), "FAILED")
        assert error_of(run)["code"] == "MAX_DURATION_EXCEEDED"
        assert how in error_of(run)["message"]
        assert 5 <= seconds(run["startedAt"], run["finishedAt"]) < 8


@reaches("WAITING_TO_RESUME", "QUEUED", "COMPLETED_SUCCESSFULLY", "attempt EXECUTING", "attempt COMPLETED")
def test_waiting_to_resume_and_then_resumed_by_another_worker(lonely: World):
    lonely.start_server()
    worker = lonely.start_worker()
    run_id = lonely.trigger("ask", 7)
    waiting = read(lonely.reaches(run_id, "WAITING_TO_RESUME"), "EXECUTING")
    lonely.kill(worker)
    answer = lonely.call("POST", waiting["metadata"]["url"], {"by": "ann"}, headers={"Authorization": ""})
    assert answer == {"success": True}
    # At its old place, while there is nobody to take it.
    read(lonely.reaches(run_id, "QUEUED"), "EXECUTING")
    lonely.start_worker()
    done = read(lonely.reaches(run_id, "COMPLETED_SUCCESSFULLY"), "COMPLETED")
    assert done["output"] == ["asked 7", {"by": "ann"}]
    # The function began from the top again; its step ran once.
    assert [words[2] for words in lonely.begun(run_id, 3)] == ["ask", "step", "ask"]


def test_the_statuses_above_are_all():
    expected = {str(status) for status in RunStatus} | {f"attempt {status}" for status in AttemptStatus}
    assert expected == PROMISED


def wait_for_finish(world: World, run_id: str) -> dict[str, Any]:
    """The run once nothing of it is left in any process."""
    return until(lambda: (run := world.run(run_id))["finishedAt"] and run, f"{run_id} is closed", 12)
