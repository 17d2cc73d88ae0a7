"""Schedules over HTTP, in the shapes that the SDK reads."""

from __future__ import annotations

from typing import Any

import pytest

from server.world import SDK, START, START_MS, World, ok, read, refused

pytestmark = pytest.mark.anyio

PATH = "/api/v1/schedules"
NEW = {"task": "report", "cron": "0 9 * * *", "deduplicationKey": "k"}
NO_TICK = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


async def register(world: World) -> None:
    await world.worker("report", {"id": "greet", "payloadSchema": NO_TICK})


async def hour_passed(world: World) -> None:
    """An hour later, with a worker that lives: without one nothing is scheduled in dev."""
    world.clock.advance(3_599)
    await register(world)
    await world.later(1)


async def make(world: World, **fields: Any) -> dict[str, Any]:
    return await ok(world.dev.post(PATH, json={**NEW, **fields}))


async def declare(world: World, **fields: Any) -> dict[str, Any]:
    """A schedule that code declares."""
    schedule = {"expression": "*/5 * * * *", "timezone": "UTC", "overlap": "skip", "catchUp": "one", **fields}
    await world.worker("report", {"id": "nightly", "schedule": schedule})
    [found] = [one for one in (await ok(world.dev.get(PATH)))["data"] if one["type"] == "DECLARATIVE"]
    return found


async def test_a_schedule_is_made_and_read(world: World) -> None:
    await register(world)
    made = await make(world, timezone="America/New_York", externalId="user_42", window="0m")
    assert made == {
        "id": made["id"],
        "type": "IMPERATIVE",
        "task": "report",
        "active": True,
        "deduplicationKey": "k",
        "externalId": "user_42",
        "generator": {
            "type": "CRON",
            "expression": "0 9 * * *",
            "description": made["generator"]["description"],
        },
        "timezone": "America/New_York",
        "window": "0m",
        "nextRun": "2027-01-15T14:00:00.000Z",
        "nextRunEffectiveAt": "2027-01-15T14:00:00.000Z",
        "environments": [{"id": "dev", "type": "DEVELOPMENT"}],
        "lastTick": None,
    }
    assert made["id"].startswith("sched_")
    assert "09:00" in made["generator"]["description"]
    assert await ok(world.dev.get(f"{PATH}/{made['id']}")) == made


async def test_what_is_not_given_is_absent(world: World) -> None:
    await register(world)
    made = await make(world)
    assert made["timezone"] == "UTC"
    assert not {"externalId", "window"} & set(made)


async def test_a_window_moves_the_run_and_not_its_tick(world: World) -> None:
    await register(world)
    made = await make(world, window="2h")
    assert made["nextRun"] == "2027-01-15T09:00:00.000Z"
    assert made["nextRun"] <= made["nextRunEffectiveAt"] < "2027-01-15T11:00:00.000Z"


async def test_the_same_key_changes_the_schedule(world: World) -> None:
    await register(world)
    first = await make(world, timezone="Asia/Tokyo", externalId="a", window="1h")
    again = await make(world, cron="0 12 * * *")
    assert again["id"] == first["id"]
    assert again["generator"]["expression"] == "0 12 * * *"
    assert again["timezone"] == "UTC"
    assert not {"externalId", "window"} & set(again)
    other = await make(world, deduplicationKey="k2")
    assert other["id"] != first["id"]
    assert (await ok(world.dev.get(PATH)))["pagination"]["count"] == 2


async def test_the_key_of_the_project_moves_a_schedule_to_where_it_is_used(world: World) -> None:
    await register(world)
    made = await make(world)
    await world.worker("report", client=world.prod)
    moved = await ok(world.prod.post(PATH, json=NEW))
    assert moved["id"] == made["id"]
    assert moved["environments"] == [{"id": "prod", "type": "PRODUCTION"}]
    await refused(world.dev.get(f"{PATH}/{made['id']}"), 404, "not_found")


async def test_all_values_are_replaced(world: World) -> None:
    await register(world)
    made = await make(world, timezone="Asia/Tokyo", externalId="a", window="1h")
    changed = await ok(world.dev.put(f"{PATH}/{made['id']}", json={"task": "report", "cron": "@daily"}))
    assert changed["id"] == made["id"]
    assert changed["deduplicationKey"] == "k"
    assert (changed["timezone"], changed["generator"]["expression"]) == ("UTC", "@daily")
    assert not {"externalId", "window"} & set(changed)


