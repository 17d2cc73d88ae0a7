"""Batch trigger: up to a thousand runs in one call, each accepted or refused alone."""

from __future__ import annotations

from typing import Any

import pytest

from server.world import DEV_KEY, World, error_shape, ok, read, refused, trigger

pytestmark = pytest.mark.anyio

URL = "/api/v1/tasks/batch"
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


async def test_runs_are_answered_in_the_order_of_the_items(world: World):
    items = [{"task": f"t{n % 3}", "payload": n, "options": {"tags": [f"n{n}"]}} for n in range(50)]
    answer = await ok(world.dev.post(URL, json={"items": items}))
    assert set(answer) == {"batchId", "runs"}
    structures = [await read(world.dev, run["id"]) for run in answer["runs"]]
    assert [run["payload"] for run in structures] == list(range(50))
    assert [run["taskIdentifier"] for run in structures] == [item["task"] for item in items]
    assert [run["tags"] for run in structures] == [[f"n{n}"] for n in range(50)]
    listed = await ok(
        world.dev.get("/api/v1/runs", params={"filter[batch]": answer["batchId"], "page[size]": 100})
    )
    assert len(listed["data"]) == 50


BAD_ITEMS: list[tuple[Any, str, str | None]] = [
    ({"task": ""}, "invalid_request", "task"),
    ({"task": "t" * 129}, "invalid_request", "task"),
    ({"payload": 1}, "invalid_request", "task"),
    ("echo", "invalid_request", None),
    (None, "invalid_request", None),
    ({"task": "echo", "options": []}, "invalid_request", "options"),
    ({"task": "echo", "options": {"maxAttempts": 0}}, "invalid_request", "options.maxAttempts"),
    ({"task": "echo", "options": {"tags": [str(n) for n in range(11)]}}, "unprocessable", "options.tags"),
    ({"task": "echo", "options": {"tags": ["t" * 129]}}, "invalid_request", "options.tags"),
    ({"task": "echo", "options": {"delay": "soon"}}, "invalid_request", "options.delay"),
    ({"task": "echo", "options": {"ttl": "soon"}}, "invalid_request", "options.ttl"),
    ({"task": "echo", "options": {"parentRunId": "run_x"}}, "unprocessable", "options.parentRunId"),
    ({"task": "typed", "payload": {"n": "x"}}, "unprocessable", "payload.n"),
    ({"task": "echo", "payload": "x" * (3 * 1024 * 1024)}, "payload_too_large", "payload"),
]


@pytest.mark.parametrize(("item", "code", "param"), BAD_ITEMS, ids=lambda value: str(value)[:40])
async def test_a_bad_item_never_fails_its_neighbours(world: World, item: Any, code: str, param: str | None):
    await world.worker({"id": "typed", "payloadSchema": SCHEMA})
    good = {"task": "typed", "payload": {"n": 1}}
    answer = await ok(world.dev.post(URL, json={"items": [good, item, good]}))
    first, bad, last = answer["runs"]
    assert first["id"] < last["id"]
    assert bad["code"] == code
    assert bad["error"]
    assert bad.get("param") == param
    assert len((await ok(world.dev.get("/api/v1/runs")))["data"]) == 2


@pytest.mark.parametrize("count", [0, 1_001])
async def test_a_batch_has_one_to_a_thousand_items(world: World, count: int):
    items = [{"task": "echo"}] * count
    body = await refused(world.dev.post(URL, json={"items": items}), 400, "invalid_request", param="items")
    assert str(count) in body["error"]
    assert (await ok(world.dev.get("/api/v1/runs")))["data"] == []


async def test_a_batch_of_a_thousand_is_taken(world: World):
    answer = await ok(world.dev.post(URL, json={"items": [{"task": "echo"}] * 1_000}))
    assert len({run["id"] for run in answer["runs"]}) == 1_000


async def test_a_repeated_request_gives_the_same_runs(world: World):
    headers = {"x-trigger-request-idempotency-key": "r"}
    items = [
        {"task": "echo", "payload": 1},
        {"task": ""},
        {"task": "echo", "payload": 1, "options": {"idempotencyKey": "k"}},
        {"task": "echo", "payload": 2, "options": {"idempotencyKey": "k"}},
    ]
    first = await ok(world.dev.post(URL, json={"items": items}, headers=headers))
    second = await ok(world.dev.post(URL, json={"items": items}, headers=headers))
    assert second == first
    one, _, three, four = first["runs"]
    assert four == {"id": three["id"], "isCached": True}
    assert len((await ok(world.dev.get("/api/v1/runs")))["data"]) == 2
    other = await ok(world.prod.post(URL, json={"items": items}, headers=headers))
    assert other["batchId"] != first["batchId"]
    assert other["runs"][0]["id"] != one["id"]


async def test_the_key_of_a_single_request_is_not_that_of_a_batch(world: World):
    header = "x-trigger-request-idempotency-key"
    batch = await ok(world.dev.post(URL, json={"items": [{"task": "echo"}]}, headers={header: "r"}))
    for key in ("r", "r:0", "r 0"):
        single = await ok(world.dev.post("/api/v1/tasks/echo/trigger", headers={header: key}))
        assert single["id"] != batch["runs"][0]["id"]


async def test_one_idempotency_key_within_a_batch_makes_one_run(world: World):
    earlier = await trigger(world.dev, idempotencyKey="old")
    items = [{"task": "echo", "options": {"idempotencyKey": key}} for key in ("new", "new", "old")]
    answer = await ok(world.dev.post(URL, json={"items": items}))
    assert answer["runs"][1] == {"id": answer["runs"][0]["id"], "isCached": True}
    assert answer["runs"][2] == {"id": earlier, "isCached": True}


async def test_a_batch_over_its_limit_is_refused_before_it_is_read(world: World):
    headers = {"content-length": str(64 * 1024 * 1024 + 1), "authorization": f"Bearer {DEV_KEY}"}
    response = await world.dev.post(URL, content=b"{}", headers=headers)
    assert response.status_code == 413
    assert error_shape(response)["code"] == "payload_too_large"
