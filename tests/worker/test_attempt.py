"""One attempt: the order of hooks, and what becomes of each kind of error."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from holdfast.errors import AbortRun, InvalidRequest, NotFound, RetryAfter, ServerUnreachable
from holdfast.sdk.context import CurrentRun
from holdfast.sdk.decorator import task
from holdfast.sdk.hooks import global_hooks
from holdfast.sdk.retry import Retry
from holdfast.worker.attempt import Outcome, run_attempt
from holdfast.worker.session import AttemptSession


@pytest.fixture(autouse=True)
def own_registry(nothing_registered: None) -> None:
    """Each test declares its own tasks."""


def attempt(function: Any, payload: Any = None, number: int = 1, **options: Any) -> Outcome:
    """Run `function` as a task, once, in a loop of its own."""
    return asyncio.run(begun(function, payload, number, **options))


def begun(
    function: Any, payload: Any = None, number: int = 1, **options: Any
) -> Coroutine[Any, Any, Outcome]:
    declared = task(**options)(function)
    claimed: Any = {
        "id": "run_1", "lease": 1, "task": declared.id, "attempt": number, "maxAttempts": 3, "maxDuration": None,
        "payload": payload, "tags": [], "metadata": {}, "queue": "q", "concurrencyKey": "", "isTest": False,
        "alone": False, "createdAt": 0, "startedAt": 0, "parentId": None, "rootId": None,
    }  # fmt: skip
    run = CurrentRun(claimed, "20261124.1", AttemptSession("run_1", 1, lambda _: None))
    return run_attempt(declared, run, payload)


def noted(seen: list[str], name: str, result: Any = None) -> Any:
    def hook(*given: Any) -> Any:
        seen.append(name)
        return result

    return hook


def around(seen: list[str], name: str) -> Any:
    async def middleware(run: CurrentRun, next: Any) -> None:
        seen.append(f"{name} in")
        try:
            await next()
        finally:
            seen.append(f"{name} out")

    return middleware


def hooks(seen: list[str], prefix: str) -> dict[str, Any]:
    kinds = ("on_start_attempt", "on_success", "on_failure", "on_complete", "catch_error")
    return {**{kind: noted(seen, f"{prefix} {kind}") for kind in kinds}, "middleware": around(seen, prefix)}


def test_hooks_run_in_their_order_around_a_success():
    seen: list[str] = []
    for kind, hook in hooks(seen, "global").items():
        getattr(global_hooks, kind).append(hook)

    async def work() -> int:
        seen.append("work")
        return 1

    assert attempt(work, **hooks(seen, "task")) == Outcome(output="1")
    assert seen == [
        "global in", "task in", "global on_start_attempt", "task on_start_attempt", "work", "task out", "global out",
        "global on_success", "task on_success", "global on_complete", "task on_complete",
    ]  # fmt: skip


def test_on_failure_runs_only_when_no_attempt_follows_and_catch_error_of_the_task_first():
    seen: list[str] = []
    global_hooks.catch_error.append(noted(seen, "global catch_error"))

    async def work() -> None:
        raise ValueError("x")

    own = hooks(seen, "task")
    del own["middleware"], own["on_start_attempt"]
    assert attempt(work, **own).retry_delay_ms is not None
    assert seen == ["task catch_error", "global catch_error"]
    seen.clear()
    assert attempt(work, **own, number=3).retry_delay_ms is None
    assert seen == ["task catch_error", "global catch_error", "task on_failure", "task on_complete"]


@pytest.mark.parametrize(
    ("error", "options", "delay"),
    [
        (AbortRun("enough"), {}, None),
        (RetryAfter("45s"), {}, 45_000),
        (ValueError(), {"retry": Retry(give_up_on=(ValueError,))}, None),
        (ValueError(), {"retry": Retry(retry_on=(KeyError,))}, None),
        (KeyError(), {"retry": Retry(retry_on=(KeyError,), min_delay=2, jitter=False)}, 2_000),
        (MemoryError(), {}, None),
    ],
)
def test_the_delay_before_the_next_attempt(error, options, delay):
    async def work() -> None:
        raise error

    assert attempt(work, **options).retry_delay_ms == delay


def test_after_the_last_attempt_there_is_none_whatever_the_error_asks_for():
    async def work() -> None:
        raise RetryAfter("1s")

    assert attempt(work, number=3).retry_delay_ms is None


def test_catch_error_decides_by_what_it_returns_and_fails_the_attempt_by_raising():
    async def work() -> None:
        raise ValueError("x")

    def broken(run: CurrentRun, error: BaseException) -> None:
        raise RuntimeError("y")

    assert attempt(work, catch_error=noted([], "", AbortRun("no"))).retry_delay_ms is None
    assert attempt(work, catch_error=noted([], "", RetryAfter(7))).retry_delay_ms == 7_000
    outcome = attempt(work, catch_error=broken)
    assert outcome.error is not None
    assert (outcome.error["code"], outcome.retry_delay_ms) == ("HANDLE_ERROR_ERROR", None)


def test_a_hook_that_raises_before_the_function_fails_the_attempt_and_one_after_it_does_not():
    def broken(*given: Any) -> None:
        raise RuntimeError("hook")

    async def work() -> int:
        return 1

    outcome = attempt(work, on_start_attempt=broken)
    assert outcome.error is not None
    assert outcome.error["name"] == "RuntimeError"
    assert attempt(work, on_success=broken, on_complete=broken) == Outcome(output="1")


def test_what_an_error_was_raised_from_is_told_the_nearest_first():
    async def work() -> None:
        try:
            try:
                raise KeyError("id")
            except KeyError as error:
                raise ValueError("no order") from error
        except ValueError as error:
            raise RuntimeError("no invoice") from error

    async def plain() -> None:
        try:
            raise KeyError("id")
        except KeyError:
            raise RuntimeError("no invoice") from None

    def endless() -> None:
        first, second = RuntimeError("a"), ValueError("b")
        first.__cause__, second.__cause__ = second, first
        raise first

    told = attempt(work).error
    assert told is not None
    assert [(cause["name"], cause["message"]) for cause in told["causes"]] == [
        ("ValueError", "no order"),
        ("KeyError", "'id'"),
    ]
    assert "raise ValueError" in told["causes"][0]["stackTrace"]
    assert "causes" not in (attempt(plain).error or {})
    assert len((attempt(endless).error or {})["causes"]) == 1


def test_a_middleware_that_fails_or_never_goes_on_is_named_as_the_cause():
    async def work() -> int:
        return 1

    async def forgets(run: CurrentRun, next: Any) -> None:
        return None

    async def breaks(run: CurrentRun, next: Any) -> None:
        raise OSError("disk")

    for middleware, words in ((forgets, "without calling the next one"), (breaks, "OSError: disk")):
        error = attempt(work, middleware=middleware).error
        assert error is not None
        assert error["code"] == "TASK_MIDDLEWARE_ERROR"
        assert words in error["message"]


def test_a_payload_that_does_not_fit_runs_no_hook_and_is_not_tried_again():
    seen: list[str] = []

    async def work(count: int) -> int:
        return count

    outcome = attempt(work, '"many"', **hooks(seen, "task"))
    assert outcome.error is not None
    assert (outcome.error["code"], outcome.retry_delay_ms, seen) == ("TASK_INPUT_ERROR", None, [])


def test_an_error_whose_text_can_not_be_had_is_recorded_all_the_same():
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    async def work() -> None:
        raise Mute

    error = attempt(work).error
    assert error is not None
    assert error["name"] == "Mute"


def test_long_and_odd_error_texts_are_cut_and_cleaned():
    async def work() -> None:
        raise ValueError("a\x00\ud800" + "x" * 100_000)

    error = attempt(work).error
    assert error is not None
    assert error["message"].startswith("a?x")
    assert len(error["message"]) <= 16 * 1024
    assert len(error["stackTrace"]) <= 16 * 1024


@pytest.mark.parametrize(("reason", "expected"), [("cancelled", ["on_cancel"]), ("timed out", [])])
def test_on_cancel_runs_for_a_cancelled_run_only(reason, expected):
    seen: list[str] = []

    async def work() -> None:
        await asyncio.sleep(60)

    async def main() -> None:
        running = asyncio.ensure_future(begun(work, on_cancel=noted(seen, "on_cancel")))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        running.cancel(reason)
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(main())
    assert seen == expected


def test_a_task_that_awaits_something_cancelled_has_failed():
    async def work() -> None:
        cancelled = asyncio.get_running_loop().create_future()
        cancelled.cancel()
        await cancelled

    error = attempt(work).error
    assert error is not None
    assert error["name"] == "CancelledError"


def unread(raised: Exception) -> Outcome:
    """An attempt whose payload is in the object store, from where this comes."""

    async def read() -> str:
        raise raised

    def function(number: int) -> int:
        raise AssertionError("there is nothing to call it with")

    return attempt(function, read, retry=Retry(3, min_delay=1, jitter=False))


def test_a_stored_payload_is_read_before_the_function():
    async def read() -> str:
        return "20"

    def function(number: int) -> int:
        return number + 1

    assert attempt(function, read).output == "21"


def test_a_payload_that_can_not_be_read_now_is_read_by_the_next_attempt():
    outcome = unread(ServerUnreachable("no answer"))
    assert outcome.retry_delay_ms == 1_000
    assert outcome.error is not None
    assert "object store: no answer" in outcome.error["message"]


@pytest.mark.parametrize("error", [NotFound("gone"), InvalidRequest("no JSON", "payload")])
def test_a_payload_that_is_gone_fails_the_run(error: Exception):
    outcome = unread(error)
    assert outcome.retry_delay_ms is None
    assert outcome.error is not None
    assert outcome.error["code"] == "TASK_INPUT_ERROR"
