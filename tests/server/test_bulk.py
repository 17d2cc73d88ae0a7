"""Bulk actions over HTTP: what they take, what they tell, whom they change."""

from __future__ import annotations

from typing import Any

import pytest

from server.world import START, World, ok, read, refused, trigger

pytestmark = pytest.mark.anyio

PATH = "/api/v1/bulk-actions"
SDK = {"x-trigger-api-version": "2025-07-16"}


async def begin(world: World, headers: dict[str, str] | None = None, **body: Any) -> str:
    response = await world.dev.post(PATH, json=body, headers=headers)
    assert response.status_code == 202, response.text
    made: str = response.json()["id"]
    return made


async def done(world: World, bulk_id: str) -> dict[str, Any]:
    for _ in range(20):
        told = await ok(world.dev.get(f"{PATH}/{bulk_id}"))
        if told["status"] != "PENDING":
            return told
        await world.engine.upkeep()
    raise AssertionError("it does not end")


async def members(world: World, bulk_id: str) -> list[str]:
    page = await ok(world.dev.get("/api/v1/runs", params={"filter[bulkAction]": bulk_id}))
    return [run["id"] for run in page["data"]]


async def test_cancel_by_filter_tells_its_counts_and_its_members(world: World):
    asked = [await trigger(world.dev, delay="1h", tags=["old"]) for _ in range(3)]
    other = await trigger(world.dev, delay="1h")
    bulk_id = await begin(world, action="cancel", filter={"tag": "old"}, name="tidy")
    assert await done(world, bulk_id) == {
        "id": bulk_id,
        "name": "tidy",
        "type": "CANCEL",
        "status": "COMPLETED",
        "counts": {"total": 3, "success": 3, "failure": 0},
        "createdAt": START,
        "completedAt": START,
    }
    assert {(await read(world.dev, run))["status"] for run in asked} == {"CANCELLED"}
    assert (await read(world.dev, other))["status"] == "DELAYED"
    assert await members(world, bulk_id) == asked[::-1]


async def test_replay_of_named_runs_makes_runs_with_their_payloads_and_tags(world: World):
    asked = [await trigger(world.dev, payload={"n": n}, tags=["again", str(n)]) for n in range(2)]
    bulk_id = await begin(world, action="replay", runIds=[*asked, asked[0], "run_nobody"])
    told = await done(world, bulk_id)
    assert (told["type"], told["counts"]) == ("REPLAY", {"total": 3, "success": 2, "failure": 1})
    assert "name" not in told
    listed = (await ok(world.dev.get("/api/v1/runs", params={"filter[tag]": "again"})))["data"]
    made = [await read(world.dev, run["id"]) for run in listed if run["id"] not in asked]
    assert sorted((run["payload"]["n"], run["tags"]) for run in made) == [
        (0, ["again", "0"]),
        (1, ["again", "1"]),
    ]
    assert await members(world, bulk_id) == asked[::-1]


async def test_a_pending_action_can_be_stopped(world: World):
    run = await trigger(world.dev, delay="1h")
    bulk_id = await begin(world, action="cancel", runIds=[run])
    assert await ok(world.dev.post(f"{PATH}/{bulk_id}/abort")) == {"id": bulk_id}
    told = await ok(world.dev.get(f"{PATH}/{bulk_id}"))
    assert told["status"] in ("ABORTED", "COMPLETED")  # upkeep runs beside this test
    assert await ok(world.dev.post(f"{PATH}/{bulk_id}/abort")) == {"id": bulk_id}
    assert await ok(world.dev.get(f"{PATH}/{bulk_id}")) == told


@pytest.mark.parametrize(
    ("given", "headers", "expected"),
    [
        ({"status": "DELAYED"}, SDK, ["delayed"]),
        ({"status": ["PENDING_VERSION"]}, SDK, ["slow", "parked"]),
        ({"status": "WAITING_FOR_DEPLOY"}, None, ["slow", "parked"]),
        ({"status": ["INTERRUPTED"]}, SDK, []),
        ({"taskIdentifier": ["mail"]}, SDK, ["parked"]),
        ({"queue": {"type": "task", "name": "mail"}}, SDK, ["parked"]),
        ({"queue": [{"type": "custom", "name": "slow"}]}, SDK, ["slow"]),
        ({"machine": ["micro"], "isTest": True}, SDK, ["delayed"]),
        ({"isTest": False}, SDK, ["slow", "parked"]),
        ({"period": "30s"}, SDK, []),
        ({"period": "2m"}, SDK, ["slow", "delayed", "parked"]),
        ({"from": START, "to": START}, SDK, ["slow", "delayed", "parked"]),
        ({"from": 1_800_000_000_001}, SDK, []),
        ({"schedule": "sched_1"}, SDK, []),
        ({"region": ["eu"]}, SDK, []),
        ({"batch": "batch_none"}, SDK, []),
        ({"tag": ["a,b"]}, SDK, ["slow"]),
        ({"tag": ["a"]}, SDK, []),
    ],
)
async def test_the_words_of_filters_are_those_of_lists(
    world: World, given: dict[str, Any], headers: dict[str, str] | None, expected: list[str]
):
    runs = {
        "parked": await trigger(world.dev, "mail"),
        "delayed": await trigger(world.dev, delay="1h", test=True, machine="micro"),
        "slow": await trigger(world.dev, queue={"name": "slow"}, tags=["a,b"]),
    }
    world.clock.advance(60)
    bulk_id = await begin(world, headers, action="cancel", filter={**given, "version": []})
    told = await done(world, bulk_id)
    assert await members(world, bulk_id) == [runs[name] for name in expected]
    assert told["counts"] == {"total": len(expected), "success": len(expected), "failure": 0}


