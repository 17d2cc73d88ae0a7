"""Environment variables over HTTP (the wire contract, 7.5), on both stores: sealed, redacted, all or none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import httpx2
import pytest

from holdfast.engine import Engine
from holdfast.engine.keys import NewKey, create_keys
from holdfast.engine.projects import NewBranch
from holdfast.model import limits
from holdfast.model.key import KeyKind, digest
from holdfast.server import create_app, lifespan
from holdfast.server.vault import Vault
from holdfast.stores import Store
from server.test_tokens import signed
from server.world import KEYS, ok, refused

pytestmark = pytest.mark.anyio

PREVIEW_KEY = "tr_preview_0123456789abcdef"
MASTER = "a master key of a test"
DEV = "/api/v1/projects/proj_default/envvars/dev"
PREVIEW = "/api/v1/projects/proj_default/envvars/preview"


@dataclass
class Place:
    engine: Engine
    store: Store

    def client(self, key: str, *masters: str, **headers: str) -> httpx2.AsyncClient:
        """A client of a server of its own, which may have other master keys."""
        app = create_app(self.engine, {**KEYS, PREVIEW_KEY: "preview"}, vault=Vault(masters or (MASTER,)))
        transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
        headers["Authorization"] = f"Bearer {key}"
        return httpx2.AsyncClient(transport=transport, base_url="http://holdfast", headers=headers)

    def rows(self) -> list[tuple[Any, ...]]:
        [rows] = self.store.transact(
            lambda tx, _: [tx.select("select name, sealed, is_secret from variables order by name", {})],
            [None],
        )
        return list(rows)


@pytest.fixture
async def place(store: Store) -> AsyncIterator[Place]:
    engine = Engine(store)
    async with lifespan(engine):
        yield Place(engine, store)


@pytest.fixture
async def dev(place: Place) -> AsyncIterator[httpx2.AsyncClient]:
    async with place.client(next(iter(KEYS))) as client:
        yield client


async def create(client: httpx2.AsyncClient, name: str, value: str, path: str = DEV, **more: Any) -> None:
    answer = await ok(client.post(path, json={"name": name, "value": value, **more}))
    assert answer == {"success": True}


async def values(client: httpx2.AsyncClient, path: str = DEV) -> dict[str, str]:
    found: Any = await ok(client.get(path))
    assert isinstance(found, list)
    return {one["name"]: one["value"] for one in found}


async def of_worker(client: httpx2.AsyncClient) -> dict[str, str]:
    """What a worker is given, which it is told in two places."""
    told = (await ok(client.post("/api/v1/workers/variables", json={})))["variables"]
    body = {"name": "w", "fingerprint": "f", "tasks": []}
    registered = await ok(client.post("/api/v1/workers", json=body))
    assert registered["variables"] == told
    assert isinstance(told, dict)
    return told


async def test_a_variable_is_created_listed_read_changed_and_deleted(dev: httpx2.AsyncClient):
    assert await values(dev) == {}
    await create(dev, "B", "two")
    await create(dev, "A", "one")
    assert await ok(dev.get(DEV)) == [
        {"name": "A", "value": "one", "isSecret": False},
        {"name": "B", "value": "two", "isSecret": False},
    ]
    assert await ok(dev.put(f"{DEV}/A", json={"value": ""})) == {"success": True}
    assert await ok(dev.get(f"{DEV}/A")) == {"name": "A", "value": "", "isSecret": False}
    assert await ok(dev.delete(f"{DEV}/A")) == {"success": True}
    assert await values(dev) == {"B": "two"}
    for call in (dev.get(f"{DEV}/A"), dev.put(f"{DEV}/A", json={"value": "x"}), dev.delete(f"{DEV}/A")):
        await refused(call, 404, "not_found")


async def test_values_are_sealed_in_the_database(place: Place, dev: httpx2.AsyncClient):
    await create(dev, "A", "hunter2")
    await create(dev, "S", "hunter3", isSecret=True)
    rows = place.rows()
    assert [(name, is_secret) for name, _, is_secret in rows] == [("A", 0), ("S", 1)]
    for _, sealed, _ in rows:
        assert sealed.startswith("v1.")
        assert "hunter" not in sealed


async def test_a_secret_never_comes_back_but_to_a_worker(dev: httpx2.AsyncClient):
    await create(dev, "S", "hunter2", isSecret=True)
    await ok(dev.put(f"{DEV}/S", json={"value": "hunter3"}))  # it stays a secret
    for path in (DEV, f"{DEV}/S"):
        response = await dev.get(path)
        assert "hunter" not in response.text
        told = response.json()[0] if path == DEV else response.json()
        assert told == {"name": "S", "value": "<redacted>", "isSecret": True}
    assert await of_worker(dev) == {"S": "hunter3"}
    await ok(dev.post(f"{DEV}/import", json={"variables": {"S": "4"}, "override": True}))
    assert (await ok(dev.get(f"{DEV}/S")))["isSecret"] is True
    await ok(dev.post(f"{DEV}/import", json={"variables": {"S": "5"}, "override": True, "isSecret": False}))
    assert await values(dev) == {"S": "5"}


async def test_a_name_that_is_taken_is_refused(dev: httpx2.AsyncClient):
    await create(dev, "A", "one")
    body = await refused(
        dev.post(DEV, json={"name": "A", "value": "two"}), 400, "invalid_request", param="name"
    )
    assert "A exists already" in body["error"]
    assert await values(dev) == {"A": "one"}
    await create(dev, "a", "other")  # names of variables tell cases apart


async def test_an_import_is_all_or_none(dev: httpx2.AsyncClient):
    await create(dev, "B", "old")
    path = f"{DEV}/import"
    await refused(
        dev.post(path, json={"variables": {"A": "1", "B": "2", "C": "3"}}),
        400,
        "invalid_request",
        param="variables",
    )
    for wrong in (
        {"A": "1", "9": "2"},
        {"A": "1", "HOLDFAST_X": "2"},
        {"A": "1", "C": 5},
        {"A": "1", "C": None},
    ):
        await refused(dev.post(path, json={"variables": wrong, "override": True}), 400, "invalid_request")
    assert await values(dev) == {"B": "old"}
    source = {"type": "user", "userId": "u"}
    body = {"variables": {"A": "1", "B": "2"}, "override": True, "isSecret": True, "source": source}
    assert await ok(dev.post(path, json=body)) == {"success": True}
    assert await values(dev) == {"A": "<redacted>", "B": "<redacted>"}
    assert await of_worker(dev) == {"A": "1", "B": "2"}
    assert await ok(dev.post(path, json={"variables": {}})) == {"success": True}


async def test_of_many_that_create_the_same_name_at_once_one_does(dev: httpx2.AsyncClient):
    calls = [dev.post(DEV, json={"name": "A", "value": str(number)}) for number in range(8)]
    calls += [
        dev.post(f"{DEV}/import", json={"variables": {"A": str(number), f"N{number}": "x"}})
        for number in range(8, 16)
    ]
    statuses = [response.status_code for response in await asyncio.gather(*calls)]
    assert sorted(statuses) == [200] + [400] * 15
    winner = statuses.index(200)
    assert await values(dev) == {"A": str(winner)} | ({f"N{winner}": "x"} if winner >= 8 else {})


@pytest.mark.parametrize(
    "name",
    [
        "",
        "1A",
        "A-B",
        "A B",
        "A=B",
        "É",
        "A\n",
        "x" * 257,
        "HOLDFAST_SECRET_KEY",
        "TRIGGER_X",
        "holdfast_x",
        5,
        None,
    ],
)
async def test_a_name_that_can_be_none_is_refused(dev: httpx2.AsyncClient, name: Any):
    body = await refused(
        dev.post(DEV, json={"name": name, "value": "hunter2"}), 400, "invalid_request", param="name"
    )
    assert "hunter2" not in body["error"]


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"name": "A"}, 400, "value"),
        ({"value": "hunter2"}, 400, "name"),
        ({"name": "A", "value": ["hunter2"]}, 400, "value"),
        ({"name": "A", "value": {"hunter2": 1}}, 400, "value"),
        ({"name": "A", "value": "hunter2" + "x" * limits.MAX_VARIABLE}, 413, "value"),
        ({"name": "A", "value": "é" * (limits.MAX_VARIABLE // 2) + "x"}, 413, "value"),
    ],
)
async def test_a_value_that_is_refused_is_not_told_back(
    dev: httpx2.AsyncClient, body: dict[str, Any], status: int, param: str
):
    code = "payload_too_large" if status == 413 else "invalid_request"
    response = await dev.post(DEV, json=body)
    assert (response.status_code, response.json()["code"], response.json()["param"]) == (status, code, param)
    assert "hunter2" not in response.text
    assert await values(dev) == {}


async def test_names_and_values_up_to_their_limits_are_kept(dev: httpx2.AsyncClient):
    wanted = {"x" * limits.MAX_VARIABLE_NAME: "é" * (limits.MAX_VARIABLE // 2), "_": 'a\nb\t"\\\u2028💥'}
    await ok(dev.post(f"{DEV}/import", json={"variables": wanted}))
    assert await values(dev) == dict(sorted(wanted.items()))
    assert await of_worker(dev) == wanted


async def test_an_environment_keeps_so_many_variables_and_bytes(
    dev: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("holdfast.engine.variables.MAX_VARIABLES", 3)
    monkeypatch.setattr("holdfast.engine.variables.MAX_VARIABLES_BYTES", 10)
    path = f"{DEV}/import"
    await refused(dev.post(path, json={"variables": dict.fromkeys("ABCD", "")}), 422, "unprocessable")
    await ok(dev.post(path, json={"variables": dict.fromkeys("ABC", "xxx")}))
    await refused(dev.post(DEV, json={"name": "D", "value": ""}), 422, "unprocessable")
    await refused(dev.put(f"{DEV}/A", json={"value": "x" * 5}), 422, "unprocessable")
    await ok(dev.put(f"{DEV}/A", json={"value": "x" * 4}))
    await ok(dev.post(path, json={"variables": {"A": "y" * 4, "B": "y"}, "override": True}))
    assert await values(dev) == {"A": "yyyy", "B": "y", "C": "xxx"}


async def test_the_path_names_the_project_and_environment_of_the_key(place: Place, dev: httpx2.AsyncClient):
    await create(dev, "A", "one")
    for path in (
        DEV.replace("proj_default", "proj_other"),
        DEV.replace("/dev", "/prod"),
        DEV.replace("/dev", "/nowhere"),
    ):
        for call in (
            dev.get(path),
            dev.get(f"{path}/A"),
            dev.post(path, json={"name": "B", "value": "x"}),
            dev.put(f"{path}/A", json={"value": "x"}),
            dev.delete(f"{path}/A"),
            dev.post(f"{path}/import", json={"variables": {"B": "x"}}),
        ):
            await refused(call, 404, "not_found")
    async with place.client(list(KEYS)[1]) as prod:
        assert await values(prod, DEV.replace("/dev", "/prod")) == {}
        await refused(prod.get(DEV), 404, "not_found")
    assert await values(dev) == {"A": "one"}


async def test_a_branch_has_what_its_parent_has_and_may_set_it_for_itself(place: Place):
    await place.engine.create_branch(NewBranch("proj_default", "feature"))
    async with (
        place.client(PREVIEW_KEY) as parent,
        place.client(PREVIEW_KEY, **{"x-trigger-branch": "feature"}) as branch,
    ):
        await create(parent, "SHARED", "parent", PREVIEW)
        await create(parent, "OWN", "parent", PREVIEW)
        await create(branch, "OWN", "branch", PREVIEW)
        assert await values(branch, PREVIEW) == {"OWN": "branch", "SHARED": "parent"}
        assert await of_worker(branch) == {"OWN": "branch", "SHARED": "parent"}
        assert await values(parent, PREVIEW) == {"OWN": "parent", "SHARED": "parent"}
        assert (await ok(branch.get(f"{PREVIEW}/SHARED")))["value"] == "parent"
        await refused(branch.put(f"{PREVIEW}/SHARED", json={"value": "x"}), 404, "not_found")
        body = {"variables": {"NEW": "b"}, "parentVariables": {"SHARED": "x"}}
        await refused(branch.post(f"{PREVIEW}/import", json=body), 400, "invalid_request")
        assert "NEW" not in await values(branch, PREVIEW)
        await ok(branch.post(f"{PREVIEW}/import", json={**body, "override": True}))
        assert await values(branch, PREVIEW) == {"NEW": "b", "OWN": "branch", "SHARED": "x"}
        assert await values(parent, PREVIEW) == {"OWN": "parent", "SHARED": "x"}
        await refused(
            parent.post(f"{PREVIEW}/import", json=body), 400, "invalid_request", param="parentVariables"
        )
        await ok(branch.delete(f"{PREVIEW}/OWN"))
        assert (await values(branch, PREVIEW))["OWN"] == "parent"


async def test_scopes_of_keys_say_what_they_may_do(place: Place, dev: httpx2.AsyncClient):
    await create(dev, "A", "one")
    await create(dev, "B", "two")

    numbers = count(10)

    async def status(method: str, path: str, *scopes: str, body: Any = None) -> int:
        key = f"tr_dev_sk_0123456789{next(numbers)}"
        item = NewKey("dev", KeyKind.SECRET, "k", digest(key), "tr_dev_sk_…", scopes=scopes)
        [kept] = place.store.transact(create_keys, [item])
        assert not isinstance(kept, Exception)
        async with place.client(key) as client:
            return (await client.request(method, path, json=body)).status_code

    for scope, expected in (("read:envvars", 200), ("*:envvars", 200), ("admin", 200), ("read:runs", 403)):
        assert await status("GET", DEV, scope) == expected, scope
    assert await status("GET", DEV, "write:envvars", "work:workers") == 403
    assert await status("GET", f"{DEV}/A", "read:envvars:A") == 200
    assert await status("GET", f"{DEV}/B", "read:envvars:A") == 403
    new = {"name": "C", "value": "x"}
    assert await status("POST", DEV, "read:envvars", body=new) == 403
    assert await status("POST", DEV, "write:envvars", body=new) == 200
    # Whoever may not work is not told what workers are, secrets among it.
    assert await status("POST", "/api/v1/workers/variables", "read:envvars", body={}) == 403
    assert await status("POST", "/api/v1/workers/variables", "work:workers", body={}) == 200
    headers = {"authorization": f"Bearer {signed(scopes=['admin'])}"}
    for method, path in (("GET", DEV), ("GET", f"{DEV}/A"), ("POST", "/api/v1/workers/variables")):
        assert (await dev.request(method, path, headers=headers)).status_code == 401


async def test_without_a_master_key_nothing_is_kept_and_the_reason_is_told(place: Place):
    app = create_app(place.engine, KEYS)
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {next(iter(KEYS))}"}
    async with httpx2.AsyncClient(transport=transport, base_url="http://holdfast", headers=headers) as client:
        assert await values(client) == {}
        assert await of_worker(client) == {}  # nothing has to be opened
        body = await refused(client.post(DEV, json={"name": "A", "value": "x"}), 422, "no_master_key")
        assert "HOLDFAST_MASTER_KEY" in body["error"]
    assert place.rows() == []


async def test_what_another_master_key_sealed_is_told_and_goes_to_no_worker(
    place: Place, dev: httpx2.AsyncClient
):
    await create(dev, "A", "hunter2")
    async with place.client(next(iter(KEYS)), "another master key") as other:
        for call in (
            other.get(DEV),
            other.get(f"{DEV}/A"),
            other.post("/api/v1/workers/variables", json={}),
            other.post("/api/v1/workers", json={"name": "w", "fingerprint": "f", "tasks": []}),
        ):
            body = await refused(call, 422, "unprocessable", param="A")
            assert "HOLDFAST_MASTER_KEY" in body["error"]
        await ok(other.put(f"{DEV}/A", json={"value": "new"}))  # mended by setting it anew
        assert await values(other) == {"A": "new"}


async def test_nothing_is_logged(place: Place, dev: httpx2.AsyncClient, caplog: pytest.LogCaptureFixture):
    caplog.set_level(0)
    await create(dev, "A", "hunter2")
    await of_worker(dev)
    await dev.post(DEV, content=json.dumps({"name": "A", "value": "hunter2"})[:-1])
    assert "hunter2" not in caplog.text
