"""Batches in two phases, as the SDK makes them, and the older ways (the wire contract, 4.2 to 4.6)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx2
import jwt
import pytest

from holdfast.server import create_app
from holdfast.server.tokens import AUDIENCE, ISSUER
from server.world import DEV_KEY, KEYS, START, START_MS, World, error_shape, ok, read, refused, trigger

# Keys of the tests are shorter than the library recommends.
pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")]

BATCHES = "/api/v3/batches"
NDJSON = {"content-type": "application/x-ndjson"}
SDK = {"x-trigger-api-version": "2025-07-16"}
MEBIBYTE = 1024 * 1024


def bearer(*scopes: str, **claims: Any) -> dict[str, str]:
    """The header of a public token."""
    now = START_MS // 1_000
    given = {"iss": ISSUER, "aud": AUDIENCE, "sub": "dev", "pub": True, "scopes": scopes}
    token = jwt.encode({**given, "iat": now, "exp": now + 900, **claims}, DEV_KEY, "HS256")
    return {"authorization": f"Bearer {token}"}


def line(index: Any, task: Any = "echo", **fields: Any) -> bytes:
    item = {"index": index, "task": task, "payload": index, **fields}
    return json.dumps(item, ensure_ascii=False).encode() + b"\n"


async def create(world: World, count: int = 5, headers: Any = None, **asked: Any) -> str:
    response = await world.dev.post(BATCHES, json={"runCount": count, **asked}, headers=headers)
    assert response.status_code == 202, response.text
    made: str = response.json()["id"]
    return made


def stream(world: World, batch: str, *pieces: bytes, headers: Any = None) -> Any:
    async def body() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    return world.dev.post(f"{BATCHES}/{batch}/items", content=body(), headers={**NDJSON, **(headers or {})})


async def found(world: World, batch: str) -> dict[str, Any]:
    return await ok(world.dev.get(f"/api/v2/batches/{batch}"))


async def payloads(world: World, batch: str) -> list[Any]:
    return [(await read(world.dev, run))["payload"] for run in (await found(world, batch))["runs"]]


async def test_a_batch_is_made_filled_and_read(world: World):
    response = await world.dev.post(BATCHES, json={"runCount": 2, "taskIdentifiers": ["echo"]}, headers=SDK)
    made = response.json()
    assert (response.status_code, made["runCount"], made["isCached"]) == (202, 2, False)
    assert set(made) == {"id", "runCount", "isCached"}
    scopes = jwt.decode(response.headers["x-trigger-jwt"], options={"verify_signature": False})["scopes"]
    assert scopes == [f"read:batch:{made['id']}"]
    assert json.loads(response.headers["x-trigger-jwt-claims"])["pub"] is True
    open_batch = await found(world, made["id"])
    assert open_batch == {
        "id": made["id"],
        "status": "PROCESSING",
        "createdAt": START,
        "updatedAt": START,
        "runCount": 2,
        "runs": [],
        "processing": {"errors": []},
    }
    world.clock.advance(1)
    assert await ok(stream(world, made["id"], line(0), line(1))) == {
        "id": made["id"],
        "itemsAccepted": 2,
        "itemsDeduplicated": 0,
        "sealed": True,
        "enqueuedCount": 2,
        "expectedCount": 2,
        "runCount": 2,
    }
    worker = await world.worker("echo")
    world.clock.advance(1)
    claimed = await worker.claim()
    await worker.succeed(claimed[1]["id"], '"one"')
    results = f"/api/v1/batches/{made['id']}/results"
    [result] = (await ok(world.dev.get(results)))["items"]
    assert (result["id"], result["ok"], result["output"]) == (claimed[1]["id"], True, '"one"')
    assert (await found(world, made["id"]))["status"] == "PROCESSING"
    await worker.fail(claimed[0]["id"])
    full = await found(world, made["id"])
    assert full["status"] == "COMPLETED"
    assert full["runs"] == [run["id"] for run in claimed]
    assert full["processingCompletedAt"] == full["processing"]["completedAt"] == "2027-01-15T08:00:01.000Z"
    assert full["updatedAt"] == "2027-01-15T08:00:02.000Z"
    told = await ok(world.dev.get(results))
    assert told["id"] == made["id"]
    assert [item["ok"] for item in told["items"]] == [False, True]
    old = await ok(world.dev.get(f"/api/v1/batches/{made['id']}"))
    assert old.items() <= full.items()
    assert "processing" not in old
    shown = await ok(world.dev.get(f"/api/v3/runs/{claimed[0]['id']}", headers=SDK))
    assert (shown["batchId"], shown["triggerFunction"]) == (made["id"], "batchTrigger")


async def test_lines_before_the_one_that_is_refused_stay(world: World):
    batch = await create(world)
    await refused(stream(world, batch, line(0), line(1), b'{"index": 2, "ta'), 400, "invalid_request")
    assert await payloads(world, batch) == [0, 1]
    answer = await ok(stream(world, batch, *(line(index) for index in range(5))))
    assert (answer["itemsAccepted"], answer["itemsDeduplicated"], answer["sealed"]) == (3, 2, True)
    assert await payloads(world, batch) == [0, 1, 2, 3, 4]


BAD_LINES: list[tuple[bytes, int, str]] = [
    (b"not JSON\n", 400, "line 2"),
    (b"[]\n", 400, "line 2"),
    (b"null\n", 400, "line 2"),
    (b'{"index": 1, "task": "echo", "payload": NaN}\n', 400, "line 2"),
    (b'{"index": 1, "task": "echo", "payload": "\\u0000"}\n', 400, "line 2.payload"),
    (b'{"index": 1, "task": "echo", "payload": "\xff"}\n', 400, "line 2"),
    (line(5), 422, "index"),
    (line(-1), 422, "index"),
    (line("1"), 422, "index"),
    (line(1.0), 422, "index"),
    (line(True), 422, "index"),
    (b'{"task": "echo"}\n', 422, "index"),
    (b'{"index": 1}\n', 422, "task"),
    (line(1, ""), 422, "task"),
    (line(1, " "), 422, "task"),
    (line(1, "t" * 129), 422, "task"),
    (line(1, options=[]), 422, "options"),
    (line(1, options={"maxAttempts": 0}), 422, "options.maxAttempts"),
]


@pytest.mark.parametrize(("bad", "status", "param"), BAD_LINES, ids=lambda value: str(value)[:50])
async def test_a_line_that_is_no_item_is_named(world: World, bad: bytes, status: int, param: str):
    batch = await create(world)
    code = {400: "invalid_request", 422: "unprocessable"}[status]
    response = await stream(world, batch, line(0), bad, line(2))
    assert response.status_code == status, response.text
    body = error_shape(response)
    assert (body["code"], body["param"]) == (code, param)
    assert await payloads(world, batch) == [0]


async def test_what_is_wrong_with_an_item_itself_fails_its_run(world: World):
    batch = await create(world, 4)
    tags = [str(number) for number in range(11)]
    answer = await ok(
        stream(
            world,
            batch,
            line(0, options={"tags": tags}),
            line(1, options={"payloadType": "text/html"}),
            line(2, payload="x" * (3 * MEBIBYTE - 100), options={"payloadType": "application/json"}),
            line(3),
        )
    )
    assert (answer["itemsAccepted"], answer["sealed"]) == (4, True)
    runs = (await found(world, batch))["runs"]
    shown = [await ok(world.dev.get(f"/api/v3/runs/{run}", headers=SDK)) for run in runs]
    assert [run["status"] for run in shown] == ["SYSTEM_FAILURE"] * 3 + ["PENDING_VERSION"]
    assert [run.get("error", {}).get("name") for run in shown] == ["BATCH_ITEM_COULD_NOT_TRIGGER"] * 3 + [
        None
    ]
    assert "options.tags" in shown[0]["error"]["message"]


async def test_a_line_over_the_limit_is_a_run_that_has_failed(world: World):
    batch = await create(world, 3)
    huge = line(1, "a task", payload="x" * (3 * MEBIBYTE))
    pieces = [line(0), *(huge[start : start + 65_536] for start in range(0, len(huge), 65_536)), line(2)]
    answer = await ok(stream(world, batch, *pieces))
    assert (answer["itemsAccepted"], answer["sealed"]) == (3, True)
    runs = (await found(world, batch))["runs"]
    shown = await ok(world.dev.get(f"/api/v3/runs/{runs[1]}", headers=SDK))
    assert (shown["status"], shown["taskIdentifier"]) == ("SYSTEM_FAILURE", "a task")
    assert shown["error"]["name"] == "PAYLOAD_TOO_LARGE"
    assert str(3 * MEBIBYTE) in shown["error"]["message"]


@pytest.mark.parametrize(
    "head",
    [
        b'{"payload": "',
        b'{"index": 0, "payload": "',
        b'{"index": 0, "task": "\\q", "payload": "',
        b'{"index": 0, "task": "\\u0000", "payload": "',
        b'{"index": 0, "task": "' + b"t" * 129 + b'", "payload": "',
    ],
)
async def test_a_line_over_the_limit_that_does_not_say_who_it_is_is_refused(world: World, head: bytes):
    batch = await create(world)
    data = [head + b"x" * (3 * MEBIBYTE) + b'", "index": 0, "task": "echo"}\n']
    await refused(stream(world, batch, *data), 413, "payload_too_large", param="line 1")
    assert (await found(world, batch))["runs"] == []


async def test_lines_may_be_cut_anywhere_and_blank(world: World):
    batch = await create(world, 3)
    data = b"\n  \r\n" + line(0, payload="é漢😀") + b"\n" + line(1, payload="😀").replace(b"\n", b"\r\n")
    data += line(2).rstrip()  # without an end
    answer = await ok(stream(world, batch, *(data[place : place + 1] for place in range(len(data)))))
    assert answer["sealed"]
    assert await payloads(world, batch) == ["é漢😀", "😀", 2]


async def test_a_stream_without_a_line_tells_how_far_the_batch_is(world: World):
    batch = await create(world, 2)
    await ok(stream(world, batch, line(1)))
    answer = await ok(stream(world, batch))
    assert (answer["itemsAccepted"], answer["enqueuedCount"], answer["sealed"]) == (0, 1, False)
    await ok(stream(world, batch, line(0)))
    assert (await ok(stream(world, batch, b"\n")))["sealed"]


@pytest.mark.parametrize("given", ["application/json", "text/plain", "x-ndjson", ""])
async def test_items_are_taken_as_lines_of_json_only(world: World, given: str):
    batch = await create(world)
    url = f"{BATCHES}/{batch}/items"
    response = await world.dev.post(url, content=line(0), headers={"content-type": given} if given else {})
    assert (response.status_code, error_shape(response)["code"]) == (415, "unsupported_media_type")
    charset = {"content-type": "application/x-ndjson; charset=utf-8"}
    assert (await ok(world.dev.post(url, content=line(0), headers=charset)))["itemsAccepted"] == 1


async def test_a_batch_that_is_not_there_or_aborted_takes_no_items(world: World):
    await refused(stream(world, "batch_x", line(0)), 422, "unprocessable")
    batch = await create(world, 2)
    await refused(
        world.prod.post(f"{BATCHES}/{batch}/items", content=line(0), headers=NDJSON), 422, "unprocessable"
    )
    await ok(stream(world, batch, line(0)))
    await world.later(30 * 60)
    body = await refused(stream(world, batch, line(1)), 422, "unprocessable")
    assert "30 minutes" in body["error"]
    aborted = await found(world, batch)
    assert (aborted["status"], len(aborted["runs"])) == ("ABORTED", 1)
    for url in (f"/api/v2/batches/{batch}", f"/api/v1/batches/{batch}", f"/api/v1/batches/{batch}/results"):
        response = await world.prod.get(url)
        assert (response.status_code, error_shape(response)["code"]) == (404, "batch_not_found")
        assert response.headers["x-should-retry"] == ("false" if url.endswith("/results") else "true")


async def test_a_body_that_trickles_in_is_cut_off_and_what_came_stays(world: World):
    app = create_app(world.engine, KEYS, body_seconds=0.2)
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    client = httpx2.AsyncClient(transport=transport, base_url="http://holdfast", headers=world.dev.headers)
    never = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield line(0)
        yield b'{"index": 1, '
        await never.wait()

    batch = await create(world)
    async with client:
        response = await client.post(f"{BATCHES}/{batch}/items", content=body(), headers=NDJSON)
    assert (response.status_code, error_shape(response)["code"]) == (400, "invalid_request")
    assert await payloads(world, batch) == [0]


async def test_two_streams_at_once_make_each_index_once(world: World):
    batch = await create(world, 300)
    lines = [line(index) for index in range(300)]
    one, other = await asyncio.gather(
        ok(stream(world, batch, *lines)), ok(stream(world, batch, *reversed(lines)))
    )
    assert one["itemsAccepted"] + other["itemsAccepted"] == 300
    assert one["itemsDeduplicated"] + other["itemsDeduplicated"] == 300
    assert one["sealed"]
    assert other["sealed"]
    runs = (await found(world, batch))["runs"]
    assert len(set(runs)) == 300


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "runCount"),
        ({"runCount": 0}, "runCount"),
        ({"runCount": 1_001}, "runCount"),
        ({"runCount": "1"}, "runCount"),
        ({"runCount": 1.5}, "runCount"),
        ({"runCount": 1, "resumeParentOnCompletion": "yes"}, "resumeParentOnCompletion"),
        ({"runCount": 1, "taskIdentifiers": [""]}, "taskIdentifiers.0"),
        ({"runCount": 1, "taskIdentifiers": "echo"}, "taskIdentifiers"),
        ({"runCount": 1, "idempotencyKey": ""}, "idempotencyKey"),
        ({"runCount": 1, "idempotencyKey": "k" * 2_049}, "idempotencyKey"),
        ({"runCount": 1, "idempotencyKeyOptions": {"key": 5}}, "idempotencyKeyOptions.key"),
    ],
)
async def test_what_no_batch_can_be_is_refused(world: World, body: dict[str, Any], param: str):
    await refused(world.dev.post(BATCHES, json=body), 400, "invalid_request", param=param)


async def test_a_body_over_the_limit_is_refused(world: World):
    tasks = ["t" * 128] * 1_001
    response = await world.dev.post(BATCHES, json={"runCount": 1, "taskIdentifiers": tasks})
    assert response.status_code == 413


async def test_a_key_gives_the_batch_again(world: World):
    asked = {"idempotencyKey": "k", "taskIdentifiers": ["echo"]}
    batch = await create(world, 1, **asked)
    # Its items are still to come, from whoever asks now: the first caller may be gone.
    assert await create(world, 1, **asked) == batch
    await ok(stream(world, batch, line(0)))
    response = await world.dev.post(BATCHES, json={"runCount": 1, **asked}, headers=SDK)
    assert (response.status_code, response.json()) == (
        200,
        {"id": batch, "runCount": 1, "isCached": True, "idempotencyKey": "k"},
    )
    assert response.headers["x-trigger-jwt"]
    assert (await found(world, batch))["idempotencyKey"] == "k"
    shown = await create(world, 1, idempotencyKey="l", idempotencyKeyOptions={"key": "words", "scope": "run"})
    assert (await found(world, shown))["idempotencyKey"] == "words"


async def test_a_repeated_request_gives_the_first_answer(world: World):
    header = {"x-trigger-request-idempotency-key": "r"}
    batch = await create(world, 1, headers=header)
    await ok(stream(world, batch, line(0)))
    response = await world.dev.post(BATCHES, json={"runCount": 1}, headers=header)
    assert (response.status_code, response.json()["isCached"]) == (202, False)
    assert response.json()["id"] == batch
    assert await create(world, 1, headers={"x-trigger-request-idempotency-key": "s"}) != batch
    once = await ok(world.dev.post("/api/v1/tasks/batch", json={"items": [{"task": "echo"}]}, headers=header))
    legacy = await world.dev.post("/api/v2/tasks/batch", json={"items": [{"task": "echo"}]}, headers=header)
    assert len({batch, once["batchId"], legacy.json()["id"]}) == 3


async def test_items_with_a_key_contribute_the_run_that_holds_it(world: World):
    earlier = await trigger(world.dev, idempotencyKey="old")
    batch = await create(world, 3)
    keys = ["new", "new", "old"]
    await ok(stream(world, batch, *(line(n, options={"idempotencyKey": key}) for n, key in enumerate(keys))))
    runs = (await found(world, batch))["runs"]
    assert runs[0] == runs[1]
    assert runs[2] == earlier
    listed = await ok(world.dev.get("/api/v1/runs", params={"filter[batch]": batch}))
    assert [run["id"] for run in listed["data"]] == [runs[0], earlier]


async def test_the_runs_are_children_of_the_parent_of_their_batch(world: World):
    parent, other = await trigger(world.dev), await trigger(world.dev)
    batch = await create(world, 2, parentRunId=parent, resumeParentOnCompletion=True)
    lease = {"x-holdfast-lease": f"{other}:1"}
    await ok(stream(world, batch, line(0), line(1, options={"parentRunId": other}), headers=lease))
    for run in (await found(world, batch))["runs"]:
        assert (await read(world.dev, run))["relatedRuns"]["parent"]["id"] == parent
    await refused(
        world.dev.post(BATCHES, json={"runCount": 1, "parentRunId": "run_x"}),
        422,
        "unprocessable",
        param="parentRunId",
    )


async def test_the_older_way_takes_all_items_at_once(world: World):
    parent = await trigger(world.dev)
    items = [{"task": "echo", "payload": 1}, {"task": "echo", "options": {"tags": ["t"] * 2 + ["u" * 129]}}]
    response = await world.dev.post(
        "/api/v2/tasks/batch",
        json={"items": items, "parentRunId": parent},
        headers={**SDK, "idempotency-key": "k", "idempotency-key-ttl": "1h"},
    )
    made = response.json()
    assert response.status_code == 202, response.text
    assert (made["runCount"], made["isCached"], made["idempotencyKey"]) == (2, False, "k")
    assert response.headers["x-trigger-jwt"]
    batch = await found(world, made["id"])
    structures = [await read(world.dev, run) for run in batch["runs"]]
    assert [run["status"] for run in structures] == ["WAITING_FOR_DEPLOY", "FAILED_TO_RUN"]
    assert {run["relatedRuns"]["parent"]["id"] for run in structures} == {parent}
    again = await world.dev.post(
        "/api/v2/tasks/batch", json={"items": items}, headers={"idempotency-key": "k"}
    )
    assert (again.status_code, again.json()["id"], again.json()["isCached"]) == (200, made["id"], True)
    assert (await found(world, made["id"]))["runs"] == batch["runs"]


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        ({"items": []}, {}, 400),
        ({"items": [{"task": "echo"}] * 501}, {}, 400),
        ({"items": [{"payload": 1}]}, {}, 400),
        ({"items": [{"task": "echo", "payload": "x" * 1_000_000}]}, {}, 413),
        ({"items": [{"task": "echo"}]}, {"idempotency-key": "k" * 2_049}, 400),
        ({"items": [{"task": "echo"}]}, {"idempotency-key": "k", "idempotency-key-ttl": "soon"}, None),
    ],
)
async def test_what_the_older_way_does_not_take(
    world: World, body: dict[str, Any], headers: dict[str, str], status: int | None
):
    response = await world.dev.post("/api/v2/tasks/batch", json=body, headers=headers)
    assert response.status_code in ((status,) if status else (400, 422))
    error_shape(response)
    assert (await ok(world.dev.get("/api/v1/runs")))["data"] == []


async def test_a_batch_in_one_call_can_be_read_too(world: World):
    items: Sequence[Any] = [
        {"task": "echo", "payload": 0},
        {"task": "echo", "options": {"maxAttempts": 0}},
        {"task": "echo", "options": {"tags": ["t" * 129]}},
    ]
    made = await ok(world.dev.post("/api/v1/tasks/batch", json={"items": items}))
    batch = await found(world, made["batchId"])
    assert batch["runs"] == [made["runs"][0]["id"]]
    assert (batch["runCount"], batch["status"]) == (3, "PROCESSING")
    errors = batch["processing"]["errors"]
    assert [(error["index"], error["taskIdentifier"], error["errorCode"]) for error in errors] == [
        (1, "echo", "invalid_request"),
        (2, "echo", "invalid_request"),
    ]
    assert [error["error"] for error in errors] == [run["error"] for run in made["runs"][1:]]
    worker = await world.worker("echo")
    await worker.claim()
    await worker.succeed(batch["runs"][0])
    assert (await found(world, made["batchId"]))["status"] == "PARTIAL_FAILED"


@pytest.mark.parametrize(
    ("scopes", "asked", "status"),
    [
        (["batchTrigger:tasks:echo"], {"taskIdentifiers": ["echo"]}, 202),
        (["batchTrigger:tasks:echo"], {"taskIdentifiers": ["echo", "other"]}, 403),
        (
            ["batchTrigger:tasks:echo", "batchTrigger:tasks:other"],
            {"taskIdentifiers": ["echo", "other"]},
            202,
        ),
        (["batchTrigger:tasks:echo"], {}, 403),
        (["batchTrigger:tasks"], {}, 202),
        (["batchTrigger:batch"], {"taskIdentifiers": ["echo"]}, 202),
        (["trigger:tasks"], {"taskIdentifiers": ["echo"]}, 403),
        (["read:batch"], {"taskIdentifiers": ["echo"]}, 403),
        (["batchTrigger:tasks"], {"parentRunId": "PARENT"}, 403),
        (["batchTrigger:tasks", "write:runs"], {"parentRunId": "PARENT"}, 202),
    ],
)
async def test_making_a_batch_needs_every_task_of_it(
    world: World, scopes: list[str], asked: dict[str, Any], status: int
):
    if "parentRunId" in asked:
        asked = {"parentRunId": await trigger(world.dev)}
    response = await world.dev.post(BATCHES, json={"runCount": 1, **asked}, headers=bearer(*scopes))
    assert response.status_code == status, response.text


@pytest.mark.parametrize(
    ("scopes", "status", "kept"),
    [
        (["write:batch:{}"], 200, 2),
        (["batchTrigger:batch:{}"], 200, 2),
        (["batchTrigger:tasks"], 200, 2),
        (["batchTrigger:tasks:echo"], 403, 1),
        (["batchTrigger:tasks:echo", "batchTrigger:tasks:other"], 200, 2),
        (["write:batch:batch_x"], 403, 0),
        (["read:batch:{}"], 403, 0),
        (["trigger:tasks"], 403, 0),
    ],
)
async def test_filling_a_batch_needs_it_or_the_task_of_each_item(
    world: World, scopes: list[str], status: int, kept: int
):
    batch = await create(world, 2)
    headers = bearer(*(scope.format(batch) for scope in scopes))
    response = await stream(world, batch, line(0), line(1, "other"), headers=headers)
    assert response.status_code == status, response.text
    assert len((await found(world, batch))["runs"]) == kept
    if kept == 0:
        await refused(stream(world, batch, headers=headers), 403, "unauthorized")
        await refused(stream(world, "batch_y", headers=headers), 403, "unauthorized")


@pytest.mark.parametrize(
    ("scopes", "status"),
    [(["read:batch:{}"], 200), (["read:batch"], 200), (["read:runs"], 200), (["read:batch:batch_x"], 403)],
)
async def test_reading_a_batch_needs_its_scope(world: World, scopes: list[str], status: int):
    batch = await create(world)
    headers = bearer(*(scope.format(batch) for scope in scopes))
    for route in ("v1", "v2"):
        response = await world.dev.get(f"/api/{route}/batches/{batch}", headers=headers)
        assert response.status_code == status, response.text
    await refused(world.dev.get(f"/api/v1/batches/{batch}/results", headers=headers), 401, "not_authorised")
    await refused(world.dev.get("/api/v2/batches/batch_y", headers=headers), 404, "batch_not_found")


async def test_a_browser_is_handed_what_it_needs_to_stream(world: World):
    browser = {"x-trigger-client": "browser"}
    for headers, wider in (
        (SDK, False),
        ({**SDK, **browser}, True),
        ({**bearer("batchTrigger:tasks"), **browser}, True),
    ):
        response = await world.dev.post(BATCHES, json={"runCount": 1}, headers=headers)
        batch = response.json()["id"]
        token = response.headers["x-trigger-jwt"]
        scopes = jwt.decode(token, options={"verify_signature": False})["scopes"]
        assert scopes == [f"read:batch:{batch}", *([f"write:batch:{batch}"] if wider else [])]
        answer = await stream(world, batch, line(0), headers={"authorization": f"Bearer {token}"})
        assert answer.status_code == (200 if wider else 403)
    asked = {"runCount": 1, "taskIdentifiers": ["echo"]}
    limited = {**bearer("batchTrigger:tasks:echo"), **browser}
    response = await world.dev.post(BATCHES, json=asked, headers=limited)
    claims = jwt.decode(response.headers["x-trigger-jwt"], options={"verify_signature": False})
    assert claims["scopes"] == [f"read:batch:{response.json()['id']}"]


async def test_a_one_time_token_makes_one_batch_whose_items_it_streams(world: World):
    other = await create(world, 1)
    headers = bearer("batchTrigger:tasks:echo", otu=True)
    asked = {"runCount": 1, "taskIdentifiers": ["echo"]}
    answers = await asyncio.gather(*(world.dev.post(BATCHES, json=asked, headers=headers) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [202, 422, 422, 422, 422]
    [batch] = [answer.json()["id"] for answer in answers if answer.status_code == 202]
    [text, *_] = [answer.json()["error"] for answer in answers if answer.status_code == 422]
    assert text.endswith("as it has already been used.")
    await refused(stream(world, other, line(0), headers=headers), 422, "unprocessable")
    assert (await ok(stream(world, batch, line(0), headers=headers)))["sealed"]
    assert (await ok(stream(world, batch, line(0), headers=headers)))["sealed"]
    for url, status in (("/api/v1/tasks/batch", 422), ("/api/v2/tasks/batch", 422)):
        await refused(
            world.dev.post(url, json={"items": [{"task": "echo"}]}, headers=headers), status, "unprocessable"
        )
    fresh = bearer("batchTrigger:tasks:echo", otu=True, jti="another")
    once = await ok(world.dev.post("/api/v1/tasks/batch", json={"items": [{"task": "echo"}]}, headers=fresh))
    assert (await found(world, once["batchId"]))["runCount"] == 1
    await refused(world.dev.post(BATCHES, json=asked, headers=fresh), 422, "unprocessable")
