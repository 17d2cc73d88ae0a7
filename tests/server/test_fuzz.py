"""Whatever JSON is sent to whatever route, the server answers it in its own words, never with a 5xx."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.engine import Engine
from holdfast.server import ENDPOINTS, create_app
from holdfast.server.vault import Vault
from holdfast.stores import open_store
from holdfast.wire.codec import encode
from server.world import DEV_KEY, KEYS, Clock, Names, World, error_shape, ok, trigger

NUMBERS = st.one_of(
    st.integers(),
    st.sampled_from([2**31, 2**63, -(2**63) - 1, 10**400, -1]),
    st.floats(allow_nan=False, allow_infinity=False),
)
TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.sampled_from(
        ["1h", "echo", "", "$.a.b", "__proto__", "2027-01-01", "9" * 40 + "w", "0001-01-01T00:00+23:59"]
    ),
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=12,
)


def shaped(schema: dict[str, Any], definitions: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that often fit a schema of the API, and often miss it by a little."""
    if "$ref" in schema:
        return st.deferred(lambda: shaped(definitions[schema["$ref"].rsplit("/", 1)[1]], definitions))
    for many in ("anyOf", "oneOf"):
        if many in schema:
            return st.one_of(*(shaped(each, definitions) for each in schema[many]))
    if "const" in schema:
        return st.just(schema["const"])
    kinds: dict[str, st.SearchStrategy[Any]] = {
        "string": TEXTS,
        "integer": st.one_of(st.integers(0, 5), NUMBERS),
        "number": NUMBERS,
        "boolean": st.booleans(),
        "null": st.none(),
    }
    kind = schema.get("type")
    if kind == "array":
        return st.lists(shaped(schema.get("items", {}), definitions), max_size=4)
    if kind == "object" and "properties" in schema:
        fields = {
            name: st.one_of(shaped(each, definitions), shaped(each, definitions), JSON)
            for name, each in schema["properties"].items()
        }
        needed = set(schema.get("required", ()))
        return st.fixed_dictionaries(
            {name: each for name, each in fields.items() if name in needed},
            optional={name: each for name, each in fields.items() if name not in needed},
        )
    return kinds.get(str(kind), JSON)


ROUTES = {
    f"{endpoint.method} {endpoint.path}": endpoint for endpoint in ENDPOINTS if endpoint.body is not None
}


@pytest.mark.parametrize("route", ROUTES)
def test_no_json_makes_a_route_fail(route: str):
    endpoint = ROUTES[route]
    assert endpoint.body is not None
    schema = endpoint.body.json_schema()
    bodies = st.one_of(shaped(schema, schema.get("$defs", {})), JSON)

    @settings(max_examples=12, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(bodies, min_size=1, max_size=4))
    def check(sent: list[Any]) -> None:
        asyncio.run(exchange(endpoint.method, endpoint.path, sent))

    check()


async def exchange(method: str, path: str, bodies: list[Any]) -> None:
    """Sends bodies to a fresh server that has a run and a worker, then reads everything back."""
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(f"sqlite:///{Path(folder)}/holdfast.db", clock=Clock())
        engine = Engine(store)
        app = create_app(engine, KEYS, vault=Vault(["a master key of a test"]))
        transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
        headers = {"authorization": f"Bearer {DEV_KEY}"}
        try:
            async with httpx2.AsyncClient(
                transport=transport, base_url="http://holdfast", headers=headers
            ) as client:
                world = World(engine, Clock(), client, client, app)
                worker = await world.worker("echo")
                run = await trigger(client, delay="1h" if "reschedule" in path else "0s")
                await worker.claim()
                token = await ok(client.post("/api/v1/waitpoints/tokens", json={}))
                body = {"task": "echo", "cron": "0 9 * * *", "deduplicationKey": "k"}
                schedule = await ok(client.post("/api/v1/schedules", json=body))
                names = Names(task="echo", run=run, worker=worker.id, token=token["id"])
                names |= {"schedule": schedule["id"]}
                names |= {"project": "proj_default", "environment": "dev"}
                for body in bodies:
                    if isinstance(body, dict) and isinstance(body.get("reports"), list):
                        body = {"reports": [about(report, run, worker.held) for report in body["reports"]]}
                    if isinstance(body, dict) and "waitMs" in body:
                        body["waitMs"] = 0
                    response = await client.request(method, path.format_map(names), content=encode(body))
                    assert_answered(response)
                for url in (
                    "/api/v1/runs",
                    "/api/v1/schedules",
                    f"/api/v3/runs/{run}",
                    f"/api/v1/runs/{run}/logs",
                    f"/api/v1/runs/{run}/journal",
                ):
                    assert (await client.get(url)).status_code == 200, url
                for listed in (await client.get("/api/v1/runs")).json()["data"]:
                    assert (await client.get(f"/api/v3/runs/{listed['id']}")).status_code == 200
                for listed in (await client.get("/api/v1/waitpoints/tokens")).json()["data"]:
                    read = await client.get(f"/api/v1/waitpoints/tokens/{listed['id']}")
                    assert read.status_code == 200
                await engine.upkeep()
                await worker.claim()
        finally:
            store.close()


def about(report: Any, run: str, held: dict[str, int]) -> Any:
    """A report about the run that the worker really holds."""
    if isinstance(report, dict) and "kind" in report:
        return {**report, "run": run, "lease": held[run]}
    return report


def assert_answered(response: httpx2.Response) -> None:
    assert response.status_code < 500, response.text
    if not response.is_success:
        error_shape(response)