async def test_a_schedule_is_paused_and_goes_on(world: World) -> None:
    await register(world)
    made = await make(world)
    path = f"{PATH}/{made['id']}"
    for _ in range(2):
        paused = await ok(world.dev.post(f"{path}/deactivate"))
        assert paused["active"] is False
        assert not {"nextRun", "nextRunEffectiveAt"} & set(paused)
    await world.later(2 * 3_600)
    assert (await ok(world.dev.get(path)))["lastTick"] is None
    for _ in range(2):
        active = await ok(world.dev.post(f"{path}/activate"))
        assert active["active"] is True
        assert active["nextRun"] == "2027-01-16T09:00:00.000Z"


async def test_a_schedule_is_deleted_and_its_runs_stay(world: World) -> None:
    await register(world)
    made = await make(world)
    await hour_passed(world)
    assert await ok(world.dev.delete(f"{PATH}/{made['id']}")) == {"id": made["id"]}
    for method, rest in (("GET", ""), ("DELETE", ""), ("POST", "/activate"), ("POST", "/deactivate")):
        await refused(world.dev.request(method, f"{PATH}/{made['id']}{rest}"), 404, "not_found")
    assert len((await ok(world.dev.get("/api/v1/runs")))["data"]) == 1


async def test_pages_are_counted(world: World) -> None:
    await register(world)
    made = {(await make(world, deduplicationKey=f"k{number}"))["id"] for number in range(3)}
    first = await ok(world.dev.get(f"{PATH}?perPage=2"))
    second = await ok(world.dev.get(f"{PATH}?perPage=2&page=2"))
    assert first["pagination"] == {"currentPage": 1, "totalPages": 2, "count": 3}
    assert second["pagination"] == {"currentPage": 2, "totalPages": 2, "count": 3}
    assert {one["id"] for page in (first, second) for one in page["data"]} == made
    assert (await ok(world.dev.get(f"{PATH}?page=9")))["data"] == []
    empty = {"currentPage": 1, "totalPages": 0, "count": 0}
    assert await ok(world.prod.get(PATH)) == {"data": [], "pagination": empty}


@pytest.mark.parametrize("query", ["page=0", "page=x", "perPage=0", "perPage=101", "page=99999999999"])
async def test_a_page_that_can_not_be_is_refused(world: World, query: str) -> None:
    await refused(world.dev.get(f"{PATH}?{query}"), 400, "invalid_request", param=query.partition("=")[0])


MALFORMED: list[tuple[dict[str, Any], str]] = [
    ({"task": None}, "task"),
    ({"task": ""}, "task"),
    ({"task": "t" * 129}, "task"),
    ({"cron": None}, "cron"),
    ({"cron": 5}, "cron"),
    ({"timezone": None}, "timezone"),
    ({"timezone": ["UTC"]}, "timezone"),
    ({"window": 30}, "window"),
    ({"externalId": 7}, "externalId"),
    ({"externalId": "x" * 513}, "externalId"),
]
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"cron": ""}, "cron"),
    ({"cron": "every tuesday"}, "cron"),
    ({"cron": "* * * *"}, "cron"),
    ({"cron": "0 0 0 * * *"}, "cron"),
    ({"cron": "61 * * * *"}, "cron"),
    ({"cron": "0 0 30 2 *"}, "cron"),
    ({"cron": "@reboot"}, "cron"),
    ({"cron": "0 0 * * 8L"}, "cron"),
    ({"cron": ",".join(["0"] * 200) + " * * * *"}, "cron"),
    ({"timezone": "Mars/Olympus"}, "timezone"),
    ({"timezone": ""}, "timezone"),
    ({"timezone": "../../etc/passwd"}, "timezone"),
    ({"timezone": "/etc/localtime"}, "timezone"),
    ({"timezone": "localtime"}, "timezone"),
    ({"timezone": "x" * 4_000}, "timezone"),
    ({"window": "25h"}, "window"),
    ({"window": "1441m"}, "window"),
    ({"window": "101%"}, "window"),
    ({"window": "1h30m"}, "window"),
    ({"window": "1d"}, "window"),
    ({"window": "30s"}, "window"),
    ({"window": "-5m"}, "window"),
    ({"window": "05m"}, "window"),
    ({"window": ""}, "window"),
    ({"window": "9" * 4_000 + "m"}, "window"),
    ({"task": "no-such-task"}, "task"),
    ({"task": "greet"}, "task"),
]


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [(fields, 400, param) for fields, param in MALFORMED]
    + [(fields, 422, param) for fields, param in REFUSED],
)
async def test_what_can_be_no_schedule_is_refused(
    world: World, fields: dict[str, Any], status: int, param: str
) -> None:
    await register(world)
    code = {400: "invalid_request", 422: "unprocessable"}[status]
    await refused(world.dev.post(PATH, json={**NEW, **fields}), status, code, param=param)
    assert (await ok(world.dev.get(PATH)))["data"] == []
    made = await make(world)
    changed = {"task": "report", "cron": "0 10 * * *", **fields}
    await refused(world.dev.put(f"{PATH}/{made['id']}", json=changed), status, code, param=param)
    assert await ok(world.dev.get(f"{PATH}/{made['id']}")) == made


