"""Bodies and paths that can not be taken: each has a clear error, and nothing is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from holdfast.server import create_app
from server.world import KEYS, SDK, World, error_shape, ok, read, refused, trigger

pytestmark = pytest.mark.anyio

URL = "/api/v1/tasks/echo/trigger"
MEBIBYTE = 1024 * 1024


def payload(text: str) -> bytes:
    return b'{"payload":' + text.encode() + b"}"


BODIES = {
    "not JSON": b"payload",
    "half": b'{"payload":',
    "two values": b"{}{}",
    "NaN": payload("NaN"),
    "Infinity": payload("Infinity"),
    "minus Infinity": payload("-Infinity"),
    "a float past the largest": payload("1e999"),
    "a negative one": payload("[-1e999]"),
    "the largest digits": payload("9" * 400 + ".0"),
    "an integer of 1,001 digits": payload("1" + "0" * 1_000),
    "a negative one of 1,001 digits": payload("-" + "1" * 1_001),
    "NUL in a text": payload('"a\\u0000b"'),
    "NUL in a key": payload('{"a\\u0000b":1}'),
    "a bare NUL": payload('"a\x00b"'),
    "a lone leading surrogate": payload('"\\ud800"'),
    "a lone trailing surrogate": payload('"\\udc00"'),
    "surrogates the wrong way round": payload('"\\ude00\\ud83d"'),
    "a surrogate in UTF-8": b'{"payload":"\xed\xa0\x80"}',
    "not UTF-8": b'{"payload":"\xff"}',
    "UTF-16": '{"payload":1}'.encode("utf-16"),
    "101 lists": payload("[" * 100 + "]" * 100),
    "101 objects": payload('{"a":' * 100 + "1" + "}" * 100),
    "100,000 lists": payload("[" * 100_000),
    "single quotes": b"{'payload':1}",
    "a trailing comma": b'{"payload":1,}',
    "a comment": b'{"payload":1} // no',
    "a list": b"[]",
    "a text": b'"x"',
    "null": b"null",
    "a number": b"5",
}


@pytest.mark.parametrize("name", BODIES)
async def test_a_body_that_can_not_be_kept_is_refused_and_makes_no_run(world: World, name: str):
    body = await refused(world.dev.post(URL, content=BODIES[name]), 400, "invalid_request")
    assert len(body["error"]) < 1_000
    assert (await ok(world.dev.get("/api/v1/runs")))["data"] == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[" * 99 + "]" * 99, None),
        ("1" * 1_000, int("1" * 1_000)),
        ('"' + "1" * 2_000 + '"', "1" * 2_000),
        ('"' + "[" * 500 + '"', "[" * 500),
        ('"' + '\\"[' * 500 + '"', '"[' * 500),
        ('"1e999"', "1e999"),
        ('"\\\\u0000"', "\\u0000"),
        ('"\\ud83d\\ude00"', "😀"),
        ('{"a":1,"a":2}', {"a": 2}),
        ("1.0e10", 1e10),
        ("1e-999", 0.0),
        ("-0", 0),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_what_only_looks_bad_is_kept(world: World, text: str, value: Any):
    run = (await ok(world.dev.post(URL, content=payload(text))))["id"]
    kept = (await read(world.dev, run))["payload"]
    assert value is None or kept == value


async def test_an_empty_body_is_refused_where_one_is_needed(world: World):
    run = await trigger(world.dev, delay="1h")
    for path in (f"/api/v1/runs/{run}/reschedule", f"/api/v1/runs/{run}/tags", "/api/v1/tasks/batch"):
        body = await refused(world.dev.post(path), 400, "invalid_request")
        assert body["error"] == "Request body is empty"


async def test_a_payload_over_three_mebibytes_is_413(world: World):
    body = await refused(
        world.dev.post(URL, json={"payload": "x" * (3 * MEBIBYTE)}), 413, "payload_too_large", param="payload"
    )
    assert str(3 * MEBIBYTE) in body["error"]
    await trigger(world.dev, payload="x" * (3 * MEBIBYTE - 2))


async def test_a_trigger_of_the_sdk_has_a_body_of_up_to_three_mebibytes(world: World):
    content = payload('""').ljust(3 * MEBIBYTE)
    await ok(world.dev.post(URL, content=content, headers=SDK))
    await refused(world.dev.post(URL, content=content + b" ", headers=SDK), 413, "payload_too_large")
    body = await refused(world.dev.post(URL, headers=SDK), 400, "invalid_request")
    assert body["error"] == "Request body is empty"


async def test_the_size_of_a_payload_is_counted_in_bytes(world: World):
    await refused(world.dev.post(URL, json={"payload": "é" * (3 * MEBIBYTE // 2)}), 413, "payload_too_large")


async def chunks(count: int, size: int, pause: float = 0) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b" " * size
        await asyncio.sleep(pause)


async def test_a_body_over_the_limit_is_413_with_and_without_a_length(world: World):
    await refused(world.dev.post(URL, content=b" " * (5 * MEBIBYTE)), 413, "payload_too_large")
    await refused(world.dev.post(URL, content=chunks(50, MEBIBYTE // 8)), 413, "payload_too_large")


async def test_a_body_longer_than_it_says_is_413(world: World):
    headers = {"content-length": "2"}
    response = await world.dev.post(URL, content=chunks(50, MEBIBYTE // 8), headers=headers)
    assert response.status_code == 413
    error_shape(response)


@pytest.mark.parametrize("length", ["-1", "x", "9" * 30, ""])
async def test_a_length_that_can_not_be_read_does_no_harm(world: World, length: str):
    response = await world.dev.post(URL, content=b"{}", headers={"content-length": length})
    assert response.status_code in (200, 400, 413)


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate, gzip"])
async def test_a_compressed_body_is_refused(world: World, encoding: str):
    await refused(
        world.dev.post(URL, content=b"{}", headers={"content-encoding": encoding}),
        400,
        "invalid_request",
        param="content-encoding",
    )


async def test_a_body_without_a_content_type_is_taken(world: World):
    await ok(world.dev.post(URL, content=b"{}"))
    await ok(world.dev.post(URL, content=b"{}", headers={"content-type": "text/plain"}))


async def test_a_body_that_trickles_is_given_up(world: World):
    app = create_app(world.engine, KEYS, body_seconds=0.05)
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(
        transport=transport, base_url="http://holdfast", headers=world.dev.headers
    ) as client:
        async with asyncio.timeout(5):
            body = await refused(
                client.post(URL, content=chunks(1_000, 1, pause=0.01)), 400, "invalid_request", param="body"
            )
    assert "0.05 seconds" in body["error"]


TASKS = {
    "a%2Fb": "a/b",
    "a%252Fb": "a%2Fb",
    "%C3%A9%F0%9F%98%80": "é😀",
    "a%20b": "a b",
    "a+b": "a+b",
    "a%3Fb%23c": "a?b#c",
    "..%2F..%2Fetc": "../../etc",
    "%22%3Cb%3E": '"<b>',
    "t" * 128: "t" * 128,
}


@pytest.mark.parametrize("path", TASKS)
async def test_a_task_id_may_hold_what_its_developer_likes(world: World, path: str):
    worker = await world.worker(TASKS[path])
    run = (await ok(world.dev.post(f"/api/v1/tasks/{path}/trigger")))["id"]
    assert (await read(world.dev, run))["taskIdentifier"] == TASKS[path]
    assert [claimed["task"] for claimed in await worker.claim()] == [TASKS[path]]
    listed = await ok(world.dev.get("/api/v1/runs", params={"filter[taskIdentifier]": TASKS[path]}))
    assert [item["id"] for item in listed["data"]] == [run]


@pytest.mark.parametrize("path", ["t" * 129, "%00", "a%00b", "%20", "%FF", "%ED%A0%80", "x" * 5_000])
async def test_a_task_id_that_is_none_is_refused(world: World, path: str):
    await refused(world.dev.post(f"/api/v1/tasks/{path}/trigger"), 400, "invalid_request", param="task")


@pytest.mark.parametrize("run", ["%00", "run_%00", "%FF", "x" * 5_000])
async def test_a_run_id_that_is_none_is_refused(world: World, run: str):
    await refused(world.dev.get(f"/api/v3/runs/{run}"), 400, "invalid_request", param="run")