@pytest.mark.parametrize(
    "body",
    [
        {"action": "cancel"},
        {"action": "cancel", "filter": {}},
        {"action": "cancel", "filter": {"tag": []}},
        {"action": "cancel", "filter": {"tag": " ", "status": [""]}},
        {"action": "cancel", "filter": {"colour": "red"}},
        {"action": "cancel", "filter": {"status": "ASLEEP"}},
        {"action": "cancel", "filter": {"machine": "huge"}},
        {"action": "cancel", "filter": {"queue": {"type": "odd", "name": "a"}}},
        {"action": "cancel", "filter": {"from": "yesterday"}},
        {"action": "cancel", "filter": {"period": "soon"}},
        {"action": "cancel", "filter": {"isTest": "maybe"}},
        {"action": "cancel", "filter": None},
        {"action": "cancel", "filter": {"tag": "a"}, "runIds": ["run_1"]},
        {"action": "cancel", "runIds": []},
        {"action": "cancel", "runIds": ["run_1"] * 501},
        {"action": "cancel", "runIds": [""]},
        {"action": "cancel", "runIds": ["run_1"], "targetRegion": "eu"},
        {"action": "cancel", "runIds": ["run_1"], "name": "n" * 256},
        {"action": "delete", "runIds": ["run_1"]},
        {"runIds": ["run_1"]},
    ],
)
async def test_what_selects_nothing_or_can_not_be_read_is_refused(world: World, body: dict[str, Any]):
    await refused(world.dev.post(PATH, json=body), 400, "invalid_request")
    assert (await ok(world.dev.get(PATH)))["data"] == []


async def test_five_hundred_ids_are_taken(world: World):
    bulk_id = await begin(world, action="cancel", runIds=[f"run_{n}" for n in range(500)], name="n" * 255)
    assert (await done(world, bulk_id))["counts"] == {"total": 500, "success": 0, "failure": 500}


async def test_a_request_that_is_sent_again_makes_no_second_action(world: World):
    key = {"x-trigger-request-idempotency-key": "0b0b"}
    run = await trigger(world.dev)
    first = await begin(world, key, action="replay", runIds=[run])
    assert await begin(world, key, action="replay", runIds=[run]) == first
    await done(world, first)
    assert len((await ok(world.dev.get("/api/v1/runs")))["data"]) == 2


async def test_a_replay_that_is_sent_again_makes_no_second_run(world: World):
    key = {"x-trigger-request-idempotency-key": "0b0b"}
    run, other = await trigger(world.dev), await trigger(world.dev)
    first = await ok(world.dev.post(f"/api/v1/runs/{run}/replay", headers=key))
    assert await ok(world.dev.post(f"/api/v1/runs/{run}/replay", headers=key)) == first
    assert await ok(world.dev.post(f"/api/v1/runs/{other}/replay", headers=key)) != first
    assert await ok(world.dev.post(f"/api/v1/runs/{run}/replay")) != first


async def test_the_list_has_pages_newest_first(world: World):
    made = [await begin(world, action="cancel", runIds=["run_1"]) for _ in range(3)]
    first = await ok(world.dev.get(PATH, params={"page[size]": 2}))
    assert [one["id"] for one in first["data"]] == made[:0:-1]
    assert first["pagination"] == {"next": made[1]}
    last = await ok(world.dev.get(PATH, params={"page[size]": 2, "page[after]": made[1]}))
    assert [one["id"] for one in last["data"]] == made[:1]
    assert last["pagination"] == {"previous": made[0]}
    both = {"page[after]": made[1], "page[before]": made[0]}
    await refused(world.dev.get(PATH, params=both), 400, "invalid_request", param="page[after]")
    await refused(world.dev.get(PATH, params={"page[after]": "bulk_x"}), 400, "invalid_request")
    await refused(world.dev.get(PATH, params={"page[size]": 101}), 400, "invalid_request")
    back = await ok(world.dev.get(PATH, params=both, headers=SDK))
    assert [one["id"] for one in back["data"]] == made[:0:-1]


async def test_what_belongs_to_another_environment_does_not_exist(world: World):
    bulk_id = await begin(world, action="cancel", runIds=["run_1"])
    for answer in (world.prod.get(f"{PATH}/{bulk_id}"), world.prod.post(f"{PATH}/{bulk_id}/abort")):
        response = await answer
        assert (response.status_code, response.headers["x-should-retry"]) == (404, "false")
        assert response.json()["code"] == "bulk_action_not_found"
    assert (await ok(world.prod.get(PATH)))["data"] == []
    assert (await ok(world.prod.get("/api/v1/runs", params={"filter[bulkAction]": bulk_id})))["data"] == []
