"""Every operation of the OpenAPI document with every kind of credential: who is let in, and who is refused how.

The document says of each operation what it needs (`x-holdfast-access`); ASKS says how one of it looks. An operation
without either fails here.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from holdfast.engine import Engine
from holdfast.engine.keys import NewKey, create_keys
from holdfast.model.key import KeyKind, digest, new_key, shown
from holdfast.model.scope import ACTIONS, KINDS
from holdfast.server import ENDPOINTS, create_app, lifespan, openapi
from holdfast.server.objects import open_objects
from holdfast.server.tokens import Signer
from holdfast.server.vault import Vault
from holdfast.stores import open_store
from server.world import DEV_KEY, KEYS, PROD_KEY, START_MS, Clock

pytestmark = pytest.mark.anyio
DOCUMENT = openapi.document(ENDPOINTS, "0")
OPERATIONS = [(method.upper(), path) for path, item in DOCUMENT["paths"].items() for method in item]
ALLOWED = "allowed"  # any answer but 401 and 403
MASTER_KEY = "the master key of the tests is quite long"
TAG = "a:tag"
SCHEDULE = {"task": "echo", "cron": "0 9 * * *", "deduplicationKey": "k"}


@dataclass(frozen=True, slots=True)
class Ask:
    """A request of an operation.

    ids   by kind, the id of the thing it is about, where a scope may name it
    also  scopes that let in although the document does not tell, or (False) do not although it seems so
    """

    path: str
    ids: dict[str, str] = field(default_factory=dict)
    also: dict[str, bool] = field(default_factory=dict)
    body: Any = None
    content: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Scene:
    """A server with one of everything in the environment dev."""

    app: Any
    engine: Engine
    names: dict[str, str] = field(default_factory=dict)
    keys: dict[tuple[str, ...], str] = field(default_factory=dict)

    def secret(self, *scopes: str) -> str:
        """An additional key with these scopes; without any it may do all."""
        if scopes not in self.keys:
            self.keys[scopes] = self.stored(KeyKind.SECRET, scopes or None)
        return self.keys[scopes]

    def stored(self, kind: KeyKind, scopes: tuple[str, ...] | None = None, environment: str = "dev") -> str:
        key = new_key(kind, environment)
        item = NewKey(environment, kind, "test", digest(key), shown(key), scopes=scopes)
        [kept] = self.engine.store.transact(create_keys, [item])
        assert kept.id, kept
        return key

    async def status(self, method: str, ask: Ask, credential: str | None) -> int:
        headers = {} if credential is None else {"authorization": f"Bearer {credential}"}
        transport = httpx2.ASGITransport(self.app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://holdfast") as client:
            content = ask.content if ask.body is None else json.dumps(ask.body).encode()
            if content is not None:
                headers["content-type"] = "application/json"
            response = await client.request(
                method, ask.path, content=content, headers={**headers, **ask.headers}
            )
        assert response.status_code < 500, response.text
        return response.status_code

    async def make(self, method: str, path: str, body: Any = None) -> Any:
        transport = httpx2.ASGITransport(self.app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://holdfast") as client:
            headers = {"authorization": f"Bearer {DEV_KEY}"}
            response = await client.request(method, path, json=body, headers=headers)
        assert response.is_success, response.text
        return response.json()


@asynccontextmanager
async def scene_in(folder: Path) -> AsyncIterator[Scene]:
    store = open_store(f"sqlite:///{folder}/holdfast.db", clock=Clock())
    engine = Engine(store)
    scene = Scene(
        create_app(engine, KEYS, vault=Vault([MASTER_KEY]), objects=open_objects(f"file://{folder}/objects")),
        engine,
    )
    async with lifespan(engine):
        registration = {"name": "w", "fingerprint": "f", "tasks": [{"id": "echo"}]}
        made = await scene.make("POST", "/api/v1/workers", registration)
        item = {"task": "echo", "options": {"tags": [TAG], "delay": "1h"}}
        whole = await scene.make("POST", "/api/v1/tasks/batch", {"items": [item]})
        token = await scene.make("POST", "/api/v1/waitpoints/tokens", {})
        batch = await scene.make("POST", "/api/v3/batches", {"runCount": 1})
        bulk = await scene.make("POST", "/api/v1/bulk-actions", {"action": "cancel", "runIds": ["run_x"]})
        variables = "/api/v1/projects/proj_default/envvars/dev"
        await scene.make("POST", variables, {"name": "COLOUR", "value": "red"})
        await scene.make("PUT", "/api/v2/packets/some.json")
        schedule = await scene.make("POST", "/api/v1/schedules", SCHEDULE)
        scene.names = {
            "run": whole["runs"][0]["id"],
            "whole": whole["batchId"],
            "worker": made["workerId"],
            "token": token["id"],
            "url": urlsplit(token["url"]).path,
            "batch": batch["id"],
            "bulk": bulk["id"],
            "schedule": schedule["id"],
        }
        yield scene
    store.close()


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with scene_in(tmp_path) as made:
        yield made


def run_ids(names: dict[str, str]) -> dict[str, str]:
    return {"runs": names["run"], "tasks": "echo", "tags": TAG, "batch": names["whole"]}


def about_run(path: str, body: Any = None) -> Callable[[dict[str, str]], Ask]:
    """What may be reached by the run's own id, its task and its tags."""
    return lambda names: Ask(path.format(**names), run_ids(names), body=body)


