"""`make demo-approval`: an order waits for a person, and everything is killed meanwhile, twice.

`holdfast start` is killed with SIGKILL while the run waits for its token, and again while it sleeps. What
is in the database goes on each time; the ledger shows that nothing was done twice.
"""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
OURS = ("HOLDFAST_", "TRIGGER_")
PATIENCE_SECONDS = 60
ORDER = {"id": "1042", "cents": 500_00, "items": ["a desk", "a lamp", "a chair"]}


class Holdfast:
    """`holdfast start orders.py` over a database of its own."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.key = f"tr_prod_{secrets.token_hex(16)}"
        self.ledger = folder / "ledger.txt"
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(OURS)
        } | {
            "HOLDFAST_SECRET_KEY": self.key,
            "HOLDFAST_PORT": str(port),
            "HOLDFAST_API_URL": self.url,
            "HOLDFAST_DATABASE_URL": f"sqlite:///{folder}/holdfast.db",
            "LEDGER": str(self.ledger),
            "A_DAY_LASTS": "8",
            "HOLDFAST_LEASE": "3",
        }
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "holdfast", "start", "orders.py", "--json"]
        self.process = subprocess.Popen(
            command, cwd=HERE, env=self.environment, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self.process.stdout is not None
        if not self.process.stdout.readline():
            raise SystemExit("the server did not start; its error stands above")
        say(f"`holdfast start orders.py` is ready (process {self.process.pid})")

    def kill(self) -> None:
        """Server and worker at once, as if the machine had lost its power."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        say(f"killed everything with SIGKILL: process {self.process.pid} and what it had started")

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)

    def call(self, method: str, path: str, body: Any = None, *, with_key: bool = True) -> Any:
        headers = {"content-type": "application/json"}
        if with_key:
            headers["authorization"] = f"Bearer {self.key}"
        data = None if body is None else json.dumps(body).encode()
        url = path if path.startswith("http") else self.url + path
        with urllib.request.urlopen(
            urllib.request.Request(url, data, headers, method=method), timeout=30
        ) as answer:
            return json.load(answer)

    def run(self, run_id: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.call("GET", f"/api/v3/runs/{run_id}")
        return answer


def main() -> int:
    """Exit code 0 when the order was fulfilled and nothing happened twice."""
    with tempfile.TemporaryDirectory(prefix="holdfast-approval-") as folder:
        holdfast = Holdfast(Path(folder))
        try:
            return fulfilled(holdfast)
        finally:
            holdfast.stop()


def fulfilled(holdfast: Holdfast) -> int:
    holdfast.start()
    run_id = holdfast.call("POST", "/api/v1/tasks/fulfil/trigger", {"payload": ORDER})["id"]
    say(f"triggered {run_id}: an order of 500.00, which somebody has to approve")
    waiting(holdfast, run_id)
    say("it is charged, and waits for its token: WAITING_TO_RESUME, no process and no slot are held")
    holdfast.kill()
    holdfast.start()
    address = holdfast.run(run_id)["metadata"]["approve at"]
    holdfast.call("POST", address, {"ok": True, "by": "Ann"}, with_key=False)
    say("Ann approved it, by the link alone: POST to the token's URL")
    until(lambda: len(holdfast.run(run_id)["relatedRuns"]["children"]) == 3, "three parcels are packed")
    waiting(holdfast, run_id)
    say("the parcels are packed by child runs; now it sleeps for a day (8 seconds here)")
    holdfast.kill()
    holdfast.start()
    run = until(lambda: ended(holdfast.run(run_id)), "the run ends")
    ledger = holdfast.ledger.read_text().splitlines()
    print(f"\n{run['status']}: {run['output']}\n\nWhat really happened, as the ledger has it:")
    print("\n".join(f"  {line}" for line in ledger))
    expected = ["1042 charged", "1042 approval asked for", "1042 review asked for"]
    if run["status"] != "COMPLETED_SUCCESSFULLY" or ledger != expected:
        say(f"expected {expected}")
        return 1
    print(
        "\nEach step once, although everything was killed twice. The code is in examples/approval/orders.py,"
    )
    print("its test, on a clock that jumps over the days, in examples/approval/test_orders.py.")
    return 0


def waiting(holdfast: Holdfast, run_id: str) -> None:
    until(lambda: holdfast.run(run_id)["status"] == "WAITING_TO_RESUME", "the run is suspended")


def ended(run: dict[str, Any]) -> dict[str, Any] | None:
    return run if run["finishedAt"] else None


def until(found: Callable[[], Any], what: str) -> Any:
    """What `found` answers as soon as it is true."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            if value := found():
                return value
        except (urllib.error.URLError, ConnectionError, KeyError):
            pass  # the server is starting, or the run is not that far
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {PATIENCE_SECONDS} s: {what}")
        time.sleep(0.1)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
