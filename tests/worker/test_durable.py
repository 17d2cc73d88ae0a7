"""Journals and waits in real executors: stopped, retried in place, drained, suspended and resumed."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from worker.world import story, world

TASKS = (str(Path(__file__).with_name("durable_tasks.py")),)


def failed_step(name: str) -> dict[str, Any]:
    error = {"name": "ValueError", "message": "no", "class": "builtins:ValueError", "args": ["no"]}
    head = {"scope": "", "kind": "step", "name": name, "args": None, "ref": None}
    return {**head, "ok": False, "value": json.dumps(error)}


@story
async def test_a_retry_in_place_knows_what_the_failure_made_the_server_forget():
    async with world(tasks=TASKS) as w:
        run = await w.server.trigger("two-steps")
        run.journal.append(failed_step("flaky"))  # by a worker that died before it could report the failure
        await w.server.ended(run, seconds=10)
    assert (run.outcome["kind"], run.outcome["output"], run.attempt) == ("succeeded", "2", 2)
    assert [(entry["kind"], entry["name"]) for entry in run.journal] == [
        ("step", "flaky"),
        ("forget", ""),
        ("step", "flaky"),
        ("step", "after"),
    ]


@story
async def test_a_retry_in_place_knows_the_time():
    async with world(tasks=TASKS) as w:
        moment = datetime.now(UTC) + timedelta(seconds=2.5)
        run = await w.server.trigger("until-moment", moment.isoformat())
        await w.server.ended(run, seconds=10)
    late = (datetime.now(UTC) - moment).total_seconds()
    assert run.outcome["kind"] == "succeeded"
    assert -0.1 < late < 1


@pytest.mark.parametrize("task", ["sleeps", "sleeps-sync"])
@story
async def test_a_run_that_waits_warm_is_stopped_at_once(task: str):
    async with world(tasks=TASKS) as w:
        run = await w.server.trigger(task, 4)
        await w.begun(run)
        await asyncio.sleep(0.3)
        began = time.monotonic()
        await w.server.cancel(run)
        await w.server.ended(run, seconds=3)
    assert time.monotonic() - began < 1.5
    assert run.kinds == ["closed"]


@pytest.mark.parametrize("task", ["sleeps", "sleeps-sync"])
@story
async def test_the_time_limit_stands_still_while_a_run_waits(task: str):
    async with world(tasks=TASKS) as w:
        run = await w.server.trigger(task, 2, max_duration=1)
        await w.server.ended(run, seconds=8)
    assert run.outcome["kind"] == "succeeded", run.outcome


@story
async def test_time_at_work_counts_on_both_sides_of_a_suspension():
    async with world(tasks=TASKS, warm_seconds=0.2) as w:
        run = await w.server.trigger("works-and-sleeps", {"seconds": 60, "work": 0.7}, max_duration=1)
        await w.server.until(lambda: run.status == "suspended", seconds=8)
        assert 700 <= run.active_ms < 1_000
        run.journal[-1]["value"] = "0"  # the sixty seconds are over
        await w.server.resume(run)
        await w.server.ended(run, seconds=8)
    assert run.outcome["error"]["code"] == "MAX_DURATION_EXCEEDED"


@story
async def test_code_that_does_not_unwind_is_subject_to_its_time_limit():
    async with world(tasks=TASKS, warm_seconds=0.1) as w:
        run = await w.server.trigger("does-not-unwind", max_duration=1)
        await w.server.ended(run, seconds=8)
    assert run.outcome["error"]["code"] == "MAX_DURATION_EXCEEDED"


@story
async def test_a_run_with_a_process_of_its_own_goes_on_in_another_one():
    async with world(tasks=TASKS, warm_seconds=0.1) as w:
        run = await w.server.trigger("alone", alone=True)
        await w.server.until(lambda: run.status == "suspended", seconds=15)
        assert [entry["name"] for entry in run.journal] == ["pid", "sleep"]
        run.journal[-1]["value"] = "0"
        await w.server.resume(run)
        await w.server.ended(run, seconds=15)
    first, second = json.loads(run.outcome["output"])
    assert first != second
    assert run.attempt == 1


@story
async def test_a_worker_that_drains_lets_a_short_wait_end():
    async with world(tasks=TASKS) as w:
        run = await w.server.trigger("sleeps", 1)
        await w.begun(run)
        w.supervisor.drain()
        await w.finish(10)
    assert run.outcome["kind"] == "succeeded"


@story
async def test_a_thousand_waiting_runs_are_suspended_and_go_on():
    async with world(tasks=TASKS, warm_seconds=0.1, concurrency=1_000) as w:
        runs = [await w.server.trigger("sleeps", 3_600) for _ in range(1_000)]
        await w.server.until(lambda: all(run.status == "suspended" for run in runs), seconds=20)
        for run in runs:
            run.journal[-1]["value"] = "0"
            await w.server.resume(run)
        await w.server.ended(*runs, seconds=20)
    assert all(run.outcome["kind"] == "succeeded" for run in runs)
