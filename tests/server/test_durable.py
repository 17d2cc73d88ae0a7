"""Journals, children, tokens and suspensions through the worker protocol."""

from __future__ import annotations

import json
from typing import Any

import jwt
import pytest

from server.world import ERROR, Worker, World, ok, read, refused, trigger

pytestmark = pytest.mark.anyio

CALL = {"scope": "", "name": "s", "args": None}
STEP = {**CALL, "kind": "step", "ok": True, "value": "1", "ref": None}


async def started(world: World, *tasks: str) -> tuple[Worker, str]:
    """A worker that holds a run."""
    worker = await world.worker("echo", *tasks)
    run = await trigger(world.dev)
    assert [one["id"] for one in await worker.claim()] == [run]
    return worker, run


async def claimed(worker: Worker) -> dict[str, Any]:
    answer = await ok(
        worker.client.post(f"/api/v1/workers/{worker.id}/claim", json={"slots": 10, "waitMs": 0})
    )
    worker.held |= {run["id"]: run["lease"] for run in answer["runs"]}
    return answer


async def test_entries_are_kept_and_come_back_with_the_next_attempt(world: World):
    worker, run = await started(world)
    sleep = {**STEP, "kind": "sleep", "name": "", "value": None, "delayMs": 9_000}
    answer = await worker.say("entries", run, first=0, entries=[STEP, sleep])
    due = str(world.clock.now + 9_000)
    assert answer == {"status": "ok", "now": world.clock.now, "values": [None, due]}
    assert await worker.say("entries", run, first=2, entries=[{**STEP, "ok": False, "value": '{"a":1}'}]) == {
        "status": "ok",
        "now": world.clock.now,
    }
    assert await worker.say("released", run, started=True) == {"status": "ok"}
    again = await claimed(worker)
    [found] = again["runs"]
    assert again["now"] == world.clock.now
    assert (found["entries"], found["attempt"], found["resumes"]) == (3, 1, 0)
    assert found["journal"] == [
        STEP,
        {**STEP, "kind": "sleep", "name": "", "value": due},
        {**STEP, "ok": False, "value": '{"a":1}'},
    ]
    page = await ok(
        worker.client.post(
            f"/api/v1/workers/{worker.id}/journal", json={"run": run, "lease": worker.held[run], "after": 1}
        )
    )
    assert (page["entries"], page["more"]) == (found["journal"][1:], False)


async def test_people_read_a_journal_page_by_page(world: World):
    worker, run = await started(world)
    await worker.say("entries", run, first=0, entries=[{**STEP, "name": f"s{n}"} for n in range(5)])
    path = f"/api/v1/runs/{run}/journal"
    page = await ok(world.dev.get(f"{path}?page[size]=3"))
    assert [(entry["seq"], entry["name"], entry["value"]) for entry in page["data"]] == [
        (0, "s0", "1"),
        (1, "s1", "1"),
        (2, "s2", "1"),
    ]
    rest = await ok(world.dev.get(f"{path}?page[after]={page['pagination']['next']}"))
    assert ([entry["seq"] for entry in rest["data"]], rest["pagination"]) == ([3, 4], {})
    for query in ("page[size]=0", "page[after]=x", "page[after]=-1"):
        await refused(world.dev.get(f"{path}?{query}"), 400, "invalid_request")
    await refused(world.prod.get(path), 404, "run_not_found")
    await refused(world.dev.get("/api/v1/runs/run_x/journal"), 404, "run_not_found")


