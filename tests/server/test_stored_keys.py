"""Keys in the database: root, additional and public ones, replaced and revoked, of branches and of other projects."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import pytest

from clock import Clock
from holdfast.engine.keys import Replacement, revoke_keys
from holdfast.engine.projects import (
    NewBranch,
    NewProject,
    archive,
    create_branches,
    create_projects,
    environments,
)
from holdfast.model.environment import DEFAULT_PROJECT
from holdfast.model.key import KeyKind
from holdfast.model.scope import PRESETS
from holdfast.server import fresh
from holdfast.stores import Store
from server.keys import KeyWorld, key_world
from server.world import DEV_KEY, ok, read, refused, trigger

pytestmark = pytest.mark.anyio
SDK = {"x-trigger-api-version": "2025-07-16"}
DATA = {"payload", "output", "payloadPresignedUrl", "outputPresignedUrl"}
DAY_MS = 86_400_000


@pytest.fixture
async def keys(store: Store) -> AsyncIterator[KeyWorld]:
    async with key_world(store) as world:
        yield world


async def handed_out(keys: KeyWorld, key: str) -> tuple[str, str]:
    """A run that the SDK triggers with this key, and the public token that it is given for it."""
    async with keys.client(key, **SDK) as client:
        response = await client.post("/api/v1/tasks/echo/trigger", json={})
    assert response.status_code == 200, response.text
    return response.json()["id"], response.headers["x-trigger-jwt"]


async def test_a_root_key_may_do_all_and_signs(keys: KeyWorld):
    key, _ = keys.key(KeyKind.ROOT)
    run, token = await handed_out(keys, key)
    async with keys.client(token) as client:
        assert (await read(client, run))["id"] == run


async def test_who_am_i(keys: KeyWorld):
    key, _ = keys.key(KeyKind.SECRET, "staging", "staging", scopes=["trigger:tasks"])
    project = {
        "id": "proj_default",
        "externalRef": "proj_default",
        "slug": "default",
        "name": "Default",
        "createdAt": "1970-01-01T00:00:00.000Z",
    }
    async with keys.client(key) as client:
        whoami = await ok(client.get("/api/v1/whoami"))
        assert whoami == {"id": "staging", "type": "STAGING", "slug": "stg", "project": project}
        assert (await client.get("/api/v1/projects")).json() == [project]


async def test_an_additional_key_is_signed_for_by_the_root_key(keys: KeyWorld):
    keys.key(KeyKind.ROOT)
    key, _ = keys.key(KeyKind.SECRET)
    run, token = await handed_out(keys, key)
    async with keys.client(token) as client:
        assert (await read(client, run))["id"] == run


async def test_without_a_root_key_nothing_is_made_that_must_be_signed(keys: KeyWorld):
    key, _ = keys.key(KeyKind.SECRET)
    async with keys.client(key) as client:
        for path in ("/api/v1/tasks/echo/trigger", "/api/v3/batches"):
            answer = client.post(path, json={"runCount": 1}, headers=SDK)
            error = (await refused(answer, 422, "unprocessable"))["error"]
            assert "environment dev has no root key" in error
            assert "holdfast keys create" in error
        await refused(client.post("/api/v1/waitpoints/tokens", json={}), 422, "unprocessable")
        await refused(
            client.post("/api/v1/auth/public-tokens", json={"scopes": ["read:runs"]}), 422, "unprocessable"
        )
        assert (await ok(client.get("/api/v1/runs")))["data"] == []
        run = await trigger(client)
        assert (await read(client, run))["id"] == run


async def test_a_server_without_the_master_key_says_so_when_it_must_sign(
    store: Store, caplog: pytest.LogCaptureFixture
):
    async with key_world(store, master_key=None) as keys:
        key, _ = keys.key(KeyKind.ROOT)
        async with keys.client(key) as client:
            await trigger(client)
            answer = client.post("/api/v1/tasks/echo/trigger", json={}, headers=SDK)
            assert "HOLDFAST_MASTER_KEY" in (await refused(answer, 422, "unprocessable"))["error"]
    assert "signs and verifies nothing here" in caplog.text
    assert key not in caplog.text


async def test_keys_of_the_setting_stay_root_keys(store: Store):
    async with key_world(store, {DEV_KEY: "dev"}) as keys:
        stored, _ = keys.key(KeyKind.ROOT)
        for key in (DEV_KEY, stored):
            run, token = await handed_out(keys, key)
            async with keys.client(token) as client:
                assert (await read(client, run))["id"] == run


@pytest.mark.parametrize("headers", [{}, SDK], ids=["plain", "sdk"])
async def test_a_public_key_reads_runs_without_their_data(keys: KeyWorld, headers: dict[str, str]):
    root, _ = keys.key(KeyKind.ROOT)
    key, _ = keys.key(KeyKind.PUBLIC)
    async with keys.client(root) as client:
        parent = await trigger(client, payload={"secret": 1})
        child = await trigger(client, payload={"secret": 2}, parentRunId=parent)
        await register_and_finish(client, output='{"secret": 3}')
    async with keys.client(key, **headers) as client:
        answers = [
            await ok(client.get(path))
            for path in (
                f"/api/v3/runs/{parent}",
                f"/api/v3/runs/{child}",
                "/api/v1/runs",
                "/api/v1/projects/proj_default/runs",
            )
        ]
        assert [answers[0]["id"], answers[1]["id"]] == [parent, child]
        assert {run["id"] for run in answers[2]["data"]} == {parent, child}
        for answer in answers:
            assert not DATA & names_in(answer)
            assert "secret" not in json.dumps(answer)
        for method, path in (
            ("POST", "/api/v1/tasks/echo/trigger"),
            ("POST", f"/api/v2/runs/{parent}/cancel"),
            ("GET", f"/api/v1/runs/{parent}/result"),
            ("GET", f"/api/v1/runs/{parent}/logs"),
            ("GET", f"/api/v1/runs/{parent}/packets/payload"),
            ("POST", "/api/v1/auth/public-tokens"),
            ("GET", "/api/v1/whoami"),
        ):
            await refused(client.request(method, path, json={}), 403, "unauthorized")


async def register_and_finish(client: Any, output: str) -> None:
    """Runs whatever is there to its end."""
    made = await ok(
        client.post("/api/v1/workers", json={"name": "w", "fingerprint": "f", "tasks": [{"id": "echo"}]})
    )
    path = f"/api/v1/workers/{made['workerId']}"
    claimed = await ok(client.post(f"{path}/claim", json={"slots": 10, "waitMs": 2_000}))
    reports = [
        {"kind": "succeeded", "run": run["id"], "lease": run["lease"], "output": output}
        for run in claimed["runs"]
    ]
    assert reports
    await ok(client.post(f"{path}/reports", json={"reports": reports}))


def names_in(value: Any) -> set[str]:
    """The names of all fields, however deep."""
    if isinstance(value, dict):
        return set(value).union(*(names_in(each) for each in value.values()))
    if isinstance(value, list):
        return set().union(*(names_in(each) for each in value))
    return set()


async def test_presets_give_what_their_names_say(keys: KeyWorld):
    keys.key(KeyKind.ROOT)

    def made(preset: str) -> str:
        return keys.key(KeyKind.SECRET, scopes=PRESETS[preset])[0]

    async with keys.client(made("full")) as client:
        run = await trigger(client)
    async with keys.client(made("read-only")) as client:
        assert (await read(client, run))["id"] == run
        await ok(client.get("/api/v1/runs"))
        await refused(client.post("/api/v1/tasks/echo/trigger", json={}), 403, "unauthorized")
        await refused(client.post(f"/api/v2/runs/{run}/cancel"), 403, "unauthorized")
    async with keys.client(made("trigger-only")) as client:
        await trigger(client)
        batch = (await client.post("/api/v3/batches", json={"runCount": 1})).json()["id"]
        lines = {"content-type": "application/x-ndjson"}
        item = client.post(
            f"/api/v3/batches/{batch}/items", content=b'{"index":0,"task":"echo"}\n', headers=lines
        )
        assert (await ok(item))["sealed"]
        await refused(client.get(f"/api/v3/runs/{run}"), 403, "unauthorized")
        await refused(client.get("/api/v1/runs"), 403, "unauthorized")
    async with keys.client(made("worker")) as client:
        await register_and_finish(client, "1")
        assert (await read(client, run))["status"] == "COMPLETED_SUCCESSFULLY"
        await refused(
            client.post("/api/v1/waitpoints/tokens", json={"timeout": "never"}), 400, "invalid_request"
        )


async def test_a_replaced_key_and_its_signatures_are_good_for_the_grace_period(keys: KeyWorld, clock: Clock):
    old, kept = keys.key(KeyKind.ROOT)
    run, old_token = await handed_out(keys, old)
    new, item = keys.made(KeyKind.ROOT)
    from holdfast.engine.keys import replace_keys

    keys.do(replace_keys, Replacement(kept.id, item, 60_000))
    _, new_token = await handed_out(keys, old)
    for credential in (old, new, old_token):
        async with keys.client(credential) as client:
            assert (await read(client, run))["id"] == run
    clock.advance(60_000)
    told_by_another_server(keys)
    for credential in (old, old_token):
        async with keys.client(credential) as client:
            await refused(client.get(f"/api/v3/runs/{run}"), 401, "not_authorised")
    for credential, status in ((new, 200), (new_token, 403)):  # the new key signed it, for another run
        async with keys.client(credential) as client:
            assert (await client.get(f"/api/v3/runs/{run}")).status_code == status


async def test_a_revoked_key_is_refused_at_once_with_its_signatures(keys: KeyWorld):
    key, kept = keys.key(KeyKind.ROOT)
    run, token = await handed_out(keys, key)
    keys.do(revoke_keys, kept.id)
    for credential in (key, token):
        async with keys.client(credential) as client:
            await refused(client.get(f"/api/v3/runs/{run}"), 401, "not_authorised")


def told_by_another_server(keys: KeyWorld) -> None:
    assert keys.engine.store.on_wake is not None
    keys.engine.store.on_wake({"keys"})


async def test_a_server_that_is_not_told_finds_out_within_a_second(
    keys: KeyWorld, monkeypatch: pytest.MonkeyPatch
):
    now = [0.0]
    monkeypatch.setattr(fresh, "monotonic", lambda: now[0])
    key, kept = keys.key(KeyKind.SECRET)
    keys.engine.store.on_wake = None  # nor by what a listener is told when it begins
    async with keys.client(key) as client:
        await ok(client.get("/api/v1/runs"))
        keys.do(revoke_keys, kept.id)
        await ok(client.get("/api/v1/runs"))
        now[0] = 1.0
        await refused(client.get("/api/v1/runs"), 401, "not_authorised")


async def test_the_database_is_not_asked_for_the_key_of_every_request(
    keys: KeyWorld, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(fresh, "monotonic", lambda: 0.0)
    asked: list[str] = []
    key_of = keys.engine.key_of

    async def counted(digest: str) -> Any:
        asked.append(digest)
        return await key_of(digest)

    monkeypatch.setattr(keys.engine, "key_of", counted)
    key, _ = keys.key(KeyKind.SECRET)
    keys.engine.store.on_wake = None  # a listener that begins is told that anything may have changed
    async with keys.client(key) as client, keys.client(f"{key[:-1]}!") as stranger:
        for _ in range(20):
            await ok(client.get("/api/v1/runs"))
            await refused(stranger.get("/api/v1/runs"), 401, "not_authorised")
    assert len(asked) == 2


async def test_a_branch_is_an_environment_of_its_own(keys: KeyWorld):
    keys.key(KeyKind.ROOT, "preview", "preview")
    key, _ = keys.key(KeyKind.SECRET, "preview", "preview")
    keys.do(create_branches, NewBranch(DEFAULT_PROJECT, "one"))
    keys.do(create_branches, NewBranch(DEFAULT_PROJECT, "two"))
    async with keys.client(key) as parent, keys.client(key, **{"x-trigger-branch": "one", **SDK}) as one:
        response = await one.post("/api/v1/tasks/echo/trigger", json={})
        run, token = response.json()["id"], response.headers["x-trigger-jwt"]
        whoami = await ok(one.get("/api/v1/whoami"))
        assert (whoami["type"], whoami["slug"], whoami["branchName"]) == ("PREVIEW", "preview", "one")
        assert whoami["id"].startswith("env_")
        await refused(parent.get(f"/api/v3/runs/{run}"), 404, "run_not_found")
        two = {"x-trigger-branch": "two"}
        await refused(parent.get(f"/api/v3/runs/{run}", headers=two), 404, "run_not_found")
    async with keys.client(token) as client:
        assert (await read(client, run))["id"] == run
        assert (
            await client.get(f"/api/v3/runs/{run}", headers=two)
        ).status_code == 200  # a token names its own


async def test_an_unknown_branch_is_made_by_a_worker_of_it_and_by_nobody_else(keys: KeyWorld):
    key, _ = keys.key(KeyKind.ROOT, "preview", "preview")
    limited, _ = keys.key(KeyKind.SECRET, "preview", "preview", scopes=["read:all", "trigger:tasks"])
    registration = {"name": "w", "fingerprint": "f", "tasks": [{"id": "echo"}]}
    headers = {"x-trigger-branch": "feat/x"}
    async with keys.client(key, **headers) as client, keys.client(limited, **headers) as reader:
        error = await refused(client.get("/api/v1/runs"), 404, "not_found")
        assert "no such branch" in error["error"]
        await refused(reader.post("/api/v1/workers", json=registration), 404, "not_found")
        await ok(client.post("/api/v1/workers", json=registration))
        await ok(reader.get("/api/v1/runs"))
        [own] = [
            one for one in keys.engine.store.transact(lambda tx, _: environments(tx), [None]) if one.branch
        ]
        keys.do(archive, own.id)
        for answer in (client.get("/api/v1/runs"), client.post("/api/v1/workers", json=registration)):
            assert "archived" in (await refused(answer, 403, "unauthorized"))["error"]


async def test_the_tokens_of_an_archived_branch_are_refused(keys: KeyWorld):
    key, _ = keys.key(KeyKind.ROOT, "preview", "preview")
    branch = keys.do(create_branches, NewBranch(DEFAULT_PROJECT, "b"))
    async with keys.client(key, **{"x-trigger-branch": "b", **SDK}) as client:
        response = await client.post("/api/v1/tasks/echo/trigger", json={})
    keys.do(archive, branch.id)
    async with keys.client(response.headers["x-trigger-jwt"]) as client:
        await refused(client.get(f"/api/v3/runs/{response.json()['id']}"), 401, "not_authorised")


@pytest.mark.parametrize("name", ["a b", "x" * 200, "é"])
async def test_a_branch_name_that_can_not_be_read_is_400(keys: KeyWorld, name: str):
    key, _ = keys.key(KeyKind.ROOT, "preview", "preview")
    async with keys.client(key) as client:
        headers = [(b"x-trigger-branch", name.encode())]
        response = await client.get("/api/v1/runs", headers=headers)
        assert response.status_code == 400, response.text


async def test_the_branch_header_means_nothing_to_other_environments(keys: KeyWorld):
    key, _ = keys.key(KeyKind.ROOT)
    async with keys.client(key, **{"x-trigger-branch": "nope"}) as client:
        assert (await ok(client.get("/api/v1/whoami")))["id"] == "dev"


async def test_projects_do_not_see_each_other(keys: KeyWorld):
    project = keys.do(create_projects, NewProject("Other", "other"))
    found = keys.engine.store.transact(lambda tx, _: environments(tx), [None])
    own = next(one for one in found if one.project.id == project.id and one.type == "dev")
    theirs, _ = keys.key(KeyKind.ROOT, own.id, "dev")
    ours, _ = keys.key(KeyKind.ROOT)
    async with keys.client(theirs) as other, keys.client(ours) as default:
        run = await trigger(other)
        assert (await ok(other.get("/api/v1/whoami")))["project"]["externalRef"] == "other"
        await refused(default.get(f"/api/v3/runs/{run}"), 404, "run_not_found")
        listed = await ok(other.get("/api/v1/projects/other/runs?filter%5Benv%5D=dev"))
        assert [each["id"] for each in listed["data"]] == [run]
        await refused(default.get("/api/v1/projects/other/runs"), 404, "not_found")
        assert (await ok(default.get("/api/v1/projects/proj_default/runs")))["data"] == []
        await refused(other.get("/api/v1/projects/other/runs?filter%5Benv%5D=prod"), 403, "unauthorized")


async def test_a_public_key_is_not_told_what_made_a_run(store: Store, clock: Clock):
    """What a schedule is called elsewhere is a part of its runs' payload."""
    asked = {"task": "echo", "cron": "0 * * * *", "deduplicationKey": "k", "externalId": "user_42"}
    async with key_world(store) as keys:
        root, _ = keys.key(KeyKind.ROOT)
        public, _ = keys.key(KeyKind.PUBLIC)
        async with keys.client(root, **SDK) as client, keys.client(public, **SDK) as reader:
            clock.advance(DAY_MS)
            worker = {"name": "w", "fingerprint": "f", "tasks": [{"id": "echo"}]}
            await ok(client.post("/api/v1/workers", json=worker))
            schedule = await ok(client.post("/api/v1/schedules", json=asked))
            clock.now = round(datetime.fromisoformat(schedule["nextRun"]).timestamp() * 1_000)
            await ok(client.post("/api/v1/workers", json=worker))  # it lives: see the rule for development
            await keys.engine.upkeep()
            [run] = (await ok(client.get("/api/v1/runs")))["data"]
            path = f"/api/v3/runs/{run['id']}"
            assert (await ok(client.get(path)))["schedule"]["externalId"] == "user_42"
            assert not (DATA | {"schedule"}) & names_in(await ok(reader.get(path)))


async def test_finished_runs_of_every_environment_are_deleted_in_time(store: Store, clock: Clock):
    async with key_world(store) as keys:
        keys.engine.keeper.retention_ms = DAY_MS
        project = keys.do(create_projects, NewProject("Other"))
        found = keys.engine.store.transact(lambda tx, _: environments(tx), [None])
        own = next(one for one in found if one.project.id == project.id and one.type == "prod")
        key, _ = keys.key(KeyKind.ROOT, own.id, "prod")
        async with keys.client(key) as client:
            run = await trigger(client)
            await ok(client.post(f"/api/v2/runs/{run}/cancel"))
            clock.advance(2 * DAY_MS)
            keys.engine.keeper.retention_at = 0.0
            await keys.engine.upkeep()
            async with asyncio.timeout(10):  # the server's own upkeep may be at it
                while (await client.get(f"/api/v3/runs/{run}")).status_code != 404:
                    await asyncio.sleep(0.01)
            await refused(client.get(f"/api/v3/runs/{run}"), 404, "run_not_found")
