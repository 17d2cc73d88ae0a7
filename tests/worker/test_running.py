"""What becomes of ordinary runs."""

import asyncio
import time

from worker.protocol_server import ProtocolServer
from worker.world import TASKS, story, world


@story
async def test_async_and_sync_tasks_run_and_their_outputs_are_reported():
    async with world() as w:
        greeting = await w.server.trigger("greet", "ann")
        total = await w.server.trigger("add", {"left": 2, "right": 3})
        await w.server.ended(greeting, total)
    assert (greeting.outcome["kind"], greeting.outcome["output"]) == ("succeeded", '"hello ann"')
    assert (total.outcome["kind"], total.outcome["output"]) == ("succeeded", "5")


@story
async def test_a_failure_is_reported_with_the_traceback_of_the_users_code_only():
    async with world() as w:
        run = await w.server.trigger("fail", "no such customer", max_attempts=1)
        await w.server.ended(run)
    error = run.outcome["error"]
    assert (error["type"], error["name"], error["message"]) == (
        "BUILT_IN_ERROR",
        "ValueError",
        "no such customer",
    )
    assert "hostile_tasks.py" in error["stackTrace"]
    assert "holdfast/worker" not in error["stackTrace"]
    assert run.outcome["retryDelayMs"] is None


@story
async def test_a_failed_attempt_is_tried_again_in_the_worker_after_the_granted_delay():
    async with world() as w:
        run = await w.server.trigger("fail-first")
        await w.server.ended(run)
    assert run.kinds == ["failed", "started", "succeeded"]
    assert run.outcome["output"] == "2"


@story
async def test_an_unknown_task_is_reported_and_not_tried_again():
    async with world() as w:
        run = await w.server.trigger("nobody-wrote-it")
        await w.server.ended(run)
    assert run.outcome["error"]["code"] == "COULD_NOT_FIND_TASK"
    assert run.outcome["retryDelayMs"] is None


@story
async def test_an_output_that_is_not_json_names_its_type_and_is_not_tried_again():
    async with world() as w:
        run = await w.server.trigger("unwritable")
        await w.server.ended(run)
    assert run.outcome["error"]["code"] == "TASK_OUTPUT_ERROR"
    assert "object" in run.outcome["error"]["message"]
    assert run.outcome["retryDelayMs"] is None


@story
async def test_print_and_logging_belong_to_their_run_and_come_before_its_outcome():
    async with world() as w:
        run = await w.server.trigger("talk")
        await w.server.ended(run)
    assert run.log_lines == [
        ("WARNING", "shop", "stock is 3"),
        ("INFO", "stdout", "printed words"),
        ("INFO", "stderr", "to stderr"),
        ("INFO", "stdout", "no newline"),
    ]
    assert run.kinds == ["logs", "succeeded"]


@story
async def test_metadata_and_tags_are_merged_and_come_before_the_outcome():
    async with world() as w:
        run = await w.server.trigger("tell")
        await w.server.ended(run)
    assert run.kinds == ["metadata", "tags", "succeeded"]
    assert run.reports[0]["operations"] == [{"type": "set", "key": "step", "value": 2}]
    assert run.reports[1]["tags"] == ["user:7"]


@story
async def test_log_records_of_a_run_are_bounded_and_the_last_one_says_so():
    async with world() as w:
        run = await w.server.trigger("chatter", 12_000)
        await w.server.ended(run)
    assert len(run.log_lines) == 10_000
    assert run.log_lines[-2][2] == "9998"
    assert "dropped" in run.log_lines[-1][2]


@story
async def test_a_module_that_does_not_import_is_named_and_the_other_tasks_run(tmp_path):
    broken = TASKS.replace("hostile_tasks", "broken_tasks")
    async with world(tasks=(broken, TASKS)) as w:
        run = await w.server.trigger("greet", "bob")
        await w.server.ended(run)
        await w.said("a_module_that_does_not_exist")
        await w.said("broken_tasks.py, line 3")
    assert run.outcome["output"] == '"hello bob"'


@story
async def test_isolated_and_alone_runs_have_processes_of_their_own():
    async with world() as w:
        shared = [await w.server.trigger("process-id") for _ in range(2)]
        single = [await w.server.trigger("own-process"), await w.server.trigger("process-id", alone=True)]
        await w.server.ended(*shared, *single)
    assert shared[0].outcome["output"] == shared[1].outcome["output"]
    assert len({run.outcome["output"] for run in (*shared, *single)}) == 3


@story
async def test_a_memory_limit_ends_in_out_of_memory_and_not_for_smaller_appetites():
    async with world() as w:
        small = await w.server.trigger("greedy", 8)
        large = await w.server.trigger("greedy", 512)
        await w.server.ended(small, large)
    assert small.outcome["kind"] == "succeeded"
    assert large.outcome["error"]["code"] == "TASK_PROCESS_OOM_KILLED"
    assert large.outcome["retryDelayMs"] is None


@story
async def test_an_executor_is_replaced_after_its_number_of_runs_and_nothing_is_lost():
    async with world(recycle_after=50) as w:
        runs = await w.server.trigger_many("process-id", 200)
        await w.server.ended(*runs)
        async with asyncio.timeout(15):
            while len({run.outcome["output"] for run in runs}) < 2:
                runs += await w.server.trigger_many("process-id", 1)
                await w.server.ended(*runs)
    assert all(run.kinds == ["succeeded"] for run in runs)


@story
async def test_two_thousand_empty_runs_all_succeed(capsys):
    server = ProtocolServer()
    async with world(server, executors=2, concurrency=200) as w:
        began = time.perf_counter()
        runs = await w.server.trigger_many("noop", 2_000)
        await w.server.ended(*runs)
        seconds = time.perf_counter() - began
    assert all(run.kinds == ["succeeded"] for run in runs)
    with capsys.disabled():
        print(
            f"\n2,000 empty runs: {2_000 / seconds:,.0f} runs/s, {server.claims} claims, {server.report_calls} reports"
        )
