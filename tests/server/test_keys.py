"""Secret keys: who may ask, and in which environment."""

from __future__ import annotations

import httpx2
import pytest

from holdfast.errors import BadSetting
from holdfast.server import create_app, environment_of_key
from server.world import DEV_KEY, PROD_KEY, World, error_shape, ok, read, refused, trigger

pytestmark = pytest.mark.anyio


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        f"Basic {DEV_KEY}",
        DEV_KEY,
        "Bearer tr_dev_unknown00000000",
        f"Bearer {DEV_KEY}x",
        f"Bearer {DEV_KEY[:-1]}",
        f"Bearer {DEV_KEY.upper()}",
        f"Bearer {DEV_KEY} {DEV_KEY}",
        "Bearer " + "x" * 5_000,
    ],
)
async def test_a_missing_or_unknown_key_is_401_and_is_not_told_back(world: World, header: str):
    response = await world.dev.get("/api/v1/runs", headers={"authorization": header})
    assert response.status_code == 401
    body = error_shape(response)
    assert body["code"] == "not_authorised"
    assert DEV_KEY not in response.text
    assert "x" * 50 not in response.text


async def test_no_header_at_all_is_401(world: World):
    del world.dev.headers["authorization"]
    body = await refused(world.dev.get("/api/v1/runs"), 401, "not_authorised")
    assert body["error"].startswith("Invalid or Missing API key")


async def test_a_key_that_is_not_ascii_is_401(world: World):
    response = await world.dev.get("/api/v1/runs", headers=[(b"authorization", b"Bearer tr_dev_\xff\xfe")])
    assert response.status_code == 401
    error_shape(response)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_word_bearer_may_be_written_in_any_case(world: World, scheme: str):
    await ok(world.dev.get("/api/v1/runs", headers={"authorization": f"{scheme} {DEV_KEY}"}))


async def test_the_key_is_checked_before_the_body_is_read(world: World):
    response = await world.dev.post("/api/v1/tasks/echo/trigger", content=b"{", headers=bearer("no"))
    assert response.status_code == 401


async def test_a_key_acts_in_its_own_environment_only(world: World):
    run = await trigger(world.prod)
    await refused(world.dev.get(f"/api/v3/runs/{run}"), 404, "run_not_found")
    assert (await read(world.prod, run))["id"] == run
    worker = await world.worker("echo")
    assert await worker.claim() == []


async def test_a_key_taken_out_of_force_is_401_and_the_runs_stay(world: World):
    run = await trigger(world.dev)
    app = create_app(world.engine, {PROD_KEY: "prod", "tr_dev_another_key_0": "dev"})
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://holdfast") as client:
        await refused(client.get(f"/api/v3/runs/{run}", headers=bearer(DEV_KEY)), 401, "not_authorised")
        answer = await ok(client.get(f"/api/v3/runs/{run}", headers=bearer("tr_dev_another_key_0")))
    assert answer["id"] == run


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/openapi.json"])
async def test_health_and_description_need_no_key(world: World, path: str):
    response = await world.dev.get(path, headers={"authorization": ""})
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("key", "environment"),
    [(DEV_KEY, "dev"), (PROD_KEY, "prod"), ("tr_stg_0123456789abcdef", "staging")],
)
def test_the_prefix_of_a_key_names_its_environment(key: str, environment: str):
    assert environment_of_key(key) == environment


@pytest.mark.parametrize(
    "key",
    [
        "",
        "tr_dev_short",
        "hunter2_secret_words",
        "tr_dev_é0123456789",
        "tr_dev_0123 56789ab",
        "tr_dev_" + "x" * 600,
    ],
)
def test_a_key_that_is_none_is_refused_without_telling_it(key: str):
    with pytest.raises(BadSetting) as caught:
        environment_of_key(key)
    assert not key or key not in str(caught.value)