def about_run_only(path: str, body: Any = None) -> Callable[[dict[str, str]], Ask]:
    return lambda names: Ask(path.format(**names), {"runs": names["run"]}, body=body)


def about_all(path: str, body: Any = None) -> Callable[[dict[str, str]], Ask]:
    """What no scope with an id reaches."""
    return lambda names: Ask(path.format(**names), body=body)


def about_schedule(rest: str = "", body: Any = None) -> Callable[[dict[str, str]], Ask]:
    return lambda names: Ask(
        f"/api/v1/schedules/{names['schedule']}{rest}", {"schedules": names["schedule"]}, body=body
    )


VARIABLES = "/api/v1/projects/proj_default/envvars/dev"
RUN, WORKER = "/api/v1/runs/{run}", "/api/v1/workers/{worker}"
ITEM = {"task": "echo", "payload": 1}
ASKS: dict[tuple[str, str], Callable[[dict[str, str]], Ask]] = {
    ("GET", "/api/v1/runs"): lambda names: Ask(
        "/api/v1/runs?filter%5BtaskIdentifier%5D=echo",
        also={"read:tasks": True, "read:tasks:echo": True, "read:tasks:other": False},
    ),
    ("GET", "/api/v1/projects/{project}/runs"): lambda names: Ask(
        "/api/v1/projects/proj_default/runs?filter%5BtaskIdentifier%5D=echo",
        also={"read:tasks": True, "read:tasks:echo": True, "read:tasks:other": False},
    ),
    ("POST", "/api/v1/tasks/{task}/trigger"): lambda names: Ask(
        "/api/v1/tasks/echo/trigger", {"tasks": "echo"}, body={}
    ),
    ("POST", "/api/v1/tasks/batch"): lambda names: Ask(
        "/api/v1/tasks/batch", {"tasks": "echo"}, body={"items": [ITEM]}
    ),
    ("POST", "/api/v2/tasks/batch"): lambda names: Ask(
        "/api/v2/tasks/batch", {"tasks": "echo"}, body={"items": [ITEM]}
    ),
    ("POST", "/api/v3/batches"): lambda names: Ask(
        "/api/v3/batches", {"tasks": "echo"}, body={"runCount": 1, "taskIdentifiers": ["echo"]}
    ),
    # Whoever may write the batch, or may trigger what the items name.
    ("POST", "/api/v3/batches/{batch}/items"): lambda names: Ask(
        f"/api/v3/batches/{names['batch']}/items",
        {"batch": names["batch"]},
        also={
            "*:tasks": True,
            "write:tasks": False,
            "write:tasks:echo": False,
            "batchTrigger:batch": True,
            "batchTrigger:tasks": True,
            "batchTrigger:tasks:echo": True,
            "batchTrigger:tasks:other": False,
        },
        content=json.dumps({"index": 0, **ITEM}).encode() + b"\n",
        headers={"content-type": "application/x-ndjson"},
    ),
    ("GET", "/api/v2/batches/{batch}"): lambda names: Ask(
        f"/api/v2/batches/{names['batch']}", {"batch": names["batch"]}
    ),
    ("GET", "/api/v1/batches/{batch}"): lambda names: Ask(
        f"/api/v1/batches/{names['batch']}", {"batch": names["batch"]}
    ),
    ("GET", "/api/v1/batches/{batch}/results"): lambda names: Ask(
        f"/api/v1/batches/{names['batch']}/results", {"batch": names["batch"]}
    ),
    ("POST", "/api/v1/bulk-actions"): about_all(
        "/api/v1/bulk-actions", {"action": "cancel", "runIds": ["run_x"]}
    ),
    ("GET", "/api/v1/bulk-actions"): about_all("/api/v1/bulk-actions"),
    ("GET", "/api/v1/bulk-actions/{bulk}"): about_all("/api/v1/bulk-actions/{bulk}"),
    ("POST", "/api/v1/bulk-actions/{bulk}/abort"): about_all("/api/v1/bulk-actions/{bulk}/abort"),
    ("POST", "/api/v1/idempotencyKeys/{key}/reset"): about_all(
        "/api/v1/idempotencyKeys/k/reset", {"taskIdentifier": "echo"}
    ),
    ("GET", "/api/v1/whoami"): about_all("/api/v1/whoami"),
    ("GET", "/api/v1/projects"): about_all("/api/v1/projects"),
    ("POST", "/api/v1/auth/jwt/claims"): about_all("/api/v1/auth/jwt/claims"),
    ("POST", "/api/v1/auth/public-tokens"): about_all("/api/v1/auth/public-tokens", {}),
    ("PUT", "/api/v1/packets/{path}"): about_all("/api/v1/packets/some.json"),
    ("PUT", "/api/v2/packets/{path}"): about_all("/api/v2/packets/some.json"),
    ("GET", "/api/v1/packets/{path}"): lambda names: Ask(
        "/api/v1/packets/some.json", also={f"read:{kind}": False for kind in ("tasks", "tags", "batch")}
    ),
    ("GET", "/api/v1/runs/{run}/packets/{field}"): about_run(f"{RUN}/packets/payload"),
    ("GET", "/api/v1/runs/{run}/packets/{field}/content"): about_run(f"{RUN}/packets/payload/content"),
    ("GET", "/api/v1/queues"): about_all("/api/v1/queues"),
    ("GET", "/api/v1/queues/{queue}"): about_all("/api/v1/queues/task%2Fecho?type=task"),
    ("POST", "/api/v1/queues/{queue}/pause"): about_all(
        "/api/v1/queues/echo/pause", {"type": "task", "action": "pause"}
    ),
    ("POST", "/api/v1/queues/{queue}/concurrency/override"): about_all(
        "/api/v1/queues/echo/concurrency/override", {"type": "task", "concurrencyLimit": 1}
    ),
    ("POST", "/api/v1/queues/{queue}/concurrency/reset"): about_all(
        "/api/v1/queues/echo/concurrency/reset", {"type": "task"}
    ),
    ("POST", "/api/v1/schedules"): about_all("/api/v1/schedules", {**SCHEDULE, "deduplicationKey": "other"}),
    ("GET", "/api/v1/schedules"): about_all("/api/v1/schedules"),
    ("GET", "/api/v1/schedules/{schedule}"): about_schedule(),
    ("PUT", "/api/v1/schedules/{schedule}"): about_schedule(body=SCHEDULE),
    ("DELETE", "/api/v1/schedules/{schedule}"): about_schedule(),
    ("POST", "/api/v1/schedules/{schedule}/activate"): about_schedule("/activate"),
    ("POST", "/api/v1/schedules/{schedule}/deactivate"): about_schedule("/deactivate"),
    ("GET", "/api/v3/runs/{run}"): about_run("/api/v3/runs/{run}"),
    ("POST", "/api/v2/runs/{run}/cancel"): about_run("/api/v2/runs/{run}/cancel"),
    ("POST", "/api/v1/runs/{run}/replay"): about_run_only(f"{RUN}/replay", {}),
    ("POST", "/api/v1/runs/{run}/reschedule"): about_run_only(f"{RUN}/reschedule", {"delay": "2h"}),
    ("POST", "/api/v1/runs/{run}/tags"): about_run_only(f"{RUN}/tags", {"tags": "more"}),
    ("GET", "/api/v1/runs/{run}/metadata"): about_run_only(f"{RUN}/metadata"),
    ("PUT", "/api/v1/runs/{run}/metadata"): about_run_only(f"{RUN}/metadata", {"metadata": {}}),
    ("GET", "/api/v1/runs/{run}/result"): about_run_only(f"{RUN}/result"),
    ("POST", "/api/v1/runs/results"): about_all("/api/v1/runs/results", {"runs": ["run_x"]}),
    ("GET", "/api/v1/runs/{run}/journal"): about_run_only(f"{RUN}/journal"),
    ("GET", "/api/v1/runs/{run}/logs"): about_run_only(f"{RUN}/logs"),
    ("GET", "/api/v1/runs/{run}/events"): about_run(f"{RUN}/events"),
    ("GET", "/api/v1/runs/{run}/trace"): about_run(f"{RUN}/trace"),
    ("GET", "/api/v1/runs/{run}/spans/{span}"): about_run(f"{RUN}/spans/0123456789abcdef"),
    ("GET", "/api/v1/projects/{project}/envvars/{environment}"): about_all(VARIABLES),
    ("POST", "/api/v1/projects/{project}/envvars/{environment}"): about_all(
        VARIABLES, {"name": "SIZE", "value": "1"}
    ),
    ("POST", "/api/v1/projects/{project}/envvars/{environment}/import"): about_all(
        f"{VARIABLES}/import", {"variables": {"SIZE": "1"}, "override": True}
    ),
    ("GET", "/api/v1/projects/{project}/envvars/{environment}/{name}"): lambda names: Ask(
        f"{VARIABLES}/COLOUR", {"envvars": "COLOUR"}
    ),
    ("PUT", "/api/v1/projects/{project}/envvars/{environment}/{name}"): lambda names: Ask(
        f"{VARIABLES}/COLOUR", {"envvars": "COLOUR"}, body={"value": "blue"}
    ),
    ("DELETE", "/api/v1/projects/{project}/envvars/{environment}/{name}"): lambda names: Ask(
        f"{VARIABLES}/COLOUR", {"envvars": "COLOUR"}
    ),
    ("GET", "/api/v1/deployments"): about_all("/api/v1/deployments"),
    ("POST", "/api/v1/deployments"): about_all(
        "/api/v1/deployments", {"fingerprint": "f", "tasks": [{"id": "echo"}]}
    ),
    ("GET", "/api/v1/deployments/current"): about_all("/api/v1/deployments/current"),
    ("POST", "/api/v1/deployments/{version}/promote"): about_all("/api/v1/deployments/20270115.1/promote"),
    ("POST", "/api/v1/waitpoints/tokens"): about_all("/api/v1/waitpoints/tokens", {}),
    ("GET", "/api/v1/waitpoints/tokens"): about_all("/api/v1/waitpoints/tokens"),
    ("GET", "/api/v1/waitpoints/tokens/{token}"): lambda names: Ask(
        f"/api/v1/waitpoints/tokens/{names['token']}", {"waitpoints": names["token"]}
    ),
    ("POST", "/api/v1/waitpoints/tokens/{token}/complete"): lambda names: Ask(
        f"/api/v1/waitpoints/tokens/{names['token']}/complete", {"waitpoints": names["token"]}, body={}
    ),
    ("POST", "/api/v1/workers"): about_all(
        "/api/v1/workers", {"name": "w", "fingerprint": "f", "tasks": [{"id": "echo"}]}
    ),
    ("POST", "/api/v1/workers/variables"): about_all("/api/v1/workers/variables"),
    ("POST", "/api/v1/workers/{worker}/claim"): about_all(f"{WORKER}/claim", {"slots": 0, "waitMs": 0}),
    ("POST", "/api/v1/workers/{worker}/heartbeat"): about_all(f"{WORKER}/heartbeat"),
    ("POST", "/api/v1/workers/{worker}/reports"): about_all(f"{WORKER}/reports", {"reports": []}),
    ("POST", "/api/v1/workers/{worker}/journal"): about_all(
        f"{WORKER}/journal", {"run": "run_x", "lease": 1, "after": 0}
    ),
    ("DELETE", "/api/v1/workers/{worker}"): about_all(WORKER),
}
# What takes no credential, and why; the second path is one that must be refused, if there can be one.
OPEN: dict[tuple[str, str], tuple[str, str | None]] = {
    ("GET", "/api/v1/timezones"): ("the same for everybody", None),
    ("POST", "/api/v1/waitpoints/tokens/{token}/callback/{hash}"): (
        "the address is the secret",
        "/api/v1/waitpoints/tokens/{token}/callback/0000",
    ),
    ("GET", "/api/v1/objects/{object}"): (
        "the address is signed",
        "/api/v1/objects/ZGV2L3g?expires=9&signature=0",
    ),
    ("PUT", "/api/v1/objects/{object}"): (
        "the address is signed",
        "/api/v1/objects/ZGV2L3g?expires=9&signature=0",
    ),
}


