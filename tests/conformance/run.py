"""`make conformance`: the suite of the wire contract, which drives the official TypeScript SDK, against `holdfast dev`.

The suite is not part of the project: SUITE names its folder. Words select its files; without any, all but those
about what is not built yet (see LATER).
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import databases

ROOT = Path(__file__).parents[2]
SUITE = ROOT.parent / "shared" / "specs" / "trigger-conformance"
TASKS = Path(__file__).with_name("tasks.py")
STORES = ("sqlite", "postgres")
LATER = ("t3-",)  # realtime
READY_SECONDS = 30


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="parts of the names of the suite's files, such as t1")
    parser.add_argument("--suite", type=Path, default=Path(os.environ.get("SUITE") or SUITE))
    parser.add_argument("--store", choices=STORES, action="append", help="default: each in turn")
    asked = parser.parse_args()
    if not (asked.suite / "run.mjs").exists():
        print(f"no suite at {asked.suite}: name its folder by --suite or SUITE", file=sys.stderr)
        return 2
    if not (asked.suite / "node_modules").exists():
        install = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--silent"]
        subprocess.run(install, cwd=asked.suite, check=True)
    words = asked.words or files(asked.suite)
    failed = []
    for store in asked.store or STORES:
        with served(store) as environment:
            print(f"== {store}", flush=True)
            if subprocess.run(["node", "run.mjs", *words], cwd=asked.suite, env=environment).returncode:
                failed.append(store)
    print(f"failed on {' and '.join(failed)}" if failed else "all passed")
    return 1 if failed else 0


def files(suite: Path) -> list[str]:
    names = sorted(file.name for file in (suite / "tests").glob("*.test.mjs"))
    return [name for name in names if not name.startswith(LATER)]


@contextmanager
def served(store: str, tasks: Path = TASKS) -> Iterator[dict[str, str]]:
    """`holdfast dev` with these tasks over an empty store; answers what the suite's environment is."""
    key = f"tr_dev_{secrets.token_hex(16)}"
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="conformance-")))
        url = f"sqlite:///{folder}/holdfast.db"
        if store == "postgres":
            url = stack.enter_context(databases.empty_schema(stack.enter_context(databases.server())))
        command = [sys.executable, "-m", "holdfast", "dev", str(tasks)]
        command += ["--port", "0", "--no-reload", "--database", url]
        environment = {**os.environ, "HOLDFAST_SECRET_KEY": key}
        log = folder / "log"
        with log.open("wb") as output:
            server = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output)
        try:
            yield {**os.environ, "TRIGGER_API_URL": _address(server, log), "TRIGGER_SECRET_KEY": key}
        finally:
            server.terminate()
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                server.kill()
            if "ERROR holdfast" in (said := log.read_text(errors="replace")):
                print(said, file=sys.stderr)


def _address(server: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        if found := re.search(r"http://localhost:\d+", log.read_text(errors="replace")):
            return found[0]
        time.sleep(0.05)
    raise SystemExit(f"holdfast dev did not start:\n{log.read_text(errors='replace')}")


if __name__ == "__main__":
    sys.exit(main())
