"""Queues over HTTP, in the shapes that the SDK reads."""

from __future__ import annotations

from typing import Any

import pytest

from server.world import World, ok

pytestmark = pytest.mark.anyio


async def register(world: World) -> None:
    body = {
        "name": "w",
        "fingerprint": "f",
        "tasks": [{"id": "send"}, {"id": "a/b"}, {"id": "pay", "queue": "money/eur"}],
        "queues": [{"name": "money/eur", "concurrencyLimit": 7}],
    }
    await ok(world.dev.post("/api/v1/workers", json=body))


async def test_a_queue_is_read_by_name_and_by_id(world: World) -> None:
    await register(world)
    found = await ok(world.dev.get("/api/v1/queues/send?type=task"))
    assert found == {
        "id": found["id"],
        "name": "send",
        "type": "task",
        "running": 0,
        "queued": 0,
        "paused": False,
        "concurrencyLimit": None,
        "concurrency": {
            "current": None,
            "base": None,
            "override": None,
            "overriddenAt": None,
            "overriddenBy": None,
        },
    }
    assert found["id"].startswith("queue_")
    assert await ok(world.dev.get(f"/api/v1/queues/{found['id']}")) == found


@pytest.mark.parametrize("name", ["money/eur", "money%2Feur", "money%252Feur", "money%252feur"])
async def test_a_slash_in_a_name_may_be_encoded_twice(world: World, name: str) -> None:
    await register(world)
    if "/" in name:
        assert (await world.dev.get(f"/api/v1/queues/{name}?type=custom")).status_code == 404
        return
    found = await ok(world.dev.get(f"/api/v1/queues/{name}?type=custom"))
    assert (found["name"], found["type"], found["concurrencyLimit"]) == ("money/eur", "custom", 7)
    paused = await ok(
        world.dev.post(f"/api/v1/queues/{name}/pause", json={"type": "custom", "action": "pause"})
    )
    assert paused["paused"] is True


async def test_the_queue_of_a_task_with_a_slash(world: World) -> None:
    await register(world)
    assert (await ok(world.dev.get("/api/v1/queues/a%252Fb?type=task")))["name"] == "a/b"


async def test_pages_are_counted(world: World) -> None:
    await register(world)
    first = await ok(world.dev.get("/api/v1/queues?perPage=2"))
    second = await ok(world.dev.get("/api/v1/queues?perPage=2&page=2"))
    assert first["pagination"] == {"currentPage": 1, "totalPages": 2, "count": 3}
    assert second["pagination"] == {"currentPage": 2, "totalPages": 2, "count": 3}
    listed = [(item["type"], item["name"]) for page in (first, second) for item in page["data"]]
    assert listed == [("custom", "money/eur"), ("task", "a/b"), ("task", "send")]
    past = await ok(world.dev.get("/api/v1/queues?page=9"))
    assert past["data"] == []
    assert (await ok(world.prod.get("/api/v1/queues")))["pagination"]["count"] == 0


async def test_override_and_reset(world: World) -> None:
    await register(world)
    path = "/api/v1/queues/money%252Feur/concurrency"
    changed = await ok(world.dev.post(f"{path}/override", json={"type": "custom", "concurrencyLimit": 3}))
    assert changed["concurrencyLimit"] == 3
    at = changed["concurrency"].pop("overriddenAt")
    assert at.endswith("Z")
    assert changed["concurrency"] == {"current": 3, "base": 7, "override": 3, "overriddenBy": None}
    again = await ok(world.dev.post(f"{path}/reset", json={"type": "custom"}))
    assert again["concurrency"]["override"] is None
    assert again["concurrencyLimit"] == 7
    answer = await world.dev.post(f"{path}/reset", json={"type": "custom"})
    assert (answer.status_code, answer.json()["param"]) == (400, "queue")


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("send/concurrency/override", {"type": "task", "concurrencyLimit": -1}, 400, "concurrencyLimit"),
        ("send/concurrency/override", {"type": "task", "concurrencyLimit": 100_001}, 400, "concurrencyLimit"),
        ("send/concurrency/override", {"type": "task", "concurrencyLimit": 1.5}, 400, "concurrencyLimit"),
        ("send/concurrency/override", {"type": "task"}, 400, "concurrencyLimit"),
        ("send/pause", {"type": "task", "action": "stop"}, 400, "action"),
        ("send/pause", {"type": "lane", "action": "pause"}, 400, "type"),
        ("none/pause", {"type": "task", "action": "pause"}, 404, None),
        ("none/concurrency/override", {"type": "custom", "concurrencyLimit": 1}, 404, None),
        ("none/concurrency/reset", {}, 404, None),
        ("task%252Fsend/pause", {"type": "custom", "action": "pause"}, 404, None),
        ("a%00b/pause", {"type": "custom", "action": "pause"}, 400, "queue"),
    ],
)
async def test_what_can_not_be_done_is_refused(
    world: World, path: str, body: dict[str, Any], status: int, param: str | None
) -> None:
    await register(world)
    answer = await world.dev.post(f"/api/v1/queues/{path}", json=body)
    assert answer.status_code == status, answer.text
    assert answer.json().get("param") == param
    assert (await ok(world.dev.get("/api/v1/queues/send?type=task")))["paused"] is False


@pytest.mark.parametrize("query", ["page=0", "page=x", "perPage=0", "perPage=101", "page=99999999999"])
async def test_a_page_that_can_not_be_is_refused(world: World, query: str) -> None:
    answer = await world.dev.get(f"/api/v1/queues?{query}")
    assert (answer.status_code, answer.json()["param"]) == (400, query.partition("=")[0])


async def test_an_unknown_type_is_refused(world: World) -> None:
    answer = await world.dev.get("/api/v1/queues/send?type=lane")
    assert (answer.status_code, answer.json()["param"]) == (400, "type")
