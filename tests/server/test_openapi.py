"""The OpenAPI document names every route, and its shapes take what the API takes."""

from __future__ import annotations

import re
from typing import Any

import jsonschema_rs
import pytest

from holdfast.server import ENDPOINTS, openapi
from server.world import ERROR, World, ok

pytestmark = pytest.mark.anyio

RETRY = {"maxAttempts": 3, "factor": 2.0, "minTimeoutInMs": 1, "maxTimeoutInMs": 9, "randomize": True}
LEASE = {"run": "run_x", "lease": 3}
CALL = {"scope": "", "name": "s", "args": None}
ENTRY = {**CALL, "kind": "step", "ok": True, "value": "1", "ref": None}
TRIGGER = {
    "payload": {"a": 1},
    "options": {
        "queue": {"name": "mail"},
        "concurrencyKey": 7,
        "delay": "1h",
        "ttl": 60,
        "tags": "one",
        "priority": 1.5,
        "test": True,
        "metadata": {"a": 1},
        "maxAttempts": 3,
    },
}
EXAMPLES: dict[tuple[str, str], list[Any]] = {
    ("POST", "/api/v1/tasks/{task}/trigger"): [{}, TRIGGER, {"options": None}],
    ("POST", "/api/v1/tasks/batch"): [{"items": [{"task": "echo", **TRIGGER}]}],
    ("POST", "/api/v2/tasks/batch"): [{"items": [{"task": "echo", **TRIGGER}], "parentRunId": "run_x"}],
    ("POST", "/api/v3/batches"): [
        {"runCount": 1},
        {
            "runCount": 1_000,
            "taskIdentifiers": ["echo"],
            "parentRunId": "run_x",
            "resumeParentOnCompletion": True,
            "idempotencyKey": "k",
            "idempotencyKeyOptions": {"key": "k", "scope": "run"},
        },
    ],
    ("POST", "/api/v1/runs/{run}/replay"): [{}, {"payload": None, "tags": ["a"], "ttl": 5}],
    ("POST", "/api/v1/idempotencyKeys/{key}/reset"): [{"taskIdentifier": "echo"}],
    ("POST", "/api/v1/runs/{run}/reschedule"): [{"delay": "1h"}],
    ("POST", "/api/v1/runs/{run}/tags"): [{"tags": "a"}, {"tags": ["a", "b"]}],
    ("PUT", "/api/v1/runs/{run}/metadata"): [
        {"metadata": {}, "operations": [{"type": "set", "key": "a", "value": 1}]}
    ],
    ("POST", "/api/v1/auth/public-tokens"): [
        {"scopes": ["read:runs"]},
        {
            "scopes": ["read:runs"],
            "expirationTime": "1h",
            "oneTimeUse": True,
            "realtime": {"skipColumns": ["a"]},
        },
        {"scopes": ["read:runs"], "expirationTime": 1_800_000_000},
    ],
    ("POST", "/api/v1/runs/results"): [
        {"runs": ["run_x"], "waitMs": 1_000},
        {"tokens": ["waitpoint_x"]},
    ],
    ("POST", "/api/v1/waitpoints/tokens"): [
        {},
        {"timeout": "1h", "tags": ["a"], "idempotencyKey": "k", "schema": {"type": "object"}},
    ],
    ("POST", "/api/v1/waitpoints/tokens/{token}/complete"): [{}, {"data": {"a": [1]}}, {"data": None}],
    ("POST", "/api/v1/deployments"): [
        {"fingerprint": "f", "tasks": [{"id": "a"}]},
        {
            "fingerprint": "f",
            "tasks": [{"id": "a", "retry": RETRY, "payloadSchema": {"type": "object"}}],
            "queues": [{"name": "q", "concurrencyLimit": 1}],
            "runtime": "python",
            "runtimeVersion": "3.11.2",
            "git": {"commitSha": "abc", "dirty": False},
            "externalId": "web-1",
            "skipPromotion": True,
        },
    ],
    ("POST", "/api/v1/queues/{queue}/pause"): [{"type": "task", "action": "pause"}, {"action": "resume"}],
    ("POST", "/api/v1/queues/{queue}/concurrency/override"): [{"type": "id", "concurrencyLimit": 0}],
    ("POST", "/api/v1/queues/{queue}/concurrency/reset"): [{}, {"type": "custom"}],
    ("POST", "/api/v1/schedules"): [
        {"task": "a", "cron": "0 9 * * *", "deduplicationKey": "k"},
        {
            "task": "a",
            "cron": "0 0 L * 5L",
            "deduplicationKey": "k",
            "externalId": "user_42",
            "timezone": "Europe/Paris",
            "window": "30%",
        },
    ],
    ("PUT", "/api/v1/schedules/{schedule}"): [
        {"task": "a", "cron": "@daily"},
        {"task": "a", "cron": "@daily", "externalId": "user_42", "timezone": "UTC", "window": "2h"},
    ],
    ("POST", "/api/v1/bulk-actions"): [
        {"action": "cancel", "filter": {"tag": "a", "from": 1, "status": ["QUEUED"]}, "name": "tidy"},
        {"action": "replay", "runIds": ["run_x"], "targetRegion": "eu"},
    ],
    ("POST", "/api/v1/projects/{project}/envvars/{environment}"): [
        {"name": "A", "value": ""},
        {"name": "A", "value": "x", "isSecret": True},
    ],
    ("PUT", "/api/v1/projects/{project}/envvars/{environment}/{name}"): [{"value": "x"}],
    ("POST", "/api/v1/projects/{project}/envvars/{environment}/import"): [
        {
            "variables": {"A": "x"},
            "parentVariables": {},
            "override": True,
            "isSecret": False,
            "source": {"type": "user", "userId": "u"},
        }
    ],
    ("POST", "/api/v1/workers"): [
        {
            "name": "w",
            "fingerprint": "f",
            "tasks": [{"id": "a", "retry": RETRY, "payloadSchema": {"type": "object"}}],
            "queues": [{"name": "q", "concurrencyLimit": 1}],
        }
    ],
    ("POST", "/api/v1/workers/{worker}/claim"): [{"slots": 5, "waitMs": 1_000}],
    ("POST", "/api/v1/workers/{worker}/journal"): [{"run": "run_x", "lease": 3, "after": 0}],
    ("POST", "/api/v1/workers/{worker}/heartbeat"): [{}, {"held": ["run_x"]}],
    ("POST", "/api/v1/workers/{worker}/reports"): [
        {
            "reports": [
                {"kind": "succeeded", **LEASE, "output": "1"},
                {"kind": "failed", **LEASE, "error": ERROR, "retryDelayMs": None},
                {
                    "kind": "failed",
                    **LEASE,
                    "error": ERROR,
                    "retryDelayMs": 5,
                    "forget": [0],
                    "operations": 2,
                },
                {"kind": "crashed", **LEASE, "error": ERROR, "shared": True},
                {
                    "kind": "suspended",
                    **LEASE,
                    "activeMs": 5,
                    "waits": [
                        {"on": "time", "dueAt": 1, "wake": "any"},
                        {"on": "run", "id": "run_x", "wake": "failure", "group": 1},
                        {"on": "token", "id": "waitpoint_x", "wake": "last"},
                    ],
                },
                {"kind": "entries", **LEASE, "first": 0, "entries": [ENTRY, {**ENTRY, "delayMs": 5}]},
                {"kind": "triggers", **LEASE, "first": 1, **CALL, "items": [{"task": "a", **TRIGGER}]},
                {"kind": "token", **LEASE, "first": 2, **CALL, "timeout": "1h", "tags": ["a"]},
                {"kind": "started", **LEASE},
                {"kind": "released", **LEASE, "started": False},
                {"kind": "closed", **LEASE},
                {"kind": "metadata", **LEASE, "operations": []},
                {"kind": "tags", **LEASE, "tags": ["a"]},
                {
                    "kind": "logs",
                    **LEASE,
                    "records": [{"at": 1, "level": "INFO", "logger": "a", "message": "b"}],
                },
            ]
        }
    ],
}
COUNTER_EXAMPLES: dict[tuple[str, str], list[Any]] = {
    ("POST", "/api/v1/tasks/{task}/trigger"): [[], {"options": {"maxAttempts": 0}}],
    ("POST", "/api/v1/tasks/batch"): [{}, {"items": [{"payload": 1}]}],
    ("POST", "/api/v2/tasks/batch"): [{}, {"items": [{"payload": 1}]}],
    ("POST", "/api/v3/batches"): [
        {},
        {"runCount": 0},
        {"runCount": 1_001},
        {"runCount": 1, "idempotencyKey": ""},
    ],
    ("POST", "/api/v1/runs/{run}/replay"): [{"colour": "red"}],
    ("POST", "/api/v1/bulk-actions"): [{"action": "cancel", "filter": {"colour": "red"}}, {"runIds": []}],
    ("POST", "/api/v1/auth/public-tokens"): [{}, {"scopes": []}, {"scopes": "admin"}],
    ("POST", "/api/v1/schedules"): [
        {"task": "a", "cron": "@daily"},
        {"cron": "@daily", "deduplicationKey": "k"},
    ],
    ("PUT", "/api/v1/schedules/{schedule}"): [{"task": "a"}, {"task": "a", "cron": "@daily", "window": 30}],
    ("POST", "/api/v1/workers/{worker}/claim"): [{"slots": -1, "waitMs": 0}],
    ("POST", "/api/v1/workers/{worker}/reports"): [
        {"reports": [{"kind": "vanished", **LEASE}]},
        {"reports": [{"kind": "entries", **LEASE, "first": 0, "entries": []}]},
        {"reports": [{"kind": "suspended", **LEASE, "activeMs": 0, "waits": []}]},
    ],
}


