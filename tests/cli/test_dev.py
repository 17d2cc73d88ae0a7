"""`holdfast dev`, `start` and `worker` as a user meets them: real processes, real files, real signals."""

import json
import re
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cli.world import Done, Holdfast, Start
from holdfast.cli.dev import next_of

JOBS = """
import logging
from pathlib import Path
from time import monotonic

from holdfast import task


@task
def double(number: int) -> int:
    logging.getLogger("jobs").info("doubling %s", number)
    print("printed")
    return number * FACTOR


@task(retry=1)
def fail() -> None:
    raise ValueError("on purpose")


@task
def hold(folder: str) -> str:
    (Path(folder) / "begun").touch()
    deadline = monotonic() + 20
    while not (Path(folder) / "go").exists():
        assert monotonic() < deadline
    return "held"
"""
TIMED = """
from holdfast import Cron, task


@task(cron=Cron("0 9 * * *", tz="Asia/Tokyo"))
def digest() -> None: ...


@task(cron=Cron("0 9 1 1 *", tz="Asia/Tokyo"))
def yearly() -> None: ...
"""
KEY = {"HOLDFAST_SECRET_KEY": "tr_prod_journey"}


def write(folder: Path, factor: int = 2) -> None:
    (folder / "jobs.py").write_text(f"FACTOR = {factor}\n{JOBS}")


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"


def test_dev_serves_runs_and_tells_a_second_one_where_it_is(holdfast: Holdfast, start: Start, tmp_path: Path):
    write(tmp_path)
    process = start("dev", "jobs.py", "--port", "0", "--json")
    url = process.ready()["url"]

    done = holdfast("trigger", "double", "21", "--wait")
    assert (done.code, done.lines) == (0, ["42"])
    run_id = done.err.strip()
    logged = [json.loads(line) for line in holdfast("runs", "logs", run_id, "--json").lines]
    assert {record["message"] for record in logged} == {"doubling 21", "printed"}

    failed = holdfast("trigger", "fail", "--wait")
    assert failed.code == 1
    assert "ValueError: on purpose" in failed.err

    refused = holdfast("trigger", "double", '"much"')
    assert refused.code == 2

    again = holdfast("dev", "jobs.py", "--port", "0")
    assert again.code == 1
    assert url.rpartition(":")[2] in again.err

    checked = holdfast("doctor", "jobs.py")
    assert (checked.code, checked.err) == (0, ""), checked.out
    assert process.end() == 0


def test_dev_says_what_matters_in_at_most_eight_lines(holdfast: Holdfast, start: Start, tmp_path: Path):
    write(tmp_path)
    process = start("dev", "jobs.py", "--port", "0")
    until(lambda: "next" in process.errors.read_text())
    said = process.errors.read_text()
    assert len(said.splitlines()) <= 8
    assert "tasks   double, fail, hold" in said
    assert "http://localhost:" in said
    assert ".holdfast/secret_key" in said
    assert process.end(signal.SIGINT) == 0


def test_dev_says_which_schedule_is_next_and_when(start: Start, tmp_path: Path):
    (tmp_path / "jobs.py").write_text(TIMED)
    process = start("dev", "jobs.py", "--port", "0")
    until(lambda: "  next " in process.errors.read_text())
    said = process.errors.read_text()
    assert len(said.splitlines()) <= 8
    line = r"^  cron    (digest|yearly) at \d{4}-\d\d-\d\d 09:00 Asia/Tokyo, the next of 2 schedules$"
    assert re.search(line, said, re.MULTILINE)
    assert process.end() == 0


def test_the_next_schedule_is_told_by_the_clock_of_its_zone():
    daily = {"expression": "0 9 * * *", "timezone": "Asia/Tokyo"}
    noon = round(datetime(2026, 11, 24, 12, tzinfo=UTC).timestamp() * 1_000)
    assert next_of({"digest": daily}, noon) == "digest at 2026-11-25 09:00 Asia/Tokyo"
    hourly = {"expression": "@hourly", "timezone": "UTC"}
    assert (
        next_of({"digest": daily, "clean-up": hourly}, noon)
        == "clean-up at 2026-11-24 13:00 UTC, the next of 2 schedules"
    )


def test_dev_shows_what_runs_print_and_log_and_how_they_fail(
    holdfast: Holdfast, start: Start, tmp_path: Path
):
    write(tmp_path)
    process = start("dev", "jobs.py", "--port", "0", "--json")
    process.ready()
    doubled = holdfast("trigger", "double", "21", "--wait").err.strip()
    failed = holdfast("trigger", "fail", "--wait").err.split()[0]
    until(lambda: "on purpose" in process.errors.read_text())
    said = process.errors.read_text()
    assert f"{doubled} double: printed\n" in said
    assert f"{doubled} double: INFO jobs: doubling 21\n" in said
    assert f"{failed} fail: attempt 1 failed: Traceback" in said
    assert "\n    ValueError: on purpose\n" in said


