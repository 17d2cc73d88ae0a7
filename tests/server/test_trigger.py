"""Trigger: one run and what its options do."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from server.world import SDK, START_MS, World, ok, read, refused, trigger

pytestmark = pytest.mark.anyio

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


async def test_a_trigger_without_a_body_has_no_payload(world: World):
    answer = await ok(world.dev.post("/api/v1/tasks/echo/trigger"))
    assert answer == {"id": answer["id"], "isCached": False}
    assert (await read(world.dev, answer["id"]))["payload"] is None


@pytest.mark.parametrize(
    "payload", [None, True, 0, -1.5, 10**500, "", "é😀", [], {}, {"a": {"b": [1]}}, "x\n", "a\u2028b"]
)
async def test_every_json_value_comes_back_as_it_went(world: World, payload: Any):
    worker = await world.worker("echo")
    run = await trigger(world.dev, payload=payload)
    [claimed] = await worker.claim()
    await worker.succeed(run, claimed["payload"])
    structure = await read(world.dev, run)
    assert structure["payload"] == structure["output"] == payload


async def test_a_text_with_the_type_of_json_is_json_already(world: World):
    run = await trigger(world.dev, payload='{"n":1}', payloadType="application/json")
    assert (await read(world.dev, run))["payload"] == {"n": 1}
    run = await trigger(world.dev, payload='{"n":1}')
    assert (await read(world.dev, run))["payload"] == '{"n":1}'


async def test_queue_key_machine_and_limits_reach_the_worker(world: World):
    worker = await world.worker("echo", queues=["mail"])
    await trigger(
        world.dev,
        queue={"name": "mail"},
        concurrencyKey=7,
        maxAttempts=2,
        maxDuration=60,
        test=True,
        tags="one",
        metadata='{"a":1}',
    )
    [claimed] = await worker.claim()
    wanted = {
        "queue": "mail",
        "concurrencyKey": "7",
        "maxAttempts": 2,
        "maxDuration": 60,
        "isTest": True,
        "tags": ["one"],
        "metadata": {"a": 1},
        "attempt": 1,
        "payload": "null",
    }
    assert {name: claimed[name] for name in wanted} == wanted


async def test_a_max_duration_has_a_floor_of_five_seconds(world: World):
    worker = await world.worker("echo")
    await trigger(world.dev, maxDuration=0.5)
    assert [run["maxDuration"] for run in await worker.claim()] == [5]


async def test_a_delay_holds_the_run_until_it_is_over(world: World):
    await world.worker("echo")
    run = await trigger(world.dev, delay="1h30m")
    assert (await read(world.dev, run))["status"] == "DELAYED"
    await world.later(5_399)
    assert (await read(world.dev, run))["status"] == "DELAYED"
    await world.later(1)
    assert (await read(world.dev, run))["status"] == "QUEUED"


@pytest.mark.parametrize(("key", "kept"), [(7.5, "7.5"), (7.0, "7"), ("7.0", "7.0"), (-3, "-3")])
async def test_a_concurrency_key_may_be_a_number(world: World, key: Any, kept: str):
    worker = await world.worker("echo")
    await trigger(world.dev, concurrencyKey=key)
    assert [claimed["concurrencyKey"] for claimed in await worker.claim()] == [kept]


@pytest.mark.parametrize("delay", [START_MS + 10_000, "2027-01-15T09:00:10+01:00", "10s"])
async def test_a_delay_is_a_span_or_a_moment(world: World, delay: Any):
    run = await trigger(world.dev, delay=delay)
    read_by_sdk = await ok(world.dev.get(f"/api/v3/runs/{run}", headers=SDK))
    assert read_by_sdk["delayedUntil"] == "2027-01-15T08:00:10.000Z"


async def test_a_text_without_a_character_is_no_payload_to_the_sdk(world: World):
    worker = await world.worker("echo")
    run = await trigger(world.dev, payload="", payloadType="text/plain")
    assert "payload" not in await ok(world.dev.get(f"/api/v3/runs/{run}", headers=SDK))
    assert (await read(world.dev, run))["payload"] == ""
    again = (await ok(world.dev.post(f"/api/v1/runs/{run}/replay")))["id"]
    claimed = {claimed["id"]: claimed["payload"] for claimed in await worker.claim()}
    assert claimed == {run: '""', again: '""'}


async def test_a_delay_may_be_a_date(world: World):
    await world.worker("echo")
    run = await trigger(world.dev, delay="2027-01-15T08:00:10.000Z")
    past = await trigger(world.dev, delay="2020-01-01T00:00:00Z")
    assert (await read(world.dev, run))["status"] == "DELAYED"
    assert (await read(world.dev, past))["status"] == "QUEUED"
    await world.later(10)
    assert (await read(world.dev, run))["status"] == "QUEUED"


@pytest.mark.parametrize("ttl", ["10s", 10])
async def test_a_ttl_expires_a_run_that_was_not_started(world: World, ttl: Any):
    await world.worker("echo")
    run = await trigger(world.dev, ttl=ttl)
    await world.later(10)
    structure = await read(world.dev, run)
    assert structure["status"] == "EXPIRED"
    assert "output" not in structure


async def test_a_higher_priority_is_claimed_first(world: World):
    worker = await world.worker("echo")
    late = await trigger(world.dev)
    soon = await trigger(world.dev, priority=10)
    assert [run["id"] for run in await worker.claim(slots=1)] == [soon]
    assert [run["id"] for run in await worker.claim(slots=1)] == [late]


async def test_an_idempotency_key_finds_the_run_again(world: World):
    run = await trigger(world.dev, payload=1, idempotencyKey="k")
    for _ in range(2):
        answer = await ok(
            world.dev.post(
                "/api/v1/tasks/echo/trigger", json={"payload": 2, "options": {"idempotencyKey": "k"}}
            )
        )
        assert answer == {"id": run, "isCached": True}
    assert (await read(world.dev, run))["payload"] == 1
    assert await trigger(world.dev, "other", idempotencyKey="k") != run
    assert await trigger(world.prod, idempotencyKey="k") != run


async def test_an_idempotency_key_may_stand_in_a_header(world: World):
    headers = {"idempotency-key": "k"}
    first = await ok(world.dev.post("/api/v1/tasks/echo/trigger", headers=headers))
    second = await ok(world.dev.post("/api/v1/tasks/echo/trigger", headers=headers))
    assert second == {**first, "isCached": True}


async def test_of_long_words_behind_an_idempotency_key_the_first_are_shown(world: World):
    words = {"key": "w" * 5_000, "scope": "run"}
    run = await trigger(world.dev, idempotencyKey="0" * 64, idempotencyKeyOptions=words)
    found = await ok(world.dev.get(f"/api/v3/runs/{run}", headers=SDK))
    assert found["idempotencyKey"] == "w" * 2_048
    batch = {"runCount": 1, "idempotencyKey": "1" * 64, "idempotencyKeyOptions": words}
    answer = await world.dev.post("/api/v3/batches", json=batch)
    assert answer.json()["idempotencyKey"] == "w" * 2_048


async def test_an_idempotency_key_is_free_after_its_lifetime(world: World):
    run = await trigger(world.dev, idempotencyKey="k", idempotencyKeyTTL="60s")
    world.clock.advance(59)
    assert await trigger(world.dev, idempotencyKey="k") == run
    world.clock.advance(2)
    assert await trigger(world.dev, idempotencyKey="k") != run


async def test_simultaneous_triggers_with_one_key_make_one_run(world: World):
    runs = await asyncio.gather(*(trigger(world.dev, idempotencyKey="k") for _ in range(20)))
    assert len(set(runs)) == 1


async def test_a_repeated_request_gets_the_first_run_again(world: World):
    headers = {"x-trigger-request-idempotency-key": "r"}
    first = await ok(world.dev.post("/api/v1/tasks/echo/trigger", headers=headers))
    second = await ok(world.dev.post("/api/v1/tasks/echo/trigger", headers=headers))
    assert second == first
    other = await ok(world.prod.post("/api/v1/tasks/echo/trigger", headers=headers))
    assert other != first


async def test_a_child_of_a_live_attempt_is_made_and_one_of_a_stale_attempt_is_fenced(world: World):
    worker = await world.worker("echo")
    parent = await trigger(world.dev)
    await worker.claim()
    lease = worker.held[parent]

    def ask(number: int) -> Any:
        headers = {"x-holdfast-lease": f"{parent}:{number}"}
        return world.dev.post("/api/v1/tasks/echo/trigger", headers=headers)

    child = (await ok(ask(lease)))["id"]
    assert (await read(world.dev, child))["relatedRuns"]["parent"]["id"] == parent
    await refused(ask(lease - 1), 409, "fenced")
    await worker.fail(parent)
    await refused(ask(lease), 409, "fenced")


@pytest.mark.parametrize("text", ["", "run_x", "run_x:", "run_x:1.5", "run_x:-1", "run_x:" + "9" * 16])
async def test_a_lease_that_can_not_be_read_is_refused(world: World, text: str):
    await refused(
        world.dev.post("/api/v1/tasks/echo/trigger", headers={"x-holdfast-lease": text}),
        400,
        "invalid_request",
        param="x-holdfast-lease",
    )


async def test_a_payload_that_the_schema_refuses_names_the_field(world: World):
    await world.worker({"id": "typed", "payloadSchema": SCHEMA})
    body = await refused(
        world.dev.post("/api/v1/tasks/typed/trigger", json={"payload": {"n": "x"}}),
        422,
        "unprocessable",
        param="payload.n",
    )
    assert "typed" in body["error"]
    await refused(world.dev.post("/api/v1/tasks/typed/trigger"), 422, "unprocessable", param="payload")
    await trigger(world.dev, "typed", {"n": 1})
    assert len((await ok(world.dev.get("/api/v1/runs")))["data"]) == 1


REFUSED: list[tuple[str, Any, int, str]] = [
    ("tags", [f"t{n}" for n in range(11)], 422, "options.tags"),
    ("tags", ["t" * 129], 400, "options.tags"),
    ("test", "yes", 400, "options.test"),
    ("maxAttempts", "3", 400, "options.maxAttempts"),
    ("priority", "1", 400, "options.priority"),
    ("machine", "gigantic-9x", 400, "options.machine"),
    ("debounce", {"key": "k", "delay": "soonish"}, 400, "options.debounce.delay"),
    ("debounce", {"key": "k" * 513, "delay": "1s"}, 400, "options.debounce.key"),
    ("debounce", {"key": "k", "delay": "1s"}, 422, "options.debounce"),
    ("concurrency", ["a", "b", "c"], 400, "options.concurrency"),
    ("concurrency", ["a b"], 400, "options.concurrency.0"),
    ("concurrency", ["a"], 422, "options.concurrency"),
    ("gates", [{"queue": "q"}] * 4, 400, "options.gates"),
    ("gates", [{"queue": "q"}], 422, "options.gates"),
    ("tags", [1], 400, "options.tags"),
    ("tags", {"a": 1}, 400, "options.tags"),
    ("delay", "soon", 400, "options.delay"),
    ("delay", "", 400, "options.delay"),
    ("delay", "1.5h", 400, "options.delay"),
    ("delay", "1h1h", 400, "options.delay"),
    ("delay", "999999999999w", 400, "options.delay"),
    ("delay", "2027-13-45", 400, "options.delay"),
    ("delay", 5, 400, "options.delay"),
    ("ttl", "soon", 400, "options.ttl"),
    ("ttl", "", 400, "options.ttl"),
    ("ttl", 10**11, 400, "options.ttl"),
    ("ttl", 10**300, 400, "options.ttl"),
    ("ttl", 1.5, 400, "options.ttl"),
    ("ttl", -1, 400, "options.ttl"),
    ("idempotencyKey", "", 400, "options.idempotencyKey"),
    ("idempotencyKey", "k" * 2_049, 400, "options.idempotencyKey"),
    ("concurrencyKey", "k" * 129, 400, "options.concurrencyKey"),
    ("concurrencyKey", [], 400, "options.concurrencyKey"),
    ("concurrencyKey", True, 400, "options.concurrencyKey"),
    ("resumeParentOnCompletion", "yes", 400, "options.resumeParentOnCompletion"),
    ("delay", True, 400, "options.delay"),
    ("queue", {"name": ""}, 400, "options.queue.name"),
    ("queue", {"name": "q" * 129}, 400, "options.queue.name"),
    ("queue", "mail", 400, "options.queue"),
    ("maxAttempts", 0, 400, "options.maxAttempts"),
    ("maxAttempts", 251, 400, "options.maxAttempts"),
    ("maxAttempts", "many", 400, "options.maxAttempts"),
    ("maxDuration", -1, 400, "options.maxDuration"),
    ("priority", 10**10, 400, "options.priority"),
    ("metadata", [], 400, "options.metadata"),
    ("metadata", "{", 400, "options.metadata"),
    ("metadata", {"a": "x" * 262_144}, 413, "options.metadata"),
    ("parentRunId", "run_x", 422, "options.parentRunId"),
    ("lockToVersion", "20200101.1", 422, "options.lockToVersion"),
    ("payloadType", "application/store", 400, "payload"),
]


@pytest.mark.parametrize(("option", "value", "status", "param"), REFUSED)
async def test_a_bad_option_is_refused_by_name_and_makes_no_run(
    world: World, option: str, value: Any, status: int, param: str
):
    codes = {400: "invalid_request", 413: "payload_too_large", 422: "unprocessable"}
    body = await refused(
        world.dev.post("/api/v1/tasks/echo/trigger", json={"payload": 1, "options": {option: value}}),
        status,
        codes[status],
    )
    assert body["param"].startswith(param)
    assert (await ok(world.dev.get("/api/v1/runs")))["data"] == []


async def test_an_idempotency_lifetime_that_can_not_be_read_is_refused(world: World):
    options = {"idempotencyKey": "k", "idempotencyKeyTTL": "1h30m"}
    await refused(
        world.dev.post("/api/v1/tasks/echo/trigger", json={"options": options}),
        422,
        "unprocessable",
        param="options.idempotencyKeyTTL",
    )


async def test_a_parent_of_another_environment_is_no_parent(world: World):
    parent = await trigger(world.prod)
    await refused(
        world.dev.post("/api/v1/tasks/echo/trigger", json={"options": {"parentRunId": parent}}),
        422,
        "unprocessable",
        param="options.parentRunId",
    )


async def test_a_version_lock_keeps_the_run_for_that_version(world: World):
    old = await world.worker("echo")
    run = await trigger(world.dev, lockToVersion=old.version)
    registered = await ok(
        world.dev.post(
            "/api/v1/workers", json={"name": "w", "fingerprint": "other", "tasks": [{"id": "echo"}]}
        )
    )
    assert registered["version"] != old.version
    claim = {"slots": 10, "waitMs": 0}
    new = await ok(world.dev.post(f"/api/v1/workers/{registered['workerId']}/claim", json=claim))
    assert new["runs"] == []
    assert [claimed["id"] for claimed in await old.claim()] == [run]


async def test_options_that_are_not_known_are_ignored(world: World):
    await trigger(world.dev, bulkActionId="x", whatever={"a": 1})


@pytest.mark.parametrize(
    ("ttl", "told"), [("24h", "24h"), ("90s", "90s"), (3600, "1h"), (90, "1m30s"), ("0s", None)]
)
async def test_the_sdk_is_told_the_ttl_as_it_was_written(world: World, ttl: Any, told: str | None):
    run = await trigger(world.dev, ttl=ttl)
    seen = await ok(world.dev.get(f"/api/v3/runs/{run}", headers={"x-trigger-api-version": "2025-07-16"}))
    assert seen.get("ttl") == told
