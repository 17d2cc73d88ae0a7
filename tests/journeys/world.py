"""A world of real processes: a server, workers, their executors, and HTTP on the wire between them and the test."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import psutil

from cli.world import KEY, Process, start_in
from holdfast.stores import open_store

T = TypeVar("T")
MARK = "JOURNEY_FOLDER"  # in the environment of every process of a world, also of those that were left behind
TASKS = str(Path(__file__).with_name("tasks.py"))
FINAL = {
    "COMPLETED_SUCCESSFULLY",
    "COMPLETED_WITH_ERRORS",
    "CANCELLED",
    "CRASHED",
    "FAILED_TO_RUN",
    "TIMED_OUT",
    "EXPIRED",
}


def until(found: Callable[[], T | None], what: str, seconds: float = 20.0) -> T:
    """What `found` answers as soon as it is true. Raises AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)
    return value


class World:
    """A database at `url`, a server over it, and any number of workers. `folder` is theirs to write to."""

    def __init__(self, folder: Path, url: str, key: str = KEY) -> None:
        self.folder = folder
        self.url = url
        self.key = key
        self.port = free_port()
        self.ledger = folder / "ledger"
        self.ledger.touch()
        self.server: Process | None = None
        self.workers: list[Process] = []
        self.client = httpx2.Client(
            base_url=f"http://127.0.0.1:{self.port}",
            headers={"Authorization": f"Bearer {key}"},
            timeout=30,
            trust_env=False,
        )

    # ---- processes

    def start_server(self, **variables: str) -> Process:
        """On the same port and database each time; returns when it is ready."""
        self.server = self.launch("server", "--port", str(self.port), "--json", **variables)
        self.server.ready()
        return self.server

    def start_worker(
        self, tasks: str = TASKS, *, executors: int = 2, concurrency: int = 20, **variables: str
    ) -> Process:
        """Returns when it takes runs."""
        options = ("--executors", str(executors), "--concurrency", str(concurrency), "--json")
        worker = self.launch("worker", tasks, *options, **variables)
        self.workers.append(worker)
        worker.ready()
        return worker

    def launch(self, *arguments: str, **variables: str) -> Process:
        """A command of the product in this world; it is not waited for."""
        defaults = {
            "HOLDFAST_SECRET_KEY": self.key,
            "HOLDFAST_API_URL": f"http://127.0.0.1:{self.port}",
            "HOLDFAST_DATABASE_URL": self.url,
            "HOLDFAST_LEASE": "3",
            "LEDGER": str(self.ledger),
            MARK: str(self.folder),
        }
        return start_in(self.folder, arguments, defaults | variables)

    def command(self, *arguments: str) -> str:
        """What a command of the product in this world prints, without the end of the line; it must succeed."""
        process = self.launch(*arguments)
        printed, _ = process.popen.communicate(timeout=30)
        assert process.popen.returncode == 0, process.errors.read_text()
        return printed.strip()

    def executors(self, worker: Process) -> list[psutil.Process]:
        """The executors of a worker that have loaded the tasks or are about to."""
        return psutil.Process(worker.popen.pid).children()

    def kill(self, process: Process) -> None:
        """SIGKILL, and gone."""
        process.end(signal.SIGKILL)

    def stop(self) -> None:
        """Ends everything. Raises AssertionError for a process that outlived its parent."""
        self.client.close()
        processes = [*self.workers, *([self.server] if self.server else [])]
        try:
            for process in processes:
                if process.popen.poll() is None:
                    process.popen.send_signal(signal.SIGTERM)
                    if process is not self.server:
                        process.popen.send_signal(signal.SIGTERM)
            for process in processes:
                process.end()
        finally:
            left = self.left_behind()
            for one in left:
                one.kill()
        assert not left, f"left behind: {left}"

    def left_behind(self) -> list[psutil.Process]:
        """Processes of this world that still run after a moment of grace."""
        deadline = time.monotonic() + 5
        while (left := self._alive()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return left

    def _alive(self) -> list[psutil.Process]:
        own = str(self.folder)
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == own and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found

    # ---- the wire

    def call(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """The JSON of an answer that must be 200."""
        answer = self.client.request(method, path, json=body, **options)
        assert answer.status_code == 200, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()

    def trigger(self, task: str, payload: Any = None, **options: Any) -> str:
        body = {"payload": payload, "options": options}
        return str(self.call("POST", f"/api/v1/tasks/{task}/trigger", body)["id"])

    def run(self, run_id: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.call("GET", f"/api/v3/runs/{run_id}")
        return answer

    def reaches(self, run_id: str, *statuses: str, seconds: float = 20.0) -> dict[str, Any]:
        """The run once it is in one of these statuses; a final one that is none of them fails at once."""

        def look() -> dict[str, Any] | None:
            run = self.run(run_id)
            assert run["status"] in statuses or run["status"] not in FINAL, run
            return run if run["status"] in statuses else None

        return until(look, f"{run_id} reaches {statuses}", seconds)

    def ends(self, run_id: str, seconds: float = 20.0) -> dict[str, Any]:
        """The run once it has ended."""
        return self.reaches(run_id, *FINAL, seconds=seconds)

    def cancel(self, run_id: str) -> None:
        self.call("POST", f"/api/v2/runs/{run_id}/cancel")

    def logs(self, run_id: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.call("GET", f"/api/v1/runs/{run_id}/logs")["data"]
        return found

    # ---- evidence

    def entries(self) -> list[list[str]]:
        """What tasks wrote in the ledger: the words of each line."""
        return [line.split() for line in self.ledger.read_text().splitlines()]

    def begun_count(self) -> int:
        """How many attempts have begun."""
        return self.ledger.read_bytes().count(b"\n")

    def begun(self, run_id: str, times: int = 1, seconds: float = 20.0) -> list[list[str]]:
        """The lines of a run's attempts, as soon as there are so many."""

        def look() -> list[list[str]] | None:
            lines = [words for words in self.entries() if words[0] == run_id]
            return lines if len(lines) >= times else None

        return until(look, f"{times} lines of {run_id}", seconds)

    def stuck(self) -> Sequence[Any]:
        """The audit of invariant I11, beside the running server."""
        store = open_store(self.url, migrate=False)
        try:
            [rows] = store.transact(lambda tx, _: [tx.all("stuck_runs")], [None])
            return rows
        finally:
            store.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def world(folder: Path, url: str, key: str = KEY) -> Iterator[World]:
    """A world without processes yet. At its end nothing may be stuck, and no process left."""
    made = World(folder, url, key)
    try:
        yield made
    finally:
        made.stop()