@pytest.mark.parametrize("missing", ["task", "cron", "deduplicationKey"])
async def test_a_missing_field_is_named(world: World, missing: str) -> None:
    await register(world)
    body = {name: value for name, value in NEW.items() if name != missing}
    await refused(world.dev.post(PATH, json=body), 400, "invalid_request", param=missing)


@pytest.mark.parametrize("key", [None, "", 7, "x" * 513])
async def test_a_key_that_can_be_none_is_refused(world: World, key: Any) -> None:
    await register(world)
    asked = world.dev.post(PATH, json={**NEW, "deduplicationKey": key})
    await refused(asked, 400, "invalid_request", param="deduplicationKey")


@pytest.mark.parametrize("body", ["", "[]", "null", "{", '"x"'])
async def test_a_body_that_is_no_schedule_is_refused(world: World, body: str) -> None:
    await register(world)
    made = await make(world)
    await refused(world.dev.post(PATH, content=body), 400, "invalid_request")
    await refused(world.dev.put(f"{PATH}/{made['id']}", content=body), 400, "invalid_request")


async def test_the_longest_texts_are_kept_whole(world: World) -> None:
    await register(world)
    made = await make(world, deduplicationKey="你" * 512, externalId="é" * 512)
    assert (made["deduplicationKey"], made["externalId"]) == ("你" * 512, "é" * 512)


async def test_unknown_fields_are_ignored(world: World) -> None:
    await register(world)
    made = await make(world, colour="red", overlap="skip")
    assert made["active"] is True


@pytest.mark.parametrize("id", ["sched_none", "a%2Fb", "..%2F..", "x" * 4_000])
async def test_an_id_that_names_nothing_is_not_found(world: World, id: str) -> None:
    await register(world)
    body = {"task": "report", "cron": "0 9 * * *"}
    for method, rest, sent in (
        ("GET", "", None),
        ("PUT", "", body),
        ("DELETE", "", None),
        ("POST", "/activate", None),
        ("POST", "/deactivate", {}),
    ):
        answer = await world.dev.request(method, f"{PATH}/{id}{rest}", json=sent)
        assert (answer.status_code, answer.headers["x-should-retry"]) == (404, "false"), answer.text


async def test_an_id_that_can_be_none_is_refused(world: World) -> None:
    await refused(world.dev.get(f"{PATH}/a%00b"), 400, "invalid_request", param="schedule")


async def test_a_schedule_of_another_environment_is_not_there(world: World) -> None:
    await register(world)
    made = await make(world)
    path = f"{PATH}/{made['id']}"
    body = {"task": "report", "cron": "0 9 * * *"}
    for asked in (
        world.prod.get(path),
        world.prod.put(path, json=body),
        world.prod.delete(path),
        world.prod.post(f"{path}/activate"),
        world.prod.post(f"{path}/deactivate"),
    ):
        await refused(asked, 404, "not_found")
    assert await ok(world.dev.get(path)) == made


