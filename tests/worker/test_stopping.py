"""Cancellation, time limits, drain, and a server that goes away."""

import asyncio
import time

import pytest

from worker.protocol_server import ProtocolServer
from worker.world import story, world


@story
async def test_a_cancelled_run_is_asked_and_closed_within_a_second():
    async with world() as w:
        tasks = ("sleep-async", "loop-sync")
        runs = [await w.server.trigger(task, 60) for task in tasks]
        await w.begun(*runs)
        began = time.monotonic()
        for run in runs:
            await w.server.cancel(run)
        await w.server.ended(*runs, seconds=3)
    assert time.monotonic() - began < 3
    assert [run.kinds for run in runs] == [["closed"], ["closed"]]


@story
async def test_a_run_that_waits_for_its_next_attempt_is_closed_at_once():
    async with world() as w:
        run = await w.server.trigger("fail", "again and again")
        await w.server.until(lambda: run.status == "sleeping")
        await w.server.cancel(run)
        await w.server.ended(run, seconds=3)
    assert run.kinds == ["failed", "closed"]


@story
async def test_a_run_that_ignores_its_cancellation_is_killed_and_then_closed():
    async with world() as w:
        run = await w.server.trigger("ignore-cancellation", 60)
        await w.begun(run)
        await w.server.cancel(run)
        await w.server.ended(run, seconds=10)
        assert run.kinds == ["closed"]
        after = await w.server.trigger("greet", "again")
        await w.server.ended(after)
    assert after.outcome["kind"] == "succeeded"


@story
async def test_neighbours_of_a_killed_run_go_back_without_losing_an_attempt():
    async with world() as w:
        wild = await w.server.trigger("ignore-cancellation", 60)
        calm = await w.server.trigger("sleep-async", 14)
        await w.begun(wild, calm)
        await w.server.cancel(wild)
        await w.server.ended(wild, seconds=10)
        await w.server.until(lambda: "released" in calm.kinds)
        assert calm.reports[0]["started"] is True


@story
async def test_a_time_limit_ends_an_attempt_that_listens():
    async with world() as w:
        run = await w.server.trigger("sleep-async", 60, max_duration=1)
        await w.server.ended(run, seconds=4)
    assert run.outcome["error"]["code"] == "MAX_DURATION_EXCEEDED"
    assert "when it was asked" in run.outcome["error"]["message"]
    assert run.outcome["retryDelayMs"] is None


@story
async def test_a_time_limit_kills_an_attempt_that_does_not_listen_within_two_seconds():
    async with world() as w:
        began = time.monotonic()
        run = await w.server.trigger("block-loop", 60, max_duration=1)
        await w.server.ended(run, seconds=6)
    assert time.monotonic() - began < 4
    assert run.outcome["error"]["code"] == "MAX_DURATION_EXCEEDED"
    assert "killed" in run.outcome["error"]["message"]


@story
async def test_drain_lets_runs_finish_claims_nothing_more_and_leaves():
    async with world() as w:
        running = await w.server.trigger("sleep-async", 0.5)
        await w.begun(running)
        w.supervisor.drain()
        late = await w.server.trigger("greet", "late")
        await w.finish()
        assert running.outcome["kind"] == "succeeded"
        assert late.status == "queued"
        assert w.server.workers == {}


@story
async def test_what_does_not_finish_in_the_drain_time_is_handed_back():
    async with world(drain_seconds=0.3) as w:
        run = await w.server.trigger("sleep-async", 60)
        await w.begun(run)
        w.supervisor.drain()
        await w.finish(10)
        assert run.kinds == ["released"]
        assert run.reports[0]["started"] is True
        assert (run.status, run.attempt) == ("queued", 0)


@story
async def test_a_second_signal_stops_at_once():
    async with world(drain_seconds=60) as w:
        run = await w.server.trigger("block-loop", 60)
        await w.begun(run)
        w.supervisor.drain()
        w.supervisor.stop_now()
        await w.finish(5)
        assert run.status == "queued"


@story
async def test_heartbeats_go_on_while_user_code_holds_the_interpreter():
    async with world(ProtocolServer(lease_ms=1_000)) as w:
        run = await w.server.trigger("hold-interpreter", 3)
        await w.begun(run)
        before = w.server.heartbeats
        await w.server.ended(run)
        assert w.server.heartbeats - before >= 6
        await w.said("does not answer")
    assert run.kinds == ["succeeded"]


@story
async def test_reports_are_kept_while_the_server_is_away_for_less_than_the_lease():
    async with world(ProtocolServer(lease_ms=5_000)) as w:
        run = await w.server.trigger("sleep-async", 0.3)
        await w.begun(run)
        w.server.is_down = True
        await asyncio.sleep(1.5)
        assert run.status == "executing"
        w.server.is_down = False
        await w.server.ended(run)
    assert run.kinds == ["succeeded"]


@story
async def test_user_code_is_stopped_before_a_lease_that_can_not_be_renewed_is_over():
    async with world(ProtocolServer(lease_ms=1_500)) as w:
        run = await w.server.trigger("sleep-async", 60)
        await w.begun(run)
        child = w.supervisor.held(run.id).child
        w.server.refuse_heartbeats = True
        async with asyncio.timeout(1.5):
            while child.process.returncode is None:
                await asyncio.sleep(0.01)
        w.server.refuse_heartbeats = False
        await w.server.until(lambda: run.attempt == 2 and run.status == "executing")
        assert run.kinds == []


@story
async def test_a_worker_that_was_declared_lost_joins_again():
    async with world(ProtocolServer(lease_ms=1_000)) as w:
        w.server.workers.clear()
        await w.server.until(lambda: len(w.server.workers) == 1)
        run = await w.server.trigger("greet", "back")
        await w.server.ended(run)
    assert run.outcome["kind"] == "succeeded"


@pytest.mark.parametrize("status", [0, 503])
@story
async def test_runs_of_a_claim_whose_answer_was_lost_come_back(status):
    async with world(ProtocolServer(lease_ms=3_000)) as w:
        w.server.fail_next_claim = status
        run = await w.server.trigger("greet", "twice")
        await w.server.ended(run)
    assert run.outcome["kind"] == "succeeded"
    assert run.attempt == 2
