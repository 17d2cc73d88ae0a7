"""Waitpoint tokens over HTTP: made with a key, completed with a key, a public token or a URL (the wire contract, 7.4)."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import httpx2
import jwt
import pytest

from holdfast.model.limits import MAX_TOKEN_DATA, MAX_TOKEN_REQUEST
from holdfast.server.tokens import AUDIENCE, ISSUER
from server.world import DEV_KEY, PROD_KEY, SDK, START, START_MS, World, ok, refused, trigger

pytestmark = pytest.mark.anyio

NOW = START_MS // 1_000
TOKENS = "/api/v1/waitpoints/tokens"


async def create(client: httpx2.AsyncClient, **body: Any) -> dict[str, Any]:
    return await ok(client.post(TOKENS, json=body))


async def read(client: httpx2.AsyncClient, token: str) -> dict[str, Any]:
    return await ok(client.get(f"{TOKENS}/{token}"))


def path(url: str) -> str:
    return urlsplit(url).path


def signed(key: str = DEV_KEY, algorithm: str = "HS256", **changes: Any) -> str:
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "dev",
        "pub": True,
        "iat": 0,
        "exp": NOW + 3_600,
        "scopes": ["write:waitpoints"],
        **changes,
    }
    body = {name: value for name, value in claims.items() if value is not None}
    head = f"{encoded({'alg': algorithm, 'typ': 'JWT'})}.{encoded(body)}"
    digest = {"HS256": hashlib.sha256, "HS512": hashlib.sha512}.get(algorithm)
    mark = hmac.new(key.encode(), head.encode(), digest).digest() if digest else b""
    return f"{head}.{base64.urlsafe_b64encode(mark).decode().rstrip('=')}"


def encoded(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


async def test_a_token_is_made_and_read(world: World):
    response = await world.dev.post(TOKENS, json={"timeout": "1h", "tags": "a", "idempotencyKey": "k"})
    made = response.json()
    assert (response.status_code, made["isCached"]) == (200, False)
    assert made["url"].startswith(f"http://localhost:3030{TOKENS}/{made['id']}/callback/")
    found = await read(world.dev, made["id"])
    assert found == {
        "id": made["id"],
        "url": made["url"],
        "status": "WAITING",
        "timeoutAt": "2027-01-15T09:00:00.000Z",
        "idempotencyKey": "k",
        "tags": ["a"],
        "createdAt": START,
    }
    claims = json.loads(response.headers["x-trigger-jwt-claims"])
    assert claims["scopes"] == [f"write:waitpoints:{made['id']}"]
    given = jwt.decode(response.headers["x-trigger-jwt"], options={"verify_signature": False})
    assert given["exp"] - given["iat"] == 86_400
    assert claims.items() <= given.items()
    again = await create(world.dev, idempotencyKey="k")
    assert (again["id"], again["isCached"]) == (made["id"], True)


async def test_a_token_without_a_body_has_no_timeout(world: World):
    made = await ok(world.dev.post(TOKENS))
    await world.later(400 * 86_400)
    assert (await read(world.dev, made["id"]))["status"] == "WAITING"


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({"tags": [f"t{number}" for number in range(11)]}, 422, "unprocessable", "tags"),
        ({"timeout": "soon"}, 400, "invalid_request", "timeout"),
        ({"timeout": 5}, 400, "invalid_request", "timeout"),
        ({"idempotencyKey": ""}, 400, "invalid_request", "idempotencyKey"),
        ({"schema": {"type": "no such type"}}, 400, "invalid_request", "schema"),
        ({"schema": {"$ref": "http://localhost:1/x.json"}}, 400, "invalid_request", "schema"),
    ],
)
async def test_what_no_token_can_have_is_refused(
    world: World, body: dict[str, Any], status: int, code: str, param: str
):
    await refused(world.dev.post(TOKENS, json=body), status, code, param=param)
    assert (await ok(world.dev.get(TOKENS)))["data"] == []


@pytest.mark.parametrize(
    ("body", "output"),
    [
        ({"data": {"ok": True}}, '{"ok":true}'),
        ({"data": "text"}, '"text"'),
        ({"data": None}, "null"),
        ({}, None),
    ],
)
async def test_what_completes_a_token_is_its_output(world: World, body: dict[str, Any], output: str | None):
    token = (await create(world.dev))["id"]
    for _ in range(2):
        assert await ok(world.dev.post(f"{TOKENS}/{token}/complete", json=body)) == {"success": True}
    await ok(world.dev.post(f"{TOKENS}/{token}/complete", json={"data": "another"}))
    found = await read(world.dev, token)
    assert (found["status"], found["completedAt"]) == ("COMPLETED", START)
    assert (found.get("output"), found["outputType"], found["outputIsError"]) == (
        output,
        "application/json",
        False,
    )
    assert ("output" in found) is (output is not None)  # nothing is undefined to the SDK, and no null
    ended = await ok(world.dev.post("/api/v1/runs/results", json={"tokens": [token]}))
    assert ended["tokens"][0]["output"] == (output or "null")
    assert "output" not in (await ok(world.dev.get(TOKENS)))["data"][0]


async def test_a_timeout_is_an_error_and_a_late_completion_succeeds_without_effect(world: World):
    token = (await create(world.dev, timeout="30s"))["id"]
    await world.later(31)
    assert await ok(world.dev.post(f"{TOKENS}/{token}/complete", json={"data": 1})) == {"success": True}
    found = await read(world.dev, token)
    assert (found["status"], found["outputIsError"]) == ("TIMED_OUT", True)
    assert json.loads(found["output"])["code"] == "TRIGGER_WAITPOINT_TIMEOUT"


async def test_a_schema_refuses_data_and_names_the_place(world: World):
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    made = await create(world.dev, schema=schema)
    complete = f"{TOKENS}/{made['id']}/complete"
    await refused(world.dev.post(complete, json={"data": {"n": "x"}}), 422, "unprocessable", param="data.n")
    await refused(world.dev.post(path(made["url"]), json={}), 422, "unprocessable", param="data")
    assert (await read(world.dev, made["id"]))["status"] == "WAITING"
    await ok(world.dev.post(complete, json={"data": {"n": 1}}))


async def test_tokens_of_another_environment_do_not_exist(world: World):
    token = (await create(world.prod))["id"]
    for unknown in (token, "waitpoint_x"):
        await refused(world.dev.get(f"{TOKENS}/{unknown}"), 404, "waitpoint_not_found")
        await refused(world.dev.post(f"{TOKENS}/{unknown}/complete", json={}), 404, "waitpoint_not_found")
        await refused(
            world.dev.post("/api/v1/runs/results", json={"tokens": [unknown]}), 404, "waitpoint_not_found"
        )
    assert (await ok(world.dev.get(TOKENS)))["data"] == []


@pytest.mark.parametrize("size", [MAX_TOKEN_DATA, MAX_TOKEN_DATA + 2_000])
async def test_data_has_a_limit(world: World, size: int):
    made = await create(world.dev)
    data = "x" * (size - 1)  # and two quotes
    for url, body in ((f"{TOKENS}/{made['id']}/complete", {"data": data}), (path(made["url"]), data)):
        await refused(world.dev.post(url, json=body), 413, "payload_too_large")
    await ok(world.dev.post(path(made["url"]), json="x" * (MAX_TOKEN_DATA - 2)))


async def test_what_the_sdk_makes_a_token_with_is_small_and_a_schema_is_not(world: World):
    schema = {"description": "x" * MAX_TOKEN_REQUEST}
    await refused(
        world.dev.post(TOKENS, json={"schema": schema}, headers=SDK), 413, "payload_too_large", param="body"
    )
    await create(world.dev, schema=schema)


async def test_a_call_of_the_url_says_how_long_its_body_is(world: World):
    async def parts() -> AsyncIterator[bytes]:
        yield b"{}"

    made = await create(world.dev)
    url = path(made["url"])
    await refused(world.dev.post(url, content=parts()), 411, "length_required", param="content-length")
    await refused(world.dev.post(f"{url[:-1]}x", content=parts()), 401, "not_authorised")
    assert (await read(world.dev, made["id"]))["status"] == "WAITING"


async def test_whoever_has_the_url_completes_the_token(world: World):
    made = await create(world.dev)
    url = path(made["url"])
    response = await world.dev.post(url, content=b'{"from":"outside"}', headers={"authorization": ""})
    assert (response.status_code, response.json()) == (200, {"success": True})
    assert (await read(world.dev, made["id"]))["output"] == '{"from":"outside"}'


@pytest.mark.parametrize("content", [b"", b"a=1&b=2", b"{", b"\xff\x00", b"NaN"])
async def test_a_call_of_the_url_without_json_counts_as_an_empty_object(world: World, content: bytes):
    made = await create(world.dev)
    await ok(world.dev.post(path(made["url"]), content=content))
    assert (await read(world.dev, made["id"]))["output"] == "{}"


async def test_a_url_that_was_not_made_here_is_401(world: World):
    made, other, foreign = await create(world.dev), await create(world.dev), await create(world.prod)
    good = made["url"].rpartition("/")[2]
    for token, given in (
        (other["id"], good),
        (foreign["id"], good),
        ("waitpoint_x", good),
        (made["id"], "0" * 64),
        (made["id"], good[:-1]),
        (made["id"], good.upper()),
        (made["id"], "%00"),
        (made["id"], "%FF%C3%A4"),
    ):
        await refused(world.dev.post(f"{TOKENS}/{token}/callback/{given}", json={}), 401, "not_authorised")
    assert {token["status"] for token in (await ok(world.dev.get(TOKENS)))["data"]} == {"WAITING"}


async def test_a_public_token_completes_its_waitpoint_and_nothing_else(world: World):
    response = await world.dev.post(TOKENS, json={})
    token, other = response.json()["id"], (await create(world.dev))["id"]
    headers = {"authorization": f"Bearer {response.headers['x-trigger-jwt']}"}
    await refused(world.dev.post(f"{TOKENS}/{other}/complete", json={}, headers=headers), 403, "unauthorized")
    for method, url in (
        ("GET", TOKENS),
        ("POST", TOKENS),
        ("GET", f"{TOKENS}/{token}"),
        ("GET", "/api/v1/runs/run_1/result"),
    ):
        await refused(world.dev.request(method, url, headers=headers), 401, "not_authorised")
    for method, url in (("GET", "/api/v1/runs"), ("POST", "/api/v1/tasks/echo/trigger")):
        await refused(world.dev.request(method, url, headers=headers), 403, "unauthorized")
    await ok(world.dev.post(f"{TOKENS}/{token}/complete", json={"data": 1}, headers=headers))
    assert (await read(world.dev, token))["output"] == "1"


@pytest.mark.parametrize(
    ("scopes", "status"),
    [
        (["write:waitpoints"], 200),
        (["write:waitpoints:{}"], 200),
        (["*:all"], 200),
        (["admin"], 200),
        (["read:waitpoints:{}"], 403),
        (["write:runs"], 403),
        (["write:waitpoints:other"], 403),
        (["write:waitpoints:"], 403),
        (["write"], 403),
        ([], 403),
        ([5, None], 403),
    ],
)
async def test_a_scope_gives_what_it_says(world: World, scopes: list[Any], status: int):
    token = (await create(world.dev))["id"]
    own = [scope.format(token) if isinstance(scope, str) else scope for scope in scopes]
    headers = {"authorization": f"Bearer {signed(scopes=own)}"}
    response = await world.dev.post(f"{TOKENS}/{token}/complete", json={}, headers=headers)
    assert response.status_code == status, response.text


def forged(algorithm: str) -> str:
    """A signed token whose header says something else."""
    return f"{encoded({'alg': algorithm})}.{signed().partition('.')[2]}"


@pytest.mark.parametrize(
    "token",
    [
        signed(key="tr_dev_another_key_of_32_characters"),
        signed(key=PROD_KEY),  # it says that it is of dev
        signed(sub="prod"),
        signed(exp=NOW),
        signed(exp=253_402_300_800),
        signed(exp=None),
        signed(iss="https://elsewhere"),
        signed(aud=None),
        signed(pub=None),
        signed(pub="true"),
        signed(scopes="admin"),
        signed(algorithm="HS512"),
        signed(key="", algorithm="none"),
        forged("none"),
        forged("HS512"),
        forged("RS256"),
        "a.b.c",
        "..",
        signed() + "A",
        signed(more="x" * 20_000),
    ],
)
async def test_a_public_token_that_is_not_ours_is_401(world: World, token: str):
    waitpoint = (await create(world.dev))["id"]
    headers = {"authorization": f"Bearer {token}"}
    await refused(
        world.dev.post(f"{TOKENS}/{waitpoint}/complete", json={}, headers=headers), 401, "not_authorised"
    )


async def test_a_public_token_of_another_environment_finds_nothing(world: World):
    token = (await create(world.dev))["id"]
    headers = {"authorization": f"Bearer {signed(key=PROD_KEY, sub='prod')}"}
    await refused(
        world.dev.post(f"{TOKENS}/{token}/complete", json={}, headers=headers), 404, "waitpoint_not_found"
    )


async def test_tokens_are_listed_newest_first(world: World):
    made = [(await create(world.dev, tags=[f"t{number % 2}"]))["id"] for number in range(5)]
    await ok(world.dev.post(f"{TOKENS}/{made[0]}/complete", json={}))

    async def listed(query: str) -> list[str]:
        return [token["id"] for token in (await ok(world.dev.get(f"{TOKENS}?{query}")))["data"]]

    assert await listed("") == made[::-1]
    assert await listed("filter[status]=COMPLETED,TIMED_OUT") == made[:1]
    assert await listed("filter[tags]=t1") == [made[3], made[1]]
    assert await listed("filter[createdAt][period]=1h") == made[::-1]
    page = await ok(world.dev.get(f"{TOKENS}?page[size]=2"))
    assert [token["id"] for token in page["data"]] == made[:2:-1]
    next = page["pagination"]["next"]
    assert await listed(f"page[size]=2&page[after]={next}") == made[2:0:-1]
    second = await ok(world.dev.get(f"{TOKENS}?page[size]=2&page[after]={next}"))
    # getPreviousPage() of the SDK names both.
    both = f"{TOKENS}?page[size]=2&page[after]={next}&page[before]={second['pagination']['previous']}"
    first = await ok(world.dev.get(both, headers=SDK))
    assert first["data"] == page["data"]
    await refused(world.dev.get(both), 400, "invalid_request", param="page[after]")


@pytest.mark.parametrize(
    "query",
    [
        "filter[colour]=red",
        "filter[status]=DONE",
        "page[size]=0",
        "page[size]=101",
        "page[after]=waitpoint_x",
        "page[after]=a&page[before]=b",
        "filter[tags]=%00",
        "filter[createdAt][from]=soon",
    ],
)
async def test_a_list_refuses_what_it_does_not_know(world: World, query: str):
    await refused(world.dev.get(f"{TOKENS}?{query}"), 400, "invalid_request")


async def test_results_wait_for_the_first_of_runs_and_tokens(world: World):
    run, token, other = (
        await trigger(world.dev),
        (await create(world.dev))["id"],
        (await create(world.dev))["id"],
    )
    body = {"runs": [run], "tokens": [token, other]}
    answer = await ok(world.dev.post("/api/v1/runs/results", json=body))
    assert answer == {"results": [], "tokens": [], "pending": [run, token, other]}
    waiting = asyncio.create_task(ok(world.dev.post("/api/v1/runs/results", json={**body, "waitMs": 25_000})))
    await asyncio.wait([waiting], timeout=0.1)
    await ok(world.dev.post(f"{TOKENS}/{token}/complete", json={"data": [1]}))
    async with asyncio.timeout(5):
        answer = await waiting
    assert answer["pending"] == [run, other]
    assert answer["tokens"] == [
        {
            "id": token,
            "status": "COMPLETED",
            "output": "[1]",
            "outputType": "application/json",
            "outputIsError": False,
        }
    ]
    await refused(world.dev.post("/api/v1/runs/results", json={}), 400, "invalid_request", param="runs")