async def test_what_code_declares_is_changed_there_only(world: World) -> None:
    found = await declare(world)
    assert found["task"] == "nightly"
    assert "deduplicationKey" not in found
    path = f"{PATH}/{found['id']}"
    await refused(world.dev.put(path, json={"task": "nightly", "cron": "0 9 * * *"}), 422, "unprocessable")
    await refused(world.dev.delete(path), 422, "unprocessable")
    assert await ok(world.dev.get(path)) == found
    assert (await ok(world.dev.post(f"{path}/deactivate")))["active"] is False
    assert (await ok(world.dev.post(f"{path}/activate")))["active"] is True


async def test_a_run_tells_which_schedule_made_it(world: World) -> None:
    await register(world)
    made = await make(world, externalId="user_42")
    await hour_passed(world)
    [run] = (await ok(world.dev.get("/api/v1/runs", params={"filter[schedule]": made["id"]})))["data"]
    assert run["taskIdentifier"] == "report"
    found = await ok(world.dev.get(f"/api/v3/runs/{run['id']}", headers=SDK))
    assert found["schedule"] == {
        "id": made["id"],
        "externalId": "user_42",
        "deduplicationKey": "k",
        "generator": made["generator"],
    }
    assert "schedule" not in await read(world.dev, run["id"])  # the run structure is what it is
    tick = {"at": "2027-01-15T09:00:00.000Z", "runId": run["id"]}
    assert (await ok(world.dev.get(f"{PATH}/{made['id']}")))["lastTick"] == tick
    assert (await ok(world.dev.get(PATH)))["data"][0]["lastTick"] == tick
    await ok(world.dev.delete(f"{PATH}/{made['id']}"))
    assert "schedule" not in await ok(world.dev.get(f"/api/v3/runs/{run['id']}", headers=SDK))


async def test_a_run_of_nobodys_schedule_tells_none(world: World) -> None:
    await register(world)
    run = (await ok(world.dev.post("/api/v1/tasks/report/trigger", json={})))["id"]
    assert "schedule" not in await ok(world.dev.get(f"/api/v3/runs/{run}", headers=SDK))


async def test_a_tick_that_was_refused_is_told(world: World) -> None:
    found = await declare(world)
    await world.later(300)  # its worker is lost meanwhile
    told = await ok(world.dev.get(f"{PATH}/{found['id']}"))
    assert told["lastTick"]["at"] == "2027-01-15T08:05:00.000Z"
    assert "runId" not in told["lastTick"]
    assert told["lastTick"]["refusal"]


async def test_runs_are_listed_and_cancelled_by_their_schedule(world: World) -> None:
    await register(world)
    mine, other = await make(world), await make(world, deduplicationKey="other", cron="0 10 * * *")
    await hour_passed(world)
    await hour_passed(world)

    async def runs_of(schedule: str, **query: str) -> list[dict[str, Any]]:
        params = {"filter[schedule]": schedule, **query}
        data: list[dict[str, Any]] = (await ok(world.dev.get("/api/v1/runs", params=params)))["data"]
        return data

    [run] = await runs_of(mine["id"])
    [second] = await runs_of(other["id"])
    assert run["id"] != second["id"]
    assert await runs_of("sched_none") == []
    assert await runs_of(mine["id"], **{"filter[status]": "EXECUTING"}) == []
    assert await runs_of(mine["id"], **{"filter[tag]": "none"}) == []
    assert (await ok(world.prod.get("/api/v1/runs", params={"filter[schedule]": mine["id"]})))["data"] == []
    body = {"action": "cancel", "filter": {"schedule": mine["id"]}}
    answer = await world.dev.post("/api/v1/bulk-actions", json=body)
    assert answer.status_code == 202
    for _ in range(3):  # who is selected, then each in turn
        await world.engine.upkeep()
    assert (await read(world.dev, run["id"]))["status"] == "CANCELLED"
    assert (await read(world.dev, second["id"]))["status"] == "QUEUED"


def test_the_clock_of_these_tests_stands_at_eight() -> None:
    assert (START_MS % 86_400_000, START) == (8 * 3_600_000, "2027-01-15T08:00:00.000Z")
