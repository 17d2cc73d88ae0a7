"""The worker protocol: what a worker reports about the runs it holds."""

from __future__ import annotations

from typing import Any

import pytest

from server.world import ERROR, World, ok, read, refused, trigger

pytestmark = pytest.mark.anyio


async def test_a_worker_of_another_environment_reports_nothing(world: World):
    worker = await world.worker("echo")
    run = await trigger(world.dev)
    await worker.claim()
    stranger = await world.worker("echo", client=world.prod)
    lease = worker.held[run]
    for kind, fields in (
        ("succeeded", {"output": "1"}),
        ("failed", {"error": ERROR, "retryDelayMs": None}),
        ("metadata", {"operations": [{"type": "set", "key": "a", "value": 1}]}),
        ("tags", {"tags": ["x"]}),
        ("logs", {"records": []}),
        ("closed", {}),
        ("released", {"started": True}),
    ):
        assert await stranger.say(kind, run, lease, **fields) == {"status": "fenced"}
        assert await worker.say(kind, run, lease - 1, **fields) == {"status": "fenced"}
        report = {"kind": kind, "run": run, "lease": lease, **fields}
        url = f"/api/v1/workers/{worker.id}/reports"
        await refused(world.prod.post(url, json={"reports": [report]}), 404, "worker_not_found")
    structure = await read(world.dev, run)
    assert (structure["status"], structure["metadata"], structure["tags"]) == ("EXECUTING", {}, [])
    await worker.succeed(run)


async def test_a_report_that_arrives_twice_changes_nothing_the_second_time(world: World):
    worker = await world.worker("echo")
    run = await trigger(world.dev)
    await worker.claim()
    lease = worker.held[run]
    said = {"kind": "succeeded", "run": run, "lease": lease, "output": "1"}
    assert await worker.report(said, said) == [{"status": "ok"}, {"status": "fenced"}]
    assert await worker.report(said | {"output": "2"}) == [{"status": "fenced"}]
    assert (await read(world.dev, run))["output"] == 1


async def test_a_failed_attempt_is_followed_by_the_next_one_in_the_worker(world: World):
    worker = await world.worker("echo")
    run = await trigger(world.dev)
    await worker.claim()
    lease = worker.held[run]
    answer = await worker.fail(run, delay_ms=2_000)
    assert answer == {"status": "retry", "lease": lease + 1, "attempt": 2, "delayMs": 2_000}
    again = await worker.say("failed", run, lease, error=ERROR, retryDelayMs=2_000)
    assert again == answer
    started = await worker.say("started", run)
    assert started == {"status": "started", "lease": lease + 2, "attempt": 2}
    assert await worker.say("started", run, lease + 1) == started
    await worker.succeed(run)
    attempts = (await read(world.dev, run))["attempts"]
    assert [attempt["status"] for attempt in attempts] == ["FAILED", "COMPLETED"]


async def test_a_long_retry_goes_through_the_queue(world: World):
    worker = await world.worker("echo")
    run = await trigger(world.dev)
    await worker.claim()
    assert await worker.fail(run, delay_ms=60_000) == {"status": "ok"}
    assert (await read(world.dev, run))["status"] == "REATTEMPTING"
    assert await worker.claim() == []
    await world.later(60)
    [claimed] = await worker.claim()
    assert (claimed["id"], claimed["attempt"]) == (run, 2)


async def test_the_last_attempt_ends_the_run(world: World):
    worker = await world.worker("echo")
    run = await trigger(world.dev, maxAttempts=1)
    await worker.claim()
    assert await worker.fail(run, delay_ms=1_000) == {"status": "ok"}
    assert (await read(world.dev, run))["status"] == "COMPLETED_WITH_ERRORS"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("MAX_DURATION_EXCEEDED", "TIMED_OUT"),
        ("TASK_PROCESS_SIGSEGV", "CRASHED"),
        ("COULD_NOT_IMPORT_TASK", "FAILED_TO_RUN"),
        ("TASK_OUTPUT_ERROR", "COMPLETED_WITH_ERRORS"),
        (["no", "text"], "FAILED_TO_RUN"),
        (None, "FAILED_TO_RUN"),
    ],
)
async def test_the_code_of_an_error_decides_the_status(world: World, code: Any, status: str):
    worker = await world.worker("echo")
    run = await trigger(world.dev, maxAttempts=1)
    await worker.claim()
    error = {"type": "INTERNAL_ERROR", "code": code, "message": "x"}
    assert await worker.say("failed", run, error=error, retryDelayMs=1_000) == {"status": "ok"}
    structure = await read(world.dev, run)
    assert structure["status"] == status
    assert structure["attempts"][0]["error"] == error


async def test_an_error_without_a_readable_code_is_retried_or_ends_like_any_other(world: World):
    worker = await world.worker("echo")
    run = await trigger(world.dev)
    await worker.claim()
    error = {"type": "INTERNAL_ERROR", "code": {"not": "a text"}}
    answer = await worker.say("failed", run, error=error, retryDelayMs=1_000)
    assert answer["status"] == "retry"


