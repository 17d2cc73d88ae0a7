"""What browsers need: leave to call from any page, and bodies of the type they send without asking."""

from __future__ import annotations

import pytest

from server.world import World, ok, refused

pytestmark = pytest.mark.anyio
ORIGIN = {"origin": "https://app.example"}
TRIGGER = "/api/v1/tasks/echo/trigger"


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
async def test_any_page_may_ask(world: World, method: str):
    headers = {
        **ORIGIN,
        "access-control-request-method": method,
        "access-control-request-headers": "authorization,x-trigger-api-version,x-anything",
    }
    answer = await world.dev.options(TRIGGER, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "*"
    assert method in answer.headers["access-control-allow-methods"]
    assert "x-anything" in answer.headers["access-control-allow-headers"]


async def test_others_may_ask_too_and_need_no_key(world: World):
    answer = await world.dev.options(TRIGGER, headers={"authorization": ""})
    assert answer.status_code == 204
    assert answer.headers["allow"] == "POST, OPTIONS"
    assert answer.headers["access-control-allow-origin"] == "*"
    assert (await world.dev.options("/api/v1/nowhere")).status_code == 404


async def test_a_page_may_read_the_headers_and_the_errors(world: World):
    answer = await world.dev.post(TRIGGER, json={}, headers={**ORIGIN, "x-trigger-api-version": "2025-07-16"})
    assert answer.headers["access-control-expose-headers"] == "*"
    assert answer.headers["x-trigger-jwt"].count(".") == 2
    missing = await world.dev.get("/api/v3/runs/run_x", headers=ORIGIN)
    assert missing.status_code == 404
    assert missing.headers["access-control-allow-origin"] == "*"
    unknown = await world.dev.get("/api/v3/runs/run_x", headers={**ORIGIN, "authorization": "Bearer no"})
    assert unknown.status_code == 401
    assert unknown.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(
    "kind",
    [
        "application/json",
        "application/json; charset=utf-8",
        "text/plain;charset=UTF-8",
        "TEXT/PLAIN",
        "application/x-www-form-urlencoded",  # what `curl -d` says
    ],
)
async def test_json_is_read_also_where_it_is_called_text(world: World, kind: str):
    await ok(world.dev.post(TRIGGER, content=b'{"payload": 1}', headers={"content-type": kind}))


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded"])
async def test_what_is_no_json_is_refused_whatever_it_is_called(world: World, kind: str):
    asked = world.dev.post(TRIGGER, content=b"payload=1", headers={"content-type": kind})
    await refused(asked, 400, "invalid_request", param="body")


@pytest.mark.parametrize("kind", ["application/xml", "text/html", "multipart/form-data; boundary=x", "json"])
async def test_any_other_type_is_refused_by_name(world: World, kind: str):
    asked = world.dev.post(TRIGGER, content=b'{"payload": 1}', headers={"content-type": kind})
    body = await refused(asked, 415, "unsupported_media_type", param="content-type")
    assert kind.partition(";")[0] in body["error"]
    assert (await ok(world.dev.get("/api/v1/runs")))["data"] == []


async def test_a_call_without_a_body_may_be_of_any_type(world: World):
    await ok(world.dev.post(TRIGGER, headers={"content-type": "application/xml"}))