def access_of(method: str, path: str) -> dict[str, Any] | None:
    operation = DOCUMENT["paths"][path][method.lower()]
    access: dict[str, Any] | None = operation.get("x-holdfast-access")
    assert (access is None) == (operation.get("security") == []), (
        "an operation has an entry, or takes no credential"
    )
    return access


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_operation_says_what_it_needs_and_can_be_asked_for(method: str, path: str) -> None:
    access = access_of(method, path)
    if access is None:
        assert (method, path) in OPEN, "why does it take no credential? Say it in OPEN"
        return
    assert (method, path) in ASKS, "how is it asked for? Say it in ASKS"
    assert access["action"] in ACTIONS
    assert set(access["kinds"]) <= set(KINDS), (
        "a new kind of thing has a line in model/scope.py and in the docs"
    )


def test_nothing_is_said_of_operations_that_do_not_exist() -> None:
    assert {*ASKS, *OPEN} == set(OPERATIONS)
    assert not set(ASKS) & set(OPEN)


GUARDED = [each for each in OPERATIONS if access_of(*each) is not None]


@pytest.mark.parametrize(("method", "path"), GUARDED)
async def test_who_has_no_key_in_force_is_401(scene: Scene, method: str, path: str) -> None:
    ask = ASKS[method, path](scene.names)
    for credential in (
        None,
        "nonsense",
        f"{DEV_KEY}x",
        new_key(KeyKind.ROOT, "dev"),
        new_key(KeyKind.SECRET, "dev"),
        new_key(KeyKind.PUBLIC, "dev"),
        public_token(["admin"], expired=True),
        public_token(["admin"], key=PROD_KEY),
        public_token(["admin"], environment="prod"),
        public_token(["admin"], environment="nowhere"),
    ):
        assert await scene.status(method, ask, credential) == 401, credential