async def test_a_crash_of_a_shared_process_counts_no_attempt(world: World):
    worker = await world.worker("echo")
    run = await trigger(world.dev)
    await worker.claim()
    error = {"type": "INTERNAL_ERROR", "code": "TASK_PROCESS_SIGSEGV", "message": "x"}
    assert await worker.say("crashed", run, error=error, shared=True) == {"status": "ok"}
    [claimed] = await worker.claim()
    assert (claimed["attempt"], claimed["alone"]) == (1, True)
    assert await worker.say("crashed", run, error=error, shared=False) == {"status": "ok"}
    assert (await read(world.dev, run))["status"] == "CRASHED"


@pytest.mark.parametrize(("started", "attempts"), [(False, []), (True, ["CANCELLED"])])
async def test_a_released_run_returns_to_the_queue(world: World, started: bool, attempts: list[str]):
    worker = await world.worker("echo")
    run = await trigger(world.dev)
    await worker.claim()
    assert await worker.say("released", run, started=started) == {"status": "ok"}
    structure = await read(world.dev, run)
    assert structure["status"] == "QUEUED"
    assert [attempt["status"] for attempt in structure["attempts"]] == attempts
    assert [claimed["attempt"] for claimed in await worker.claim()] == [1]


async def test_metadata_tags_and_logs_are_streamed_before_the_outcome(world: World):
    worker = await world.worker("echo")
    parent = await trigger(world.dev)
    await worker.claim()
    run = await trigger(world.dev, parentRunId=parent)
    await worker.claim()
    count = [{"type": "increment", "key": "n", "value": 1}]
    names = {"run": run, "lease": worker.held[run]}
    record = {"at": world.clock.now, "level": "INFO", "logger": "app", "message": "a\tb"}
    answers = await worker.report(
        {"kind": "succeeded", **names, "output": "1"},
        {
            "kind": "metadata",
            **names,
            "operations": count,
            "parentOperations": count,
            "rootOperations": count,
        },
        {"kind": "tags", **names, "tags": ["x"]},
        {"kind": "logs", **names, "records": [record]},
    )
    assert answers == [{"status": "ok"}] * 4
    structure = await read(world.dev, run)
    assert (structure["metadata"], structure["tags"]) == ({"n": 1}, ["x"])
    assert (await read(world.dev, parent))["metadata"] == {"n": 2}
    [line] = (await ok(world.dev.get(f"/api/v1/runs/{run}/logs")))["data"]
    assert line["message"] == "a\tb"


async def test_a_report_that_can_never_be_taken_is_refused_alone(world: World):
    worker = await world.worker("echo")
    run = await trigger(world.dev, tags=[str(n) for n in range(9)])
    await worker.claim()
    names = {"run": run, "lease": worker.held[run]}
    answers = await worker.report(
        {"kind": "metadata", **names, "operations": [{"type": "grow"}]},
        {"kind": "metadata", **names, "operations": [{"type": "set", "key": "a", "value": "x" * 300_000}]},
        {"kind": "tags", **names, "tags": ["a", "b"]},
        {"kind": "closed", **names},
        {"kind": "succeeded", **names, "output": "{"},
        {"kind": "metadata", **names, "operations": [{"type": "set", "key": "a", "value": 1}]},
    )
    assert [answer["status"] for answer in answers] == ["refused"] * 5 + ["ok"]
    assert all(answer["error"] for answer in answers[:5])
    structure = await read(world.dev, run)
    assert (structure["status"], structure["metadata"]) == ("EXECUTING", {"a": 1})


async def test_an_output_over_ten_mebibytes_is_refused(world: World):
    worker = await world.worker("echo")
    run = await trigger(world.dev)
    await worker.claim()
    answer = await worker.say("succeeded", run, output='"' + "x" * (10 * 1024 * 1024) + '"')
    assert answer["status"] == "refused"
    await worker.succeed(run, '"' + "x" * (10 * 1024 * 1024 - 2) + '"')


@pytest.mark.parametrize(
    "report",
    [
        {"kind": "vanished", "run": "r", "lease": 1},
        {"kind": "succeeded", "run": "r", "lease": 1},
        {"kind": "succeeded", "run": "r", "lease": 1, "output": 5},
        {"kind": "succeeded", "run": "r", "lease": 10**30, "output": None},
        {"kind": "failed", "run": "r", "lease": 1, "error": "text", "retryDelayMs": None},
        {"kind": "failed", "run": "r", "lease": 1, "error": {}, "retryDelayMs": -1},
        {"kind": "tags", "run": "r", "lease": 1, "tags": ["t" * 129]},
        {"kind": "started", "run": "", "lease": 1},
        {"run": "r", "lease": 1},
        [],
        None,
    ],
)
async def test_reports_of_the_wrong_shape_are_refused_as_a_whole(world: World, report: Any):
    worker = await world.worker("echo")
    await refused(
        world.dev.post(f"/api/v1/workers/{worker.id}/reports", json={"reports": [report]}),
        400,
        "invalid_request",
    )
