"""The server's side of the worker protocol in memory, as a worker sees it over `worker.api.Api`.

It keeps what a test asks about (outcomes, logs, metadata), hands out leases, fences old ones, grants
retries in process, and can be told to fail. It is a partner for the supervisor, not a model of the engine.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from dataclasses import dataclass, field
from typing import Any

from holdfast.errors import ServerUnreachable


@dataclass
class ServedRun:
    id: str
    task: str
    payload: Any
    max_attempts: int = 3
    max_duration: int | None = None
    alone: bool = False
    status: str = "queued"  # queued, executing, sleeping, suspended, cancelled, closed, done
    lease: int = 0
    attempt: int = 0
    worker: str | None = None
    journal: list[dict[str, Any]] = field(default_factory=list)
    active_ms: int = 0
    resumes: int = 0
    resumed: bool = False  # the next claim goes on with the attempt that was suspended
    outcome: dict[str, Any] | None = None  # the report that ended it
    reports: list[dict[str, Any]] = field(default_factory=list)

    @property
    def kinds(self) -> list[str]:
        return [report["kind"] for report in self.reports]

    @property
    def log_lines(self) -> list[tuple[str, str, str]]:
        return [
            (record["level"], record["logger"], record["message"])
            for report in self.reports
            if report["kind"] == "logs"
            for record in report["records"]
        ]


class ProtocolServer:
    def __init__(self, lease_ms: int = 15_000) -> None:
        self.lease_ms = lease_ms
        self.runs: dict[str, ServedRun] = {}
        self.ready: list[ServedRun] = []
        self.workers: dict[str, dict[str, Any]] = {}
        self.gone: list[str] = []
        self.heartbeats = 0
        self.claims = 0
        self.report_calls = 0
        self.is_down = False
        self.variables: dict[str, str] = {}
        self.variable_calls = 0
        self.refuse_variables: int | None = None  # the status
        self.refuse_heartbeats = False
        self.fail_next_claim: int | None = None  # the status after runs were given; 0: no answer at all
        self.changed = asyncio.Condition()
        self._numbers = itertools.count(1)

    # ---- for tests

    async def trigger(self, task: str, payload: Any = None, **options: Any) -> ServedRun:
        run = ServedRun(f"run_{next(self._numbers)}", task, payload, **options)
        self.runs[run.id] = run
        self.ready.append(run)
        await self._notify()
        return run

    async def trigger_many(self, task: str, count: int) -> list[ServedRun]:
        runs = [ServedRun(f"run_{next(self._numbers)}", task, None) for _ in range(count)]
        self.runs.update((run.id, run) for run in runs)
        self.ready.extend(runs)
        await self._notify()
        return runs

    async def resume(self, run: ServedRun) -> None:
        """What a suspended run waited for has ended."""
        assert run.status == "suspended"
        run.resumes += 1
        run.resumed = True
        self._requeue(run)
        await self._notify()

    async def cancel(self, run: ServedRun) -> None:
        run.status = "cancelled" if run.worker else "closed"
        run.lease += 1
        await self._notify()

    async def until(self, condition: Any, seconds: float = 20.0) -> None:
        """Wait until `condition()` holds; fails the test at the deadline."""
        async with asyncio.timeout(seconds):
            async with self.changed:
                await self.changed.wait_for(condition)

    async def ended(self, *runs: ServedRun, seconds: float = 20.0) -> None:
        await self.until(lambda: all(run.status in ("done", "closed") for run in runs), seconds)

    # ---- what a worker calls

    async def post(
        self, path: str, body: bytes, timeout: float, *, urgent: bool = False
    ) -> tuple[int, bytes]:
        await asyncio.sleep(0)
        if self.is_down:
            raise ServerUnreachable("connection refused")
        message = json.loads(body)
        if path == "/api/v1/workers":
            return self._answer(self._register(message))
        if path == "/api/v1/workers/variables":
            self.variable_calls += 1
            await self._notify()
            if self.refuse_variables is not None:
                return self.refuse_variables, b'{"error":"no key to open them","code":"no_master_key"}'
            return self._answer({"variables": self.variables})
        _, _, _, _, worker, action = path.split("/")
        if worker not in self.workers:
            return 404, b'{"error":"Worker not found","code":"worker_not_found"}'
        if action == "heartbeat":
            if self.refuse_heartbeats:
                raise ServerUnreachable("connection refused")
            self.heartbeats += 1
            await self._notify()
            return self._answer({"leaseMs": self.lease_ms})
        if action == "claim":
            answer = await self._claim(worker, message["slots"], message["waitMs"] / 1_000)
            if self.fail_next_claim is not None and answer["runs"]:
                status, self.fail_next_claim = self.fail_next_claim, None
                if status:
                    return status, b'{"error":"The database does not answer","code":"store_unavailable"}'
                raise ServerUnreachable("connection reset")
            await self._notify()
            return self._answer(answer)
        if action == "journal":
            run = self.runs[message["run"]]
            if run.lease != message["lease"]:
                return 409, b'{"error":"Fenced","code":"fenced"}'
            page = run.journal[message["after"] :]
            return self._answer({"entries": page, "more": False, "operations": 0})
        assert action == "reports"
        self.report_calls += 1
        answers = [self._report(report) for report in message["reports"]]
        await self._notify()
        return self._answer({"answers": answers})

    async def delete(self, path: str, timeout: float) -> tuple[int, bytes]:
        worker = path.rpartition("/")[2]
        self.workers.pop(worker, None)
        self.gone.append(worker)
        self._return_runs_of(worker)
        await self._notify()
        return 200, b"{}"

    async def close(self) -> None:
        return None

    def _answer(self, value: Any) -> tuple[int, bytes]:
        return 200, json.dumps(value).encode()

    async def _notify(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    def _register(self, registration: dict[str, Any]) -> dict[str, Any]:
        worker = f"worker_{next(self._numbers)}"
        self.workers[worker] = registration
        if "replaces" in registration:
            self.workers.pop(registration["replaces"], None)
            self._return_runs_of(registration["replaces"])
        return {
            "workerId": worker,
            "version": "20261124.1",
            "environment": "dev",
            "leaseMs": self.lease_ms,
            "variables": self.variables,
        }

    def _return_runs_of(self, worker: str) -> None:
        for run in self.runs.values():
            if run.worker == worker and run.status in ("executing", "sleeping"):
                self._requeue(run)
            elif run.worker == worker and run.status == "cancelled":
                run.status = "closed"

    def _requeue(self, run: ServedRun) -> None:
        run.status, run.worker = "queued", None
        run.lease += 1
        self.ready.append(run)

    async def _claim(self, worker: str, slots: int, wait: float) -> dict[str, Any]:
        self.claims += 1

        def cancelled() -> list[ServedRun]:
            return [run for run in self.runs.values() if run.status == "cancelled" and run.worker == worker]

        self.ready = [run for run in self.ready if run.status == "queued"]
        if not (slots and self.ready) and not cancelled():
            try:
                async with asyncio.timeout(wait):
                    async with self.changed:
                        await self.changed.wait_for(lambda: bool((slots and self.ready) or cancelled()))
            except TimeoutError:
                pass
        taken, self.ready = self.ready[:slots], self.ready[slots:]
        for run in taken:
            run.status, run.worker = "executing", worker
            run.lease += 1
            run.attempt += not run.resumed
        claimed = [self._claimed(run) for run in taken if run.status == "executing"]
        for run in taken:
            run.resumed = False
        return {
            "runs": claimed,
            "cancelled": [{"id": run.id, "lease": run.lease} for run in cancelled()],
            "now": int(time.time() * 1_000),
        }

    def _claimed(self, run: ServedRun) -> dict[str, Any]:
        return {
            "id": run.id,
            "lease": run.lease,
            "task": run.task,
            "attempt": run.attempt,
            "maxAttempts": run.max_attempts,
            "maxDuration": run.max_duration,
            "payload": None if run.payload is None else json.dumps(run.payload),
            "tags": [],
            "metadata": {},
            "queue": f"task/{run.task}",
            "concurrencyKey": "",
            "isTest": False,
            "alone": run.alone,
            "createdAt": 1_764_000_000_000,
            "startedAt": 1_764_000_000_000,
            "parentId": None,
            "rootId": None,
            "entries": len(run.journal),
            "journal": list(run.journal) or None,
            "resumes": run.resumes,
            "resumed": run.resumed,
            "activeMs": run.active_ms,
            "operations": 0,
        }

    def _report(self, report: dict[str, Any]) -> dict[str, Any]:
        run = self.runs[report["run"]]
        if report["lease"] != run.lease or run.status in ("done", "closed"):
            return {"status": "fenced"}
        run.reports.append(report)
        kind = report["kind"]
        if kind in ("logs", "metadata", "tags"):
            return {"status": "ok"}
        if kind == "entries":
            assert report["first"] == len(run.journal), "it did not know what is recorded"
            now = int(time.time() * 1_000)
            for entry in report["entries"]:
                delay = entry.pop("delayMs", None)
                run.journal.append(entry if delay is None else {**entry, "value": str(now + delay)})
            stored = run.journal[report["first"] :]
            values = [entry["value"] if entry["kind"] == "sleep" else None for entry in stored]
            return {"status": "ok", "now": now, "values": values}
        if report.get("forget"):
            value = json.dumps(report["forget"])
            head = {"scope": "", "kind": "forget", "name": "", "args": None, "ok": True, "ref": None}
            run.journal.append({**head, "value": value})
        if kind == "suspended":
            run.status, run.worker, run.active_ms = "suspended", None, report["activeMs"]
            return {"status": "ok"}
        if kind == "closed":
            assert run.status == "cancelled"
            run.status = "closed"
        elif kind == "released":
            run.attempt -= 1
            self._requeue(run)
        elif kind == "failed" and report["retryDelayMs"] is not None and run.attempt < run.max_attempts:
            run.status = "sleeping"
            run.lease += 1
            answer = {"lease": run.lease, "attempt": run.attempt + 1, "delayMs": report["retryDelayMs"]}
            return {"status": "retry", **answer}
        elif kind == "started":
            run.status = "executing"
            run.lease += 1
            run.attempt += 1
            return {"status": "started", "lease": run.lease, "attempt": run.attempt}
        elif kind == "crashed" and report["shared"]:
            run.alone = True
            run.attempt -= 1
            self._requeue(run)
        else:
            run.status, run.outcome = "done", report
        return {"status": "ok"}