async def document(world: World) -> dict[str, Any]:
    return await ok(world.dev.get("/openapi.json"))


def pointer(method: str, path: str) -> str:
    escaped = path.replace("~", "~0").replace("/", "~1").replace("{", "%7B").replace("}", "%7D")
    return f"#/paths/{escaped}/{method.lower()}/requestBody/content/application~1json/schema"


async def test_every_route_is_named_with_its_method_and_parameters(world: World):
    described = await document(world)
    assert described["openapi"] == "3.1.0"
    named = {(method.upper(), path) for path, item in described["paths"].items() for method in item}
    assert named == {(endpoint.method, endpoint.path) for endpoint in ENDPOINTS}
    for endpoint in ENDPOINTS:
        operation = described["paths"][endpoint.path][endpoint.method.lower()]
        parameters = {(parameter["in"], parameter["name"]) for parameter in operation["parameters"]}
        expected = {("path", name) for name in re.findall(r"{(\w+)}", endpoint.path)}
        expected |= {("query", name) for name in endpoint.query}
        if endpoint.sdk_answer is not None:
            expected.add(("header", "x-trigger-api-version"))
        assert parameters == expected
        assert operation["summary"]
        assert ("requestBody" in operation) == (endpoint.body is not None)


async def test_operation_ids_are_unique(world: World):
    described = await document(world)
    ids = [operation["operationId"] for item in described["paths"].values() for operation in item.values()]
    assert len(set(ids)) == len(ids)