@pytest.mark.parametrize(("method", "path"), GUARDED)
async def test_additional_keys_may_do_what_their_scopes_say(scene: Scene, method: str, path: str) -> None:
    access, ask = access_of(method, path), ASKS[method, path](scene.names)
    assert access is not None
    found = {
        scope: verdict(await scene.status(method, ask, scene.secret(scope)))
        for scope in expected(access, ask)
    }
    assert found == {scope: ALLOWED if let_in else 403 for scope, let_in in expected(access, ask).items()}
    assert verdict(await scene.status(method, ask, scene.secret())) == ALLOWED


@pytest.mark.parametrize(("method", "path"), GUARDED)
async def test_public_tokens_are_let_in_where_the_document_says_so(
    scene: Scene, method: str, path: str
) -> None:
    access, ask = access_of(method, path), ASKS[method, path](scene.names)
    assert access is not None
    wanted = expected(access, ask)
    found = {
        scope: verdict(await scene.status(method, ask, public_token([scope]))) for scope in (*wanted, "admin")
    }
    if not access["publicTokens"]:
        assert set(found.values()) == {401}
        return
    assert found == {scope: ALLOWED if let_in else 403 for scope, let_in in wanted.items()} | {
        "admin": ALLOWED
    }
    assert await scene.status(method, ask, public_token([])) == 403