def test_start_does_not_show_what_runs_print(
    holdfast: Holdfast, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write(tmp_path)
    process = start("start", "jobs.py", "--port", "0", "--json", **KEY)
    monkeypatch.setenv("HOLDFAST_SECRET_KEY", KEY["HOLDFAST_SECRET_KEY"])
    url = process.ready()["url"]
    assert holdfast("trigger", "double", "1", "--wait", "--server", url).lines == ["2"]
    assert process.end() == 0
    assert "printed" not in process.errors.read_text()


def test_waiting_for_a_task_that_nobody_has_says_so(holdfast: Holdfast, start: Start, tmp_path: Path):
    write(tmp_path)
    start("dev", "jobs.py", "--port", "0", "--json").ready()
    done = holdfast("trigger", "doubel", "1", "--wait", "--timeout", "0")
    assert done.code == 124
    assert "no worker has this task yet" in done.err


def test_saved_code_is_loaded_and_broken_code_is_survived(holdfast: Holdfast, start: Start, tmp_path: Path):
    write(tmp_path)
    process = start("dev", "jobs.py", "--port", "0", "--json")
    process.ready()

    def doubled() -> Done:
        return holdfast("trigger", "double", "10", "--wait", "--timeout", "20")

    assert doubled().lines == ["20"]
    # The watcher begins after the server is ready: a first save may come too early for it, so save until seen.
    until(lambda: write(tmp_path, 3) is None and doubled().lines == ["30"])

    (tmp_path / "jobs.py").write_text("def broken(:\n")
    until(lambda: "jobs.py does not import: SyntaxError" in process.errors.read_text())
    assert doubled().lines == ["30"]

    code = 'from holdfast import task\n\n@task(cron="0 25 * * *")\ndef late() -> None: ...\n'
    (tmp_path / "jobs.py").write_text(code)
    until(lambda: "expression of a Cron is '0 25 * * *'" in process.errors.read_text())
    until(lambda: f"({tmp_path / 'jobs.py'}, line 3)" in process.errors.read_text())

    write(tmp_path, 4)
    until(lambda: doubled().lines == ["40"])


def test_a_module_that_does_not_import_does_not_keep_the_others(
    holdfast: Holdfast, start: Start, tmp_path: Path
):
    write(tmp_path)
    (tmp_path / "broken.py").write_text("import nothing_of_this_name\n")
    process = start("dev", "broken.py", "jobs.py", "--port", "0", "--json")
    process.ready()
    assert holdfast("trigger", "double", "1", "--wait").lines == ["2"]
    said = process.errors.read_text()
    assert "broken" in said
    assert "nothing_of_this_name" in said


def test_the_first_signal_lets_a_run_finish(
    holdfast: Holdfast, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write(tmp_path)
    process = start("start", "jobs.py", "--port", "0", "--json", **KEY)
    options = ("--server", process.ready()["url"])
    monkeypatch.setenv("HOLDFAST_SECRET_KEY", KEY["HOLDFAST_SECRET_KEY"])
    run_id = holdfast("trigger", "hold", json.dumps(str(tmp_path)), *options).lines[0]
    until((tmp_path / "begun").exists)
    process.popen.send_signal(signal.SIGTERM)
    until(lambda: "stopping" in process.errors.read_text())
    (tmp_path / "go").touch()
    assert process.end(0) == 0

    after = start("server", "--port", "0", "--json", **KEY)
    run = json.loads(holdfast("runs", "get", run_id, "--server", after.ready()["url"]).out)
    assert (run["status"], run["output"]) == ("COMPLETED_SUCCESSFULLY", "held")


def test_the_second_signal_stops_at_once_and_hands_the_run_back(
    holdfast: Holdfast, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write(tmp_path)
    process = start("start", "jobs.py", "--port", "0", "--json", **KEY)
    options = ("--server", process.ready()["url"])
    monkeypatch.setenv("HOLDFAST_SECRET_KEY", KEY["HOLDFAST_SECRET_KEY"])
    run_id = holdfast("trigger", "hold", json.dumps(str(tmp_path)), *options).lines[0]
    until((tmp_path / "begun").exists)
    process.popen.send_signal(signal.SIGTERM)
    until(lambda: "stopping" in process.errors.read_text())
    assert process.end(signal.SIGTERM) == 0

    (tmp_path / "go").touch()
    after = start("start", "jobs.py", "--port", "0", "--json", **KEY)
    done = holdfast("runs", "watch", run_id, "--server", after.ready()["url"], "--timeout", "30", "--json")
    assert json.loads(done.out)["output"] == "held"


def test_server_and_worker_work_as_two_processes(
    holdfast: Holdfast, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write(tmp_path)
    (tmp_path / "pyproject.toml").write_text('[tool.holdfast]\ntasks = ["jobs"]\n')
    server = start("server", "--port", "0", "--json", **KEY)
    url = server.ready()["url"]
    worker = start("worker", "--server", url, "--executors", "1", "--concurrency", "2", "--json", **KEY)
    assert worker.ready() == {"url": url}
    monkeypatch.setenv("HOLDFAST_SECRET_KEY", KEY["HOLDFAST_SECRET_KEY"])
    assert holdfast("trigger", "double", "4", "--wait", "--server", url).lines == ["8"]
    assert worker.end() == 0
    assert server.end() == 0


def test_a_worker_whose_key_is_refused_ends_with_3(start: Start, tmp_path: Path):
    write(tmp_path)
    server = start("server", "--port", "0", "--json", **KEY)
    worker = start("worker", "jobs.py", "--server", server.ready()["url"], HOLDFAST_SECRET_KEY="tr_dev_other")
    assert worker.popen.wait(20) == 3
    assert "error:" in worker.errors.read_text()
    assert "Traceback" not in worker.errors.read_text()
