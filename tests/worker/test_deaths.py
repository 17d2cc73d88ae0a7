"""Executors that die, and what is known about the runs in them."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from worker.world import story, world


@pytest.mark.parametrize(
    ("task", "payload", "code", "words"),
    [
        ("leave", 3, "TASK_PROCESS_EXITED_WITH_NON_ZERO_CODE", "code 3"),
        ("leave", 0, "TASK_PROCESS_EXITED_WITH_NON_ZERO_CODE", "code 0"),
        ("crash", "SIGSEGV", "TASK_PROCESS_SIGSEGV", "SIGSEGV"),
        ("crash", "SIGTERM", "TASK_PROCESS_SIGTERM", "SIGTERM"),
        ("crash", "SIGKILL", "TASK_PROCESS_EXITED_WITH_NON_ZERO_CODE", "SIGKILL"),
    ],
)
@story
async def test_the_way_an_executor_died_becomes_the_error_of_its_run(task, payload, code, words):
    async with world() as w:
        run = await w.server.trigger(task, payload)
        await w.server.ended(run)
        after = await w.server.trigger("greet", "next")
        await w.server.ended(after)
    assert run.outcome["kind"] == "crashed"
    assert run.outcome["shared"] is False
    assert run.outcome["error"]["code"] == code
    assert words in run.outcome["error"]["message"]
    assert after.outcome["kind"] == "succeeded"


@story
async def test_sys_exit_and_memory_errors_end_their_attempt_only():
    async with world() as w:
        neighbour = await w.server.trigger("sleep-async", 1)
        polite = await w.server.trigger("leave-politely", 2, max_attempts=1)
        hungry = await w.server.trigger("out-of-memory")
        await w.server.ended(neighbour, polite, hungry)
    assert (polite.outcome["error"]["type"], polite.outcome["error"]["name"]) == (
        "BUILT_IN_ERROR",
        "SystemExit",
    )
    assert hungry.outcome["error"]["code"] == "TASK_PROCESS_OOM_KILLED"
    assert neighbour.kinds == ["succeeded"]


@story
async def test_one_poisonous_run_takes_no_innocent_run_with_it():
    async with world() as w:
        innocent = [await w.server.trigger("sleep-async", 0.5) for _ in range(10)]
        await w.begun(*innocent)
        poison = await w.server.trigger("leave", 9)
        await w.server.ended(*innocent, poison, seconds=30)
    assert all(run.outcome["kind"] == "succeeded" for run in innocent)
    assert poison.kinds == ["crashed", "crashed"]
    assert [report["shared"] for report in poison.reports] == [True, False]


@story
async def test_processes_that_user_code_started_die_with_their_executor(tmp_path: Path):
    note = tmp_path / "grandchild"
    async with world() as w:
        run = await w.server.trigger("leave-grandchild", str(note))
        await w.server.ended(run)
        pid = int(note.read_text())
        async with asyncio.timeout(3):
            while _is_alive(pid):
                await asyncio.sleep(0.01)
    assert run.outcome["kind"] == "crashed"


@story
async def test_executors_die_with_their_supervisor():
    async with world() as w:
        pids = w.supervisor.executor_pids
        run = await w.server.trigger("block-loop", 60)
        await w.begun(run)
    assert not any(_is_alive(pid) for pid in pids)


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSTOP"])
def test_user_code_ends_before_the_lease_when_its_supervisor_is_killed_or_frozen(name):
    lease_ms = 3_000
    folder = Path(__file__).parent
    paths = os.pathsep.join([str(folder.parent), str(folder.parents[1] / "src")])
    with subprocess.Popen(
        [sys.executable, str(folder / "lonely_supervisor.py"), str(lease_ms)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": paths},
    ) as supervisor:
        assert supervisor.stdout is not None
        pid = int(supervisor.stdout.readline())
        began = time.monotonic()
        supervisor.send_signal(getattr(signal, name))
        try:
            while _is_alive(pid):
                assert time.monotonic() - began < lease_ms / 1_000
                os.sched_yield()
        finally:
            supervisor.kill()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # An orphan may stay a zombie where nobody reaps: dead all the same.
    status = Path(f"/proc/{pid}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")