@pytest.mark.parametrize(("method", "path"), GUARDED)
async def test_public_keys_and_root_keys(scene: Scene, method: str, path: str) -> None:
    access, ask = access_of(method, path), ASKS[method, path](scene.names)
    assert access is not None
    wanted = ALLOWED if access["publicKeys"] else 403
    assert verdict(await scene.status(method, ask, scene.stored(KeyKind.PUBLIC))) == wanted
    assert verdict(await scene.status(method, ask, DEV_KEY)) == ALLOWED


@pytest.mark.parametrize(("method", "path"), GUARDED)
async def test_a_key_of_another_environment_is_let_in_and_finds_nothing(
    scene: Scene, method: str, path: str
) -> None:
    ask = ASKS[method, path](scene.names)
    status = await scene.status(method, ask, PROD_KEY)
    assert verdict(status) == ALLOWED
    if ask.ids and any(id in ask.path for id in scene.names.values()):
        # One's own report of a stranger's batch is refused as a whole, as one of a batch that is not there.
        assert status in ((404, 422) if path.endswith("/items") else (404,))


@pytest.mark.parametrize(("method", "path"), OPEN)
async def test_addresses_that_need_no_key_can_not_be_made_up(scene: Scene, method: str, path: str) -> None:
    _, forged = OPEN[method, path]
    if forged is None:
        assert await scene.status(method, Ask(path), None) == 200
        return
    assert await scene.status(method, Ask(forged.format(**scene.names)), None) in (401, 403)
    if "{hash}" in path:
        assert await scene.status(method, Ask(scene.names["url"]), None) == 200


