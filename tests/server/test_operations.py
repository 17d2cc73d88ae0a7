"""Cancel, replay, reschedule, tags, metadata."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from holdfast.model import limits
from server.world import World, ok, read, refused, trigger

pytestmark = pytest.mark.anyio

OPERATIONS: list[tuple[str, str, Any]] = [
    ("GET", "/api/v3/runs/{run}", None),
    ("POST", "/api/v2/runs/{run}/cancel", None),
    ("POST", "/api/v1/runs/{run}/replay", None),
    ("POST", "/api/v1/runs/{run}/reschedule", {"delay": "1h"}),
    ("POST", "/api/v1/runs/{run}/tags", {"tags": ["x"]}),
    ("GET", "/api/v1/runs/{run}/metadata", None),
    ("PUT", "/api/v1/runs/{run}/metadata", {"metadata": {"a": 1}}),
    ("GET", "/api/v1/runs/{run}/result", None),
    ("GET", "/api/v1/runs/{run}/logs", None),
]


@pytest.mark.parametrize(("method", "path", "body"), OPERATIONS)
async def test_an_unknown_run_and_one_of_another_environment_are_the_same_404(
    world: World, method: str, path: str, body: Any
):
    foreign = await trigger(world.prod, delay="1h")
    before = await read(world.prod, foreign)
    answers = [
        await world.dev.request(method, path.format(run=run), json=body)
        for run in (foreign, "run_0000000000000000000000000", "x", "batch_1")
    ]
    assert {answer.status_code for answer in answers} == {404}
    assert {answer.content for answer in answers} == {b'{"error":"Run not found","code":"run_not_found"}'}
    assert await read(world.prod, foreign) == before


async def test_a_queued_run_is_cancelled_at_once(world: World):
    worker = await world.worker("echo")
    run = await trigger(world.dev)
    for _ in range(2):
        assert await ok(world.dev.post(f"/api/v2/runs/{run}/cancel")) == {"id": run}
    structure = await read(world.dev, run)
    assert structure["status"] == "CANCELLED"
    assert structure["finishedAt"] is not None
    assert "output" not in structure
    assert structure["attempts"] == []
    assert await worker.claim() == []


async def test_an_executing_run_is_closed_by_its_worker(world: World):
    worker = await world.worker("echo")
    run = await trigger(world.dev)
    await worker.claim()
    old = worker.held[run]
    await ok(world.dev.post(f"/api/v2/runs/{run}/cancel"))
    [cancelled] = await worker.cancelled()
    assert cancelled["id"] == run
    assert cancelled["lease"] > old
    assert await worker.say("succeeded", run, old, output="1") == {"status": "fenced"}
    assert await worker.say("closed", run, cancelled["lease"]) == {"status": "ok"}
    structure = await read(world.dev, run)
    assert structure["status"] == "CANCELLED"
    assert structure["finishedAt"] is not None
    assert [attempt["status"] for attempt in structure["attempts"]] == ["CANCELLED"]
    assert await worker.cancelled() == []


async def test_descendants_are_cancelled_too(world: World):
    root = await trigger(world.dev)
    child = await trigger(world.dev, parentRunId=root)
    grandchild = await trigger(world.dev, parentRunId=child)
    other = await trigger(world.dev)
    await ok(world.dev.post(f"/api/v2/runs/{root}/cancel"))
    statuses = [(await read(world.dev, run))["status"] for run in (root, child, grandchild, other)]
    assert statuses == ["CANCELLED"] * 3 + ["WAITING_FOR_DEPLOY"]


async def test_cancelling_a_finished_run_changes_nothing(world: World):
    worker = await world.worker("echo")
    run = await trigger(world.dev)
    await worker.claim()
    await worker.succeed(run)
    before = await read(world.dev, run)
    assert await ok(world.dev.post(f"/api/v2/runs/{run}/cancel")) == {"id": run}
    assert await read(world.dev, run) == before


async def test_a_replay_repeats_what_the_run_had(world: World):
    worker = await world.worker("echo", queues=["mail"])
    run = await trigger(
        world.dev,
        payload={"n": 1},
        tags=["a"],
        metadata={"m": 1},
        queue={"name": "mail"},
        concurrencyKey="k",
        test=True,
        idempotencyKey="i",
        ttl="1h",
        delay="1s",
    )
    answer = await ok(world.dev.post(f"/api/v1/runs/{run}/replay"))
    assert list(answer) == ["id"]
    assert answer["id"] != run
    structure = await read(world.dev, answer["id"])
    assert (structure["payload"], structure["tags"]) == ({"n": 1}, ["a"])
    assert (structure["metadata"], structure["isTest"]) == ({"m": 1}, True)
    assert structure["status"] == "QUEUED"
    [claimed] = await worker.claim()
    assert (claimed["queue"], claimed["concurrencyKey"]) == ("mail", "k")


async def test_a_replay_may_change_what_it_repeats(world: World):
    worker = await world.worker("echo", queues=["task/other"])
    run = await trigger(world.dev, payload=1, tags=["a"])
    await ok(world.dev.post(f"/api/v2/runs/{run}/cancel"))
    changes = {
        "payload": None,
        "tags": "b",
        "metadata": {"m": 2},
        "queue": "task/other",
        "concurrencyKey": 5,
        "maxAttempts": 7,
        "maxDuration": 9,
        "priority": 3,
        "machine": "micro",
        "version": worker.version,
        "ttl": "1h",
        "idempotencyKey": "i",
        "idempotencyKeyTTL": "1h",
    }
    replayed = (await ok(world.dev.post(f"/api/v1/runs/{run}/replay", json=changes)))["id"]
    again = (await ok(world.dev.post(f"/api/v1/runs/{run}/replay", json=changes)))["id"]
    assert replayed == again
    [claimed] = await worker.claim()
    wanted = {
        "id": replayed,
        "payload": "null",
        "tags": ["b"],
        "metadata": {"m": 2},
        "queue": "task/other",
        "concurrencyKey": "5",
        "maxAttempts": 7,
        "maxDuration": 9,
    }
    assert {name: claimed[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    ("body", "payload"),
    [
        ({"payload": "{"}, "{"),
        ({"payload": "{", "payloadType": "application/json"}, "{"),
        ({"payload": '{"json":"{"}', "payloadType": "application/super+json"}, "{"),
    ],
)
async def test_the_payload_of_a_replay_is_what_it_says(world: World, body: Any, payload: Any):
    run = await trigger(world.dev, payload=1)
    again = (await ok(world.dev.post(f"/api/v1/runs/{run}/replay", json=body)))["id"]
    assert (await read(world.dev, again))["payload"] == payload


async def test_replaying_twice_makes_two_runs(world: World):
    run = await trigger(world.dev)
    made = {(await ok(world.dev.post(f"/api/v1/runs/{run}/replay", json={})))["id"] for _ in range(2)}
    assert len(made) == 2


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"colour": "red"}, 400),
        ({"options": {}}, 400),
        ({"payload": 1, "test": True}, 400),
        ({"metadata": "text"}, 400),
        ({"metadata": []}, 400),
        ({"queue": {"name": "x"}}, 400),
        ({"queue": ""}, 400),
        ({"maxAttempts": 0}, 400),
        ({"maxDuration": -1}, 400),
        ({"payloadType": "application/store", "payload": "x"}, 400),
        ({"payload": "x", "payloadType": "text/plain"}, 400),
        ({"payload": {"json": 1}, "payloadType": "application/super+json"}, 400),
        ({"payload": "{", "payloadType": "application/super+json"}, 400),
        ({"payloadType": "application/super+json"}, 400),
        ({"ttl": 10**400}, 400),
        ({"ttl": "soon"}, 400),
        ({"delay": "soon"}, 400),
        ({"tags": [str(n) for n in range(11)]}, 422),
        ({"version": "20200101.1"}, 422),
        ([], 400),
        ("x", 400),
    ],
)
async def test_a_replay_is_strict(world: World, body: Any, status: int):
    run = await trigger(world.dev)
    code = {400: "invalid_request", 422: "unprocessable"}[status]
    await refused(world.dev.post(f"/api/v1/runs/{run}/replay", json=body), status, code)
    assert len((await ok(world.dev.get("/api/v1/runs")))["data"]) == 1


async def test_a_delayed_run_is_rescheduled(world: World):
    await world.worker("echo")
    run = await trigger(world.dev, delay="1h")
    structure = await ok(world.dev.post(f"/api/v1/runs/{run}/reschedule", json={"delay": "2h"}))
    assert structure == await read(world.dev, run)
    await world.later(3_601)
    assert (await read(world.dev, run))["status"] == "DELAYED"
    await world.later(3_600)
    assert (await read(world.dev, run))["status"] == "QUEUED"


async def test_only_a_delayed_run_is_rescheduled(world: World):
    run = await trigger(world.dev)
    await refused(
        world.dev.post(f"/api/v1/runs/{run}/reschedule", json={"delay": "1h"}), 400, "invalid_request"
    )


@pytest.mark.parametrize(
    ("body", "status"),
    [({}, 400), ({"delay": None}, 400), ({"delay": 5}, 400), ({"delay": "soon"}, 400), ({"delay": ""}, 400)],
)
async def test_a_new_delay_that_can_not_be_read_leaves_the_old_one(world: World, body: Any, status: int):
    run = await trigger(world.dev, delay="1h")
    code = {400: "invalid_request", 422: "unprocessable"}[status]
    await refused(world.dev.post(f"/api/v1/runs/{run}/reschedule", json=body), status, code, param="delay")
    await world.later(3_500)
    assert (await read(world.dev, run))["status"] == "DELAYED"


async def test_tags_are_merged_and_repeats_ignored(world: World):
    run = await trigger(world.dev, tags=["a"])
    url = f"/api/v1/runs/{run}/tags"
    assert await ok(world.dev.post(url, json={"tags": ["a", "b", "b"]})) == {
        "message": "Successfully set 1 new tags."
    }
    assert await ok(world.dev.post(url, json={"tags": "a"})) == {"message": "No new tags to add"}
    assert (await read(world.dev, run))["tags"] == ["a", "b"]
    listed = await ok(world.dev.get("/api/v1/runs", params={"filter[tag]": "b"}))
    assert [item["id"] for item in listed["data"]] == [run]


@pytest.mark.parametrize(
    ("tags", "status"),
    [([str(n) for n in range(10)], 422), (["x", "t" * 129], 400), ([1], 400), (None, 400)],
)
async def test_refused_tags_add_none(world: World, tags: Any, status: int):
    run = await trigger(world.dev, tags=["a"])
    code = {400: "invalid_request", 422: "unprocessable"}[status]
    await refused(world.dev.post(f"/api/v1/runs/{run}/tags", json={"tags": tags}), status, code)
    assert (await read(world.dev, run))["tags"] == ["a"]


async def test_blank_tags_are_dropped(world: World):
    run = await trigger(world.dev, tags=["a", "", "  "])
    await ok(world.dev.post(f"/api/v1/runs/{run}/tags", json={"tags": ["", "b", " "]}))
    assert (await read(world.dev, run))["tags"] == ["a", "b"]


@pytest.mark.parametrize("delay", ["0s", "2020-01-01T00:00:00Z"])
async def test_a_delayed_run_is_not_moved_into_the_past(world: World, delay: str):
    run = await trigger(world.dev, delay="1h")
    asked = world.dev.post(f"/api/v1/runs/{run}/reschedule", json={"delay": delay})
    await refused(asked, 400, "invalid_request", param="delay")
    assert (await read(world.dev, run))["status"] == "DELAYED"


@pytest.mark.parametrize(("method", "rest"), [("POST", "/replay"), ("GET", "/result"), ("GET", "/metadata")])
async def test_only_who_reads_a_run_is_told_to_ask_again(world: World, method: str, rest: str):
    answer = await world.dev.request(method, f"/api/v1/runs/run_0000000000000000000000000{rest}")
    assert (answer.status_code, answer.headers["x-should-retry"]) == (404, "false")


async def metadata(world: World, run: str, **body: Any) -> dict[str, Any]:
    answer = await ok(world.dev.put(f"/api/v1/runs/{run}/metadata", json=body))
    read_back = await ok(world.dev.get(f"/api/v1/runs/{run}/metadata"))
    assert read_back["metadata"] == answer["metadata"]
    changed: dict[str, Any] = answer["metadata"]
    return changed


def change(kind: str, key: str | None = None, value: Any = None) -> dict[str, Any]:
    return {"type": kind, "value": value} if key is None else {"type": kind, "key": key, "value": value}


@pytest.mark.parametrize(
    ("before", "operation", "after"),
    [
        ({}, change("set", "a", 1), {"a": 1}),
        ({"a": 1}, change("set", "$.a", 2), {"a": 2}),
        ({"a": {"b": [1, {"c": 2}]}}, change("set", "$.a.b.1.c", 3), {"a": {"b": [1, {"c": 3}]}}),
        ({}, change("set", "$.missing.b", 3), {}),
        ({}, change("set", "a.b", 3), {"a.b": 3}),
        ({"a": 1, "b": 2}, change("delete", "a"), {"b": 2}),
        ({"a": {"b": 1}}, change("delete", "$.a.b"), {"a": {"b": 1}}),
        ({}, change("append", "a", 1), {"a": [1]}),
        ({"a": [1]}, change("append", "a", 2), {"a": [1, 2]}),
        ({"a": 1}, change("append", "a", 2), {"a": [1, 2]}),
        ({"a": [1, {"b": 1}, 1]}, change("remove", "a", {"b": 1}), {"a": [1, 1]}),
        ({"a": 1}, change("remove", "a", 1), {"a": 1}),
        ({"a": 1}, change("increment", "a", 2.5), {"a": 3.5}),
        ({"a": "x"}, change("increment", "a", 2), {"a": 2}),
        ({"a": 1}, change("update", None, {"b": 2}), {"b": 2}),
    ],
)
async def test_each_metadata_operation_does_its_part(
    world: World, before: dict[str, Any], operation: dict[str, Any], after: dict[str, Any]
):
    run = await trigger(world.dev, metadata=before)
    assert await metadata(world, run, operations=[operation]) == after
    assert (await read(world.dev, run))["metadata"] == after


async def test_metadata_is_replaced_first_and_then_changed_in_order(world: World):
    run = await trigger(world.dev, metadata={"old": 1})
    operations = [change("increment", "n", 1), change("increment", "n", 1), change("set", "k", "v")]
    assert await metadata(world, run, metadata={"n": 40}, operations=operations) == {"n": 42, "k": "v"}
    assert await metadata(world, run) == {"n": 42, "k": "v"}


async def test_operations_reach_parent_and_root_or_the_run_itself(world: World):
    root = await trigger(world.dev)
    parent = await trigger(world.dev, parentRunId=root)
    run = await trigger(world.dev, parentRunId=parent)
    count = [change("increment", "n", 1)]
    await metadata(world, run, operations=count, parentOperations=count, rootOperations=count)
    await metadata(world, root, parentOperations=count, rootOperations=count)
    structures = [await read(world.dev, each) for each in (root, parent, run)]
    assert [structure["metadata"] for structure in structures] == [{"n": 3}, {"n": 1}, {"n": 1}]


async def test_concurrent_increments_are_all_counted(world: World):
    run = await trigger(world.dev)
    body = {"operations": [change("increment", "n", 1)]}
    await asyncio.gather(*(ok(world.dev.put(f"/api/v1/runs/{run}/metadata", json=body)) for _ in range(20)))
    assert (await read(world.dev, run))["metadata"] == {"n": 20}


DEEP: Any = "end"
for _ in range(60):
    DEEP = {"a": DEEP}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"metadata": {"__proto__": 1}}, 400),
        ({"metadata": []}, 400),
        ({"metadata": "{}"}, 400),
        ({"metadata": {"a": "x" * 262_144}}, 413),
        ({"operations": [change("set", "__proto__", 1)]}, 400),
        ({"operations": [change("set", "$.a.__proto__", 1)]}, 400),
        ({"operations": [change("set", "$.constructor.b", 1)]}, 400),
        ({"operations": [change("append", "$.prototype", 1)]}, 400),
        ({"operations": [change("update", None, {"__proto__": 1})]}, 400),
        ({"operations": [change("set", "ok", 1), change("grow", "a", 1)]}, 400),
        ({"operations": [change("set", "ok", 1), change("set", "", 1)]}, 400),
        ({"operations": [change("set", "ok", 1), {"type": "set", "value": 1}]}, 400),
        ({"operations": [change("increment", "a", "1")]}, 400),
        ({"operations": [change("increment", "a", True)]}, 400),
        ({"operations": [change("update", None, [])]}, 400),
        ({"operations": [change("set", "a", 1)] * 1_001}, 400),
        ({"operations": [change("increment", "a", 1.7e308)] * 2}, 400),
        ({"operations": [change("set", "a", 10**400), change("increment", "a", 0.5)]}, 400),
        ({"operations": [change("set", "a", DEEP), change("set", "$." + "a." * 59 + "a", DEEP)]}, 400),
        ({"operations": [change("set", "a", "x" * 200_000), change("set", "b", "x" * 200_000)]}, 413),
        ({"parentOperations": [{"type": "x"}]}, 400),
        ({"operations": {}}, 400),
        ({"operations": [1]}, 400),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_refused_metadata_changes_nothing(world: World, body: Any, status: int):
    run = await trigger(world.dev, metadata={"before": 1})
    code = {400: "invalid_request", 413: "payload_too_large"}[status]
    await refused(world.dev.put(f"/api/v1/runs/{run}/metadata", json=body), status, code)
    assert (await read(world.dev, run))["metadata"] == {"before": 1}


async def test_metadata_is_closed_ten_minutes_after_the_end(world: World):
    run = await trigger(world.dev)
    await ok(world.dev.post(f"/api/v2/runs/{run}/cancel"))
    world.clock.advance(599)
    await metadata(world, run, operations=[change("set", "a", 1)])
    world.clock.advance(2)
    await refused(world.dev.put(f"/api/v1/runs/{run}/metadata", json={"metadata": {}}), 422, "unprocessable")


@pytest.mark.parametrize(("length", "status"), [(262_144, 200), (262_145, 413)])
async def test_metadata_may_be_as_large_as_the_limit_to_the_byte(world: World, length: int, status: int):
    run = await trigger(world.dev)
    value = "é" * ((length - len('{"k":""}')) // 2) + "x" * (length % 2)
    for body in ({"metadata": {"k": value}}, {"operations": [change("set", "k", value)]}):
        answer = await world.dev.put(f"/api/v1/runs/{run}/metadata", json=body)
        assert answer.status_code == status, answer.text[:200]
    made = await world.dev.post("/api/v1/tasks/echo/trigger", json={"options": {"metadata": {"k": value}}})
    assert made.status_code == status


async def test_a_body_that_changes_metadata_has_a_limit_of_its_own(world: World):
    run = await trigger(world.dev)
    content = b'{"metadata":{}}'.ljust(limits.MAX_METADATA_BODY)
    await ok(world.dev.put(f"/api/v1/runs/{run}/metadata", content=content))
    await refused(
        world.dev.put(f"/api/v1/runs/{run}/metadata", content=content + b" "), 413, "payload_too_large"
    )
