"""Deployments over HTTP, in the shapes that the SDK reads."""

from __future__ import annotations

from typing import Any

import pytest

from server.world import World, ok

pytestmark = pytest.mark.anyio

CODE = {"fingerprint": "one", "tasks": [{"id": "send"}]}


async def deploy(world: World, fingerprint: str = "one", **more: Any) -> dict[str, Any]:
    answer: dict[str, Any] = await ok(
        world.prod.post("/api/v1/deployments", json={**CODE, "fingerprint": fingerprint, **more})
    )
    return answer


async def test_a_deployment_is_answered_as_the_sdk_reads_it(world: World) -> None:
    deployed = await deploy(
        world,
        runtime="python",
        runtimeVersion="3.11.2",
        git={"commitSha": "abc", "dirty": False},
        externalId=" web-1 ",
    )
    assert deployed.pop("id").startswith("deployment_")
    assert deployed.pop("createdAt") == deployed.pop("deployedAt")
    assert len(deployed.pop("shortCode")) == 8
    assert deployed.pop("version").endswith(".1")
    assert deployed == {
        "runtime": "python",
        "runtimeVersion": "3.11.2",
        "status": "DEPLOYED",
        "externalId": "web-1",
        "git": {"commitSha": "abc", "dirty": False},
    }


async def test_what_is_not_known_is_left_out(world: World) -> None:
    pending = await deploy(world, skipPromotion=True)
    assert pending["status"] == "PENDING"
    assert "deployedAt" not in pending
    assert "git" not in pending
    assert (pending["runtime"], pending["runtimeVersion"], pending["externalId"]) == (None, None, None)


async def test_the_current_deployment(world: World) -> None:
    answer = await world.prod.get("/api/v1/deployments/current")
    assert answer.status_code == 404
    assert answer.headers["x-should-retry"] == "false"
    first = await deploy(world)
    assert await ok(world.prod.get("/api/v1/deployments/current")) == first
    second = await deploy(world, "two", skipPromotion=True)
    assert (await ok(world.prod.get("/api/v1/deployments/current")))["id"] == first["id"]
    promoted = await ok(world.prod.post(f"/api/v1/deployments/{second['version']}/promote"))
    assert promoted["status"] == "DEPLOYED"
    assert await ok(world.prod.get("/api/v1/deployments/current")) == promoted
    await ok(world.prod.post(f"/api/v1/deployments/{first['version']}/promote"))
    assert (await ok(world.prod.get("/api/v1/deployments/current")))["id"] == first["id"]


async def test_deployments_are_listed_by_pages_and_filters(world: World) -> None:
    made = []
    for number in range(3):
        made.append(await deploy(world, str(number), skipPromotion=number == 2))
        world.clock.advance(60)
    listed = await ok(world.prod.get("/api/v1/deployments"))
    assert [one["id"] for one in listed["data"]] == [one["id"] for one in made[::-1]]
    assert listed["pagination"] == {}
    first = await ok(world.prod.get("/api/v1/deployments?page[size]=2"))
    assert first["pagination"] == {"next": made[1]["id"]}
    second = await ok(world.prod.get(f"/api/v1/deployments?page[size]=2&page[after]={made[1]['id']}"))
    assert [one["id"] for one in second["data"]] == [made[0]["id"]]

    async def ids(query: str) -> list[str]:
        return [one["id"] for one in (await ok(world.prod.get(f"/api/v1/deployments?{query}")))["data"]]

    assert await ids("status=PENDING") == [made[2]["id"]]
    assert await ids("status=FAILED") == []
    assert await ids("period=90s") == [made[2]["id"]]
    assert await ids(f"to={made[0]['createdAt']}") == [made[0]["id"]]
    assert await ids(f"from={made[1]['createdAt']}") == [made[2]["id"], made[1]["id"]]
    assert (await ok(world.dev.get("/api/v1/deployments")))["data"] == []


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("status=INSTALLING", "status"),
        ("period=soon", "period"),
        ("from=yesterday", "from"),
        ("to=x", "to"),
        ("page[size]=0", "page[size]"),
        ("page[after]=deployment_x", "page[after]"),
        ("page[after]=%00", "page[after]"),
    ],
)
async def test_a_filter_that_can_not_be_read_is_refused(world: World, query: str, param: str) -> None:
    answer = await world.prod.get(f"/api/v1/deployments?{query}")
    assert (answer.status_code, answer.json()["param"]) == (400, param)


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 400, "fingerprint"),
        ({"fingerprint": "", "tasks": []}, 400, "fingerprint"),
        ({**CODE, "tasks": [{"id": "a"}, {"id": "a"}]}, 400, "tasks"),
        ({**CODE, "tasks": [{"id": "a", "payloadSchema": {"type": 7}}]}, 400, "tasks.a.payloadSchema"),
        ({**CODE, "queues": [{"name": "q", "concurrencyLimit": -1}]}, 400, "queues.0.concurrencyLimit"),
        ({**CODE, "externalId": "x" * 129}, 400, "externalId"),
        ({**CODE, "git": {"message": "x" * 20_000}}, 413, "git"),
        ({**CODE, "git": "main"}, 400, "git"),
        ({**CODE, "skipPromotion": "perhaps"}, 400, "skipPromotion"),
    ],
)
async def test_code_that_can_not_be_deployed_is_refused(
    world: World, body: dict[str, Any], status: int, param: str
) -> None:
    answer = await world.prod.post("/api/v1/deployments", json=body)
    assert answer.status_code == status, answer.text
    assert answer.json()["param"] == param
    assert (await ok(world.prod.get("/api/v1/deployments")))["data"] == []


