"""Triggering, waiting and reading, against a real server."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta

import pytest

from holdfast import (
    BlockingCallInLoop,
    CurrentRun,
    Fenced,
    Holdfast,
    InvalidRequest,
    NotAuthorised,
    Queue,
    ResultTimeout,
    RunCancelled,
    RunFailed,
    RunNotFound,
    arun_all,
    current_run,
    progress,
    run_all,
    task,
)
from holdfast.sdk.context import entered
from sdk.world import KEY, Served, Session, claimed


@dataclass
class Order:
    id: str
    cents: int


def test_calling_a_task_is_calling_the_function() -> None:
    @task(on_start_attempt=lambda run: pytest.fail("hooks are not involved"))
    def double(number: int) -> int:
        return number * 2

    @task
    async def triple(number: int) -> int:
        return number * 3

    assert double(4) == 8
    assert asyncio.run(triple(4)) == 12


def test_a_result_comes_back_as_the_return_type(served: Served) -> None:
    @task
    def cheaper(order: Order) -> Order:
        return Order(order.id, order.cents - 1)

    served.hand()
    run = cheaper.trigger(Order("a", 100))

    assert run.result(timeout=10) == Order("a", 99)
    assert run.result() == Order("a", 99)  # again, without a call
    assert run.payload == {"id": "a", "cents": 100}
    assert run.output == Order("a", 99)
    assert run.is_final
    assert run.attempts[0].status == "COMPLETED"
    assert run.finished_at is not None
    assert run.finished_at >= run.created_at
    assert cheaper.run(Order("b", 5)) == Order("b", 4)


def test_options_reach_the_run(served: Served) -> None:
    @task
    def work(a: int, b: int = 2) -> int:
        return a + b

    run = work.options(delay="1h", tags=["user:7"], metadata={"x": 1}, is_test=True).trigger(1)
    again = work.options(idempotency_key="k", tags="one").trigger(1)
    same = work.options(idempotency_key="k").trigger(1)

    assert run.status == "WAITING_FOR_DEPLOY" or run.status == "DELAYED"
    assert run.tags == ["user:7"]
    assert run.metadata == {"x": 1}
    assert run.is_test
    assert run.payload == {"a": 1}
    assert again == same
    assert same.is_cached
    assert not again.is_cached


def test_a_failed_run_raises_with_the_remote_traceback(served: Served) -> None:
    @task
    def fail() -> None:
        raise ValueError("no luck")

    served.hand()
    run = fail.trigger()

    with pytest.raises(RunFailed, match="no luck") as caught:
        run.result(timeout=10)
    assert "Remote traceback" in str(caught.value)
    assert caught.value.error["name"] == "ValueError"
    assert caught.value.run is run
    assert run.status == "COMPLETED_WITH_ERRORS"


def test_a_cancelled_run_raises_run_cancelled(served: Served) -> None:
    @task
    def never() -> None: ...

    run = never.trigger()
    run.cancel()

    with pytest.raises(RunCancelled):
        run.result(timeout=10)
    assert run.refresh().status == "CANCELLED"


def test_waiting_ends_at_the_timeout_and_the_run_goes_on(served: Served) -> None:
    @task
    def never() -> None: ...

    run = never.trigger()
    with pytest.raises(ResultTimeout):
        run.result(timeout=timedelta(milliseconds=50))
    assert not run.refresh().is_final


def test_run_all_gives_results_in_the_order_of_the_items(served: Served) -> None:
    @task
    def double(number: int) -> int:
        return number * 2

    served.hand()
    assert run_all(double.bind(n) for n in range(60)) == [n * 2 for n in range(60)]


def test_run_all_of_nothing_makes_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_API_URL", "http://127.0.0.1:1")
    assert run_all([]) == []
    assert asyncio.run(arun_all([])) == []


def test_run_all_returns_exceptions_as_entries(served: Served) -> None:
    @task
    def odd(number: int) -> int:
        if number % 2 == 0:
            raise ValueError("even")
        return number

    served.hand()
    [one, two, refused] = run_all(
        [odd.bind(1), odd.bind(2), odd.options(delay="soon").bind(3)], return_exceptions=True
    )

    assert one == 1
    assert isinstance(two, RunFailed)
    assert isinstance(refused, InvalidRequest)
    with pytest.raises(RunFailed):
        run_all([odd.bind(2), odd.bind(1)])


def test_runs_with_one_idempotency_key_fill_each_of_their_places(served: Served) -> None:
    @task
    def double(number: int) -> int:
        return number * 2

    served.hand()
    same = double.options(idempotency_key="one")
    assert run_all([same.bind(1), double.bind(3), same.bind(2)]) == [2, 6, 2]


def test_children_know_their_parent_and_may_be_waited_for_inside_of_a_task(served: Served) -> None:
    @task
    def child(number: int) -> int:
        progress(number, 3)
        current_run().metadata.parent.increment("seen")
        return number

    @task
    async def parent(count: int, run: CurrentRun) -> list[int]:
        run.tags.add("counted")
        with pytest.raises(BlockingCallInLoop, match="await aresult"):
            child.options()._run({"id": "run_x"}).result()
        return await arun_all(child.bind(n) for n in range(count))

    served.hand()
    run = parent.trigger(3)  # type: ignore[call-arg]  # the run is injected

    assert run.result(timeout=20) == [0, 1, 2]
    run.refresh()
    assert run.tags == ["counted"]
    assert run.metadata == {"seen": 3}
    assert len(run.related_runs.children) == 3
    first = Holdfast().runs.retrieve(run.related_runs.children[0].id)
    assert first.related_runs.parent == run
    assert first.metadata["progress"]["total"] == 3


def test_a_stale_attempt_may_not_trigger(served: Served) -> None:
    @task
    def work() -> None: ...

    run = work.trigger()
    stale = CurrentRun(claimed(id=run.id), "1", Session(run.id, 99))
    with entered(stale), pytest.raises(Fenced):
        work.trigger()


def test_blocking_names_are_refused_in_a_loop_and_name_their_twin(served: Served) -> None:
    @task
    def work() -> int:
        return 1

    async def main() -> None:
        with pytest.raises(BlockingCallInLoop, match="await atrigger"):
            work.trigger()
        with pytest.raises(BlockingCallInLoop, match="await arun"):
            work.run()
        with pytest.raises(BlockingCallInLoop, match="await arun_all"):
            run_all([work.bind()])
        run = await work.atrigger()
        for blocking in (run.result, run.refresh, run.cancel, lambda: run.status):
            with pytest.raises(BlockingCallInLoop):
                blocking()
        assert (await run.arefresh()).status
        # In a thread there is no loop to block.
        assert await asyncio.to_thread(work.trigger)
        assert await run.aresult(timeout=10) == 1
        assert await asyncio.gather(*(work.arun() for _ in range(20))) == [1] * 20

    served.hand()
    asyncio.run(main())
    asyncio.run(work.options(tags="later").atrigger())  # another loop has a client of its own


def test_runs_are_listed_page_by_page_and_changed_by_id(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.sdk.resources.base.PAGE", 2)

    @task
    def work(number: int) -> None: ...

    served.hand().close()  # registers the task, and works nothing off
    made = [work.options(tags="many").trigger(n) for n in range(5)]
    late = work.options(delay="1h").trigger(9)
    client = Holdfast(served.url, KEY)

    assert list(client.runs.list(tag="many")) == made[::-1]
    assert [run.payload for run in client.runs.list(tag="many", status=["QUEUED"])] == [4, 3, 2, 1, 0]
    assert list(client.runs.list(tag="other", period="1h")) == []

    assert client.runs.reschedule(late.id, "2h").status == "DELAYED"
    client.runs.cancel(late.id)
    assert client.runs.retrieve(late.id).status == "CANCELLED"
    assert client.runs.replay(late.id) != late
    with pytest.raises(RunNotFound):
        client.runs.retrieve("run_unknown")

    async def main() -> None:
        assert [run async for run in client.runs.alist(tag="many")] == made[::-1]
        assert await client.runs.aretrieve(late.id) == late
        assert await client.runs.areplay(late.id) != late
        await client.runs.acancel(late.id)
        with pytest.raises(InvalidRequest, match="only a DELAYED run"):
            await client.runs.areschedule(late.id, "2h")

    asyncio.run(main())
    client.close()


def test_the_queue_and_its_limits_are_told(served: Served) -> None:
    narrow = Queue("narrow", concurrency=1, per_key=1)

    @task(queue=narrow, key="order.id")
    def work(order: Order) -> str:
        return current_run().queue

    served.hand()
    assert work.run(Order("a", 1)) == "narrow"


def test_a_wrong_key_is_said_to_be_one(served: Served) -> None:
    client = Holdfast(served.url, "tr_dev_wrong")
    with pytest.raises(NotAuthorised, match="HOLDFAST_SECRET_KEY"):
        client.runs.retrieve("run_1")
    client.close()
