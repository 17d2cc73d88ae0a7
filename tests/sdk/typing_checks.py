"""What editors and type checkers see. Checked by mypy --strict and pyright strict; never executed."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeAlias, assert_type

from holdfast import (
    Bound,
    Cron,
    Holdfast,
    HoldfastError,
    Queue,
    Retry,
    Run,
    Schedule,
    Tick,
    Token,
    arun_all,
    run_all,
    step,
    task,
    wait,
)

BatchStatus: TypeAlias = Literal["PENDING", "PROCESSING", "COMPLETED", "PARTIAL_FAILED", "ABORTED"]


@dataclass
class Order:
    id: str
    cents: int


payments = Queue("payments", concurrency=25, per_key=2)


@task
def send_email(to: str, subject: str, *, body: str = "") -> bool:
    return bool(to and subject and body)


@task(queue=payments, key="order.id", retry=Retry(5, give_up_on=(ValueError,)), timeout="10m")
async def fulfil(order: Order) -> str:
    return order.id


@task(retry=3, ttl=timedelta(hours=1))
def count() -> int:
    return 1


@task(cron=Cron("0 9 * * 1-5", tz="Europe/Paris", window=timedelta(minutes=5)), retry=1)
def digest(tick: Tick) -> int:
    return tick.local_time.day


@task(cron="@daily")
async def clean_up(days: int = 7) -> None:
    print(days)


@task
async def shout(text: str) -> str:
    return text.upper()


def in_threads(order: Order) -> None:
    assert_type(send_email("a", "b"), bool)
    assert_type(send_email.trigger("a", "b", body="c"), Run[bool])
    assert_type(send_email.run("a", "b"), bool)
    assert_type(send_email.bind("a", "b"), Bound[bool])
    assert_type(send_email.options(delay="1h", tags=["x"]).trigger("a", "b"), Run[bool])
    assert_type(count.trigger().result(timeout=3), int)
    assert_type(digest.trigger(Tick(datetime.now(UTC))), Run[int])
    assert_type(clean_up.trigger(), Run[None])
    assert_type(clean_up.schedule, Cron | None)
    assert_type(fulfil.trigger(order), Run[str])
    assert_type(fulfil.trigger(order).result(), str)
    assert_type(fulfil.trigger(order).output, str | None)
    assert_type(fulfil.run(order), str)
    assert_type(run_all(fulfil.bind(one) for one in [order]), list[str])
    assert_type(run_all([count.bind()], return_exceptions=True), list[int | HoldfastError])


async def in_a_loop(order: Order) -> None:
    assert_type(await fulfil(order), str)
    assert_type(await fulfil.atrigger(order), Run[str])
    assert_type(await fulfil.arun(order), str)
    assert_type(await shout.options(priority=3).arun("a"), str)
    assert_type(await (await send_email.atrigger("a", "b")).aresult(), bool)
    assert_type(await fulfil.options(delay=timedelta(hours=1), is_test=True).atrigger(order), Run[str])
    assert_type(await arun_all(fulfil.bind(one) for one in [order]), list[str])
    assert_type(await arun_all([fulfil.bind(order)], return_exceptions=True), list[str | HoldfastError])


@step
async def charge(order: Order, *, cents: int = 0) -> str:
    return order.id


@step(retry=Retry(3), timeout="10s", name="post")
def send(order: Order) -> int:
    return order.cents


def double(number: int) -> int:
    return 2 * number


async def durable(order: Order, run: Run[str]) -> None:
    assert_type(await charge(order, cents=1), str)
    assert_type(send(order), int)
    assert_type(step(double)(3), int)
    assert_type(step(name="twice")(double)(3), int)
    sleeping: Callable[[timedelta], Coroutine[Any, Any, None]] = wait.asleep
    await sleeping(timedelta(days=1))
    token = await wait.atoken(Order, timeout="3d")
    assert_type(token, Token[Order])
    assert_type(await token.aresult(), Order)
    assert_type(await (await wait.atoken()).aresult(), Any)
    assert_type(Token.by_id("waitpoint_1", Order), Token[Order])
    assert_type(wait.token(int).result(timeout=3), int)
    assert_type(await wait.afirst(run, timeout="1h"), Run[str])
    either: Run[Any] | Token[Any] = await wait.afirst(run, token)
    print(either.id)


def managing(client: Holdfast) -> None:
    assert_type(next(client.runs.list(tag=["a"], status="QUEUED", is_test=False, period="1h")), Run[Any])
    assert_type(client.runs.replay("run_1", {"a": 1}, tags="b", queue=payments), Run[Any])
    assert_type(client.runs.update_metadata("run_1", {"a": 1}, increment={"b": 1}), dict[str, Any])
    assert_type(client.runs.trace("run_1").root.duration, timedelta)
    assert_type(
        client.batches.create([fulfil.bind(Order("1", 2)), ("send-email", {"to": "a"})]).status, BatchStatus
    )
    assert_type(client.bulk_actions.cancel(task="fulfil", name="tidy").failure, int)
    assert_type([queue.concurrency_limit for queue in client.queues.list()], list[int | None])
    assert_type(client.schedules.create(fulfil, "@daily", deduplication_key="k"), Schedule)
    assert_type(client.tokens.create(Order), Token[Order])
    assert_type(client.tokens.create(), Token[Any])
    assert_type(client.variables.retrieve("A").value, str)
    assert_type(client.deployments.promote("20261124.1").version, str)
    assert_type(client.auth.public_token("read:runs:run_1", expires_in=60), str)


async def managing_in_a_loop(client: Holdfast) -> None:
    async for run in client.runs.alist(tag="a"):
        assert_type(run, Run[Any])
    assert_type(await client.runs.areplay("run_1"), Run[Any])
    assert_type(await client.tokens.acreate(Order), Token[Order])
    assert_type((await client.bulk_actions.await_("bulk_1")).success, int)
    assert_type((await client.auth.awhoami()).project.ref, str)


def mistakes(order: Order, client: Holdfast) -> None:
    # Each of these must be an error: an ignore that is not needed is reported.
    send_email.trigger("a")  # type: ignore[call-arg]  # a missing argument
    fulfil.trigger("a")  # type: ignore[arg-type]  # a wrong type
    fulfil.options(dealy="1h")  # type: ignore[call-arg]  # a misspelt option
    digest.trigger(datetime.now(UTC))  # type: ignore[arg-type]  # a time is no tick
    task(cron=60)(digest.fn)  # type: ignore[call-overload]  # not an interval
    Cron("@daily", overlap="maybe")  # type: ignore[arg-type]  # a word that it does not know
    fulfil.bind()  # type: ignore[call-arg]  # nothing bound
    wrong: int = fulfil.run(order)  # type: ignore[assignment]  # a wrong result
    print(wrong)
    send("a")  # type: ignore[arg-type]  # a wrong type
    client.runs.list(colour="red")  # type: ignore[call-arg]  # a misspelt filter
    client.bulk_actions.cancel(parent="run_1")  # type: ignore[call-arg]  # a filter of lists only
    client.schedules.create(fulfil, "@daily")  # type: ignore[call-arg]  # no key
    client.queues.retrieve("a", by="size")  # type: ignore[arg-type]  # neither a name nor an id
    client.batches.create([send_email])  # type: ignore[list-item]  # a task without arguments
    wait.first("run_1")  # type: ignore[type-var]  # neither a run nor a token
