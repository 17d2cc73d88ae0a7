"""`holdfast check`: which waiting runs would the code at hand break?"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx2

from cli.world import KEY, Start, plain_environment

CODE = """
from holdfast import step, task, wait

@step
async def load(number: int) -> int:
    return number

@step
def save(number: int) -> None:
    open("saved", "a").write(f"{number}\\n")

@task
async def report(number: int) -> int:
    loaded = await load(number)
    await wait.asleep("1d")
    return loaded

@task
def backup(number: int) -> None:
    save(number)
    wait.sleep("1d")
    save(number + 1)

@task
async def gone() -> None:
    await load(1)
    await wait.asleep("1d")
"""


def ask(folder: Path, url: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "holdfast", *words],
        cwd=folder,
        env=plain_environment() | {"HOLDFAST_API_URL": url, "HOLDFAST_SECRET_KEY": KEY},
        capture_output=True,
        text=True,
        timeout=60,
    )


def checked(folder: Path, url: str) -> tuple[int, Any, str]:
    done = ask(folder, url, "check", "jobs.py", "--json")
    return done.returncode, json.loads(done.stdout or "null"), done.stderr


def test_the_runs_that_code_would_break_are_named_and_nothing_is_done(start: Start, tmp_path: Path):
    jobs = tmp_path / "jobs.py"
    jobs.write_text(CODE)
    server = start(
        "start", "jobs.py", "--port", "0", "--json",
        HOLDFAST_SECRET_KEY=KEY, HOLDFAST_DATABASE_URL=f"sqlite:///{tmp_path}/runs.db",
    )  # fmt: skip
    url = server.ready()["url"]
    headers = {"authorization": f"Bearer {KEY}"}
    with httpx2.Client(base_url=url, headers=headers, trust_env=False) as client:

        def trigger(task: str, payload: Any) -> str:
            answer = client.post(f"/api/v1/tasks/{task}/trigger", json={"payload": payload})
            return str(answer.raise_for_status().json()["id"])

        ids = [trigger("report", 7), trigger("backup", 1), trigger("gone", None)]
        deadline = time.monotonic() + 20
        while any(client.get(f"/api/v3/runs/{id}").json()["status"] != "WAITING_TO_RESUME" for id in ids):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert checked(tmp_path, url)[:2] == (0, {"checked": 3, "broken": []})
        recorded = ask(tmp_path, url, "runs", "journal", ids[0]).stdout.splitlines()
        assert [line.split()[:4] for line in recorded] == [
            ["0", "step", "ok", "load"],
            ["1", "sleep", "ok", "sleep"],
        ]
        [first, _] = map(
            json.loads, ask(tmp_path, url, "runs", "journal", ids[0], "--json").stdout.splitlines()
        )
        assert (first["kind"], first["name"], first["value"]) == ("step", "load", "7")
        changed = CODE.replace("loaded = await load(number)", "loaded = await load(number + 1)")
        jobs.write_text(changed.replace("async def gone", "async def renamed"))
        code, told, _ = checked(tmp_path, url)
        assert (code, told["checked"]) == (1, 3)
        why = {one["id"]: one["why"] for one in told["broken"]}
        assert (
            "the step load is recorded, and now it asks for the step load with other arguments" in why[ids[0]]
        )
        assert why[ids[2]] == "there is no task gone"
        assert ids[1] not in why
        jobs.write_text("def broken(:\n")
        code, told, err = checked(tmp_path, url)
        assert (code, told) == (1, None)
        assert "jobs.py does not import" in err
        statuses = {client.get(f"/api/v3/runs/{id}").json()["status"] for id in ids}
    assert statuses == {"WAITING_TO_RESUME"}
    assert (tmp_path / "saved").read_text() == "1\n"
