"""What the tests of the server share: a movable clock, clients for two environments, a worker in the hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2

from holdfast.engine import Engine

START_MS = 1_800_000_000_000  # 2027-01-15T08:00:00Z
START = "2027-01-15T08:00:00.000Z"
DEV_KEY = "tr_dev_0123456789abcdef"
PROD_KEY = "tr_prod_0123456789abcdef"
KEYS = {DEV_KEY: "dev", PROD_KEY: "prod"}
SDK = {"x-trigger-api-version": "2025-07-16"}  # what the official SDK says of itself
ERROR = {"type": "BUILT_IN_ERROR", "name": "ValueError", "message": "no", "stackTrace": "line 1"}


@dataclass(slots=True)
class Clock:
    """The store's clock, in epoch milliseconds."""

    now: int = START_MS

    def __call__(self) -> int:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += round(seconds * 1_000)


@dataclass(slots=True)
class World:
    """A server in this process: its engine, its clock, and clients with the keys of two environments."""

    engine: Engine
    clock: Clock
    dev: httpx2.AsyncClient
    prod: httpx2.AsyncClient
    app: Any

    async def later(self, seconds: float) -> None:
        """Moves the clock and lets upkeep do what is due then."""
        self.clock.advance(seconds)
        await self.engine.upkeep()

    async def worker(
        self,
        *tasks: str | dict[str, Any],
        client: httpx2.AsyncClient | None = None,
        queues: Sequence[str] = (),
    ) -> Worker:
        """A registered worker that has these tasks and queues; runs that waited for them are in the queue."""
        client = client or self.dev
        specs = [{"id": task} if isinstance(task, str) else task for task in tasks]
        registered = await ok(
            client.post(
                "/api/v1/workers",
                json={
                    "name": "w",
                    "fingerprint": "f",
                    "tasks": specs,
                    "queues": [{"name": queue} for queue in queues],
                },
            )
        )
        await self.engine.upkeep()
        return Worker(client, registered["workerId"], registered["version"])


@dataclass(slots=True)
class Worker:
    """A worker that does only what a test tells it."""

    client: httpx2.AsyncClient
    id: str
    version: str
    held: dict[str, int] = field(default_factory=dict)  # run -> lease

    async def claim(self, slots: int = 100, wait_ms: int = 0) -> list[dict[str, Any]]:
        answer = await ok(
            self.client.post(f"/api/v1/workers/{self.id}/claim", json={"slots": slots, "waitMs": wait_ms})
        )
        self.held |= {run["id"]: run["lease"] for run in answer["runs"]}
        runs: list[dict[str, Any]] = answer["runs"]
        return runs

    async def cancelled(self) -> list[dict[str, Any]]:
        answer = await ok(
            self.client.post(f"/api/v1/workers/{self.id}/claim", json={"slots": 0, "waitMs": 0})
        )
        runs: list[dict[str, Any]] = answer["cancelled"]
        return runs

    async def report(self, *reports: dict[str, Any]) -> list[dict[str, Any]]:
        answer = await ok(
            self.client.post(f"/api/v1/workers/{self.id}/reports", json={"reports": list(reports)})
        )
        answers: list[dict[str, Any]] = answer["answers"]
        return answers

    async def say(self, kind: str, run: str, lease: int | None = None, **fields: Any) -> dict[str, Any]:
        """Reports about a run it holds; answers that report's answer and goes on under the new lease."""
        [answer] = await self.report(
            {"kind": kind, "run": run, "lease": self.held[run] if lease is None else lease, **fields}
        )
        if "lease" in answer:
            self.held[run] = answer["lease"]
        return answer

    async def succeed(self, run: str, output: str | None = "null") -> None:
        assert await self.say("succeeded", run, output=output) == {"status": "ok"}

    async def fail(self, run: str, delay_ms: int | None = None) -> dict[str, Any]:
        return await self.say("failed", run, error=ERROR, retryDelayMs=delay_ms)


async def ok(answer: Any) -> dict[str, Any]:
    """The body of an answer that must be 200."""
    response = await answer
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


async def refused(answer: Any, status: int, code: str, *, param: str | None = None) -> dict[str, Any]:
    """The body of an answer that must be this error, in the one error shape."""
    response = await answer
    assert response.status_code == status, response.text
    body = error_shape(response)
    assert body["code"] == code, body
    if param is not None:
        assert body["param"] == param, body
    return body


def error_shape(response: httpx2.Response) -> dict[str, Any]:
    """The body of an error answer, held to the one shape of the whole API."""
    assert response.headers["content-type"] == "application/json"
    body: dict[str, Any] = response.json()
    assert isinstance(body["error"], str)
    assert body["error"]
    assert isinstance(body["code"], str)
    assert body["code"].isidentifier()
    assert set(body) <= {"error", "code", "param", "details", "type"}
    assert isinstance(body.get("param", ""), str)
    for detail in body.get("details", []):
        assert set(detail) == {"path", "message"}
    assert "Traceback" not in response.text
    return body


async def trigger(client: httpx2.AsyncClient, task: str = "echo", payload: Any = None, **options: Any) -> str:
    """Triggers a run; answers its id."""
    body = {"payload": payload, "options": options}
    answer = await ok(client.post(f"/api/v1/tasks/{task}/trigger", json=body))
    run: str = answer["id"]
    return run


async def read(client: httpx2.AsyncClient, run: str) -> dict[str, Any]:
    """The run structure."""
    return await ok(client.get(f"/api/v3/runs/{run}"))


class Names(dict[str, str]):
    """A name for each parameter of a path; what is not listed is `other`."""

    def __init__(self, other: str = "x", **known: str) -> None:
        super().__init__(known)
        self.other = other

    def __missing__(self, name: str) -> str:
        return self.other
