"""One error shape for the whole API: unknown paths, wrong methods, a database that is away, defects."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from holdfast.engine import Engine
from holdfast.errors import StoreTooNew, StoreUnavailable
from holdfast.server import ENDPOINTS, create_app
from holdfast.stores import open_store, sqlite
from server.world import KEYS, Names, World, error_shape, ok, refused, trigger

pytestmark = pytest.mark.anyio


NAMES = Names(
    task="echo",
    run="run_x",
    worker="worker_x",
    token="waitpoint_x",
    hash="0",
    project="proj_default",
    environment="dev",
)
OPEN = ("/livez", "/readyz", "/openapi.json")
ROUTES = [(endpoint.method, endpoint.path) for endpoint in ENDPOINTS]
ANYONES = {"/api/v1/timezones"}  # takes no credential, and names none in its path
WITH_BODY = [(endpoint.method, endpoint.path) for endpoint in ENDPOINTS if endpoint.body is not None]


@pytest.mark.parametrize(("method", "path"), [route for route in ROUTES if route[1] not in ANYONES])
async def test_every_route_answers_without_a_key_in_the_one_shape(world: World, method: str, path: str):
    response = await world.dev.request(method, path.format_map(NAMES), headers={"authorization": ""})
    assert response.status_code == (403 if "{object}" in path else 401)  # there the address is the key
    error_shape(response)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        route
        for route in ROUTES
        if "{" in route[1] and "{hash}" not in route[1] and "{object}" not in route[1]
    ],
)
async def test_every_route_refuses_names_that_can_not_be_read(world: World, method: str, path: str):
    response = await world.dev.request(method, path.format_map(Names("%00")), json={})
    assert response.status_code == 400
    error_shape(response)


@pytest.mark.parametrize("content", [b"{", b"[]", b"5", b'"x"', b"[" * 200, b"\xff", b'{"a":NaN}'])
@pytest.mark.parametrize(("method", "path"), WITH_BODY)
async def test_every_route_with_a_body_refuses_a_bad_one_in_the_one_shape(
    world: World, method: str, path: str, content: bytes
):
    response = await world.dev.request(method, path.format_map(NAMES), content=content)
    assert response.status_code == 400
    error_shape(response)


@pytest.mark.parametrize(
    "path", ["/", "/nope", "/api", "/api/v1/runs/", "/api/v3/runs/a/b", "/api/v1/tasks//trigger", "/%00"]
)
async def test_an_unknown_path_is_404_in_the_one_shape(world: World, path: str):
    for method in ("GET", "POST"):
        await refused(world.dev.request(method, path), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", "/api/v1/runs", "GET, HEAD"),
        ("GET", "/api/v1/tasks/echo/trigger", "POST"),
        ("GET", "/api/v1/tasks/batch", "POST"),
        ("PATCH", "/api/v1/runs/run_x/metadata", "GET, HEAD, PUT"),
        ("GET", "/api/v2/runs/run_x/cancel", "POST"),
        ("POST", "/livez", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_is_405_and_names_the_right_ones(
    world: World, method: str, path: str, allow: str
):
    response = await world.dev.request(method, path)
    assert response.status_code == 405
    assert error_shape(response) == {"error": "Method not allowed", "code": "method_not_allowed"}
    assert response.headers["allow"] == allow


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another process that writes and does not come to an end."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("begin immediate")
        yield
        other.execute("rollback")


async def test_a_locked_database_is_503_and_the_same_call_works_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_SECONDS", 0.05)
    path = tmp_path / "holdfast.db"
    store = open_store(f"sqlite:///{path}")
    app = create_app(Engine(store), KEYS)
    headers = {"authorization": f"Bearer {next(iter(KEYS))}"}
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    try:
        async with httpx2.AsyncClient(
            transport=transport, base_url="http://holdfast", headers=headers
        ) as client:
            run = await trigger(client)
            calls: list[tuple[str, str, Any]] = [
                ("POST", "/api/v1/tasks/echo/trigger", {}),
                ("POST", "/api/v1/tasks/batch", {"items": [{"task": "echo"}]}),
                ("POST", f"/api/v2/runs/{run}/cancel", None),
                ("POST", f"/api/v1/runs/{run}/tags", {"tags": "a"}),
                ("POST", "/api/v1/workers", {"name": "w", "fingerprint": "f", "tasks": []}),
                ("POST", "/api/v1/workers/w/claim", {"slots": 1, "waitMs": 10_000}),
            ]
            with locked(path):
                for method, url, body in calls:
                    response = await client.request(method, url, json=body)
                    assert_away(response, path)
                assert (await client.get(f"/api/v3/runs/{run}")).status_code == 200  # readers go on
            for method, url, body in calls[:-1]:
                assert (await client.request(method, url, json=body)).status_code == 200
            assert len((await ok(client.get("/api/v1/runs")))["data"]) == 3
    finally:
        store.close()


def assert_away(response: httpx2.Response, path: Path) -> None:
    assert response.status_code == 503
    body = error_shape(response)
    assert body == {"error": "The database does not answer; try again", "code": "store_unavailable"}
    assert response.headers["retry-after"] == "1"
    assert "sqlite" not in response.text.lower()
    assert str(path) not in response.text
    assert "locked" not in response.text


@pytest.mark.parametrize("raised", [StoreUnavailable("disk I/O error in /var/db"), StoreTooNew("0099_new")])
async def test_a_database_that_can_not_be_read_is_503_without_its_words(
    world: World, monkeypatch: pytest.MonkeyPatch, raised: Exception
):
    async def away(_: object) -> object:
        raise raised

    with monkeypatch.context() as patched:
        patched.setattr(world.engine.store, "read", away)
        for path in ("/api/v1/runs", "/api/v3/runs/run_x", "/api/v1/runs/run_x/result?waitMs=10000"):
            response = await world.dev.get(path)
            assert response.status_code == 503
            assert response.headers["retry-after"] == "1"
            body = error_shape(response)
            assert body["error"] == "The database does not answer; try again"


async def test_readiness_follows_the_database_and_liveness_does_not(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    assert await ok(world.dev.get("/readyz")) == {"status": "ok"}

    async def away(_: object) -> object:
        raise StoreUnavailable("gone from /var/db")

    with monkeypatch.context() as patched:
        patched.setattr(world.engine.store, "read", away)
        response = await world.dev.get("/readyz")
        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"
        assert error_shape(response)["code"] == "store_unavailable"
        assert "/var/db" not in response.text
        assert await ok(world.dev.get("/livez")) == {"status": "ok"}


async def test_a_defect_is_500_in_the_one_shape_and_told_in_the_log_only(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    async def broken(*_: object) -> object:
        raise KeyError("a secret of the inside")

    with monkeypatch.context() as patched:
        patched.setattr(world.engine, "cancel", broken)
        body = await refused(world.dev.post("/api/v2/runs/run_x/cancel"), 500, "internal_error")
    assert body == {"error": "Internal server error", "code": "internal_error"}
    assert "a secret of the inside" in caplog.text
