"""Executors see the environment's variables from their start; what the worker's own environment sets stays."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import InvalidRequest
from holdfast.worker.supervisor import Supervisor
from holdfast.worker.talk import Talk
from worker.protocol_server import ProtocolServer, ServedRun
from worker.world import story, world

TASKS = (str(Path(__file__).with_name("variable_tasks.py")),)


def output(run: ServedRun) -> Any:
    assert run.outcome is not None
    assert run.outcome["kind"] == "succeeded", run.outcome
    return json.loads(run.outcome["output"])


def served(**variables: str) -> ProtocolServer:
    server = ProtocolServer()
    server.variables = variables
    return server


@story
async def test_executors_see_them_while_modules_are_imported_and_so_do_their_children() -> None:
    async with world(served(GREETING="héllo\n💥"), tasks=TASKS) as w:
        runs = [await w.server.trigger(task) for task in ("greeting", "alone", "of-a-child-process")]
        await w.server.ended(*runs)
        assert [output(run) for run in runs] == [
            ["héllo\n💥", "héllo\n💥", None],
            "héllo\n💥",
            "héllo\n💥",
        ]
        assert "héllo" not in w.stderr.getvalue()


def test_what_the_workers_own_environment_sets_is_not_overridden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SET_BY_THE_WORKER", "own")

    @story
    async def told() -> None:
        async with world(served(SET_BY_THE_WORKER="other", GREETING=""), tasks=TASKS) as w:
            run = await w.server.trigger("greeting")
            await w.server.ended(run)
            assert output(run) == ["", "", "own"]

    told()


@story
async def test_more_than_a_new_process_could_be_given_arrives() -> None:
    variables = {f"NAME_{number}": "x" * 65_536 for number in range(60)}
    async with world(served(**variables), tasks=TASKS) as w:
        run = await w.server.trigger("everything")
        await w.server.ended(run)
        assert variables.items() <= output(run).items()


@story
async def test_changed_values_reach_executors_that_are_started_later() -> None:
    async with world(served(GREETING="old"), tasks=TASKS, executors=1) as w:
        w.server.variables = {"GREETING": "new"}
        first = await w.server.trigger("greeting")
        await w.server.ended(first)
        assert output(first)[1] == "old"
        [before] = w.supervisor.executor_pids
        w.supervisor._variables._asked_at = None  # some time has passed
        assert await w.supervisor.reload()
        async with asyncio.timeout(20):
            while before in w.supervisor.executor_pids:
                await asyncio.sleep(0.01)
        second = await w.server.trigger("greeting")
        await w.server.ended(second)
        assert output(second) == ["new", "new", None]


@story
async def test_while_the_server_is_away_executors_start_with_what_is_known() -> None:
    async with world(served(GREETING="known"), tasks=TASKS) as w:
        variables = w.supervisor._variables
        variables._asked_at = None
        w.server.is_down = True
        assert await variables.current() == {"GREETING": "known"}
        w.server.is_down = False


@story
async def test_a_worker_waits_for_the_server_before_it_imports_anything() -> None:
    server = served(GREETING="late")
    server.refuse_variables = 503
    supervisor = Supervisor(server, tasks=TASKS, talk=Talk(io.StringIO()), executors=1)
    running = asyncio.create_task(supervisor.run())
    await server.until(lambda: server.variable_calls >= 3)
    assert supervisor.executor_pids == []
    server.refuse_variables = None
    await asyncio.wait_for(supervisor.joined.wait(), 20)
    run = await server.trigger("greeting")
    await server.ended(run)
    assert output(run)[0] == "late"
    supervisor.stop_now()
    await asyncio.wait_for(running, 20)


@story
async def test_a_worker_that_waits_for_the_server_can_be_stopped() -> None:
    server = ProtocolServer()
    server.refuse_variables = 503
    supervisor = Supervisor(server, tasks=TASKS, talk=Talk(io.StringIO()), executors=1)
    running = asyncio.create_task(supervisor.run())
    await server.until(lambda: server.variable_calls >= 1)
    supervisor.drain()
    await asyncio.wait_for(running, 5)


@story
async def test_a_server_that_refuses_them_is_told() -> None:
    server = ProtocolServer()
    server.refuse_variables = 422
    supervisor = Supervisor(server, tasks=TASKS, talk=Talk(io.StringIO()), executors=1)
    with pytest.raises(InvalidRequest, match="no key to open them"):
        await asyncio.wait_for(supervisor.run(), 20)


@story
async def test_a_server_that_does_not_know_of_variables_is_served() -> None:
    server = ProtocolServer()
    server.refuse_variables = 404
    async with world(server, tasks=TASKS) as w:
        run = await w.server.trigger("greeting")
        await w.server.ended(run)
        assert output(run) == ["nothing", None, None]
