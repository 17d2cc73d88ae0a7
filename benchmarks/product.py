"""The whole product: real server, worker and executor processes, over HTTP."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx2
import psutil

from benchmarks.machine import asking, cpu_seconds, memory_mb, percentile

KEY = "tr_dev_benchmarks_only"
CONCURRENCY = 1_000
JOBS = str(Path(__file__).with_name("jobs.py"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Product:
    """A server process and, when asked for, a worker process beside it."""

    def __init__(self, url: str) -> None:
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self._environ = {
            **os.environ,
            "HOLDFAST_SECRET_KEY": KEY,
            "HOLDFAST_API_URL": self.address,
            "HOLDFAST_DATABASE_URL": url,
        }
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed by stop
        self._processes: list[subprocess.Popen[bytes]] = []
        self.server = self._start("server", "--port", str(self.port))
        self.worker: psutil.Process | None = None
        self.client = httpx2.Client(
            base_url=self.address, headers={"Authorization": f"Bearer {KEY}"}, timeout=60, trust_env=False
        )
        self._await_ready()

    def start_worker(self, tasks: str = JOBS, places: int = CONCURRENCY) -> None:
        self.worker = self._start("worker", tasks, "--concurrency", str(places))

    def stop_worker(self) -> None:
        assert self.worker is not None
        process = self._processes.pop()
        process.terminate()
        process.wait(40)
        self.worker = None

    def register(self) -> tuple[float, float]:
        """A worker comes and goes, so that the tasks are known and runs are queued at once.

        Answers the CPU seconds that starting costs the supervisor and its executors.
        """
        self.start_worker()
        self.result(self.trigger("noop", 0))
        assert self.worker is not None
        cost = cpu_seconds(self.worker), sum(map(cpu_seconds, self.worker.children(recursive=True)))
        self.stop_worker()
        return cost

    def processes(self) -> list[psutil.Process]:
        roots = [self.server] + ([self.worker] if self.worker else [])
        return [process for root in roots for process in (root, *root.children(recursive=True))]

    def enqueue(self, count: int) -> float:
        """Triggers `count` no-op runs by batches of 1,000; runs a second."""
        begun = time.perf_counter()
        for first in range(0, count, 1_000):
            self.trigger_many("noop", range(first, min(count, first + 1_000)))
        return count / (time.perf_counter() - begun)

    def trigger_many(self, task: str, payloads: Sequence[object]) -> None:
        items = [{"task": task, "payload": payload} for payload in payloads]
        self.client.post("/api/v1/tasks/batch", json={"items": items}).raise_for_status()

    def trigger(self, task: str, payload: object) -> str:
        answer = self.client.post(f"/api/v1/tasks/{task}/trigger", json={"payload": payload})
        return str(answer.raise_for_status().json()["id"])

    def result(self, run_id: str) -> object:
        for _ in range(10):
            answer = self.client.get(f"/api/v1/runs/{run_id}/result", params={"waitMs": 20_000})
            if answer.status_code == 200:
                return json.loads(answer.json()["output"])
        raise TimeoutError(run_id)

    def unfinished(self) -> int:
        """Whether anything is queued or executing: one page is enough to know."""
        query = {"filter[status]": "QUEUED,EXECUTING,REATTEMPTING,WAITING_FOR_DEPLOY", "page[size]": "1"}
        return len(self.client.get("/api/v1/runs", params=query).raise_for_status().json()["data"])

    def stop(self) -> None:
        self.client.close()
        for process in reversed(self._processes):
            process.terminate()
        for process in reversed(self._processes):
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._log.close()

    def _start(self, *arguments: str) -> psutil.Process:
        process = subprocess.Popen(
            [sys.executable, "-m", "holdfast", *arguments],
            env=self._environ,
            stdout=self._log,
            stderr=self._log,
        )
        self._processes.append(process)
        return psutil.Process(process.pid)

    def _await_ready(self) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                if self.client.get("/readyz").status_code == 200:
                    return
            except httpx2.TransportError:
                time.sleep(0.05)
        raise TimeoutError("the server did not become ready")


@contextmanager
def product(url: str) -> Iterator[Product]:
    running = Product(url)
    try:
        yield running
    finally:
        running.stop()


def throughput(url: str, count: int = 20_000) -> dict[str, float]:
    """W1: no-op runs a second, enqueued before the worker starts; timed from the first start to the last end."""
    with product(url) as running:
        supervisor, executors = running.register()
        enqueued = running.enqueue(count)
        server = cpu_seconds(running.server)
        running.start_worker()
        while running.unfinished():
            time.sleep(0.05)
        assert running.worker is not None
        server = cpu_seconds(running.server) - server
        supervisor = cpu_seconds(running.worker) - supervisor
        executors = sum(map(cpu_seconds, running.worker.children(recursive=True))) - executors
        return {
            "runs/s": count / _span(url),
            "enqueued/s": enqueued,
            "server us/run": server / count * 1e6,
            "supervisor us/run": supervisor / count * 1e6,
            "executors us/run": executors / count * 1e6,
        }


def _span(url: str) -> float:
    """Seconds from the first start to the last end."""
    with asking(url) as ask:
        return ask("select max(finished_at) - min(started_at) from runs where batch_id is not null") / 1_000


def latency(url: str, count: int = 300) -> tuple[float, float]:
    """W3: milliseconds from the trigger call to the first line of the task, idle machine: p50, p99."""
    with product(url) as running:
        running.start_worker()
        running.result(running.trigger("stamp", time.time()))
        connection = http.client.HTTPConnection("127.0.0.1", running.port)
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        runs = []
        for _ in range(count):
            body = json.dumps({"payload": time.time()})
            connection.request("POST", "/api/v1/tasks/stamp/trigger", body, headers)
            runs.append(json.loads(connection.getresponse().read())["id"])
            time.sleep(0.03)
        connection.close()
        found = [float(str(running.result(run_id))) for run_id in runs]
        return percentile(found, 0.5), percentile(found, 0.99)


def http_triggers(url: str, count: int = 12_800) -> dict[int, tuple[float, float]]:
    """W2 over HTTP: single triggers a second and the 99th percentile of their milliseconds, at 1 and 64 connections.

    By a client that costs next to nothing.
    """
    body = b'{"payload":1}'
    request = (
        f"POST /api/v1/tasks/noop/trigger HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body

    async def caller(port: int, calls: int, times: list[float]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(calls):
            begun = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
            await reader.readexactly(int(length.split(b":")[1]))
            times.append((time.perf_counter() - begun) * 1_000)
        writer.close()

    async def many(port: int, connections: int) -> tuple[float, float]:
        times: list[float] = []
        calls = count // 64 if connections > 1 else count // 4
        begun = time.perf_counter()
        await asyncio.gather(*(caller(port, calls, times) for _ in range(connections)))
        return calls * connections / (time.perf_counter() - begun), sorted(times)[len(times) * 99 // 100]

    with product(url) as running:
        return {connections: asyncio.run(many(running.port, connections)) for connections in (1, 64)}


def memory(url: str, queued: int = 10_000) -> tuple[float, float, float]:
    """MB of server and supervisor at rest, executors at rest, and what `queued` more runs add to the server."""
    with product(url) as running:
        running.start_worker()
        running.result(running.trigger("noop", 1))
        assert running.worker is not None
        rest = memory_mb(running.server, running.worker)
        executors = memory_mb(*running.worker.children(recursive=True))
        before = memory_mb(running.server)
        for first in range(0, queued, 1_000):
            items = [
                {"task": "noop", "payload": number, "options": {"delay": "1h"}}
                for number in range(first, first + 1_000)
            ]
            running.client.post("/api/v1/tasks/batch", json={"items": items}).raise_for_status()
        return rest, executors, memory_mb(running.server) - before


def growth(url: str, count: int = 200_000) -> tuple[float, float]:
    """MB of server and supervisor after a tenth of `count` runs, and after all of them."""
    with product(url) as running:
        running.start_worker()
        running.result(running.trigger("noop", 1))
        assert running.worker is not None
        found = []
        for share in (count // 10, count - count // 10):
            running.enqueue(share)
            while running.unfinished():
                time.sleep(0.2)
            found.append(memory_mb(running.server, running.worker))
        return found[0], found[1]