@pytest.mark.parametrize(
    "entry",
    [
        {**STEP, "value": "{"},
        {**STEP, "value": "NaN"},
        {**STEP, "value": ""},
        {**STEP, "value": "[" * 101 + "]" * 101},
        {**STEP, "value": '"\\u0000"'},
    ],
)
async def test_a_value_that_is_no_json_is_refused_alone(world: World, entry: dict[str, Any]):
    worker, run = await started(world)
    lease = worker.held[run]
    bad, good = await worker.report(
        {"kind": "entries", "run": run, "lease": lease, "first": 0, "entries": [STEP, entry]},
        {"kind": "entries", "run": run, "lease": lease, "first": 0, "entries": [STEP]},
    )
    assert (bad["status"], good["status"]) == ("refused", "ok")
    assert len((await ok(world.dev.get(f"/api/v1/runs/{run}/journal")))["data"]) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "entries", "first": 0, "entries": []},
        {"kind": "entries", "first": -1, "entries": [STEP]},
        {"kind": "entries", "first": 0, "entries": [STEP] * 1_001},
        {"kind": "entries", "first": 0, "entries": [{**STEP, "kind": "dance"}]},
        {"kind": "entries", "first": 0, "entries": [{**STEP, "name": "x" * 257}]},
        {"kind": "entries", "first": 0, "entries": [{**STEP, "scope": "x" * 513}]},
        {"kind": "entries", "first": 0, "entries": [{**STEP, "name": "a\x00b"}]},
        {"kind": "entries", "first": 0, "entries": [{**STEP, "delayMs": -1}]},
        {"kind": "entries", "first": 0, "entries": [{**CALL, "kind": "step"}]},
        {"kind": "triggers", "first": 0, **CALL, "items": []},
        {"kind": "triggers", "first": 0, **CALL, "items": "echo"},
        {"kind": "suspended", "activeMs": 0, "waits": []},
        {"kind": "suspended", "activeMs": 0, "waits": [{"on": "moon", "id": "x", "wake": "any"}]},
        {"kind": "suspended", "activeMs": 0, "waits": [{"on": "run", "id": "x", "wake": "never"}]},
        {"kind": "suspended", "activeMs": 0, "waits": [{"on": "time", "wake": "any"}]},
        {"kind": "suspended", "activeMs": -1, "waits": [{"on": "time", "dueAt": 1, "wake": "any"}]},
        {"kind": "token", "first": 0, **CALL, "tags": "a"},
    ],
)
async def test_a_report_of_the_wrong_shape_is_400(world: World, wrong: dict[str, Any]):
    worker, run = await started(world)
    said = {"run": run, "lease": worker.held[run], **wrong}
    await refused(
        worker.client.post(f"/api/v1/workers/{worker.id}/reports", json={"reports": [said]}),
        400,
        "invalid_request",
    )


async def test_children_are_triggered_as_in_a_batch(world: World):
    worker, run = await started(world, "child")
    items = [
        {"task": "child", "payload": {"a": 1}, "options": {"tags": ["t"], "idempotencyKey": "k"}},
        {"task": "child", "options": {"maxAttempts": 0}},
        {"payload": 1},
        {"task": "child", "options": {"delay": "no such time"}},
        {"task": "child", "options": {"idempotencyKey": "k"}},
    ]
    answer = await worker.say("triggers", run, first=0, **CALL, items=items)
    made, wrong, shapeless, refusal, again = json.loads(answer["value"])
    assert again == {"id": made["id"], "isCached": True}
    assert (wrong["param"], shapeless["param"], refusal["param"]) == (
        "options.maxAttempts",
        "task",
        "options.delay",
    )
    child = await read(world.dev, made["id"])
    assert (child["payload"], child["tags"]) == ({"a": 1}, ["t"])
    assert (child["relatedRuns"]["parent"]["id"], child["relatedRuns"]["root"]["id"]) == (run, run)
    repeated = await worker.say("triggers", run, first=0, **CALL, items=items)
    assert repeated["value"] == answer["value"]
    assert len((await read(world.dev, run))["relatedRuns"]["children"]) == 1


async def test_a_token_is_made_with_all_that_its_holder_needs(world: World):
    worker, run = await started(world)
    answer = await worker.say("token", run, first=0, **CALL, timeout="1h", tags=["a"], idempotencyKey="k")
    told = json.loads(answer["value"])
    assert set(told) == {"id", "isCached", "url", "publicAccessToken"}
    claims = jwt.decode(told["publicAccessToken"], options={"verify_signature": False})
    assert claims["scopes"] == [f"write:waitpoints:{told['id']}"]
    assert (await worker.say("token", run, first=0, **CALL))["value"] == answer["value"]
    for asked, code in (
        ({"tags": [f"t{number}" for number in range(11)]}, "unprocessable"),
        ({"timeout": "soon"}, "invalid_request"),
        ({"idempotencyKey": ""}, "invalid_request"),
    ):
        no = await worker.say("token", run, first=1, **CALL, **asked)
        assert (no["status"], no["code"]) == ("refused", code)
    assert (await worker.say("token", run, first=1, **CALL, schema={"type": "no"}))["status"] == "refused"
    url = told["url"].removeprefix("http://localhost:3030")
    assert (await world.dev.post(url, json={"x": 1}, headers={"authorization": ""})).status_code == 200


