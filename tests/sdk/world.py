"""A real server on a free port, and a hand that runs what is queued, in threads of the test process."""

from __future__ import annotations

import asyncio
import threading
import traceback
from contextvars import copy_context
from pathlib import Path
from typing import Any

import httpx2
import uvicorn

from holdfast.engine import Engine
from holdfast.sdk import registry
from holdfast.sdk.context import CurrentRun, entered
from holdfast.server import create_app
from holdfast.server.vault import Vault
from holdfast.stores import open_store

KEY = "tr_dev_aaaaaaaaaaaaaaaaaaaa"
PROD_KEY = "tr_prod_aaaaaaaaaaaaaaaaaaaa"


class Session:
    """What an attempt told, kept for the test to look at."""

    durable = None
    repeats_changes = False

    def __init__(self, run_id: str = "run_1", lease: int = 1) -> None:
        self.lease = (run_id, lease)
        self.told: list[tuple[list[Any], list[Any], list[Any]]] = []
        self.tagged: list[str] = []

    def metadata(self, own: list[Any], parent: list[Any], root: list[Any]) -> bool:
        self.told.append((own, parent, root))
        return True

    def tags(self, tags: list[str]) -> None:
        self.tagged += tags


def claimed(**changes: Any) -> Any:
    """A claimed run as the server tells it."""
    run = {
        "id": "run_1",
        "lease": 1,
        "task": "work",
        "attempt": 1,
        "maxAttempts": 3,
        "maxDuration": None,
        "payload": None,
        "tags": [],
        "metadata": {},
        "queue": "task/work",
        "concurrencyKey": "",
        "isTest": False,
        "alone": False,
        "createdAt": 1_790_000_000_000,
        "startedAt": 1_790_000_001_000,
        "parentId": None,
        "rootId": None,
    }
    return {**run, **changes}


class Hand:
    """A worker of a few lines: claims, calls the function, reports. No retries, no hooks."""

    def __init__(self, url: str) -> None:
        self._client = httpx2.Client(base_url=url, headers={"authorization": f"Bearer {KEY}"}, timeout=30)
        told = [task.manifest() for task in registry.tasks().values()]
        queues = [queue.manifest() for queue in registry.queues().values()]
        body = {"name": "hand", "fingerprint": "f", "tasks": told, "queues": queues}
        answer = self._client.post("/api/v1/workers", json=body)
        assert answer.status_code == 200, answer.text
        self._path = f"/api/v1/workers/{answer.json()['workerId']}"
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._claim)]
        self._threads[0].start()

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._client.close()

    def _claim(self) -> None:
        while not self._stop.is_set():
            answer = self._client.post(f"{self._path}/claim", json={"slots": 50, "waitMs": 100}).json()
            for run in answer["runs"]:
                thread = threading.Thread(target=self._perform, args=(run,))
                self._threads.append(thread)
                thread.start()

    def _perform(self, run: dict[str, Any]) -> None:
        session = Session(run["id"], run["lease"])
        current = CurrentRun(run, "20260101.1", session)  # type: ignore[arg-type]  # as it was parsed
        task = registry.tasks()[run["task"]]
        head = {"run": run["id"], "lease": run["lease"]}
        try:
            args, kwargs = task.decode_payload(run["payload"], current)
            with entered(current):
                value = copy_context().run(task.fn, *args, **kwargs)
                value = asyncio.run(value) if task.is_async else value
            report = {"kind": "succeeded", **head, "output": task.encode_output(value)}
        except Exception as error:
            data = {"type": "BUILT_IN_ERROR", "name": type(error).__name__, "message": str(error)}
            data["stackTrace"] = traceback.format_exc()
            report = {"kind": "failed", **head, "error": data, "retryDelayMs": None}
        told = [
            {"kind": "metadata", **head, "operations": own, "parentOperations": up, "rootOperations": root}
            for own, up, root in session.told
        ]
        tagged = [{"kind": "tags", **head, "tags": session.tagged}] if session.tagged else []
        self._client.post(f"{self._path}/reports", json={"reports": [*told, *tagged, report]})


class Served:
    """The server. `hand()` registers the tasks known by then and works them off."""

    def __init__(self, folder: Path) -> None:
        self.engine = Engine(open_store(f"sqlite:///{folder}/runs.db"))
        app = create_app(self.engine, {KEY: "dev", PROD_KEY: "prod"}, vault=Vault(["a master key of a test"]))
        config = uvicorn.Config(app, port=0, log_level="critical", ws="none", loop="asyncio")
        self._server = uvicorn.Server(config)
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        assert self._started.wait(10)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._hands: list[Hand] = []

    def hand(self) -> Hand:
        self._hands.append(Hand(self.url))
        return self._hands[-1]

    def close(self) -> None:
        for hand in self._hands:
            hand.close()
        self._server.should_exit = True
        self._thread.join()
        self.engine.store.close()

    def _serve(self) -> None:
        async def serve() -> None:
            startup = self._server.startup

            async def told(sockets: Any = None) -> None:
                await startup(sockets)
                self._started.set()

            self._server.startup = told  # type: ignore[method-assign]  # to learn when it listens
            await self._server.serve()

        asyncio.run(serve())