def expected(access: dict[str, Any], ask: Ask) -> dict[str, bool]:
    """Which scopes let in, each alone, and which do not."""
    action, kinds = access["action"], access["kinds"]
    if not kinds:
        return {"read:runs": True, "work:workers": True}  # what every key may do, whatever it is limited to
    wanted = {"admin": True, "*:all": True, f"{action}:all": True}
    for kind in kinds:
        wanted |= {f"{action}:{kind}": True, f"*:{kind}": True, f"{action}:{kind}:not-this-one": False}
        if kind in ask.ids:
            wanted[f"{action}:{kind}:{ask.ids[kind]}"] = True
    for kind in set(KINDS) - set(kinds):
        wanted[f"{action}:{kind}"] = False
    for other in set(ACTIONS) - {action, "*"}:
        wanted |= {f"{other}:{kind}": False for kind in kinds}
    wanted |= ask.also
    # "*" is any action, so it lets in whom some action lets in.
    return wanted | {f"*:{kind}": wanted[f"{action}:{kind}"] for kind in kinds if f"*:{kind}" not in ask.also}


def verdict(status: int) -> int | str:
    return status if status in (401, 403) else ALLOWED


def public_token(
    scopes: list[str], key: str = DEV_KEY, environment: str = "dev", expired: bool = False
) -> str:
    signer = Signer(environment, [key], "http://holdfast")
    return signer.jwt(scopes, START_MS - (120_000 if expired else 0), 60)