async def test_nul_is_refused_wherever_it_stands(world: World) -> None:
    for body in (
        {"externalId": "a\x00"},
        {"runtime": "\x00"},
        {"git": {"a": "\x00"}},
        {"fingerprint": "\x00"},
    ):
        answer = await world.prod.post("/api/v1/deployments", json={**CODE, **body})
        assert answer.status_code == 400, answer.text


async def test_a_version_that_nobody_deployed_can_not_be_promoted(world: World) -> None:
    await ok(world.prod.post("/api/v1/workers", json={"name": "w", **CODE}))
    for version in ("20200101.1", "x", "20261124.1"):
        answer = await world.prod.post(f"/api/v1/deployments/{version}/promote")
        assert (answer.status_code, answer.headers["x-should-retry"]) == (404, "false")


async def test_development_has_no_deployments(world: World) -> None:
    answer = await world.dev.post("/api/v1/deployments", json=CODE)
    assert answer.status_code == 422
    assert "has no deployments" in answer.json()["error"]
    assert (await world.dev.post("/api/v1/deployments/20261124.1/promote")).status_code == 422
    assert (await world.dev.get("/api/v1/deployments/current")).status_code == 404


async def test_a_worker_learns_its_version_and_the_current_one(world: World) -> None:
    worker = await ok(world.prod.post("/api/v1/workers", json={"name": "w", **CODE}))
    assert "current" not in worker
    deployed = await deploy(world)
    worker = await ok(world.prod.post("/api/v1/workers", json={"name": "w", **CODE}))
    assert worker["version"] == worker["current"] == deployed["version"]
    other = await ok(world.prod.post("/api/v1/workers", json={"name": "w", **CODE, "fingerprint": "two"}))
    assert (other["current"], other["version"] != deployed["version"]) == (deployed["version"], True)


async def test_a_trigger_may_name_a_deployment(world: World) -> None:
    await deploy(world, externalId="web-1")
    for id, status in (
        ("web-1", "QUEUED"),
        (None, "QUEUED"),
        (" ", "QUEUED"),
        ("web-2", "WAITING_FOR_DEPLOY"),
    ):
        made = await ok(
            world.prod.post("/api/v1/tasks/send/trigger", json={"options": {"externalDeploymentId": id}})
        )
        assert (await ok(world.prod.get(f"/api/v3/runs/{made['id']}")))["status"] == status
    answer = await world.prod.post(
        "/api/v1/tasks/send/trigger", json={"options": {"externalDeploymentId": "x" * 129}}
    )
    assert (answer.status_code, answer.json()["param"]) == (400, "options.externalDeploymentId")
