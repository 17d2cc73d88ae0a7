"""Durable code in unusual shapes: branches that end together, cancellations, failures of every kind, odd values."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from holdfast import RunFailed, Token, arun_all, current_run, step, task, wait
from holdfast.errors import WaitpointNotFound
from holdfast.sdk.values import digest
from holdfast.testing import InMemory
from holdfast.worker.capture import RunHandler

# ---- suspensions


@pytest.mark.parametrize("how", ["gather", "wait", "queue", "event", "shield"])
def test_a_suspension_does_not_reach_code_as_a_result_or_leave_it_waiting(
    holdfast: InMemory, how: str
) -> None:
    @task
    async def work() -> list[int]:
        tokens = [await wait.atoken(int), await wait.atoken(int)]
        if how == "gather":
            found = await asyncio.gather(*(one.aresult() for one in tokens), return_exceptions=True)
            return [one for one in found if isinstance(one, int)]
        if how == "wait":
            tasks = [asyncio.create_task(one.aresult()) for one in tokens]
            await asyncio.wait(tasks)
            return [one.result() for one in tasks if one.exception() is None]
        if how == "shield":
            return [await asyncio.shield(asyncio.create_task(one.aresult())) for one in tokens]
        queue: asyncio.Queue[int] = asyncio.Queue()
        over = asyncio.Event()

        async def fill() -> None:
            for one in tokens:
                await queue.put(await one.aresult())
            over.set()

        filling = asyncio.create_task(fill())
        if how == "event":
            await over.wait()
        found = [await queue.get() for _ in tokens]
        await filling
        return found

    run = holdfast.start(work)
    assert run.status == "WAITING_TO_RESUME"
    for token in run.tokens:
        token.complete(1)
    assert run.result() == [1, 1]


def test_a_clean_up_that_fails_while_the_run_is_suspended_does_not_fail_the_run(holdfast: InMemory) -> None:
    @task(retry=1)
    async def work() -> str:
        slept = False
        try:
            await wait.asleep("1d")
            slept = True
        finally:
            if not slept:
                raise ConnectionError("closed already")
        return "slept"

    run = holdfast.start(work)
    assert run.status == "WAITING_TO_RESUME"
    holdfast.clock.advance("1d")
    assert run.result() == "slept"


def test_what_ended_before_a_time_limit_counts_also_when_it_is_seen_later(holdfast: InMemory) -> None:
    @task
    async def work() -> int:
        return await (await wait.atoken(int)).aresult(timeout="1h")

    run = holdfast.start(work)
    Token.by_id(run.token.id).complete(5)  # and nobody is there to see it for two hours
    holdfast.clock.ms += 2 * 3_600_000
    holdfast.settle()
    assert run.result() == 5


def test_what_does_not_exist_is_told_to_the_one_who_waits_for_it(holdfast: InMemory) -> None:
    @step
    async def note(text: str) -> None: ...

    async def ask(id: str) -> str:
        try:
            return str(await Token.by_id(id).aresult())
        except WaitpointNotFound as error:
            return type(error).__name__

    @task(retry=1)
    async def work() -> list[str]:
        token = await wait.atoken(int)
        found = await asyncio.gather(ask("waitpoint_nowhere"), ask(token.id))
        await note(found[0])
        await wait.asleep("1d")
        return list(found)

    run = holdfast.start(work)
    run.token.complete(3)
    holdfast.clock.advance("1d")
    assert run.result() == ["WaitpointNotFound", "3"]
    assert holdfast.calls(note) == 1


def test_a_run_that_waits_before_it_has_recorded_anything_writes_metadata_and_logs_once(
    holdfast: InMemory,
) -> None:
    log = logging.getLogger("corners")
    log.addHandler(RunHandler())
    log.setLevel(logging.INFO)
    log.propagate = False

    @task
    async def maker() -> int:
        return await (await wait.atoken(int)).aresult()

    @task
    async def work(id: str) -> int:
        current_run().metadata.increment("count")
        token = await wait.atoken(int) if id == "" else Token.by_id(id, int)
        log.info("waits")
        return await token.aresult()

    made = holdfast.start(maker)
    runs = [holdfast.start(work, made.token.id), holdfast.start(work, "")]
    holdfast.clock.advance("1m")
    for run in (made, runs[1]):
        run.token.complete(3)
    for run in runs:
        assert (run.result(), run.metadata) == (3, {"count": 1})
        logs = holdfast.client.connection.run(_logs(run.id))
        assert [one["message"] for one in logs] == ["waits"]


def _logs(run_id: str) -> Any:
    from holdfast.sdk.policy import Request, asked

    answer = yield from asked(Request("GET", f"/api/v1/runs/{run_id}/logs"))
    return answer["data"]


# ---- cancellations


@pytest.mark.parametrize("is_step", [True, False])
def test_what_a_failure_cancelled_is_done_by_the_next_attempt(holdfast: InMemory, is_step: bool) -> None:
    fails = [True]

    async def flaky() -> int:
        await asyncio.sleep(0.01)
        if fails and fails.pop():
            raise ValueError("once")
        return 1

    @step
    async def slow() -> int:
        await asyncio.sleep(0.2)
        return 2

    @task(retry=2)
    async def work() -> int:
        async with asyncio.TaskGroup() as group:
            first = group.create_task(step(flaky)() if is_step else flaky())
            second = group.create_task(slow())
        return first.result() + second.result()

    run = holdfast.start(work)
    assert (run.result(), holdfast.calls(slow)) == (3, 2)


def test_a_time_limit_that_is_over_while_a_result_is_stored_is_kept(holdfast: InMemory) -> None:
    @step
    async def quick() -> None: ...

    @step
    async def instead() -> str:
        return "instead"

    @task(retry=1)
    async def work() -> str:
        try:
            async with asyncio.timeout(0.05):
                while True:
                    await quick()
        except TimeoutError:
            result = await instead()
        await wait.asleep("1d")
        return result

    run = holdfast.start(work)
    count = holdfast.calls(quick)
    holdfast.clock.advance("1d")
    assert run.result() == "instead"
    assert (holdfast.calls(quick), holdfast.calls(instead)) == (count, 1)


def test_a_step_that_ends_with_a_cancellation_that_nobody_asked_for_has_failed(holdfast: InMemory) -> None:
    @step
    async def confused() -> None:
        helper = asyncio.create_task(asyncio.sleep(10))
        helper.cancel()
        await helper

    @task
    async def work() -> str:
        try:
            await confused()
        except asyncio.CancelledError:
            await wait.asleep("1d")
        return "done"

    run = holdfast.start(work)
    holdfast.clock.advance("1d")
    assert (run.result(), holdfast.calls(confused)) == ("done", 1)


# ---- branches


def test_tasks_within_a_step_do_not_count_as_branches(holdfast: InMemory) -> None:
    @step
    async def double(number: int) -> int:
        return 2 * number

    async def helper(number: int) -> int:
        return await double(number)

    @step
    async def inside() -> list[int]:
        return list(await asyncio.gather(helper(1), helper(2)))

    @task(on_start_attempt=lambda run: _start(helper(0)))
    async def work() -> list[list[int]]:
        first = await inside()
        second = await asyncio.gather(helper(3), helper(4))
        await wait.asleep("1d")
        return [first, list(second)]

    async def _start(coro: Any) -> None:
        await asyncio.create_task(coro)

    run = holdfast.start(work)
    holdfast.clock.advance("1d")
    assert run.result() == [[2, 4], [6, 8]]
    assert holdfast.calls(double) == 2


def test_tasks_in_a_context_that_is_given_are_branches(holdfast: InMemory) -> None:
    @step
    async def lag(seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds

    @task
    async def work() -> list[float]:
        context = contextvars.copy_context()
        tasks = [asyncio.create_task(lag(seconds), context=context) for seconds in (0.02, 0.0)]
        found = [await one for one in tasks]
        await wait.asleep("1d")
        return found

    run = holdfast.start(work)
    holdfast.clock.advance("1d")
    assert (run.result(), holdfast.calls(lag)) == ([0.02, 0.0], 2)


def test_steps_in_a_hook_that_decides_about_a_failure_are_not_recorded(holdfast: InMemory) -> None:
    fails = [True, True]

    @step
    async def note() -> None: ...

    @step
    async def work_on() -> int:
        return 1

    async def decide(run: Any, error: Exception) -> None:
        await note()

    @task(retry=3, catch_error=decide)
    async def work() -> int:
        if fails and fails.pop():
            raise ValueError("not in a step")
        return await work_on()

    run = holdfast.start(work)
    assert run.result() == 1
    assert [entry["name"] for entry in run.journal] == ["work_on"]


# ---- failures and values


class Odd(BaseException):
    pass


class Missing(OSError):
    def __init__(self, *args: Any) -> None:
        raise AssertionError("no code of the class runs when it is made again")


def _raise(kind: str) -> None:
    if kind == "base":
        raise Odd("not an Exception")
    if kind == "file":
        Path("/nowhere/at all").read_text()
    if kind == "own":
        raise Missing.__new__(Missing, 2, "gone")
    if kind == "unicode":
        b"\xff".decode()
    if kind == "text":
        raise ValueError("a\x00b\ud800c")
    if kind == "group":
        raise ExceptionGroup(
            "both", [ValueError("one", 1), ExceptionGroup("two", [FileNotFoundError(2, "no")])]
        )
    if kind == "base group":
        raise BaseExceptionGroup("odd", [Odd("x")])


def _told(error: BaseException) -> Any:
    facts = [type(error).__name__, getattr(error, "errno", None), getattr(error, "filename", None)]
    if isinstance(error, BaseExceptionGroup):
        return [*facts, error.message, [_told(one) for one in error.exceptions]]
    return facts


@pytest.mark.parametrize("is_sync", [True, False])
@pytest.mark.parametrize("kind", ["base", "file", "own", "unicode", "text", "group", "base group"])
def test_a_failure_of_any_kind_comes_back_as_it_was(holdfast: InMemory, kind: str, is_sync: bool) -> None:
    seen: list[Any] = []

    @step
    async def fail() -> None:
        _raise(kind)

    @step
    def fail_here() -> None:
        _raise(kind)

    @step
    async def after() -> None: ...

    @task(retry=1)
    async def work() -> None:
        try:
            await (asyncio.to_thread(fail_here) if is_sync else fail())
        except (Exception, Odd, BaseExceptionGroup) as error:
            seen.append(_told(error))
        if len(seen) == 1 or seen[0] == seen[1]:
            await after()
        await wait.asleep("1d")

    run = holdfast.start(work)
    holdfast.clock.advance("1d")
    run.result()
    assert seen[0] == seen[1]
    assert holdfast.calls(fail) + holdfast.calls(fail_here) == 1


@pytest.mark.parametrize("value", ["ü€😀\u2028", "", None, [None], {"": None}, 2**70, 1e308])
def test_odd_results_come_back(holdfast: InMemory, value: Any) -> None:
    @step
    async def give() -> Any:
        return value

    @task
    async def work() -> bool:
        found = await give()
        await wait.asleep("1d")
        return bool(found == value)

    run = holdfast.start(work)
    holdfast.clock.advance("1d")
    assert (run.result(), holdfast.calls(give)) == (True, 1)


@pytest.mark.parametrize("name", ["", "\x00", "\ud800", "x" * 201])
def test_a_step_name_that_can_not_be_stored_is_refused(name: str) -> None:
    if name:
        with pytest.raises(ValueError, match="must have 1 to 200 characters"):
            step(name=name)(_raise)


def test_a_step_may_be_given_an_iterator(holdfast: InMemory) -> None:
    @step
    async def total(numbers: Iterator[int]) -> int:
        return sum(numbers)

    @task
    async def work() -> int:
        return await total(number for number in range(4))

    assert holdfast.start(work).result() == 6


@dataclass(slots=True)
class Slotted:
    tags: set[str]


@pytest.mark.parametrize("value", [{"a"}, Slotted({"a"}), [deque([{"a"}])], iter([1]), (x for x in "a")])
def test_arguments_without_an_order_have_no_digest(value: Any) -> None:
    assert digest([value], {}) is None
    assert digest([1, Slotted], {}) == digest([1, Slotted], {})


def test_a_failure_that_a_branch_has_handled_is_not_tried_again(holdfast: InMemory) -> None:
    fails = [True]

    @task(retry=1)
    async def child() -> None:
        raise ValueError("always")

    @step
    async def later() -> int:
        if fails and fails.pop():
            raise ValueError("once")
        return 2

    async def branch() -> list[Any]:
        return list(await arun_all([child.bind()], return_exceptions=True))

    @task(retry=2)
    async def work() -> int:
        [found] = await asyncio.gather(branch())
        assert isinstance(found[0], RunFailed)
        return await later()

    run = holdfast.start(work)
    assert run.result() == 2
    assert len(run.children) == 1


@pytest.mark.parametrize("how", ["first", "limit"])
def test_a_child_that_failed_in_a_wait_for_several_or_with_a_limit_is_triggered_anew(
    holdfast: InMemory, how: str
) -> None:
    fails = [True]

    @step
    async def note() -> None: ...

    @task(retry=1)
    async def child(minutes: int) -> int:
        await wait.asleep(60 * minutes)
        if minutes == 1 and fails and fails.pop():
            raise ValueError("once")
        return minutes

    @task(retry=2)
    async def work() -> int:
        quick, slow = await child.atrigger(1), await child.atrigger(60)
        if how == "limit":
            return await quick.aresult(timeout="1d")
        winner = await wait.afirst(quick, slow)
        await note()
        return await winner.aresult()

    run = holdfast.start(work)
    holdfast.clock.advance("3m")
    assert (run.result(), len(run.children)) == (1, 3)
    assert holdfast.calls(note) == (how == "first")


def test_metadata_after_a_failure_is_that_of_the_way_the_code_takes_now(holdfast: InMemory) -> None:
    fails = [True]

    @step
    async def flaky() -> None:
        if fails and fails.pop():
            raise ValueError("once")

    @step
    async def clean_up() -> None: ...

    @task(retry=2)
    async def work() -> None:
        metadata = current_run().metadata
        metadata.increment("begun")
        try:
            await flaky()
        except ValueError:
            metadata["stage"] = "failed"
            await clean_up()
            raise
        metadata["stage"] = "done"

    run = holdfast.start(work)
    run.result()
    assert run.metadata == {"begun": 1, "stage": "done"}
