"""What `@task`, options, hooks, retries and queues accept, and what they refuse."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from holdfast import (
    CurrentRun,
    DuplicateName,
    Hooks,
    InvalidRequest,
    NoCurrentRun,
    Queue,
    Retry,
    Unprocessable,
    current_run,
    global_hooks,
    progress,
    task,
)
from holdfast.model.retry import RetryPolicy
from holdfast.sdk import registry
from holdfast.sdk.context import current_run_or_none, entered
from holdfast.sdk.options import on_wire
from holdfast.sdk.task import kebab
from sdk.world import Session, claimed


def test_the_id_is_the_functions_name_in_kebab_case() -> None:
    @task
    def send_email() -> None:
        """Sends one."""

    assert send_email.id == "send-email"
    assert registry.tasks() == {"send-email": send_email}
    assert (send_email.__name__, send_email.__doc__) == ("send_email", "Sends one.")  # type: ignore[attr-defined]
    assert kebab("sendEmail") == "send-email"
    assert kebab("_private_2") == "private-2"


def test_two_functions_with_one_id_are_refused_and_the_same_one_again_is_not() -> None:
    def define() -> Any:
        @task
        def work() -> None: ...

        return work

    define()
    again = define()
    assert registry.tasks()["work"] is again
    with pytest.raises(DuplicateName, match="two tasks have the id 'work'"):

        @task(id="work")
        def other() -> None: ...


def test_what_can_be_no_task_is_refused() -> None:
    class Shop:
        def sell(self) -> None: ...

    def numbers() -> Any:
        yield 1

    with pytest.raises(TypeError, match="is a method"):
        task(Shop.sell)
    with pytest.raises(TypeError, match="is a generator"):
        task(numbers)
    with pytest.raises(TypeError, match="give one"):
        task(lambda: None)
    with pytest.raises(TypeError, match="decorates functions"):
        task(print)
    with pytest.raises(TypeError, match="decorates functions"):
        task("send-email")  # type: ignore[call-overload]  # that is the point
    with pytest.raises(TypeError, match="no option 'on_sucess'"):
        task(on_sucess=print)  # type: ignore[call-overload]  # that is the point
    with pytest.raises(ValueError, match='needs isolation="process"'):
        task(id="work", memory_limit="1MB")(lambda: None)
    with pytest.raises(ValueError, match="used in an address"):
        task(id="..")(lambda: None)


def test_the_manifest_says_everything_the_server_needs() -> None:
    @task(
        id="shop/work",
        queue=Queue("narrow", concurrency=3, per_key=1),
        retry=5,
        timeout="1m",
        ttl=timedelta(hours=1),
        machine="small-1x",
        isolation="process",
        memory_limit="1MB",
    )
    def work() -> None: ...

    told = work.manifest()
    assert told["id"] == "shop/work"
    assert (told["queue"], told["maxDuration"], told["ttl"]) == ("narrow", 60, "1h")
    assert told["retry"]["maxAttempts"] == 5
    assert work.memory_limit == 1024**2
    assert registry.queues()["narrow"].manifest() == {
        "name": "narrow",
        "concurrencyLimit": 3,
        "perKeyLimit": 1,
    }


def test_a_queue_has_one_set_of_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    Queue("narrow", concurrency=1)
    Queue("narrow", concurrency=2)  # the same module again
    with pytest.raises(DuplicateName, match="declared twice"):
        exec("from holdfast import Queue; Queue('narrow', concurrency=3)", {"__name__": "elsewhere"})
    assert registry.queues()["narrow"].concurrency == 2


def test_options_keep_the_task_and_later_ones_win() -> None:
    @task
    def work() -> None: ...

    changed = work.options(tags="a", key=7).options(tags=["b"])
    assert changed.id == "work"
    assert dict(changed.bind().options) == {"tags": ["b"], "key": 7}
    assert not work.bind().options


def test_an_unknown_option_is_named() -> None:
    @task
    def work() -> None: ...

    with pytest.raises(TypeError, match="no option 'dealy'"):
        work.options(dealy="1h")  # type: ignore[call-arg]  # that is the point


@pytest.mark.parametrize(
    ("options", "wire"),
    [
        ({"delay": 90}, {"delay": "1m30s"}),
        ({"delay": 0.2}, {"delay": "1s"}),
        ({"delay": datetime(2026, 1, 2, tzinfo=UTC)}, {"delay": "2026-01-02T00:00:00+00:00"}),
        ({"ttl": timedelta(minutes=5)}, {"ttl": "5m"}),
        ({"ttl": "1h30m"}, {"ttl": "1h30m"}),
        ({"tags": "one"}, {"tags": ["one"]}),
        ({"queue": "q", "key": 7}, {"queue": {"name": "q"}, "concurrencyKey": "7"}),
        ({"priority": 3, "max_attempts": 2}, {"priority": 3, "maxAttempts": 2}),
        ({"timeout": "10m", "machine": "micro"}, {"maxDuration": 600, "machine": "micro"}),
        ({"idempotency_key_ttl": "1h"}, {"idempotencyKeyTTL": "3600s"}),
        ({"metadata": {"at": timedelta(seconds=1)}}, {"metadata": {"at": "PT1S"}}),
        ({"version": "20260101.1", "is_test": True}, {"lockToVersion": "20260101.1", "test": True}),
        ({"delay": None}, {}),
    ],
)
def test_options_as_the_wire_names_them(options: dict[str, Any], wire: dict[str, Any]) -> None:
    assert on_wire(options, None) == wire


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"tags": [str(n) for n in range(11)]}, Unprocessable, "11 tags"),
        ({"tags": ["x" * 129]}, InvalidRequest, "129 characters"),
        ({"tags": [" "]}, InvalidRequest, "not empty"),
        ({"tags": 7}, InvalidRequest, "expected a text"),
        ({"ttl": "soon"}, InvalidRequest, "ttl is 'soon'"),
        ({"max_attempts": 0}, InvalidRequest, "1 to 250"),
        ({"priority": "high"}, InvalidRequest, "number of seconds"),
        ({"metadata": [1]}, InvalidRequest, "expected a mapping"),
        ({"metadata": {"a": float("nan")}}, InvalidRequest, "metadata"),
        ({"idempotency_key": ""}, InvalidRequest, "idempotency_key"),
        ({"idempotency_key": 7}, InvalidRequest, "idempotency_key"),
        ({"idempotency_key": "a", "idempotency_scope": "all"}, InvalidRequest, "expected one of run"),
        ({"timeout": 0}, InvalidRequest, "more than nothing"),
        ({"queue": 7}, InvalidRequest, "queue is 7"),
        ({"key": 1.5}, InvalidRequest, "key is 1.5"),
    ],
)
def test_options_that_can_not_be(options: dict[str, Any], error: type[Exception], text: str) -> None:
    @task
    def work() -> None: ...

    with pytest.raises(error, match=text):
        work.options(**options)


def test_idempotency_keys_are_hashed_with_their_scope() -> None:
    def digest(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()

    run = CurrentRun(claimed(id="run_9", attempt=2), "1", Session("run_9"))

    def key(given: Any, scope: str | None = None, current: CurrentRun | None = run) -> str:
        return str(on_wire({"idempotency_key": given, "idempotency_scope": scope}, current)["idempotencyKey"])

    assert key("a", None, None) == key("a", "attempt", None) == digest("a")
    assert key(["a", "b"]) == digest("a-b-run_9")
    assert key("a", "attempt") == digest("a-run_9-2")
    assert key("a", "global") == digest("a")
    assert key("x" * 64) == "x" * 64
    assert on_wire({}, run) == {"parentRunId": "run_9"}


def test_a_retry_is_a_policy_and_refuses_what_can_not_be() -> None:
    assert Retry().policy == RetryPolicy()
    assert Retry(5, 3, "2s", timedelta(minutes=1), False).policy == RetryPolicy(5, 3, 2_000, 60_000, False)
    assert Retry(give_up_on=KeyError).give_up_on == (KeyError,)  # type: ignore[arg-type]  # one is taken too
    for wrong in ({"max_attempts": 0}, {"max_attempts": 251}, {"factor": -1}, {"min_delay": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Retry(**wrong)  # type: ignore[arg-type]  # numbers, each of them
    with pytest.raises(TypeError, match="classes of exceptions"):
        Retry(retry_on=("ValueError",))  # type: ignore[arg-type]  # that is the point


def test_hooks_are_given_to_a_task_or_registered_for_all() -> None:
    def tell(*_: Any) -> None: ...

    @task(on_success=tell, middleware=[tell, print])
    def work() -> None: ...

    @global_hooks.on_failure
    def alert(run: Any, error: Any) -> None: ...

    assert work.hooks.on_success == [tell]
    assert work.hooks.middleware == [tell, print]
    assert global_hooks.on_failure == [alert]
    assert Hooks().on_success == []
    with pytest.raises(TypeError, match="expected a function"):
        Hooks(on_success=[3])  # type: ignore[list-item]  # that is the point


def test_the_current_run_shows_and_tells_its_changes() -> None:
    session = Session()
    run = CurrentRun(claimed(tags=["a"], metadata={"n": 1, "list": [1]}), "20260101.1", session)

    with entered(run):
        assert current_run() is run
        progress(1, 4, "reading")
        progress(2, 4)
    assert run.metadata["progress"] == {"current": 2, "total": 4}
    run.metadata["step"] = 3
    run.metadata.increment("n", 2)
    run.metadata.append("list", 2)
    run.metadata.remove("list", 1)
    run.metadata.update({"x": 1}, y=2)
    run.metadata["$.progress.current"] = 4
    del run.metadata["step"]
    run.metadata.parent.increment("children")
    run.metadata.root["seen"] = True
    assert run.metadata == {"n": 3, "list": [2], "x": 1, "y": 2, "progress": {"current": 4, "total": 4}}
    assert session.told[-2][1] == [{"type": "increment", "key": "children", "value": 1}]
    assert session.told[-1][2] == [{"type": "set", "key": "seen", "value": True}]
    run.metadata.clear()
    assert len(run.metadata) == 0

    run.tags.add("b", "a")
    assert run.tags == {"a", "b"}
    assert session.tagged == ["b"]
    with pytest.raises(Unprocessable):
        run.tags.add(*(str(n) for n in range(9)))
    with pytest.raises(InvalidRequest):
        run.metadata["bad"] = float("nan")
    assert "bad" not in run.metadata
    assert run.started_at == datetime.fromtimestamp(1_790_000_001, UTC)


def test_outside_of_a_run_there_is_none() -> None:
    progress(1, 2)
    assert current_run_or_none() is None
    with pytest.raises(NoCurrentRun):
        current_run()
    with pytest.raises(LookupError):
        current_run()
