"""The worker protocol: register, claim, heartbeat, leave."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from server.world import World, ok, read, refused, trigger

pytestmark = pytest.mark.anyio

DAILY = {"expression": "@daily", "timezone": "UTC", "overlap": "skip", "catchUp": "one"}
REGISTRATION = {"name": "host:1", "fingerprint": "f", "tasks": [{"id": "echo"}]}


async def test_a_worker_registers_and_learns_its_environment(world: World):
    answer = await ok(world.prod.post("/api/v1/workers", json=REGISTRATION))
    assert list(answer) == ["workerId", "version", "environment", "leaseMs", "variables"]
    assert answer["workerId"].startswith("worker_")
    assert re.fullmatch(r"20270115\.1", answer["version"])
    assert (answer["environment"], answer["leaseMs"]) == ("prod", 15_000)


async def test_equal_code_registers_one_version(world: World):
    first = await ok(world.dev.post("/api/v1/workers", json=REGISTRATION))
    same = await ok(world.dev.post("/api/v1/workers", json=REGISTRATION))
    other = await ok(world.dev.post("/api/v1/workers", json=REGISTRATION | {"fingerprint": "g"}))
    assert first["workerId"] != same["workerId"]
    assert [answer["version"] for answer in (first, same, other)] == ["20270115.1"] * 2 + ["20270115.2"]


async def test_a_registered_task_gives_its_settings_to_runs(world: World):
    task = {
        "id": "echo",
        "retry": {
            "maxAttempts": 5,
            "factor": 2.0,
            "minTimeoutInMs": 10,
            "maxTimeoutInMs": 20,
            "randomize": False,
        },
        "queue": "mail",
        "maxDuration": 60,
        "ttl": "1m",
        "machine": "micro",
        "key": "order.tenant",
    }
    worker = await world.worker(task)
    await trigger(world.dev, payload={"order": {"tenant": "t1"}})
    [claimed] = await worker.claim()
    wanted = {"maxAttempts": 5, "maxDuration": 60, "queue": "mail", "concurrencyKey": "t1", "alone": False}
    assert {name: claimed[name] for name in wanted} == wanted
    expiring = await trigger(world.dev)
    await world.later(60)
    assert (await read(world.dev, expiring))["status"] == "EXPIRED"


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"tasks": [{"id": "a"}, {"id": "b"}, {"id": "a"}]}, 400, "tasks"),
        ({"tasks": [{"id": ""}]}, 400, "tasks.0.id"),
        ({"tasks": [{"id": "t" * 129}]}, 400, "tasks.0.id"),
        ({"tasks": [{"id": "a", "ttl": "soon"}]}, 400, "tasks.a.ttl"),
        ({"tasks": [{"id": "a", "ttl": 5}]}, 400, "tasks.0.ttl"),
        ({"tasks": [{"id": "a", "maxDuration": 10**30}]}, 400, "tasks.0.maxDuration"),
        ({"tasks": [{"id": "a", "retry": {"maxAttempts": 0}}]}, 400, "tasks.0.retry.maxAttempts"),
        ({"tasks": [{"id": "a", "payloadSchema": {"type": "nothing"}}]}, 400, "tasks.a.payloadSchema"),
        ({"tasks": [{"id": "a", "payloadSchema": {"$ref": "#/gone"}}]}, 400, "tasks.a.payloadSchema"),
        ({"tasks": [{"id": "a", "payloadSchema": {"pattern": "("}}]}, 400, "tasks.a.payloadSchema"),
        ({"tasks": [{"id": "a", "schedule": DAILY | {"expression": "0 25 * * *"}}]}, 422, "tasks.a.schedule"),
        ({"tasks": [{"id": "a", "schedule": DAILY | {"expression": "* " * 300}}]}, 422, "tasks.a.schedule"),
        (
            {"tasks": [{"id": "a", "schedule": DAILY | {"timezone": "Europe/Atlantis"}}]},
            422,
            "tasks.a.schedule",
        ),
        ({"tasks": [{"id": "a", "schedule": DAILY | {"window": "25h"}}]}, 422, "tasks.a.schedule"),
        ({"tasks": [{"id": "a", "schedule": DAILY | {"overlap": "queue"}}]}, 400, "tasks.0.schedule.overlap"),
        ({"tasks": [{"id": "a", "schedule": {"expression": "@daily"}}]}, 400, "tasks.0.schedule.timezone"),
        ({"queues": [{"name": "q", "concurrencyLimit": -1}]}, 400, "queues.0.concurrencyLimit"),
        ({"name": 5}, 400, "name"),
        ({"fingerprint": "f" * 129}, 400, "fingerprint"),
        ({"tasks": {}}, 400, "tasks"),
    ],
)
async def test_a_bad_registration_is_refused_by_name(
    world: World, change: dict[str, Any], status: int, param: str
):
    code = {400: "invalid_request", 422: "unprocessable"}[status]
    await refused(world.dev.post("/api/v1/workers", json=REGISTRATION | change), status, code, param=param)


async def test_a_schema_never_makes_the_server_read_files_or_other_hosts(world: World, tmp_path: Any):
    asked = asyncio.Event()

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        writer.close()

    other = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = other.sockets[0].getsockname()[1]
    (tmp_path / "schema.json").write_text("{}")
    async with other:
        for uri in (f"http://127.0.0.1:{port}/schema.json", (tmp_path / "schema.json").as_uri()):
            task = {"id": "a", "payloadSchema": {"properties": {"x": {"$ref": uri}}}}
            await refused(
                world.dev.post("/api/v1/workers", json=REGISTRATION | {"tasks": [task]}),
                400,
                "invalid_request",
                param="tasks.a.payloadSchema",
            )
        await asyncio.sleep(0)
        assert not asked.is_set()


async def test_a_run_of_an_unknown_task_waits_until_a_worker_registers_it(world: World):
    run = await trigger(world.dev)
    assert (await read(world.dev, run))["status"] == "WAITING_FOR_DEPLOY"
    worker = await world.worker("echo")
    assert (await read(world.dev, run))["status"] == "QUEUED"
    assert [claimed["id"] for claimed in await worker.claim()] == [run]


async def test_a_claimed_run_has_all_that_its_worker_needs(world: World):
    worker = await world.worker("echo")
    run = await trigger(world.dev, payload={"a": 1}, tags=["x"])
    [claimed] = await worker.claim()
    at = world.clock.now
    assert claimed == {
        "id": run,
        "lease": claimed["lease"],
        "task": "echo",
        "attempt": 1,
        "maxAttempts": 3,
        "maxDuration": None,
        "payload": '{"a":1}',
        "tags": ["x"],
        "metadata": {},
        "queue": "task/echo",
        "concurrencyKey": "",
        "isTest": False,
        "alone": False,
        "createdAt": at,
        "startedAt": at,
        "parentId": None,
        "rootId": None,
        "entries": 0,
        "journal": None,
        "resumes": 0,
        "resumed": False,
        "activeMs": 0,
        "operations": 0,
    }
    assert await worker.claim() == []


async def test_a_claim_takes_no_more_than_its_slots(world: World):
    worker = await world.worker("echo")
    runs = [await trigger(world.dev) for _ in range(5)]
    assert await worker.claim(slots=0) == []
    assert [run["id"] for run in await worker.claim(slots=2)] == runs[:2]
    assert [run["id"] for run in await worker.claim(slots=10)] == runs[2:]


async def test_a_claim_is_held_back_until_a_run_arrives(world: World):
    worker = await world.worker("echo")
    waiting = asyncio.create_task(worker.claim(wait_ms=25_000))
    await asyncio.wait([waiting], timeout=0.1)
    run = await trigger(world.dev)
    async with asyncio.timeout(5):
        assert [claimed["id"] for claimed in await waiting] == [run]


async def test_a_held_back_claim_learns_of_a_cancel(world: World):
    worker = await world.worker("echo")
    run = await trigger(world.dev)
    await worker.claim()
    body = {"slots": 5, "waitMs": 25_000}
    waiting = asyncio.create_task(ok(world.dev.post(f"/api/v1/workers/{worker.id}/claim", json=body)))
    await asyncio.wait([waiting], timeout=0.1)
    await ok(world.dev.post(f"/api/v2/runs/{run}/cancel"))
    async with asyncio.timeout(5):
        answer = await waiting
    assert [cancelled["id"] for cancelled in answer["cancelled"]] == [run]


async def test_limits_of_queues_bound_what_is_claimed(world: World):
    queues = [{"name": "mail", "concurrencyLimit": 2}, {"name": "keyed", "perKeyLimit": 1}]
    registered = await ok(world.dev.post("/api/v1/workers", json=REGISTRATION | {"queues": queues}))
    url = f"/api/v1/workers/{registered['workerId']}/claim"
    for _ in range(3):
        await trigger(world.dev, queue={"name": "mail"})
        await trigger(world.dev, queue={"name": "keyed"}, concurrencyKey="a")
        await trigger(world.dev, queue={"name": "keyed"}, concurrencyKey="b")
    claimed: list[tuple[str, str]] = []
    for _ in range(3):
        answer = await ok(world.dev.post(url, json={"slots": 100, "waitMs": 0}))
        claimed += [(run["queue"], run["concurrencyKey"]) for run in answer["runs"]]
    assert sorted(claimed) == [("keyed", "a"), ("keyed", "b"), ("mail", ""), ("mail", "")]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"slots": -1, "waitMs": 0},
        {"slots": 10_001, "waitMs": 0},
        {"slots": 1, "waitMs": 30_001},
        {"slots": "many", "waitMs": 0},
        {"slots": 1.5, "waitMs": 0},
        [],
    ],
)
async def test_a_claim_that_can_not_be_read_is_refused(world: World, body: Any):
    worker = await world.worker("echo")
    await refused(world.dev.post(f"/api/v1/workers/{worker.id}/claim", json=body), 400, "invalid_request")


async def test_a_heartbeat_keeps_the_worker_and_silence_loses_it(world: World):
    worker = await world.worker("echo")
    run = await trigger(world.dev)
    await worker.claim()
    for _ in range(3):
        world.clock.advance(10)
        assert await ok(world.dev.post(f"/api/v1/workers/{worker.id}/heartbeat")) == {"leaseMs": 15_000}
    world.clock.advance(16)
    replaced = REGISTRATION | {"replaces": worker.id}
    await ok(world.dev.post("/api/v1/workers", json=replaced))
    assert (await read(world.dev, run))["status"] == "QUEUED"
    await refused(world.dev.post(f"/api/v1/workers/{worker.id}/heartbeat"), 404, "worker_not_found")
    assert await worker.say("succeeded", run, output="1") == {"status": "fenced"}


async def test_a_heartbeat_that_says_what_is_held_gives_the_rest_back(world: World):
    worker = await world.worker("echo")
    known, lost = [await trigger(world.dev) for _ in range(2)]
    await worker.claim()
    url = f"/api/v1/workers/{worker.id}/heartbeat"
    await ok(world.dev.post(url))
    await ok(world.dev.post(url, json={"held": [known, lost]}))
    assert [(await read(world.dev, run))["status"] for run in (known, lost)] == ["EXECUTING"] * 2
    await ok(world.dev.post(url, json={"held": [known]}))
    assert [(await read(world.dev, run))["status"] for run in (known, lost)] == ["EXECUTING", "QUEUED"]
    assert [run["id"] for run in await worker.claim()] == [lost]


async def test_a_later_claim_ends_the_wait_of_an_earlier_one(world: World):
    worker = await world.worker("echo")
    waiting = asyncio.create_task(worker.claim(wait_ms=25_000))
    await asyncio.wait([waiting], timeout=0.1)
    assert await worker.claim() == []
    async with asyncio.timeout(5):
        assert await waiting == []


async def test_a_worker_that_is_unknown_or_of_another_environment_is_the_same_404(world: World):
    worker = await world.worker("echo")
    run = await trigger(world.dev)
    await worker.claim()
    for client, worker_id in ((world.prod, worker.id), (world.dev, "worker_x"), (world.dev, run)):
        url = f"/api/v1/workers/{worker_id}"
        bodies = [
            await refused(
                client.post(f"{url}/claim", json={"slots": 1, "waitMs": 0}), 404, "worker_not_found"
            ),
            await refused(client.post(f"{url}/heartbeat"), 404, "worker_not_found"),
            await refused(client.delete(url), 404, "worker_not_found"),
        ]
        assert all(body == bodies[0] for body in bodies)
    assert (await read(world.dev, run))["status"] == "EXECUTING"


async def test_a_leaving_worker_gives_everything_back(world: World):
    worker = await world.worker("echo")
    run, closing = [await trigger(world.dev) for _ in range(2)]
    await worker.claim()
    await ok(world.dev.post(f"/api/v2/runs/{closing}/cancel"))
    assert await ok(world.dev.delete(f"/api/v1/workers/{worker.id}")) == {}
    assert (await read(world.dev, run))["status"] == "QUEUED"
    assert (await read(world.dev, closing))["finishedAt"] is not None
    await refused(world.dev.delete(f"/api/v1/workers/{worker.id}"), 404, "worker_not_found")
