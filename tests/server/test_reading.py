"""The run structure, results and logs."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from server.world import ERROR, SDK, START, World, ok, read, refused, trigger

pytestmark = pytest.mark.anyio

KEYS = [
    "id",
    "status",
    "taskIdentifier",
    "version",
    "createdAt",
    "updatedAt",
    "startedAt",
    "finishedAt",
    "isTest",
    "payload",
    "tags",
    "metadata",
    "relatedRuns",
    "attempts",
]
WITH_OUTPUT = [*KEYS[:10], "output", *KEYS[10:]]
LIST_KEYS = [*KEYS[:9], "tags", "metadata"]
NONE_RELATED = {"root": None, "parent": None, "children": []}


async def test_a_new_run_has_exactly_the_structure(world: World):
    run = await trigger(world.dev, payload={"a": [1, None]}, tags=["b", "a"], metadata={"k": 1}, test=True)
    structure = await read(world.dev, run)
    assert structure == {
        "id": run,
        "status": "WAITING_FOR_DEPLOY",
        "taskIdentifier": "echo",
        "version": None,
        "createdAt": START,
        "updatedAt": START,
        "startedAt": None,
        "finishedAt": None,
        "isTest": True,
        "payload": {"a": [1, None]},
        "tags": ["b", "a"],
        "metadata": {"k": 1},
        "relatedRuns": NONE_RELATED,
        "attempts": [],
    }
    assert list(structure) == KEYS


async def test_a_run_that_succeeded_has_output_and_its_attempt(world: World):
    worker = await world.worker("echo")
    run = await trigger(world.dev)
    world.clock.advance(1)
    await worker.claim()
    world.clock.advance(1)
    await worker.succeed(run, '{"n":1.5}')
    structure = await read(world.dev, run)
    assert list(structure) == WITH_OUTPUT
    assert structure["status"] == "COMPLETED_SUCCESSFULLY"
    assert structure["version"] == worker.version
    assert structure["payload"] is None
    assert structure["output"] == {"n": 1.5}
    assert structure["startedAt"] == "2027-01-15T08:00:01.000Z"
    assert structure["finishedAt"] == structure["updatedAt"] == "2027-01-15T08:00:02.000Z"
    [attempt] = structure["attempts"]
    assert list(attempt) == ["id", "status", "startedAt", "completedAt", "error"]
    assert attempt | {"id": ""} == {
        "id": "",
        "status": "COMPLETED",
        "startedAt": structure["startedAt"],
        "completedAt": structure["finishedAt"],
        "error": None,
    }
    assert attempt["id"].startswith("attempt_")


async def test_a_run_that_returned_nothing_has_null_as_output(world: World):
    worker = await world.worker("echo")
    run = await trigger(world.dev)
    await worker.claim()
    await worker.succeed(run, None)
    assert (await read(world.dev, run))["output"] is None


async def test_a_run_that_failed_has_no_output_and_its_attempts_have_the_error(world: World):
    worker = await world.worker("echo")
    run = await trigger(world.dev)
    await worker.claim()
    await worker.fail(run, delay_ms=1_000)
    structure = await read(world.dev, run)
    assert structure["status"] == "REATTEMPTING"
    assert [attempt["status"] for attempt in structure["attempts"]] == ["FAILED"]
    await worker.say("started", run)
    await worker.fail(run)
    structure = await read(world.dev, run)
    assert list(structure) == KEYS
    assert structure["status"] == "COMPLETED_WITH_ERRORS"
    assert [attempt["error"] for attempt in structure["attempts"]] == [ERROR, ERROR]
    assert len({attempt["id"] for attempt in structure["attempts"]}) == 2


async def test_related_runs_are_list_items(world: World):
    worker = await world.worker("echo")
    root = await trigger(world.dev)
    await worker.claim()
    child = await trigger(world.dev, parentRunId=root)
    [claimed] = await worker.claim()
    assert (claimed["parentId"], claimed["rootId"]) == (root, root)
    grandchild = await trigger(world.dev, parentRunId=child)
    related = (await read(world.dev, grandchild))["relatedRuns"]
    assert list(related) == ["root", "parent", "children"]
    assert (related["root"]["id"], related["parent"]["id"], related["children"]) == (root, child, [])
    assert list(related["root"]) == LIST_KEYS
    assert [item["id"] for item in (await read(world.dev, root))["relatedRuns"]["children"]] == [child]


async def test_a_run_of_another_environment_looks_like_none(world: World):
    run = await trigger(world.prod)
    unknown = await world.dev.get("/api/v3/runs/run_0000000000000000000000000")
    foreign = await world.dev.get(f"/api/v3/runs/{run}")
    assert unknown.status_code == foreign.status_code == 404
    assert unknown.content == foreign.content == b'{"error":"Run not found","code":"run_not_found"}'
    assert unknown.headers == foreign.headers
    assert unknown.headers["x-should-retry"] == "true"


async def test_the_result_of_an_unfinished_run_is_404_and_then_the_outcome(world: World):
    worker = await world.worker("echo")
    good, bad = [await trigger(world.dev) for _ in range(2)]
    await refused(world.dev.get(f"/api/v1/runs/{good}/result"), 404, "not_found")
    await worker.claim()
    await refused(world.dev.get(f"/api/v1/runs/{good}/result?waitMs=1"), 404, "not_found")
    await worker.succeed(good, '{"n":1}')
    await worker.fail(bad)
    assert await ok(world.dev.get(f"/api/v1/runs/{good}/result")) == {
        "ok": True,
        "id": good,
        "taskIdentifier": "echo",
        "status": "COMPLETED_SUCCESSFULLY",
        "output": '{"n":1}',
        "outputType": "application/json",
    }
    assert await ok(world.dev.get(f"/api/v1/runs/{bad}/result")) == {
        "ok": False,
        "id": bad,
        "taskIdentifier": "echo",
        "status": "COMPLETED_WITH_ERRORS",
        "error": ERROR,
    }


async def test_the_result_of_a_cancelled_run_says_so(world: World):
    run = await trigger(world.dev)
    await ok(world.dev.post(f"/api/v2/runs/{run}/cancel"))
    result = await ok(world.dev.get(f"/api/v1/runs/{run}/result"))
    assert result["error"] == {
        "type": "INTERNAL_ERROR",
        "code": "TASK_RUN_CANCELLED",
        "message": "Canceled by user",
    }


@pytest.mark.parametrize(
    ("reported", "told"),
    [
        (
            {"type": "BUILT_IN_ERROR", "message": "no"},
            {"type": "BUILT_IN_ERROR", "name": "Error", "message": "no", "stackTrace": ""},
        ),
        ({"message": 5}, {"type": "BUILT_IN_ERROR", "name": "Error", "message": "5", "stackTrace": ""}),
        (
            {
                "name": "V",
                "message": "no",
                "causes": [
                    {"name": "K", "message": "m" * 20_000, "stackTrace": "t"},
                    5,
                    {"name": 5},
                    {},
                    {},
                    {},
                ],
            },
            {
                "type": "BUILT_IN_ERROR",
                "name": "V",
                "message": "no",
                "stackTrace": "",
                "causes": [
                    {"name": "K", "message": "m" * 16_384, "stackTrace": "t"},
                    {"message": ""},
                    {"message": ""},
                    {"message": ""},
                ],
            },
        ),
        (
            {"name": "V", "message": "no", "causes": "?"},
            {"type": "BUILT_IN_ERROR", "name": "V", "message": "no", "stackTrace": ""},
        ),
        ({"type": "STRING_ERROR"}, {"type": "STRING_ERROR", "raw": ""}),
        (
            {"type": "INTERNAL_ERROR", "code": "UNHEARD_OF", "message": "step 2"},
            {"type": "INTERNAL_ERROR", "code": "UNSPECIFIED_ERROR", "message": "step 2"},
        ),
        (
            {"type": "INTERNAL_ERROR", "code": "MAX_DURATION_EXCEEDED"},
            {
                "type": "INTERNAL_ERROR",
                "code": "MAX_DURATION_EXCEEDED",
                "message": "The run took longer than its maximum duration",
            },
        ),
    ],
)
async def test_the_sdk_is_told_errors_that_it_can_read(world: World, reported: Any, told: Any):
    worker = await world.worker("echo")
    body = {"items": [{"task": "echo"}]}
    batch = (await world.dev.post("/api/v2/tasks/batch", json=body)).json()["id"]
    [claimed] = await worker.claim()
    await worker.say("failed", claimed["id"], error=reported, retryDelayMs=None)
    result = await ok(world.dev.get(f"/api/v1/runs/{claimed['id']}/result", headers=SDK))
    assert result["error"] == told
    [item] = (await ok(world.dev.get(f"/api/v1/batches/{batch}/results", headers=SDK)))["items"]
    assert item == result
    shown = (await ok(world.dev.get(f"/api/v3/runs/{claimed['id']}", headers=SDK)))["error"]
    assert shown.get("causes") == told.get("causes")
    assert isinstance(shown["message"], str)


async def test_a_result_is_held_back_until_the_report_arrives(world: World):
    worker = await world.worker("echo")
    run = await trigger(world.dev)
    await worker.claim()
    waiting = asyncio.create_task(ok(world.dev.get(f"/api/v1/runs/{run}/result?waitMs=25000")))
    done, _ = await asyncio.wait([waiting], timeout=0.1)
    assert not done
    await worker.succeed(run, '"x"')
    async with asyncio.timeout(5):
        assert (await waiting)["output"] == '"x"'


async def test_held_back_calls_are_answered_when_the_server_stops_waiting(world: World):
    run = await trigger(world.dev)
    waiting = asyncio.create_task(world.dev.get(f"/api/v1/runs/{run}/result?waitMs=25000"))
    await asyncio.wait([waiting], timeout=0.1)
    world.engine.stop_waiting()
    async with asyncio.timeout(5):
        await refused(waiting, 404, "not_found")


async def test_results_answer_with_those_that_ended_and_those_that_did_not(world: World):
    worker = await world.worker("echo")
    first, second, third = [await trigger(world.dev) for _ in range(3)]
    runs = [first, second, third]
    answer = await ok(world.dev.post("/api/v1/runs/results", json={"runs": runs}))
    assert answer == {"results": [], "tokens": [], "pending": runs}
    await worker.claim()
    waiting = asyncio.create_task(
        ok(world.dev.post("/api/v1/runs/results", json={"runs": runs, "waitMs": 25_000}))
    )
    await asyncio.wait([waiting], timeout=0.1)
    await worker.succeed(second)
    async with asyncio.timeout(5):
        answer = await waiting
    assert [result["id"] for result in answer["results"]] == [second]
    assert answer["pending"] == [first, third]


async def test_results_refuse_unknown_and_foreign_runs_alike(world: World):
    own, foreign = await trigger(world.dev), await trigger(world.prod)
    for run in (foreign, "run_x"):
        body = await refused(
            world.dev.post("/api/v1/runs/results", json={"runs": [own, run]}), 404, "run_not_found"
        )
        assert body["error"] == "Run not found"


@pytest.mark.parametrize("runs", [[], ["run_x"] * 1_001, "run_x", [1], ["x" * 65]])
async def test_results_need_one_to_a_thousand_ids(world: World, runs: object):
    await refused(world.dev.post("/api/v1/runs/results", json={"runs": runs}), 400, "invalid_request")


@pytest.mark.parametrize("wait", ["-1", "30001", "1.5", "soon", "", "9" * 5_000])
async def test_a_wait_that_can_not_be_read_is_refused(world: World, wait: str):
    run = await trigger(world.dev)
    await refused(
        world.dev.get(f"/api/v1/runs/{run}/result", params={"waitMs": wait}),
        400,
        "invalid_request",
        param="waitMs",
    )


async def test_logs_are_read_in_pages_in_their_order(world: World):
    worker = await world.worker("echo")
    run = await trigger(world.dev)
    await worker.claim()
    records = [
        {"at": 1_800_000_000_001 + n, "level": "INFO", "logger": "app", "message": f"line {n}"}
        for n in range(3)
    ]
    assert await worker.say("logs", run, records=records) == {"status": "ok"}
    page = await ok(world.dev.get(f"/api/v1/runs/{run}/logs?page[size]=2"))
    assert [line["message"] for line in page["data"]] == ["line 0", "line 1"]
    assert page["data"][0] | {"id": ""} == {
        "id": "",
        "at": "2027-01-15T08:00:00.001Z",
        "level": "INFO",
        "logger": "app",
        "message": "line 0",
        "attempt": 1,
    }
    rest = await ok(
        world.dev.get(f"/api/v1/runs/{run}/logs?page[size]=2&page[after]={page['pagination']['next']}")
    )
    assert [line["message"] for line in rest["data"]] == ["line 2"]
    assert rest["pagination"] == {}
    await refused(world.prod.get(f"/api/v1/runs/{run}/logs"), 404, "run_not_found")


@pytest.mark.parametrize("at", [10**18, -(10**18), 10**900])
async def test_a_log_stamp_that_is_no_time_is_refused_and_the_logs_stay_readable(world: World, at: int):
    worker = await world.worker("echo")
    run = await trigger(world.dev)
    await worker.claim()
    record = {"at": at, "level": "INFO", "logger": "app", "message": "x"}
    report = {"kind": "logs", "run": run, "lease": worker.held[run], "records": [record]}
    await refused(
        world.dev.post(f"/api/v1/workers/{worker.id}/reports", json={"reports": [report]}),
        400,
        "invalid_request",
    )
    assert (await ok(world.dev.get(f"/api/v1/runs/{run}/logs")))["data"] == []


@pytest.mark.parametrize("output", ["not json", "", "NaN", "[" * 101 + "]" * 101, "1e999", '"\\u0000"'])
async def test_an_output_that_is_no_json_is_refused_and_the_run_stays_readable(world: World, output: str):
    worker = await world.worker("echo")
    run = await trigger(world.dev)
    await worker.claim()
    answer = await worker.say("succeeded", run, output=output)
    assert answer["status"] == "refused"
    assert "output" in answer["error"]
    assert (await read(world.dev, run))["status"] == "EXECUTING"
    await worker.succeed(run, json.dumps("better"))
    assert (await read(world.dev, run))["output"] == "better"
