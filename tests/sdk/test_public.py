"""The public names: complete, sorted, cheap to import, and typed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import holdfast

ROOT = Path(__file__).parents[2]
HEAVY = ("asyncio", "httpx2", "pydantic", "pydantic_core", "starlette", "sqlite3")


def test_every_public_name_is_there_and_listed_once() -> None:
    assert len(set(holdfast.__all__)) == len(holdfast.__all__)
    assert sorted(holdfast.__all__) == holdfast.__all__
    assert set(holdfast.__all__) == set(holdfast._HOMES)
    for name in holdfast.__all__:
        assert getattr(holdfast, name) is not None
    assert set(holdfast.__all__) <= set(dir(holdfast))
    with pytest.raises(AttributeError, match="no attribute 'tsak'"):
        holdfast.tsak  # noqa: B018  # looking it up is what is tested


def test_importing_loads_nothing_heavy_and_neither_does_decorating() -> None:
    program = f"""
import sys
from holdfast import *
@task(queue=Queue("q", 1), retry=Retry(2), timeout="1m", cron=Cron("0 9 * * 1-5", tz="Europe/Paris"))
async def work(number: int, *, text: str = "") -> int: ...
print([name for name in {HEAVY} if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_program_that_ends_with_open_connections_says_nothing() -> None:
    program = """
import asyncio, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from holdfast import Holdfast

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "14")
        self.end_headers()
        self.wfile.write(b'{"id":"run_1"}')
    def log_message(self, *_): pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()
client = Holdfast(f"http://127.0.0.1:{server.server_port}", "tr_dev_x")
client.runs.retrieve("run_1")
async def main(): await client.runs.aretrieve("run_1")
asyncio.run(main())
import uvloop
uvloop.run(main())
server.server_close()
"""
    # Not with -X dev, whose asyncio debugging also tells of every callback that a busy machine makes slow.
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "always::ResourceWarning", "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_the_types_that_editors_see_hold_under_mypy() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "tests/sdk/typing_checks.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
