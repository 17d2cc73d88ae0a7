"""Events, traces and spans over HTTP (the wire contract, 4.14)."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from holdfast.wire.versions import SDK_VERSION
from server.test_tokens import signed
from server.world import START, START_MS, World, ok, refused, trigger

pytestmark = pytest.mark.anyio

STEP = {"scope": "", "name": "s", "args": None, "kind": "step", "ok": True, "value": '"secret"', "ref": None}
DATA = {"message", "taskSlug", "events", "startTime", "duration", "isError", "isPartial", "isCancelled"}
DATA |= {"level", "workerVersion", "queueName", "properties"}


async def retried(world: World) -> tuple[str, str]:
    """A run that failed once, with a log line in each attempt, and its child; both have ended."""
    worker = await world.worker("echo", "child")
    run = await trigger(world.dev, payload="secret", maxAttempts=2, tags=["vip"])
    await worker.claim()
    await worker.say("entries", run, first=0, entries=[STEP])
    said = {"scope": "", "name": "child", "args": None}
    answer = await worker.say(
        "triggers", run, first=1, **said, items=[{"task": "child", "payload": "secret"}]
    )
    child: str = json.loads(answer["value"])[0]["id"]
    await worker.claim()
    await worker.succeed(child, '"secret"')
    for number in (1, 2):
        line = {"at": world.clock.now, "level": "WARNING", "logger": "app", "message": f"try {number}"}
        await worker.say("logs", run, records=[line])
        if number == 1:
            await worker.fail(run, 100_000)
            await world.later(10)
            for _ in range(10):
                await worker.client.post(f"/api/v1/workers/{worker.id}/heartbeat")
                await world.later(9)
            await worker.claim()
    await world.later(1)
    await worker.succeed(run, '"secret"')
    return run, child


async def test_a_trace_is_a_tree_of_spans(world: World):
    run, child = await retried(world)
    answer = await ok(world.dev.get(f"/api/v1/runs/{run}/trace"))
    assert set(answer) == {"trace"}
    trace = answer["trace"]
    assert set(trace) == {"traceId", "rootSpan"}
    assert re.fullmatch(r"[0-9a-f]{32}", trace["traceId"])
    root = trace["rootSpan"]
    assert set(root) == {"id", "runId", "data", "children"}
    assert root["runId"] == run
    assert set(root["data"]) == DATA
    assert (root["data"]["message"], root["data"]["taskSlug"]) == ("echo", "echo")
    assert (root["data"]["queueName"], root["data"]["startTime"]) == ("task/echo", START)
    assert (root["data"]["isError"], root["data"]["isPartial"]) == (False, False)
    assert root["data"]["duration"] == (world.clock.now - START_MS) * 1_000_000
    assert [node["data"]["message"] for node in root["children"]] == [
        "Attempt 1",
        "s",
        "trigger child",
        "child",
        "Attempt 2",
    ]
    first, _, _, inner, second = root["children"]
    for node in root["children"]:
        assert re.fullmatch(r"[0-9a-f]{16}", node["id"])
        assert node["parentId"] == root["id"]
        assert node["data"]["duration"] > 0
    assert [event["name"] for event in first["data"]["events"]] == ["log", "exception"]
    log, exception = first["data"]["events"]
    assert log["properties"] == {"level": "WARN", "message": "try 1", "logger": "app"}
    assert exception["properties"]["exception"] == {"type": "ValueError", "message": "no"}
    assert (first["data"]["isError"], second["data"]["isError"]) == (True, False)
    assert [event["properties"]["message"] for event in second["data"]["events"]] == ["try 2"]
    assert (inner["runId"], [node["data"]["message"] for node in inner["children"]]) == (child, ["Attempt 1"])
    own = (await ok(world.dev.get(f"/api/v1/runs/{child}/trace")))["trace"]
    assert own["traceId"] == trace["traceId"]
    assert (own["rootSpan"]["id"], own["rootSpan"]["parentId"]) == (inner["id"], root["id"])


async def test_a_trace_comes_in_flat_pages(world: World):
    run, _ = await retried(world)
    path = f"/api/v1/runs/{run}/trace"
    whole = await ok(world.dev.get(path, params={"page[size]": 10_000}))
    assert whole["pagination"] == {}
    failed = whole["data"][1]
    assert failed["attemptNumber"] == 1
    assert whole["attemptFailures"] == [{"spanId": failed["id"], "attemptNumber": 1, "runId": run}]
    for span in whole["data"]:
        needed = {"id", "runId", "message", "startTime", "duration", "isError", "isPartial", "isCancelled"}
        assert needed | {"level"} <= set(span) <= needed | {"level", "parentId", "attemptNumber"}
        assert None not in span.values()
    read: list[Any] = []
    params: dict[str, Any] = {"page[size]": 3}
    while True:
        page = await ok(world.dev.get(path, params=params))
        read += page["data"]
        if "next" not in page["pagination"]:
            break
        params["page[after]"] = page["pagination"]["next"]
    assert read == whole["data"]


async def test_events_tell_the_run_alone(world: World):
    run, child = await retried(world)
    answer = await ok(world.dev.get(f"/api/v1/runs/{run}/events"))
    events = answer["events"]
    assert [event["message"] for event in events] == [
        "echo",
        "Attempt 1",
        "s",
        "trigger child",
        "try 1",
        "Attempt 2",
        "try 2",
    ]
    for event in events:
        assert event["runId"] == run
        assert event["taskSlug"] == "echo"
        assert isinstance(event["startTime"], str)
        assert isinstance(event["style"], dict)
        assert None not in event.values()
    assert events[0]["startTime"] == f"{START_MS}000000"
    logged = [event for event in events if event["kind"] == "LOG"]
    assert [(event["level"], event["attemptNumber"]) for event in logged] == [("WARN", 1), ("WARN", 2)]
    attempts = {event["message"]: event["spanId"] for event in events if "Attempt" in event["message"]}
    assert [event["spanId"] for event in logged] == [attempts["Attempt 1"], attempts["Attempt 2"]]
    [error] = events[1]["events"]
    assert error["properties"]["exception"]["message"] == "no"
    page = await ok(world.dev.get(f"/api/v1/runs/{run}/events?page[size]=5"))
    rest = await ok(world.dev.get(f"/api/v1/runs/{run}/events?page[after]={page['pagination']['next']}"))
    assert (len(page["events"]), len(rest["events"]), rest["pagination"]) == (5, 2, {})
    assert [event["spanId"] for event in rest["events"]] == [event["spanId"] for event in logged]
    assert child not in {event["runId"] for event in events}


@pytest.mark.parametrize(("sdk", "status"), [(True, "COMPLETED"), (False, "COMPLETED_SUCCESSFULLY")])
async def test_a_span_is_read_alone(world: World, sdk: bool, status: str):
    headers = {"x-trigger-api-version": SDK_VERSION} if sdk else {}
    run, child = await retried(world)
    trace = (await ok(world.dev.get(f"/api/v1/runs/{run}/trace")))["trace"]
    root = trace["rootSpan"]
    path = f"/api/v1/runs/{run}/spans"
    span = await ok(world.dev.get(f"{path}/{root['id']}", headers=headers))
    assert span == {
        "spanId": root["id"],
        "parentId": None,
        "runId": run,
        "message": "echo",
        "isError": False,
        "isPartial": False,
        "isCancelled": False,
        "level": "TRACE",
        "startTime": START,
        "durationMs": world.clock.now - START_MS,
        "properties": {"kind": "run"},
        "events": [],
        "triggeredRuns": [
            {"runId": child, "taskIdentifier": "child", "status": status, "createdAt": START},
        ],
    }
    failed = await ok(world.dev.get(f"{path}/{root['children'][0]['id']}"))
    assert failed["events"][-1]["properties"]["exception"] == {
        "type": "ValueError",
        "message": "no",
        "stacktrace": "line 1",
    }
    step = await ok(world.dev.get(f"{path}/{root['children'][1]['id']}"))
    assert (step["properties"], step["parentId"]) == ({"kind": "step", "seq": 0}, root["id"])
    inner = await ok(world.dev.get(f"{path}/{root['children'][3]['id']}"))
    assert (inner["runId"], inner["parentId"]) == (child, root["id"])
    for id in ("0" * 16, "x", "A" * 16, "0" * 15, "%2F"):
        await refused(world.dev.get(f"{path}/{id}"), 404, "not_found")
    await refused(world.dev.get(f"/api/v1/runs/{child}/spans/{root['id']}"), 404, "not_found")


async def test_nothing_that_went_in_or_came_out_is_told(world: World):
    run, _ = await retried(world)
    answers = [
        (await world.dev.get(f"/api/v1/runs/{run}/{path}")).text
        for path in ("trace", "trace?page[size]=9", "events")
    ]
    trace = json.loads(answers[0])["trace"]["rootSpan"]
    for node in (trace, *trace["children"]):
        answers.append((await world.dev.get(f"/api/v1/runs/{run}/spans/{node['id']}")).text)
    assert "secret" not in "".join(answers)


@pytest.mark.parametrize("path", ["events", "trace", "trace?page[size]=5", "spans/{span}"])
async def test_public_tokens_read_what_their_scopes_name(world: World, path: str):
    run, child = await retried(world)
    batch = await ok(world.dev.post("/api/v1/tasks/batch", json={"items": [{"task": "echo"}]}))
    of_batch = batch["runs"][0]["id"]

    async def status(of: str, *scopes: str) -> int:
        trace = (await ok(world.dev.get(f"/api/v1/runs/{of}/trace")))["trace"]
        url = f"/api/v1/runs/{of}/{path.format(span=trace['rootSpan']['id'])}"
        headers = {"authorization": f"Bearer {signed(scopes=list(scopes))}"}
        return (await world.dev.get(url, headers=headers)).status_code

    for scope in (f"read:runs:{run}", "read:runs", "read:tasks:echo", "read:tags:vip", "read:all", "admin"):
        assert await status(run, scope) == 200, scope
    assert await status(of_batch, f"read:batch:{batch['batchId']}") == 200
    for scope in (
        f"read:runs:{child}",
        "read:tags:other",
        "read:batch:batch_x",
        "write:runs",
        "trigger:tasks:echo",
    ):
        assert await status(run, scope) == 403, scope
    await refused(world.prod.get(f"/api/v1/runs/{run}/{path.format(span='0' * 16)}"), 404, "run_not_found")


@pytest.mark.parametrize("path", ["events", "trace"])
async def test_a_page_that_can_not_be_read_is_refused(world: World, path: str):
    run = await trigger(world.dev)
    for query in ("page[size]=0", "page[size]=10001", "page[size]=x"):
        await refused(
            world.dev.get(f"/api/v1/runs/{run}/{path}?{query}"), 400, "invalid_request", param="page[size]"
        )
    for after in ("x", "", "run_x.0.0", "%00", f"{run}.9.0"):
        await refused(
            world.dev.get(f"/api/v1/runs/{run}/{path}?page[after]={after}"),
            400,
            "invalid_request",
            param="page[after]",
        )


async def test_a_run_that_is_not_there_has_no_trace(world: World):
    for path in ("events", "trace", "spans/0123456789abcdef"):
        response = await world.dev.get(f"/api/v1/runs/run_x/{path}")
        assert response.headers["x-should-retry"] == "false"
        await refused(world.dev.get(f"/api/v1/runs/run_x/{path}"), 404, "run_not_found")
