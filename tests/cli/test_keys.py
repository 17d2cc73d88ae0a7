"""`holdfast keys`, `projects` and `environments`: on the database itself, because the first key comes from nowhere else."""

from __future__ import annotations

import json
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from cli.world import Holdfast, Start
from holdfast import Holdfast as Client
from holdfast.engine.seals import Resealed, reseal, seals
from holdfast.engine.variables import Sealed, SetVariables, set_variables
from holdfast.server.vault import Vault
from holdfast.stores import open_store

MASTER_KEY = "the master key of the tests is quite long"


@pytest.fixture
def database(holdfast: Holdfast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a database that is up to date; commands find it and a master key."""
    url = f"sqlite:///{tmp_path}/holdfast.db"
    open_store(url).close()
    monkeypatch.setenv("HOLDFAST_DATABASE_URL", url)
    monkeypatch.setenv("HOLDFAST_MASTER_KEY", MASTER_KEY)
    return url


def done(holdfast: Holdfast, *arguments: str) -> Any:
    """What a command that must succeed prints as JSON."""
    result = holdfast(*arguments, "--json")
    assert result.code == 0, result.err
    return json.loads(result.out)


def test_a_key_is_shown_once(holdfast: Holdfast, database: str, tmp_path: Path):
    made = holdfast("keys", "create", "--environment", "prod", "--root")
    assert made.code == 0
    [key] = made.lines
    assert key.startswith("tr_prod_")
    assert "not shown again" in made.err
    assert key not in made.err
    listed = holdfast("keys", "list")
    assert key[-4:] in listed.out
    assert key not in listed.out
    assert key.encode() not in (tmp_path / "holdfast.db").read_bytes()


def test_keys_of_each_kind(holdfast: Holdfast, database: str):
    root = done(holdfast, "keys", "create", "--env", "stg", "--root", "--name", "deploys")
    full = done(holdfast, "keys", "create", "--env", "staging")
    limited = done(
        holdfast, "keys", "create", "--env", "stg", "--scope", "read:runs", "--scope", "trigger:tasks:a"
    )
    preset = done(holdfast, "keys", "create", "--env", "dev", "--preset", "read-only")
    public = done(holdfast, "keys", "create", "--env", "prod", "--public")
    prefixes = ["tr_stg_", "tr_stg_sk_", "tr_stg_sk_", "tr_dev_sk_", "pk_prod_"]
    all_keys = [root, full, limited, preset, public]
    assert [made["key"].startswith(prefix) for made, prefix in zip(all_keys, prefixes, strict=True)] == [
        True
    ] * 5
    assert [made["scopes"] for made in all_keys] == [
        None,
        None,
        ["read:runs", "trigger:tasks:a"],
        ["read:all"],
        None,
    ]
    assert [made["name"] for made in all_keys] == ["deploys", "secret", "secret", "read-only", "public"]
    listed = done(holdfast, "keys", "list")
    assert [row["id"] for row in listed] == [made["id"] for made in (preset, root, full, limited, public)]
    assert [row["environment"] for row in listed] == ["dev", "staging", "staging", "staging", "prod"]
    assert [row["id"] for row in done(holdfast, "keys", "list", "--env", "prod")] == [public["id"]]


def test_an_additional_key_without_a_root_key_comes_with_a_hint(holdfast: Holdfast, database: str):
    assert "has no root key" in holdfast("keys", "create", "--env", "dev").err
    holdfast("keys", "create", "--env", "dev", "--root")
    assert "has no root key" not in holdfast("keys", "create", "--env", "dev").err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--environment is missing"),
        (("--env", "production"), "'production': expected one of dev, staging, prod, preview"),
        (("--env", "dev", "--scope", "eat:runs"), "'eat:runs'"),
        (("--env", "dev", "--scope", "read:runs", "--preset", "full"), "exclude each other"),
        (("--env", "dev", "--root", "--scope", "read:runs"), "a root key has no scopes"),
        (("--env", "dev", "--preset", "other"), "--preset"),
        (("--env", "dev", "--name", " "), "name is"),
    ],
)
def test_what_can_not_be_is_a_usage_error(
    holdfast: Holdfast, database: str, arguments: tuple[str, ...], message: str
):
    result = holdfast("keys", "create", *arguments)
    assert (result.code, result.out) == (2, "")
    assert message in result.err
    assert done(holdfast, "keys", "list") == []


def test_a_root_key_needs_a_master_key(holdfast: Holdfast, database: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("HOLDFAST_MASTER_KEY")
    result = holdfast("keys", "create", "--env", "prod", "--root")
    assert result.code == 1
    assert "HOLDFAST_MASTER_KEY is not set" in result.err
    assert done(holdfast, "keys", "list") == []
    assert holdfast("keys", "create", "--env", "prod").code == 0  # nothing of it is sealed


def test_a_root_key_is_rotated(holdfast: Holdfast, database: str):
    old = done(holdfast, "keys", "create", "--env", "prod", "--root")
    new = done(holdfast, "keys", "rotate", "--env", "prod")
    assert (new["replaces"], new["key"].startswith("tr_prod_")) == (old["id"], True)
    states = {row["id"]: row["state"] for row in done(holdfast, "keys", "list")}
    assert states == {old["id"]: "replaced", new["id"]: "valid"}
    again = holdfast("keys", "rotate", old["id"])
    assert again.code == 1
    assert "not in force any more" in again.err


def test_an_additional_key_keeps_its_name_and_scopes_when_it_is_rotated(holdfast: Holdfast, database: str):
    old = done(holdfast, "keys", "create", "--env", "prod", "--scope", "read:runs", "--name", "ci")
    rotated = holdfast("keys", "rotate", old["id"], "--grace", "0s", "--json")
    new = json.loads(rotated.out)
    assert (new["name"], new["scopes"]) == ("ci", ["read:runs"])
    assert "refused from now on" in rotated.err
    assert [row["id"] for row in done(holdfast, "keys", "list")] == [new["id"]]
    assert len(done(holdfast, "keys", "list", "--all")) == 2


def test_what_can_not_be_rotated_says_why(holdfast: Holdfast, database: str):
    nothing = holdfast("keys", "rotate", "--env", "prod")
    assert nothing.code == 4
    assert "HOLDFAST_SECRET_KEY" in nothing.err
    assert holdfast("keys", "rotate", "key_x").code == 4
    assert holdfast("keys", "rotate", "--env", "prod", "--grace", "a while").code == 2
    first = done(holdfast, "keys", "create", "--env", "prod", "--root")
    assert holdfast("keys", "rotate", first["id"], "--grace", "31d").code == 2
    done(holdfast, "keys", "create", "--env", "prod", "--root")
    assert "2 root keys" in holdfast("keys", "rotate", "--env", "prod").err


def test_a_key_is_revoked(holdfast: Holdfast, database: str):
    made = done(holdfast, "keys", "create", "--env", "dev")
    assert done(holdfast, "keys", "revoke", made["id"])["state"] == "revoked"
    assert holdfast("keys", "revoke", made["id"]).code == 0
    assert holdfast("keys", "revoke", "key_x").code == 4
    assert done(holdfast, "keys", "list") == []


def test_projects_and_their_environments(holdfast: Holdfast, database: str):
    made = done(holdfast, "projects", "create", "My app", "--ref", "my-app")
    assert [project["ref"] for project in done(holdfast, "projects", "list")] == ["proj_default", "my-app"]
    assert made["name"] == "My app"
    assert holdfast("projects", "create", "Again", "--ref", "my-app").code == 1
    assert holdfast("projects", "create", "Again", "--ref", "My App").code == 2
    unclear = holdfast("keys", "create", "--env", "dev")
    assert unclear.code == 2
    assert "name one of my-app, proj_default" in unclear.err
    key = done(holdfast, "keys", "create", "--env", "dev", "--project", "my-app")
    assert key["project"] == "my-app"
    branch = done(holdfast, "environments", "create", "--branch", "feat/x", "--project", "my-app")
    assert (branch["environment"], branch["branch"], branch["state"]) == ("preview", "feat/x", "in force")
    archived = done(holdfast, "environments", "archive", "--branch", "feat/x", "--project", "my-app")
    assert archived["state"] == "archived"
    own = done(holdfast, "environments", "list", "--project", "my-app")
    assert [one["environment"] for one in own] == ["dev", "staging", "prod", "preview"]
    assert len(done(holdfast, "environments", "list", "--all")) == 9
    assert holdfast("environments", "archive", "--branch", "nope", "--project", "my-app").code == 4


def test_a_database_that_is_not_there_is_not_made_by_looking(holdfast: Holdfast, tmp_path: Path):
    for command in (
        ("keys", "list"),
        ("projects", "list"),
        ("environments", "list"),
        ("keys", "revoke", "key_x"),
    ):
        result = holdfast(*command)
        assert result.code == 4
        assert "there is no database" in result.err
    assert list(tmp_path.iterdir()) == []


def test_a_server_takes_the_keys_of_its_database(holdfast: Holdfast, database: str, start: Start):
    made = done(holdfast, "keys", "create", "--env", "prod", "--root")
    url = start(
        "server", "--port", "0", "--json", HOLDFAST_DATABASE_URL=database, HOLDFAST_MASTER_KEY=MASTER_KEY
    ).ready()["url"]
    headers = {"authorization": f"Bearer {made['key']}", "x-trigger-api-version": "2025-07-16"}
    with httpx2.Client(base_url=url, headers=headers) as client:
        triggered = client.post("/api/v1/tasks/echo/trigger", json={})
        assert triggered.status_code == 200
        token = {"authorization": f"Bearer {triggered.headers['x-trigger-jwt']}"}
        path = f"/api/v3/runs/{triggered.json()['id']}"
        assert client.get(path, headers=token).status_code == 200
        done(holdfast, "keys", "revoke", made["id"])
        revoked = time.monotonic()
        while client.get(path, headers=token).status_code == 200 or client.get(path).status_code == 200:
            assert time.monotonic() < revoked + 5, "a busy machine is given time, but not for ever"


def test_a_server_without_any_key_says_how_to_make_one(holdfast: Holdfast, database: str):
    result = holdfast("server", "--port", "0")
    assert result.code == 2
    assert "HOLDFAST_SECRET_KEY is not set, and the database holds no keys" in result.err
    assert "holdfast keys create" in result.err


def test_the_master_key_of_a_folder_opens_what_was_sealed_in_it(
    holdfast: Holdfast, tmp_path: Path, start: Start
):
    (tmp_path / "jobs.py").write_text("from holdfast import task\n\n\n@task\ndef noop() -> None: ...\n")
    url = start("dev", "jobs.py", "--port", "0", "--no-reload", "--json").ready()["url"]
    assert (tmp_path / ".holdfast" / "master_key").exists()
    made = done(holdfast, "keys", "create", "--env", "prod", "--root")
    headers = {"authorization": f"Bearer {made['key']}"}
    with httpx2.Client(base_url=url, headers=headers) as client:
        token = client.post("/api/v1/waitpoints/tokens", json={})
        assert token.status_code == 200, token.text


def test_a_worker_of_a_branch_runs_what_is_triggered_in_it(
    holdfast: Holdfast, database: str, start: Start, tmp_path: Path
):
    made = done(holdfast, "keys", "create", "--env", "preview", "--root")
    variables = {"HOLDFAST_DATABASE_URL": database, "HOLDFAST_MASTER_KEY": MASTER_KEY}
    url = start("server", "--port", "0", "--json", **variables).ready()["url"]
    (tmp_path / "jobs.py").write_text(
        "from holdfast import step, task, wait\n\n\n"
        "@step\ndef one(n: int) -> int:\n    return n\n\n\n"
        "@task\ndef half(n: int) -> int:\n    return one(n)\n\n\n"
        "@task\ndef double(n: int) -> int:\n"
        "    wait.token(int, timeout='1h')\n    return half.run(n) + half.run(n)\n"
    )
    limited = done(holdfast, "keys", "create", "--env", "preview", "--preset", "worker")
    own = {"HOLDFAST_API_URL": url, "HOLDFAST_SECRET_KEY": limited["key"], "HOLDFAST_BRANCH": "feat/x"}
    start("worker", "jobs.py", "--executors", "1", "--json", **own).ready()
    [branch] = [one for one in done(holdfast, "environments", "list") if one["branch"]]
    assert branch["branch"] == "feat/x"
    headers = {"authorization": f"Bearer {made['key']}"}
    with httpx2.Client(base_url=url, headers=headers, timeout=60) as client:
        in_branch = {"x-trigger-branch": "feat/x"}
        run = client.post("/api/v1/tasks/double/trigger", json={"payload": 21}, headers=in_branch).json()[
            "id"
        ]
        ended = client.get(f"/api/v1/runs/{run}/result?waitMs=30000", headers=in_branch)
        assert ended.json()["output"] == "42"
        assert client.get("/api/v1/runs").json()["data"] == []
    found = Client(url, made["key"], branch="feat/x").runs.list(task="double")
    assert [each.id for each in found] == [run]
    assert list(Client(url, made["key"]).runs.list()) == []


def test_the_master_key_is_replaced(holdfast: Holdfast, database: str, monkeypatch: pytest.MonkeyPatch):
    new = "another master key that is long enough"
    root = done(holdfast, "keys", "create", "--env", "prod", "--root")
    done(holdfast, "keys", "create", "--env", "prod")
    with closing(open_store(database)) as store:
        value = Sealed(Vault([MASTER_KEY]).seal("red", "env:prod:COLOUR"), 3)
        store.transact(set_variables, [SetVariables("prod", {"COLOUR": value})])
    monkeypatch.setenv("HOLDFAST_MASTER_KEY", new)
    alone = holdfast("keys", "reseal")
    assert (alone.code, "2 of them do not open" in alone.err) == (1, True)
    monkeypatch.setenv("HOLDFAST_MASTER_KEY", f"{new},{MASTER_KEY}")
    assert done(holdfast, "keys", "reseal") == {"resealed": 2, "broken": []}
    assert done(holdfast, "keys", "reseal") == {"resealed": 0, "broken": []}
    with closing(open_store(database)) as store:
        found = store.transact(lambda tx, _: seals(tx), [None])
        assert [Vault([new]).open(seal.sealed, seal.context) for seal in found] == [root["key"], "red"]
        stale = [Resealed(replace(seal, sealed="what stood there before"), "x") for seal in found]
        assert store.transact(reseal, stale) == [False, False]
    monkeypatch.delenv("HOLDFAST_MASTER_KEY")
    assert "HOLDFAST_MASTER_KEY is not set" in holdfast("keys", "reseal").err


def test_development_needs_no_cryptography_and_says_what_does(start: Start, tmp_path: Path):
    absent = tmp_path / "absent"
    absent.mkdir()
    (absent / "cryptography.py").write_text("raise ModuleNotFoundError('not installed')\n")
    (tmp_path / "jobs.py").write_text("from holdfast import task\n\n\n@task\ndef noop() -> None: ...\n")
    ready = start("dev", "jobs.py", "--port", "0", "--no-reload", "--json", PYTHONPATH=str(absent)).ready()
    key = Path(ready["keyFile"]).read_text().strip()
    with httpx2.Client(base_url=ready["url"], headers={"authorization": f"Bearer {key}"}) as client:
        assert client.post("/api/v1/tasks/noop/trigger", json={}).status_code == 200
        assert client.post("/api/v1/waitpoints/tokens", json={}).status_code == 200
        variables = "/api/v1/projects/proj_default/envvars/dev"
        sealed = client.post(variables, json={"name": "COLOUR", "value": "red"})
    assert sealed.status_code == 422
    assert "pip install 'holdfast[vault]'" in sealed.json()["error"]
