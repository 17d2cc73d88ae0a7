"""What durable code may count on: nothing recorded is done again, whatever way the code takes."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr

from holdfast import (
    AbortRun,
    Retry,
    RunFailed,
    StepFailed,
    StepTimedOut,
    Token,
    TokenTimedOut,
    arun_all,
    current_run,
    run_all,
    step,
    task,
    wait,
)
from holdfast.errors import ResultTimeout
from holdfast.testing import InMemory, NotCrashSafe, NotYet


class Declined(Exception):
    def __init__(self, card: str, code: int) -> None:
        super().__init__(f"{card} was declined")
        self.card = card
        self.code = code


class Answer(BaseModel):
    ok: bool
    by: str = ""


@dataclass
class Point:
    x: int
    when: datetime


def test_steps_run_once_each_and_survive_a_kill_after_any_entry(holdfast: InMemory) -> None:
    @step
    async def add(a: int, b: int) -> int:
        return a + b

    @task
    async def total(count: int) -> int:
        sum_ = 0
        for number in range(count):
            sum_ = await add(sum_, number)
        return sum_

    run = holdfast.start(total, 5)
    assert (run.result(), holdfast.calls(add)) == (10, 5)
    assert [(entry["kind"], entry["name"]) for entry in run.journal] == [("step", "add")] * 5
    holdfast.assert_crash_safe(total, 5)


def test_outside_of_a_run_steps_and_waits_are_plain(holdfast: InMemory) -> None:
    @step(retry=3)
    def double(number: int) -> int:
        return 2 * number

    @step
    async def adouble(number: int) -> int:
        return 2 * number

    assert (double(2), asyncio.run(adouble(3))) == (4, 6)
    wait.sleep(0)
    asyncio.run(wait.asleep(timedelta(0)))
    assert holdfast.calls(double) == 0


def test_sync_code_is_as_durable(holdfast: InMemory) -> None:
    @step
    def note(text: str) -> str:
        return text.upper()

    @task
    def child(number: int) -> int:
        return number * 10

    @task
    def remind(name: str) -> list[Any]:
        first = note(name)
        wait.sleep("1d")
        ten = child.run(1)
        many = run_all(child.bind(number) for number in (2, 3))
        token = wait.token(int)
        return [first, ten, many, token.result(), note("end")]

    run = holdfast.start(remind, "ann")
    assert (run.status, holdfast.calls(note)) == ("WAITING_TO_RESUME", 1)
    holdfast.clock.advance("23h")
    assert run.status == "WAITING_TO_RESUME"
    holdfast.clock.advance("1h")
    run.token.complete(7)
    assert run.result() == ["ANN", 10, [20, 30], 7, "END"]
    assert holdfast.calls(note) == 2
    holdfast.assert_crash_safe(remind, "ann")


def test_results_come_back_as_their_type(holdfast: InMemory) -> None:
    @step
    async def point(x: int) -> Point:
        return Point(x, datetime(2026, 1, 2, tzinfo=UTC))

    @step
    async def secret() -> dict[str, SecretStr]:
        return {"key": SecretStr("hunter2")}

    @step
    async def untyped():  # type: ignore[no-untyped-def]  # on purpose
        return (1, 2)

    seen: list[Any] = []

    @task
    async def work() -> str:
        seen.append((await point(3), (await secret())["key"].get_secret_value(), await untyped()))
        await wait.asleep("1h")
        return seen[-1][1]

    run = holdfast.start(work)
    holdfast.clock.advance("1h")
    assert run.result() == "hunter2"
    first, again = seen
    assert first == again == (Point(3, datetime(2026, 1, 2, tzinfo=UTC)), "hunter2", [1, 2])


def test_a_failed_step_is_tried_anew_by_the_next_attempt_and_the_others_are_not(holdfast: InMemory) -> None:
    outcomes = iter([ValueError("first"), ValueError("second"), 3])

    @step
    async def good() -> int:
        return 1

    @step
    async def flaky() -> int:
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    @task(retry=3)
    async def work() -> int:
        return await good() + await flaky()

    run = holdfast.start(work)
    assert run.result() == 4
    assert (holdfast.calls(good), holdfast.calls(flaky)) == (1, 3)


def test_a_failure_that_code_goes_on_from_is_kept_with_its_class(holdfast: InMemory) -> None:
    seen: list[Any] = []

    @step
    async def charge() -> str:
        raise Declined("visa", 51)

    @step
    async def other_way(code: int) -> str:
        return f"by invoice, after {code}"

    @task
    async def work() -> str:
        try:
            return await charge()
        except Declined as error:
            seen.append((error.card, error.code, str(error)))
            result = await other_way(error.code)
            await wait.asleep("1d")
            return result

    run = holdfast.start(work)
    holdfast.clock.advance("1d")
    assert run.result() == "by invoice, after 51"
    assert (holdfast.calls(charge), holdfast.calls(other_way)) == (1, 1)
    assert seen == [("visa", 51, "visa was declined")] * 2
    holdfast.assert_crash_safe(work)


def test_a_failure_of_an_unknown_class_comes_back_as_stepfailed(holdfast: InMemory) -> None:
    caught: list[BaseException] = []

    @step
    async def fail() -> None:
        class Local(Exception):
            pass

        raise Local("here only")

    @task
    async def work() -> None:
        try:
            await fail()
        except Exception as error:
            caught.append(error)
        await wait.asleep("1d")

    holdfast.start(work)
    holdfast.clock.advance("1d")
    assert type(caught[0]).__name__ == "Local"
    assert isinstance(caught[1], StepFailed)
    assert "here only" in str(caught[1])


def test_clean_up_after_a_failure_is_not_repeated_and_not_missed(holdfast: InMemory) -> None:
    fails = [True, False]

    @step
    async def reserve() -> str:
        if fails.pop(0):
            raise ValueError("no room")
        return "room 7"

    @step
    async def clean_up() -> None: ...

    @step
    async def confirm(room: str) -> str:
        return f"{room} it is"

    @task(retry=2)
    async def work() -> str:
        try:
            room = await reserve()
        except ValueError:
            await clean_up()
            raise
        return await confirm(room)

    run = holdfast.start(work)
    assert run.result() == "room 7 it is"
    assert (holdfast.calls(reserve), holdfast.calls(clean_up), holdfast.calls(confirm)) == (2, 1, 1)


def test_steps_have_their_own_retry_and_timeout(holdfast: InMemory) -> None:
    tries = []

    @step(retry=Retry(3, min_delay="10s"))
    async def flaky() -> int:
        tries.append(holdfast.clock.now)
        if len(tries) < 3:
            raise ValueError("again")
        return 1

    @step(timeout=0.05)
    async def slow() -> None:
        await asyncio.sleep(10)

    @step(retry=Retry(5, give_up_on=(KeyError,)))
    async def hopeless() -> None:
        raise KeyError("x")

    @task
    async def work() -> list[str]:
        names = [str(await flaky())]
        for one in (slow, hopeless):
            try:
                await one()
            except Exception as error:
                names.append(type(error).__name__)
        return names

    run = holdfast.start(work)
    assert run.result() == ["1", "StepTimedOut", "KeyError"]
    assert tries[1] - tries[0] >= timedelta(seconds=10)
    assert holdfast.calls(hopeless) == 1
    assert issubclass(StepTimedOut, TimeoutError)


def test_a_sync_step_is_left_after_its_timeout(holdfast: InMemory) -> None:
    import threading

    let_go = threading.Event()

    @step(timeout=0.05)
    def stuck() -> None:
        let_go.wait(10)

    @task(retry=1)
    def work() -> None:
        stuck()

    run = holdfast.start(work)
    let_go.set()
    with pytest.raises(RunFailed, match=r"step stuck took longer than 0\.05 s"):
        run.result()


@pytest.mark.parametrize("how", ["gather", "group", "wait", "as_completed"])
def test_branches_keep_their_results_apart(holdfast: InMemory, how: str) -> None:
    gates: dict[int, asyncio.Event] = {}

    @step
    async def first(number: int) -> int:
        # The second branch is faster, the first time; a replay has no time to show it.
        gates.setdefault(0, asyncio.Event())
        if number == 0:
            await gates[0].wait()
        else:
            gates[0].set()
        return number

    @step
    async def second(number: int) -> str:
        return f"second of {number}"

    async def branch(number: int) -> str:
        return await second(await first(number))

    @task
    async def work() -> list[str]:
        if how == "gather":
            results = await asyncio.gather(branch(0), branch(1))
        elif how == "group":
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(branch(number)) for number in range(2)]
            results = [one.result() for one in tasks]
        elif how == "wait":
            pending = {asyncio.create_task(branch(number)) for number in range(2)}
            results = []
            while pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                results += [one.result() for one in done]
        else:
            tasks = [asyncio.create_task(branch(number)) for number in range(2)]
            results = [await one for one in asyncio.as_completed(tasks)]
        await note(results)
        await wait.asleep("1d")
        return results

    @step
    async def note(results: list[str]) -> None: ...

    run = holdfast.start(work)
    holdfast.clock.advance("1d")
    assert sorted(run.result()) == ["second of 0", "second of 1"]
    assert (holdfast.calls(first), holdfast.calls(second), holdfast.calls(note)) == (2, 2, 1)
    holdfast.assert_crash_safe(work)


def test_whoever_was_first_is_first_again(holdfast: InMemory) -> None:
    @step
    async def lag(seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds

    @step
    async def won(seconds: float) -> float:
        return seconds

    @task
    async def work() -> float:
        tasks = {asyncio.create_task(lag(seconds)) for seconds in (0.05, 0.0)}
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        assert len(done) == 1
        winner = await won(done.pop().result())
        await asyncio.wait(pending)
        await wait.asleep("1d")
        return winner

    run = holdfast.start(work)
    holdfast.clock.advance("1d")
    assert run.result() == 0.0
    holdfast.assert_crash_safe(work)


def test_what_the_code_cancelled_is_cancelled_again(holdfast: InMemory) -> None:
    @step
    async def slow() -> str:
        await asyncio.sleep(60)
        return "never"

    @step
    async def instead() -> str:
        return "instead"

    @task
    async def work() -> str:
        try:
            async with asyncio.timeout(0.02):
                return await slow()
        except TimeoutError:
            result = await instead()
            await wait.asleep("1d")
            return result

    run = holdfast.start(work)
    holdfast.clock.advance("1d")
    assert run.result() == "instead"
    assert (holdfast.calls(slow), holdfast.calls(instead)) == (1, 1)


def test_a_wait_suspends_and_unwinds_the_code(holdfast: InMemory) -> None:
    story: list[str] = []

    class Resource:
        async def __aenter__(self) -> None:
            story.append("open")

        async def __aexit__(self, *_: Any) -> None:
            story.append("close")

    @step
    async def in_finally() -> None:
        story.append("step in finally")

    @task
    async def work() -> str:
        try:
            async with Resource():
                await wait.auntil(holdfast.clock.now.replace(microsecond=0) + timedelta(days=3))
        except Exception:
            story.append("swallowed")
        finally:
            await in_finally()
        return "done"

    run = holdfast.start(work)
    assert (run.status, story) == ("WAITING_TO_RESUME", ["open", "close"])
    holdfast.clock.advance("3d")
    # `until` is computed anew: the sleep that has begun keeps its end.
    assert run.result() == "done"
    assert story == ["open", "close", "open", "close", "step in finally"]


def test_code_that_swallows_the_suspension_is_told(holdfast: InMemory) -> None:
    @task
    async def work() -> str:
        try:
            await wait.asleep("1d")
        except BaseException:
            return "I go on"
        return "slept"

    with pytest.raises(RunFailed, match="caught Suspended, which unwinds a run that waits, and went on"):
        holdfast.start(work).result()


def test_a_run_with_a_live_branch_is_not_suspended(holdfast: InMemory) -> None:
    @task
    async def work() -> list[Any]:
        token = await wait.atoken(int, timeout="1h")

        async def live() -> str:
            await asyncio.sleep(0.3)  # whatever it does, it is not recorded
            story.append("live")
            return "live"

        return list(await asyncio.gather(live(), token.aresult()))

    story: list[str] = []
    run = holdfast.start(work)
    assert (run.status, story) == ("WAITING_TO_RESUME", ["live"])
    run.token.complete(3)
    assert run.result() == ["live", 3]


def test_children_are_triggered_once_and_their_results_come_in_order(holdfast: InMemory) -> None:
    @task(retry=1)
    async def child(number: int) -> int:
        if number == 13:
            raise ValueError("unlucky")
        await wait.asleep(f"{10 - number}m")
        return number * number

    @task
    async def parent(numbers: list[int]) -> list[Any]:
        results = await arun_all((child.bind(number) for number in numbers), return_exceptions=True)
        one = await child.atrigger(2)
        kept = [result if isinstance(result, int) else type(result).__name__ for result in results]
        return [*kept, await one.aresult(), one.task_identifier]

    run = holdfast.start(parent, [3, 1, 13, 2])
    assert run.status == "WAITING_TO_RESUME"
    holdfast.clock.advance("1h")
    assert run.result() == [9, 1, "RunFailed", 4, 4, "child"]
    assert len(run.children) == 5
    holdfast.assert_crash_safe(parent, [3, 1, 2])


def test_one_key_in_two_places_of_a_batch_gives_both_the_same_result(holdfast: InMemory) -> None:
    """Engine semantics, seeds 8 and 9: also when the run of the key has ended before."""

    @task
    async def child(number: int) -> int:
        await wait.asleep("1m")
        return number * number

    @task
    async def parent() -> list[int]:
        keyed = child.options(idempotency_key="one")
        both = await arun_all([keyed.bind(3), child.bind(4), keyed.bind(5)])
        return [*both, *await arun_all([keyed.bind(6), keyed.bind(7)])]

    run = holdfast.start(parent)
    holdfast.clock.advance("1h")
    assert run.result() == [9, 16, 9, 9, 9]
    assert len(run.children) == 2


def test_the_first_failure_of_a_child_resumes_its_parent(holdfast: InMemory) -> None:
    @task(retry=1)
    async def child(minutes: int) -> int:
        await wait.asleep(f"{minutes}m")
        if minutes == 5:
            raise ValueError("no")
        return minutes

    @task(retry=1)
    async def parent() -> None:
        await arun_all(child.bind(minutes) for minutes in (1, 5, 600))

    run = holdfast.start(parent)
    holdfast.clock.advance("1m")
    assert run.status == "WAITING_TO_RESUME"
    holdfast.clock.advance("4m")
    assert run.status == "COMPLETED_WITH_ERRORS"


def test_a_failed_child_is_triggered_anew_by_the_next_attempt_and_its_siblings_are_not(
    holdfast: InMemory,
) -> None:
    fails = {2}

    @task(retry=1)
    async def child(number: int) -> int:
        if number in fails:
            fails.discard(number)
            raise ValueError("once")
        return number

    @task(retry=2)
    async def parent() -> list[int]:
        return await arun_all(child.bind(number) for number in (1, 2, 3))

    run = holdfast.start(parent)
    assert run.result() == [1, 2, 3]
    statuses = sorted((one.payload, str(one.status)) for one in run.children)
    assert statuses == [
        (1, "COMPLETED_SUCCESSFULLY"),
        (2, "COMPLETED_SUCCESSFULLY"),
        (2, "COMPLETED_WITH_ERRORS"),
        (3, "COMPLETED_SUCCESSFULLY"),
    ]


def test_a_refused_trigger_fails_where_it_is_made(holdfast: InMemory) -> None:
    @task
    async def child(number: int) -> int:
        return number

    @task
    async def parent() -> str:
        try:
            await child.options(version="20200101.1").atrigger(1)
        except Exception as error:
            return str(error)
        return "accepted"

    assert "no such version" in holdfast.start(parent).result()


def test_a_token_has_a_type_a_timeout_and_one_completion(holdfast: InMemory) -> None:
    @task(retry=1)
    async def ask(timeout: str) -> Answer:
        token = await wait.atoken(Answer, timeout=timeout, tags="order:1")
        current_run().metadata["token"] = token.id
        return await token.aresult()

    run = holdfast.start(ask, "3d")
    with pytest.raises(Exception, match="ok"):
        run.token.complete({"by": "ann"})
    id = run.token.id
    run.token.complete(Answer(ok=True, by="ann"))
    Token.by_id(id).complete({"ok": False})
    assert run.result() == Answer(ok=True, by="ann")
    assert Token.by_id(id, Answer).result() == Answer(ok=True, by="ann")
    late = holdfast.start(ask, "1h")
    holdfast.clock.advance("1h")
    with pytest.raises(RunFailed, match="TokenTimedOut"):
        late.result()
    with pytest.raises(TokenTimedOut):
        Token.by_id(late.metadata["token"]).result()


def test_a_token_is_found_by_its_key(holdfast: InMemory) -> None:
    @task
    async def ask() -> list[Any]:
        first = await wait.atoken(idempotency_key="one")
        second = await wait.atoken(idempotency_key="one")
        return [first == second, first.is_cached, second.is_cached]

    assert holdfast.start(ask).result() == [True, False, True]


def test_the_first_of_several_and_time_limits_of_waits(holdfast: InMemory) -> None:
    @task
    async def child(minutes: int) -> int:
        await wait.asleep(f"{minutes}m")
        return minutes

    @task
    async def parent() -> list[Any]:
        slow, fast = await child.atrigger(60), await child.atrigger(5)
        token = await wait.atoken(int)
        winner = await wait.afirst(token, slow, fast)
        story: list[Any] = [winner is fast, await winner.aresult()]
        for limited in (lambda: slow.aresult(timeout="5m"), lambda: wait.afirst(token, timeout="1m")):
            try:
                await limited()
            except ResultTimeout as error:
                story.append(type(error).__name__)
        story.append(await wait.afirst(token, slow) is slow)
        return story

    run = holdfast.start(parent)
    holdfast.clock.advance("2h")
    assert run.result() == [True, 5, "ResultTimeout", "ResultTimeout", True]
    holdfast.assert_crash_safe(parent)


@pytest.mark.parametrize(
    "value", [-1, "banana", float("nan"), timedelta(days=-1), timedelta(days=99_999_999)]
)
def test_a_wait_that_can_not_be_is_refused(holdfast: InMemory, value: Any) -> None:
    @task
    async def work() -> str:
        try:
            await wait.asleep(value)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return "slept"

    told = holdfast.start(work).result()
    assert told.startswith(("InvalidRequest: duration", "Unprocessable: duration")), told


def test_a_step_may_not_wait(holdfast: InMemory) -> None:
    @task
    async def child() -> int:
        return 1

    @step
    async def waits(how: str) -> None:
        if how == "sleep":
            await wait.asleep("1d")
        elif how == "child":
            await child.arun()
        elif how == "token":
            await wait.atoken()

    @task
    async def work() -> list[str]:
        told = []
        for how in ("sleep", "child", "token"):
            try:
                await waits(how)
            except Exception as error:
                told.append(f"{type(error).__name__}: {error}")
        return told

    run = holdfast.start(work)
    assert all(one.startswith("WaitInStep: ") and "the step waits" in one for one in run.result())
    assert run.children == []


def test_a_result_that_can_not_be_kept_fails_the_step(holdfast: InMemory) -> None:
    @step
    async def socket() -> Any:
        return object()

    @step
    async def large() -> str:
        return "x" * (4 * 1024 * 1024)

    @step
    async def wrong() -> int:
        return "no number"  # type: ignore[return-value]  # on purpose

    @task
    async def work() -> list[str]:
        told = []
        for one in (socket, large, wrong):
            try:
                await one()
            except Exception as error:
                told.append(str(error))
        return told

    first, second, third = holdfast.start(work).result()
    assert "the result of step socket can not be written as JSON" in first
    assert "the result of step large is 4194306 bytes: at most 3145728 are kept" in second
    assert "the result of step wrong does not fit" in third


def test_metadata_and_logs_are_not_written_twice(holdfast: InMemory) -> None:
    log = logging.getLogger("test")

    @step
    async def nothing() -> None: ...

    @task
    async def work() -> None:
        run = current_run()
        run.metadata["stage"] = "begun"
        run.metadata.increment("count")
        run.metadata.append("seen", 1)
        await nothing()
        run.metadata.append("seen", 2)
        await wait.asleep("1d")
        run.metadata.increment("count")
        del run.metadata["stage"]
        log.info("after the first sleep")
        await wait.asleep("1d")
        run.metadata.increment("count")

    run = holdfast.start(work)
    for _ in range(2):
        holdfast.clock.advance("1d")
    run.result()
    assert run.metadata == {"count": 3, "seen": [1, 2]}


def test_hooks_around_waits_and_the_locals_of_a_process(holdfast: InMemory) -> None:
    story: list[str] = []

    def connect(run: Any) -> None:
        run.locals["connection"] = "connected"

    @task(
        on_start_attempt=[connect, lambda run: story.append("start")],
        on_wait=lambda run: story.append(f"wait with {run.locals}"),
        on_resume=[lambda run: story.append(f"resume with {run.locals}"), connect],
    )
    async def work() -> str:
        await wait.asleep("1d")
        return str(current_run().locals["connection"])

    run = holdfast.start(work)
    holdfast.clock.advance("1d")
    assert run.result() == "connected"
    assert story == ["start", "wait with {'connection': 'connected'}", "resume with {}"]


def test_a_run_that_resumes_in_the_millisecond_in_which_it_began_is_resumed_all_the_same(
    holdfast: InMemory,
) -> None:
    story: list[str] = []

    @task
    def child() -> None: ...

    @task(on_resume=lambda run: story.append("resume"))
    async def work() -> int:
        await child.arun()
        return current_run().attempt

    run = holdfast.start(work)
    assert run.result() == 1
    assert story == ["resume"]


def test_code_that_changed_under_a_waiting_run_stops_and_goes_on_when_it_is_mended(
    holdfast: InMemory,
) -> None:
    @step
    async def charge() -> str:
        return "charged"

    @step
    async def check() -> None: ...

    def deployed(with_check: bool) -> Any:
        @task(id="work", retry=with_check + 1)
        async def work() -> str:
            if with_check:
                await check()
            receipt = await charge()
            await wait.asleep("1d")
            return receipt

        return work

    run = holdfast.start(deployed(with_check=False))
    holdfast.deploy(deployed(with_check=True))
    holdfast.clock.advance("1d")
    assert run.status == "WAITING_FOR_DEPLOY"
    with pytest.raises(NotYet, match="the step charge is recorded, and now it asks for the step check"):
        run.result()
    assert (holdfast.calls(check), holdfast.calls(charge)) == (0, 1)
    holdfast.deploy(deployed(with_check=False))
    assert run.result() == "charged"
    assert holdfast.calls(charge) == 1


def test_children_that_are_awaited_go_on_when_the_version_of_their_parent_is_gone(holdfast: InMemory) -> None:
    @task
    def child(name: str) -> str:
        return name

    @task
    async def parent() -> list[str]:
        later = child.options(delay="2s")
        await later.atrigger("free")
        return [await later.arun("one"), *await arun_all([later.bind("two")])]

    run = holdfast.start(parent)
    holdfast.deploy()
    holdfast.clock.advance("1m")
    assert run.result() == ["one", "two"]


def test_code_that_is_not_the_same_each_time_is_not_crash_safe(holdfast: InMemory) -> None:
    numbers = iter(range(1_000))

    @step
    async def keep(number: int) -> int:
        return number

    @task
    async def work() -> int:
        await keep(1)
        return next(numbers)

    with pytest.raises(NotCrashSafe, match="killed after entry 1 of 1"):
        holdfast.assert_crash_safe(work)


def test_an_abort_in_a_step_ends_the_run(holdfast: InMemory) -> None:
    @step(retry=3)
    async def hopeless() -> None:
        raise AbortRun("no use")

    @task(retry=5)
    async def work() -> None:
        await hopeless()

    with pytest.raises(RunFailed, match="no use"):
        holdfast.start(work).result()
    assert holdfast.calls(hopeless) == 1


def test_any_function_can_be_a_step_and_methods_too(holdfast: InMemory) -> None:
    class Shop:
        @step
        async def price(self, item: str) -> int:
            return len(item)

    @task
    async def work() -> list[Any]:
        return [step(str.upper)("a") if False else await Shop().price("pen"), await aupper("b")]

    async def upper(text: str) -> str:
        return text.upper()

    aupper = step(name="shout")(upper)
    run = holdfast.start(work)
    assert run.result() == [3, "B"]
    assert [entry["name"] for entry in run.journal] == ["price", "shout"]


def test_cancelling_a_waiting_run_ends_it_and_its_children(holdfast: InMemory) -> None:
    @task
    async def child() -> None:
        await wait.asleep("1d")

    @task
    async def parent() -> None:
        await child.arun()

    run = holdfast.start(parent)
    run.cancel()
    assert [run.status, *(one.status for one in run.children)] == ["CANCELLED", "CANCELLED"]


def test_a_result_that_is_not_there_yet_says_what_it_waits_for(holdfast: InMemory) -> None:
    @task
    async def ask() -> int:
        return await (await wait.atoken(int)).aresult()

    run = holdfast.start(ask)
    with pytest.raises(NotYet, match=f"complete {run.token.id}, or advance the clock"):
        run.result()
