"""The list of runs: filters, order, pages, cursors."""

from __future__ import annotations

from typing import Any

import pytest

from server.world import SDK, World, ok, refused, trigger

pytestmark = pytest.mark.anyio

ITEM = [
    "id",
    "status",
    "taskIdentifier",
    "version",
    "createdAt",
    "updatedAt",
    "startedAt",
    "finishedAt",
    "isTest",
    "tags",
    "metadata",
]


async def page(world: World, **query: Any) -> dict[str, Any]:
    names = {"size": "page[size]", "after": "page[after]", "before": "page[before]"}
    return await ok(
        world.dev.get("/api/v1/runs", params={names.get(key, key): value for key, value in query.items()})
    )


async def ids(world: World, query: dict[str, Any]) -> list[str]:
    return [run["id"] for run in (await ok(world.dev.get("/api/v1/runs", params=query)))["data"]]


async def test_items_have_the_common_fields_in_their_order(world: World):
    await trigger(world.dev, metadata={"a": 1}, tags=["x"])
    answer = await page(world)
    assert list(answer) == ["data", "pagination"]
    assert answer["pagination"] == {}
    assert list(answer["data"][0]) == ITEM


async def test_runs_of_other_environments_are_not_listed(world: World):
    await trigger(world.prod)
    assert (await page(world))["data"] == []


async def test_pages_lead_forth_and_back(world: World):
    runs = [await trigger(world.dev) for _ in range(7)][::-1]
    first = await page(world, size=3)
    assert [run["id"] for run in first["data"]] == runs[:3]
    assert list(first["pagination"]) == ["next"]
    second = await page(world, size=3, after=first["pagination"]["next"])
    assert [run["id"] for run in second["data"]] == runs[3:6]
    assert set(second["pagination"]) == {"next", "previous"}
    last = await page(world, size=3, after=second["pagination"]["next"])
    assert [run["id"] for run in last["data"]] == runs[6:]
    assert list(last["pagination"]) == ["previous"]
    back = await page(world, size=3, before=last["pagination"]["previous"])
    assert [run["id"] for run in back["data"]] == runs[3:6]
    assert set(back["pagination"]) == {"next", "previous"}
    front = await page(world, size=3, before=back["pagination"]["previous"])
    assert [run["id"] for run in front["data"]] == runs[:3]
    assert list(front["pagination"]) == ["next"]


async def test_following_next_meets_each_run_once_while_new_ones_arrive(world: World):
    runs = {await trigger(world.dev) for _ in range(10)}
    seen: list[str] = []
    query: dict[str, Any] = {"size": 4}
    while True:
        answer = await page(world, **query)
        seen += [run["id"] for run in answer["data"]]
        await trigger(world.dev)
        if "next" not in answer["pagination"]:
            break
        query["after"] = answer["pagination"]["next"]
    assert sorted(seen) == sorted(runs)


async def test_a_page_has_twenty_five_runs_unless_said(world: World):
    await ok(world.dev.post("/api/v1/tasks/batch", json={"items": [{"task": "echo"}] * 101}))
    assert len((await page(world))["data"]) == 25
    assert len((await page(world, size=100))["data"]) == 100


@pytest.mark.parametrize("size", ["0", "101", "-1", "x", "1.5", ""])
async def test_a_page_size_out_of_bounds_is_refused(world: World, size: str):
    await refused(
        world.dev.get("/api/v1/runs", params={"page[size]": size}),
        400,
        "invalid_request",
        param="page[size]",
    )


@pytest.mark.parametrize("way", ["nnpnpnn.", "nnnpppnnn.", "npnpnnpnn."])
async def test_the_sdk_walks_forth_and_back_with_all_cursors_it_has_seen(world: World, way: str):
    """It sends the last page[after] and the last page[before] together."""
    runs = [await trigger(world.dev) for _ in range(7)][::-1]
    params: dict[str, str] = {"page[size]": "2"}
    at = 0
    for step in way:
        found = await ok(world.dev.get("/api/v1/runs", params=params, headers=SDK))
        assert [run["id"] for run in found["data"]] == runs[at : at + 2]
        cursors = found["pagination"]
        assert ("next" in cursors) is (at + 2 < len(runs))
        if step == "n":
            params["page[after]"], at = cursors["next"], at + 2
        elif step == "p":
            params["page[before]"], at = cursors["previous"], at - 2


async def test_after_and_before_exclude_each_other(world: World):
    run = await trigger(world.dev)
    await refused(
        world.dev.get("/api/v1/runs", params={"page[after]": run, "page[before]": run}),
        400,
        "invalid_request",
    )