async def test_every_reference_leads_somewhere(world: World):
    described = await document(world)
    schemas = described["components"]["schemas"]
    references = re.findall(
        r'"\$ref":"#/components/schemas/(\w+)"', (await world.dev.get("/openapi.json")).text
    )
    assert references
    assert set(references) <= set(schemas)


def test_every_route_with_a_body_has_an_example():
    assert set(EXAMPLES) == {(each.method, each.path) for each in ENDPOINTS if each.body is not None}


@pytest.mark.parametrize(("method", "path"), EXAMPLES)
def test_the_shapes_take_the_examples_and_refuse_the_others(method: str, path: str):
    described = openapi.document(ENDPOINTS, "0")
    validator = jsonschema_rs.Draft202012Validator({**described, "$ref": pointer(method, path)})
    for example in EXAMPLES[method, path]:
        validator.validate(example)
    for example in COUNTER_EXAMPLES.get((method, path), []):
        assert not validator.is_valid(example)


async def test_every_error_answer_fits_the_error_schema(world: World):
    schema = (await document(world))["components"]["schemas"]["Error"]
    validator = jsonschema_rs.Draft202012Validator(schema)
    for response in (
        await world.dev.get("/nope"),
        await world.dev.delete("/api/v1/runs"),
        await world.dev.get("/api/v1/runs?filter[x]=1"),
        await world.dev.post("/api/v1/workers", json={"tasks": [{}]}),
    ):
        validator.validate(response.json())