async def test_a_suspended_run_goes_on_when_its_child_has_ended(world: World):
    worker, run = await started(world, "child")
    answer = await worker.say("triggers", run, first=0, **CALL, items=[{"task": "child"}])
    [child] = [one["id"] for one in json.loads(answer["value"])]
    world.clock.advance(1)
    waits = [{"on": "run", "id": child, "wake": "any"}]
    assert await worker.say("suspended", run, activeMs=300, waits=waits) == {"status": "ok"}
    waiting = await read(world.dev, run)
    assert waiting["status"] == "WAITING_TO_RESUME"
    assert [attempt["status"] for attempt in waiting["attempts"]] == ["EXECUTING"]
    assert (await worker.say("suspended", run, activeMs=300, waits=waits))["status"] == "fenced"
    assert [one["id"] for one in await worker.claim()] == [child]
    await worker.succeed(child, '{"n":1}')
    world.clock.advance(1)
    [again] = await worker.claim()
    assert (again["id"], again["attempt"], again["resumes"], again["resumed"], again["activeMs"]) == (
        run,
        1,
        1,
        True,
        300,
    )
    await worker.say("entries", run, first=1, entries=[{**STEP, "kind": "done", "value": None, "ref": child}])
    await worker.say("released", run, started=True)
    [again] = await worker.claim()
    told = json.loads(again["journal"][1]["value"])
    assert told == {
        "ok": True,
        "id": child,
        "taskIdentifier": "child",
        "status": "COMPLETED_SUCCESSFULLY",
        "output": '{"n":1}',
        "outputType": "application/json",
    }
    await worker.succeed(run)


async def test_a_mismatch_is_told_with_both_sides(world: World):
    worker, run = await started(world)
    await worker.say("entries", run, first=0, entries=[STEP])
    error = {
        "type": "INTERNAL_ERROR",
        "code": "TASK_RUN_REPLAY_MISMATCH",
        "message": "no",
        "recorded": {"kind": "step", "name": "s"},
        "asked": {"kind": "step", "name": "t"},
    }
    assert await worker.say("failed", run, error=error, retryDelayMs=None) == {"status": "ok"}
    found = await read(world.dev, run)
    assert (found["status"], [attempt["error"] for attempt in found["attempts"]]) == (
        "WAITING_FOR_DEPLOY",
        [error],
    )


async def test_what_is_to_be_forgotten_is_in_the_next_journal(world: World):
    worker, run = await started(world)
    await worker.say("entries", run, first=0, entries=[STEP, {**STEP, "ok": False}])
    said = {"error": ERROR, "retryDelayMs": 60_000, "forget": [1], "operations": 3}
    assert await worker.say("failed", run, **said) == {"status": "ok"}
    await world.later(60)
    [again] = await (await world.worker("echo")).claim()
    assert [(entry["kind"], entry["value"]) for entry in again["journal"][2:]] == [("forget", "[1]")]
    assert (again["attempt"], again["operations"]) == (2, 3)


async def test_a_journal_is_read_by_who_holds_the_run(world: World):
    worker, run = await started(world)
    other = await world.worker("echo")
    lease = worker.held[run]
    for by, asked, status, code in (
        (other, {"run": run, "lease": lease, "after": 0}, 409, "fenced"),
        (worker, {"run": run, "lease": lease - 1, "after": 0}, 409, "fenced"),
        (worker, {"run": "run_x", "lease": lease, "after": 0}, 404, "run_not_found"),
        (worker, {"run": run, "lease": lease}, 400, "invalid_request"),
    ):
        await refused(by.client.post(f"/api/v1/workers/{by.id}/journal", json=asked), status, code)
    await refused(
        world.prod.post(
            f"/api/v1/workers/{worker.id}/journal", json={"run": run, "lease": lease, "after": 0}
        ),
        404,
        "run_not_found",
    )
