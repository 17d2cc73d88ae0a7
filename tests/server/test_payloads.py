"""Payloads of the official SDK: superjson and text, from trigger to worker, to reader and to replay."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.world import World, ok, read, refused, trigger

pytestmark = pytest.mark.anyio
SUPERJSON = "application/super+json"
SDK = {"x-trigger-api-version": "2025-07-16"}
RICH = {
    "json": {"when": "2026-11-24T00:00:00.000Z", "n": "10", "by": [["a", "1"]]},
    "meta": {"values": {"when": ["Date"], "n": ["bigint"], "by": ["map", {"0.1": ["bigint"]}]}},
}


@pytest.mark.parametrize("headers", [{}, SDK])
async def test_superjson_is_json_to_readers_and_python_values_to_the_worker(world: World, headers: Any):
    worker = await world.worker("echo")
    run = await trigger(world.dev, payload=json.dumps(RICH), payloadType=SUPERJSON)
    [claimed] = await worker.claim()
    assert json.loads(claimed["payload"]) == {
        "when": "2026-11-24T00:00:00.000Z",
        "n": 10,
        "by": {"a": 1},
    }
    shown = await ok(world.dev.get(f"/api/v3/runs/{run}", headers=headers))
    assert shown["payload"] == RICH["json"]
    assert "payloadType" not in shown


async def test_superjson_without_rich_values_is_kept_as_json(world: World):
    run = await trigger(world.dev, payload='{"json": {"n": 1}, "meta": {}}', payloadType=SUPERJSON)
    kept = await world.engine.run("dev", run)
    assert (kept.payload, kept.payload_type) == ('{"n":1}', None)


async def test_a_schema_and_a_key_see_what_the_task_will_be_given(world: World):
    schema = {"type": "object", "properties": {"n": {"type": "integer"}, "by": {"type": "object"}}}
    worker = await world.worker({"id": "echo", "payloadSchema": schema, "key": "by.a"})
    await trigger(world.dev, payload=json.dumps(RICH), payloadType=SUPERJSON)
    [claimed] = await worker.claim()
    assert claimed["concurrencyKey"] == "1"
    wrong = {**RICH, "json": {**RICH["json"], "n": "ten"}}
    body = {"payload": json.dumps(wrong), "options": {"payloadType": SUPERJSON}}
    await refused(
        world.dev.post("/api/v1/tasks/echo/trigger", json=body), 422, "unprocessable", param="payload.n"
    )


async def test_a_run_that_waited_for_its_task_takes_its_key_from_superjson(world: World):
    await trigger(world.dev, payload=json.dumps(RICH), payloadType=SUPERJSON)
    worker = await world.worker({"id": "echo", "key": "n"})
    [claimed] = await worker.claim()
    assert claimed["concurrencyKey"] == "10"


async def test_a_replay_repeats_superjson_or_takes_another_payload(world: World):
    worker = await world.worker("echo")
    first = await trigger(world.dev, payload=json.dumps(RICH), payloadType=SUPERJSON)

    async def replayed(**body: Any) -> Any:
        answer = await ok(world.dev.post(f"/api/v1/runs/{first}/replay", json=body))
        return (await read(world.dev, answer["id"]))["payload"]

    assert await replayed() == RICH["json"]
    assert await replayed(payload={"n": 1}) == {"n": 1}
    assert await replayed(payload="[1]", payloadType="application/json") == "[1]"  # a value, not its text
    assert await replayed(payload='{"json":"5","meta":{"values":["bigint"]}}', payloadType=SUPERJSON) == "5"
    payloads = [json.loads(run["payload"]) for run in await worker.claim()]
    assert payloads[2:] == [{"n": 1}, "[1]", 5]


async def test_a_batch_takes_superjson(world: World):
    worker = await world.worker("echo")
    items = [{"task": "echo", "payload": json.dumps(RICH), "options": {"payloadType": SUPERJSON}}]
    items.append({"task": "echo", "payload": '{"json":1,"meta":3}', "options": {"payloadType": SUPERJSON}})
    answer = await ok(world.dev.post("/api/v1/tasks/batch", json={"items": items}))
    assert answer["runs"][1]["param"] == "payload.meta"
    [claimed] = await worker.claim()
    assert json.loads(claimed["payload"])["n"] == 10


@pytest.mark.parametrize(
    ("payload", "param"),
    [
        ("{", "payload"),
        ("[1]", "payload"),
        ('{"meta":{}}', "payload"),
        ('{"json":1,"meta":[]}', "payload.meta"),
        ('{"json":1,"meta":{"values":["no such type"]}}', "payload.meta.values"),
        ('{"json":1,"meta":{"values":{"a":"Date"}}}', "payload.meta.values.a"),
        ('{"json":"\\u0000","meta":{"values":["Date"]}}', None),
        ('{"json":' + "[" * 200 + "]" * 200 + "}", "payload"),
        (7, "payload"),
        (None, "payload"),
    ],
)
@pytest.mark.parametrize("route", ["/api/v1/tasks/echo/trigger", "replay"])
async def test_what_is_no_superjson_is_refused(world: World, route: str, payload: Any, param: str | None):
    if route == "replay":
        route = f"/api/v1/runs/{await trigger(world.dev)}/replay"
        body = {"payload": payload, "payloadType": SUPERJSON}
    else:
        body = {"payload": payload, "options": {"payloadType": SUPERJSON}}
    await refused(world.dev.post(route, json=body), 400, "invalid_request", param=param)