@pytest.mark.parametrize("name", ["page[after]", "page[before]"])
async def test_cursors_of_another_environment_and_malformed_ones_are_refused_alike(world: World, name: str):
    foreign = await trigger(world.prod)
    answers = [
        await refused(world.dev.get("/api/v1/runs", params={name: cursor}), 400, "invalid_request")
        for cursor in (foreign, "run_0000000000000000000000000", "nonsense", "", "x" * 5_000, "é")
    ]
    assert all(answer == answers[0] for answer in answers)
    assert foreign not in answers[0]["error"]


async def test_each_filter_narrows_and_its_values_widen(world: World):
    worker = await world.worker("a", "b", queues=["mail"])
    one = await trigger(world.dev, "a", tags=["x", "y"], queue={"name": "mail"}, test=True)
    two = await trigger(world.dev, "b", tags=["y"], machine="small-1x")
    three = await trigger(world.dev, "c")
    await worker.claim()
    await worker.succeed(one)
    cases: list[tuple[dict[str, Any], set[str]]] = [
        ({"filter[status]": "COMPLETED_SUCCESSFULLY"}, {one}),
        ({"filter[status]": "EXECUTING,WAITING_FOR_DEPLOY"}, {two, three}),
        ({"filter[status]": ["EXECUTING", "COMPLETED_SUCCESSFULLY"]}, {one, two}),
        ({"filter[taskIdentifier]": "a,c"}, {one, three}),
        ({"filter[version]": worker.version}, {one, two}),
        ({"filter[version]": "20200101.1"}, set()),
        ({"filter[machine]": "small-1x"}, {two}),
        ({"filter[queue]": "mail"}, {one}),
        ({"filter[queue]": "task/b,task/c"}, {two, three}),
        ({"filter[tag]": "x"}, {one}),
        ({"filter[tag]": "x,y"}, {one, two}),
        ({"filter[tag]": "y", "filter[status]": "EXECUTING"}, {two}),
        ({"filter[isTest]": "true"}, {one}),
        ({"filter[isTest]": "false"}, {two, three}),
        ({"filter[batch]": "batch_x"}, set()),
        ({"filter[region]": "eu"}, set()),
        ({"filter[schedule]": "sched_x"}, set()),
        ({"filter[bulkAction]": "bulk_x"}, set()),
        ({"filter[error]": "error_x"}, set()),
        ({"filter[tag]": "' or 1=1 --"}, set()),
    ]
    for query, expected in cases:
        assert set(await ids(world, query)) == expected, query


async def test_children_are_listed_by_their_parent(world: World):
    parent = await trigger(world.dev)
    children = [await trigger(world.dev, parentRunId=parent) for _ in range(3)]
    assert await ids(world, {"filter[parent]": parent}) == children[::-1]


async def test_runs_are_listed_by_the_time_they_were_made(world: World):
    old = await trigger(world.dev)
    at = world.clock.now
    world.clock.advance(3_600)
    new = await trigger(world.dev)
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({"from": at}, [new, old]),
        ({"from": at + 1}, [new]),
        ({"to": at}, [old]),
        ({"from": at, "to": at}, [old]),
        ({"to": at - 1}, []),
        ({"from": "2027-01-15T08:30:00Z"}, [new]),
        ({"to": "2027-01-15T09:30:00+01:00"}, [old]),
        ({"period": "30m"}, [new]),
        ({"period": "2h"}, [new, old]),
    ]
    for created, expected in cases:
        query = {f"filter[createdAt][{name}]": value for name, value in created.items()}
        assert await ids(world, query) == expected, query


async def test_every_status_may_be_asked_for(world: World):
    from holdfast.model.status import RunStatus

    run = await trigger(world.dev)
    for status in RunStatus:
        expected = [run] if status is RunStatus.WAITING_FOR_DEPLOY else []
        assert await ids(world, {"filter[status]": str(status)}) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("filter[status]", "DONE"),
        ("filter[status]", "QUEUED,queued"),
        ("filter[isTest]", "yes"),
        ("filter[createdAt][from]", "yesterday"),
        ("filter[createdAt][to]", "9" * 16),
        ("filter[createdAt][period]", "long"),
        ("filter[createdAt][period]", ""),
        ("filter[tag]", ",".join(str(n) for n in range(101))),
        ("filter[tag]", "a\x00b"),
        ("filter[batch]", "a\x00b"),
        ("filter[parent]", "a\x00b"),
        ("page[after]", "a\x00b"),
        ("page[before]", "a\x00b"),
        ("filter[colour]", "red"),
        ("filter[status][0]", "QUEUED"),
        ("filter[createdAt]", "2027-01-15"),
        ("filter[createdAt][since]", "2027-01-15"),
        ("filter[", "x"),
    ],
)
async def test_an_unknown_filter_or_value_is_refused_by_name(world: World, name: str, value: str):
    await refused(world.dev.get("/api/v1/runs", params={name: value}), 400, "invalid_request", param=name)
