"""Schemathesis walks the OpenAPI document over real sockets: no answer of 5xx, every answer as it is described."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from conformance.run import served
from holdfast.server import ENDPOINTS, openapi
from server.world import Names

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
DOCUMENT = openapi.document(ENDPOINTS, "test")
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
OPERATIONS = {operation.ok().label: operation.ok() for operation in SCHEMA.get_all_operations()}


@dataclass(frozen=True, slots=True)
class Running:
    url: str
    headers: dict[str, str]


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    """`holdfast dev`, in processes of its own: Hypothesis minds others that use chance beside it."""
    with served("sqlite") as environment:
        key = environment["TRIGGER_SECRET_KEY"]
        yield Running(environment["TRIGGER_API_URL"], {"authorization": f"Bearer {key}"})


@pytest.fixture(scope="module")
def names(running: Running) -> Names:
    """What exists on the server, for the parameters of paths."""
    with httpx2.Client(base_url=running.url, headers=running.headers) as client:

        def made(path: str, body: dict[str, Any]) -> dict[str, Any]:
            answer = client.post(path, json=body)
            assert answer.is_success, answer.text
            found: dict[str, Any] = answer.json()
            return found

        worker = made("/api/v1/workers", {"name": "w", "fingerprint": "f", "tasks": [{"id": "echo"}]})
        run = made("/api/v1/tasks/echo/trigger", {"payload": {"a": 1}, "options": {"tags": ["t"]}})
        token = made("/api/v1/waitpoints/tokens", {})
        batch = made("/api/v1/tasks/batch", {"items": [{"task": "echo"}]})
        schedule = made("/api/v1/schedules", {"task": "echo", "cron": "0 9 * * *", "deduplicationKey": "k"})
        return Names(
            run=run["id"],
            worker=worker["workerId"],
            token=token["id"],
            batch=batch["batchId"],
            schedule=schedule["id"],
            task="echo",
        )


@pytest.mark.parametrize("label", sorted(OPERATIONS))
def test_every_answer_is_as_described(running: Running, names: Names, label: str) -> None:
    strategy = OPERATIONS[label].as_strategy()

    @settings(
        max_examples=20,
        suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(st.booleans(), strategy)
    def ask(known: bool, case: Any) -> None:
        if known:
            case.path_parameters = {name: names[name] for name in case.path_parameters or {}}
        if case.query and "waitMs" in case.query:  # what is held back for long tells nothing more
            case.query = {**case.query, "waitMs": "0"}
        if isinstance(case.body, dict) and "waitMs" in case.body:
            case.body = {**case.body, "waitMs": 0}
        response = case.call(base_url=running.url, headers=running.headers, timeout=20)
        case.validate_response(response, checks=CHECKS)

    ask()
