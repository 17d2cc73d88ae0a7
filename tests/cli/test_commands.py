"""What the command line says and answers before it talks to anybody."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cli.world import Holdfast
from holdfast.cli import COMMANDS

LIGHT = """
import sys
from holdfast.cli import run
code = run(["--version"])
heavy = {"starlette", "uvicorn", "httpx2", "pydantic", "psycopg", "watchfiles", "asyncio", "sqlite3"} & set(sys.modules)
print(sorted(heavy))
sys.exit(code)
"""


def test_the_version_is_shown_without_loading_server_client_or_database():
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, timeout=30)
    version, heavy = done.stdout.splitlines()
    assert done.returncode == 0
    assert version.startswith("holdfast ")
    assert heavy == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_explains_itself(holdfast: Holdfast, name: str):
    done = holdfast(name, "--help")
    assert done.code == 0
    assert done.out.startswith(f"Usage: holdfast {name}")


@pytest.mark.parametrize(("typed", "meant"), [(("trigerr",), "trigger"), (("runs", "lst"), "list")])
def test_an_unknown_command_suggests_the_near_one(holdfast: Holdfast, typed: tuple[str, ...], meant: str):
    done = holdfast(*typed)
    assert done.code == 2
    assert f"Did you mean `{meant}`?" in done.err
    assert done.out == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--nope",), "--nope"),
        (("trigger",), "TASK"),
        (("trigger", "t", "1", "--delay", "soon"), "--delay is 'soon'"),
        (("trigger", "t", "1", "--ttl", "1x"), "--ttl is '1x'"),
        (("trigger", "t", "1", "--max-attempts", "0"), "--max-attempts"),
        (("trigger", "t", "NaN"), "NaN"),
        (("runs", "list", "--status", "happy"), "'happy' is no status"),
        (("runs", "list", "--limit", "0"), "--limit"),
        (("runs", "reschedule", "run_1"), "--delay"),
        (("server", "--port", "many"), "--port is 'many'"),
        (("dev",), "no tasks are named"),
        (("start", "jobs.py"), "HOLDFAST_SECRET_KEY is not set"),
        (("server",), "HOLDFAST_SECRET_KEY is not set"),
        (("worker", "jobs.py"), "HOLDFAST_SECRET_KEY is not set"),
        (("db", "upgrade", "--database", "mysql://there"), "expected sqlite:/// or postgresql://"),
    ],
)
def test_wrong_use_ends_with_2_and_says_what_is_wrong(
    holdfast: Holdfast, arguments: tuple[str, ...], message: str
):
    done = holdfast(*arguments)
    assert done.code == 2
    assert done.err.startswith("error: ")
    assert message in done.err
    assert "Traceback" not in done.err
    assert done.out == ""


def test_a_payload_that_is_no_json_is_shown_with_a_caret_at_the_mistake(holdfast: Holdfast):
    done = holdfast("trigger", "t", '{"a": 1, b: 2}')
    _, shown, caret, *_ = done.err.splitlines()
    assert done.code == 2
    assert shown[caret.index("^")] == "b"


def test_a_long_payload_is_shown_around_the_mistake(holdfast: Holdfast):
    done = holdfast("trigger", "t", f'{{"a": "{"x" * 5_000}", b}}')
    _, shown, caret, *_ = done.err.splitlines()
    assert len(shown) < 80
    assert shown[caret.index("^")] == "b"


def test_no_answer_ends_with_1_and_names_the_server(holdfast: Holdfast):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: a port that refuses
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        done = holdfast("runs", "list", "--server", url)
    assert done.code == 1
    assert f"no answer from {url}" in done.err
    assert "holdfast dev" in done.err


def test_a_taken_port_is_named_with_the_way_out(holdfast: Holdfast, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOLDFAST_SECRET_KEY", "tr_dev_x")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = holdfast("server", "--port", str(port))
    assert done.code == 1
    assert f"port {port} of 127.0.0.1 is taken" in done.err
    assert "--port" in done.err


def test_a_setting_that_can_not_be_read_ends_with_2(holdfast: Holdfast, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOLDFAST_LEASE", "never")
    done = holdfast("runs", "list")
    assert done.code == 2
    assert "HOLDFAST_LEASE is 'never'" in done.err


def test_the_traceback_is_shown_only_when_asked_for(holdfast: Holdfast, monkeypatch: pytest.MonkeyPatch):
    assert "Traceback" not in holdfast("dev").err
    monkeypatch.setenv("HOLDFAST_DEBUG", "1")
    assert "Traceback" in holdfast("dev").err


def test_looking_at_a_database_that_does_not_exist_does_not_make_it(holdfast: Holdfast, tmp_path: Path):
    done = holdfast("db", "status")
    assert done.code == 1
    assert done.lines[0] == "pending  0001_spine"
    assert list(tmp_path.iterdir()) == []


def test_an_upgraded_database_has_nothing_pending(holdfast: Holdfast):
    assert holdfast("db", "upgrade").code == 0
    done = holdfast("db", "status")
    assert done.code == 0
    assert all(line.startswith("applied  ") for line in done.lines)
    assert holdfast("db", "upgrade", "--json").code == 0


def test_the_doctor_names_each_problem_and_what_to_do(holdfast: Holdfast):
    done = holdfast("doctor", "--server", "http://127.0.0.1:9")
    assert done.code == 1
    lines = {line.split()[2]: line for line in done.lines}
    assert list(lines) == ["python", "sqlite", "settings", "database", "server", "key", "tasks"]
    assert "ok" in lines["database"]
    assert "problem" in lines["server"]
    assert "holdfast dev" in lines["key"]
    assert "pyproject.toml" in lines["tasks"]
