"""The client against a server: each resource, on both fronts."""

from __future__ import annotations

import inspect
import json
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from holdfast import Holdfast, Queue, Retry, current_run, errors, task
from holdfast.sdk import policy, registry
from holdfast.sdk.resources import base
from holdfast.sdk.resources import batches as batches_module
from sdk.fronts import FRONTS, ITERATORS, Front, twin
from sdk.world import KEY, PROD_KEY, Served

RESOURCES = (
    "runs",
    "batches",
    "bulk_actions",
    "queues",
    "schedules",
    "tokens",
    "variables",
    "deployments",
    "auth",
)


@pytest.fixture
def client(served: Served) -> Any:
    there = Holdfast(served.url, KEY)
    yield there
    there.close()


def declared() -> Any:
    """The task of these tests; each of them begins with none registered."""

    @task(id="greet", retry=Retry(1))
    def greeting(name: str) -> str:
        print(f"greeting {name}")
        if name == "nobody":
            raise ValueError("no name")
        return f"Hello, {name}!"

    return greeting


def later(client: Holdfast, count: int = 1, **options: Any) -> list[str]:
    """Runs that begin in an hour."""
    greeting = registry.tasks().get("greet") or declared()
    return [greeting.options(delay="1h", **options).trigger("Ada").id for _ in range(count)]


# All of them


@pytest.mark.parametrize("resource", RESOURCES)
def test_every_method_has_a_twin_with_the_same_parameters_and_a_docstring(resource: str) -> None:
    kind = type(getattr(Holdfast("http://localhost:1", "k"), resource))
    names = [name for name in vars(kind) if not name.startswith("_")]
    blocking = [name for name in names if twin(name) in names]
    assert sorted(names) == sorted([*blocking, *(twin(name) for name in blocking)])
    for name in blocking:
        one, other = getattr(kind, name), getattr(kind, twin(name))
        assert inspect.signature(one).parameters == inspect.signature(other).parameters
        assert one.__doc__
        assert other.__doc__.startswith(f"As `{name}`")
        assert inspect.iscoroutinefunction(other) != ((kind.__name__, name) in ITERATORS)


@pytest.mark.anyio
async def test_what_blocks_is_refused_inside_an_event_loop() -> None:
    client = Holdfast("http://localhost:1", "k")
    for resource in RESOURCES:
        kind = getattr(client, resource)
        for name in vars(type(kind)):
            if name.startswith("_") or twin(name) not in vars(type(kind)):
                continue
            needed = {
                parameter.name: "queue_x" if parameter.name != "concurrency" else 1
                for parameter in inspect.signature(getattr(kind, name)).parameters.values()
                if parameter.default is inspect.Parameter.empty
                and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
            }
            with pytest.raises(errors.BlockingCallInLoop, match=twin(name)):
                next(getattr(kind, name)(**needed))


# Runs


@FRONTS
def test_runs_are_listed_by_every_filter_over_all_pages(
    client: Holdfast, front: str, monkeypatch: Any
) -> None:
    runs = Front(client.runs, front)
    before = datetime.now(UTC)
    made = later(client, 5, tags=["docs"], queue="slow", machine="micro", is_test=True)
    [other] = later(client)
    monkeypatch.setattr(base, "PAGE", 2)
    assert [run.id for run in runs.list(tag="docs")] == made[::-1]
    for filters, expected in (
        ({"status": ["DELAYED", "QUEUED"], "task": "greet", "is_test": False}, [other]),
        ({"queue": ["slow", "fast"], "machine": "micro"}, made[::-1]),
        ({"version": "20200101.1"}, []),
        ({"region": "eu"}, []),
        ({"schedule": "sched_1"}, []),
        ({"parent": other}, []),
        ({"batch": "batch_1"}, []),
        ({"created_from": before - timedelta(seconds=5), "created_to": None}, [other, *made[::-1]]),
        ({"created_to": before - timedelta(seconds=5)}, []),
        ({"period": "1h"}, [other, *made[::-1]]),
    ):
        assert [run.id for run in runs.list(**filters)] == expected, filters


def test_a_filter_that_can_not_be_is_refused_before_anything_is_asked(client: Holdfast) -> None:
    with pytest.raises(TypeError, match="no filter 'colour'"):
        client.runs.list(colour="red")  # type: ignore[call-arg]  # a misspelt filter
    with pytest.raises(errors.InvalidRequest, match="comma"):
        client.runs.list(tag=["a,b"])
    with pytest.raises(errors.InvalidRequest, match="datetime"):
        client.runs.list(created_from="yesterday")  # type: ignore[arg-type]  # a text
    with pytest.raises(errors.InvalidRequest, match="status"):
        list(client.runs.list(status="ASLEEP"))


@FRONTS
def test_a_run_is_read_changed_and_cancelled(client: Holdfast, front: str) -> None:
    runs = Front(client.runs, front)
    [run] = later(client, tags=["a"], metadata={"looks": 1})
    assert runs.retrieve(run).tags == ["a"]
    runs.add_tags(run, "b", "a")
    assert sorted(runs.retrieve(run).tags) == ["a", "b"]
    assert runs.metadata(run) == {"looks": 1}
    changed = runs.update_metadata(
        run, {"by": {"name": "Ada"}}, increment={"looks": 2}, append={"notes": "fine"}, delete=["none"]
    )
    assert changed == {"looks": 3, "by": {"name": "Ada"}, "notes": ["fine"]} == runs.metadata(run)
    assert runs.update_metadata(run, {"$.by.name": "Eve"}, delete=["notes"])["by"] == {"name": "Eve"}
    assert runs.replace_metadata(run, {"new": True}) == {"new": True}
    assert runs.reschedule(run, timedelta(hours=2)).status == "DELAYED"
    runs.cancel(run)
    runs.cancel(run)
    assert runs.retrieve(run).status == "CANCELLED"
    for call in (
        lambda: runs.retrieve("run_none"),
        lambda: runs.cancel("run_none"),
        lambda: runs.metadata("run_none"),
        lambda: runs.trace("run_none"),
        lambda: runs.add_tags("run_none", "a"),
    ):
        with pytest.raises(errors.RunNotFound):
            call()
    with pytest.raises(errors.Unprocessable, match="tags"):
        runs.add_tags(run, *[str(number) for number in range(10)])


@FRONTS
def test_what_a_run_did_can_be_read(client: Holdfast, served: Served, front: str) -> None:
    runs = Front(client.runs, front)
    greeting = declared()
    served.hand()
    run = greeting.options(tags=["x"]).trigger("Ada")
    assert runs.result(run.id, timeout=20) == "Hello, Ada!"
    failed = greeting.trigger("nobody")
    with pytest.raises(errors.RunFailed, match="no name"):
        runs.result(failed.id, timeout=20)
    assert runs.logs(run.id) == []  # the hand of these tests keeps no logs

    trace = runs.trace(failed.id)
    assert trace.root.run_id == failed.id
    assert (trace.root.task, trace.root.is_error, trace.root.is_partial) == ("greet", True, False)
    assert next(trace.root.walk()) == trace.root
    assert trace.root.started_at.tzinfo is not None
    assert timedelta(0) <= trace.root.duration < timedelta(minutes=1)
    events = runs.events(failed.id)
    assert {event.run_id for event in events} == {failed.id}
    assert abs(events[0].started_at - trace.root.started_at) < timedelta(seconds=1)


@FRONTS
def test_a_replay_may_change_what_it_repeats(client: Holdfast, front: str) -> None:
    runs = Front(client.runs, front)
    [run] = later(client, tags=["a"], metadata={"m": 1})
    same = runs.replay(run)
    assert (same.payload, same.tags, same.metadata) == (runs.retrieve(run).payload, ["a"], {"m": 1})
    other = runs.replay(
        run,
        {"name": "Eve"},
        tags="b",
        queue=Queue("slow"),
        key=7,
        machine="micro",
        metadata={"m": 2},
        delay="1h",
        ttl="2h",
        priority=3,
        max_attempts=2,
        timeout="1m",
    )
    assert (other.payload, other.tags, other.metadata, other.status) == (
        {"name": "Eve"},
        ["b"],
        {"m": 2},
        "DELAYED",
    )
    assert [one.id for one in client.runs.list(queue="slow")] == [other.id]
    assert runs.replay(run, "text").payload == "text"
    assert runs.replay(run, None).payload is None
    with pytest.raises(TypeError, match="no option 'colour'"):
        runs.replay(run, colour="red")


@FRONTS
def test_an_idempotency_key_can_be_freed(client: Holdfast, front: str) -> None:
    runs = Front(client.runs, front)
    [run] = later(client, idempotency_key=["order", "7"])
    assert later(client, idempotency_key=["order", "7"]) == [run]
    runs.reset_idempotency_key("greet", ["order", "7"])
    assert later(client, idempotency_key=["order", "7"]) != [run]
    with pytest.raises(errors.NotFound):
        runs.reset_idempotency_key("greet", "unknown")


def test_a_repeated_replay_makes_one_run(client: Holdfast, served: Served) -> None:
    [run] = later(client)
    lost = Losing(served)
    assert lost.client.runs.replay(run).id
    assert len(list(client.runs.list())) == 2
    assert lost.count == 1


class Losing:
    """A client that loses the first answer of each POST."""

    def __init__(self, served: Served) -> None:
        self.count = 0
        self._seen: set[str] = set()
        self._there = httpx2.HTTPTransport()
        self._lock = threading.Lock()
        self.client = Holdfast(served.url, KEY, transport=httpx2.MockTransport(self._answer))

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        answer = self._there.handle_request(request)
        answer.read()
        with self._lock:
            if request.method == "POST" and request.url.path not in self._seen:
                self._seen.add(request.url.path)
                self.count += 1
                raise httpx2.ReadError("gone")
        return httpx2.Response(answer.status_code, headers=answer.headers, content=answer.content)


# Bulk actions


@FRONTS
def test_runs_are_cancelled_and_replayed_in_bulk(client: Holdfast, front: str) -> None:
    bulk = Front(client.bulk_actions, front)
    made = later(client, 3, tags=["old,er"])
    later(client, 1)
    action = bulk.cancel(tag="old,er", name="tidy")
    done = bulk.wait(action.id, timeout=20)
    assert (done.id, done.name, done.type, done.status) == (action.id, "tidy", "CANCEL", "COMPLETED")
    assert (done.total, done.success, done.failure) == (3, 3, 0)
    assert done.created_at <= done.completed_at
    assert bulk.retrieve(action.id) == done
    assert bulk.abort(action.id) == done
    assert [run.id for run in client.runs.list(bulk_action=action.id)] == made[::-1]
    assert {client.runs.retrieve(run).status for run in made} == {"CANCELLED"}

    replay = bulk.wait(bulk.replay([made[0], "run_none"]).id, timeout=20)
    assert (replay.type, replay.name, replay.total, replay.success, replay.failure) == (
        "REPLAY",
        None,
        2,
        1,
        1,
    )
    assert [one.id for one in bulk.list()] == [replay.id, done.id]


@pytest.mark.parametrize(
    "filters",
    [
        {"status": "DELAYED"},
        {"task": ["greet", "other"]},
        {"queue": "task/greet"},
        {"queue": ["slow", "task/greet"]},
        {"is_test": False},
        {"period": timedelta(hours=1)},
        {"created_from": datetime(2020, 1, 1, tzinfo=UTC), "created_to": datetime(2100, 1, 1, tzinfo=UTC)},
    ],
)
def test_every_filter_selects_in_bulk(client: Holdfast, filters: Any) -> None:
    made = later(client, 2)
    action = client.bulk_actions.wait(client.bulk_actions.replay(**filters).id, timeout=20)
    assert [run.id for run in client.runs.list(bulk_action=action.id)] == made[::-1]


def test_a_bulk_action_that_selects_nothing_or_too_much_is_refused(client: Holdfast) -> None:
    bulk = client.bulk_actions
    with pytest.raises(errors.InvalidRequest, match="either"):
        bulk.cancel()
    with pytest.raises(errors.InvalidRequest, match="either"):
        bulk.cancel(["run_1"], tag="a")
    with pytest.raises(errors.InvalidRequest, match="at most 500"):
        bulk.cancel(["run_1"] * 501)
    with pytest.raises(errors.InvalidRequest, match="list of ids"):
        bulk.cancel("run_1")
    with pytest.raises(TypeError, match="no filter 'parent'"):
        bulk.cancel(parent="run_1")  # type: ignore[call-arg]  # of lists only
    with pytest.raises(errors.BulkActionNotFound):
        bulk.retrieve("bulk_none")


def test_waiting_for_a_bulk_action_has_an_end(client: Holdfast) -> None:
    told = {
        "id": "bulk_1",
        "type": "CANCEL",
        "status": "PENDING",
        "counts": {"total": 0, "success": 0, "failure": 0},
        "createdAt": "2026-11-24T12:00:00.000Z",
    }
    mocked = httpx2.MockTransport(lambda request: httpx2.Response(200, json=told))
    with pytest.raises(errors.ResultTimeout, match="bulk_1"):
        Holdfast("http://localhost:1", "k", transport=mocked).bulk_actions.wait("bulk_1", timeout=0.05)


def test_a_bulk_action_whose_answer_was_lost_is_made_once(client: Holdfast, served: Served) -> None:
    made = later(client, 2)
    losing = Losing(served).client
    action = losing.bulk_actions.replay(made)
    client.bulk_actions.wait(action.id, timeout=20)
    assert [one.id for one in client.bulk_actions.list()] == [action.id]
    assert len(list(client.runs.list())) == 4


# Batches


@FRONTS
def test_a_batch_of_tasks_and_payloads_makes_runs_and_has_results(
    client: Holdfast, served: Served, front: str
) -> None:
    batches = Front(client.batches, front)
    greeting = declared()
    served.hand()
    batch = batches.create(
        [
            greeting.bind("Ada"),
            ("greet", "Eve", {"tags": ["x"]}),
            greeting.options(tags=["y"]).bind("nobody"),
        ]
    )
    assert (batch.run_count, batch.errors, batch.is_cached) == (3, (), False)
    runs = [client.runs.retrieve(run) for run in batch.run_ids]
    assert [run.tags for run in runs] == [[], ["x"], ["y"]]
    for run in runs[:2]:
        run.result(timeout=20)
    with pytest.raises(errors.RunFailed):
        runs[2].result(timeout=20)
    assert batches.retrieve(batch.id).status == "COMPLETED"
    results = batches.results(batch.id)
    assert [(one.run_id, one.ok, one.output) for one in results] == [
        (runs[0].id, True, "Hello, Ada!"),
        (runs[1].id, True, "Hello, Eve!"),
        (runs[2].id, False, None),
    ]
    assert results[2].error["message"] == "no name"
    assert [run.id for run in client.runs.list(batch=batch.id)] == list(batch.run_ids[::-1])
    with pytest.raises(errors.BatchNotFound):
        batches.retrieve("batch_none")


@FRONTS
def test_a_batch_with_a_key_is_made_once(client: Holdfast, front: str) -> None:
    batches = Front(client.batches, front)
    items = [("greet", "Ada", {"delay": "1h"})] * 3
    first = batches.create(items, idempotency_key="monday")
    second = batches.create(items[:1], idempotency_key="monday")
    assert (second.id, second.is_cached, second.run_ids) == (first.id, True, first.run_ids)
    assert first.idempotency_key == "monday"


def test_a_thousand_items_are_streamed_in_blocks_and_repeated_after_a_lost_answer(
    client: Holdfast, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches_module, "BLOCK", 5_000)
    losing = Losing(served)
    items = [("greet", f"ö{number}", {"delay": "1h"}) for number in range(1_000)]
    batch = losing.client.batches.create(items)
    assert losing.count == 2  # the opening and the items
    assert len(set(batch.run_ids)) == 1_000
    run = client.runs.retrieve(batch.run_ids[999])
    assert run.payload == "ö999"


def test_a_stream_that_the_server_did_not_get_whole_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "FIRST_DELAY", 0.0)
    sealed = iter([False, False, True])
    batch = {
        "id": "batch_1",
        "status": "PROCESSING",
        "runCount": 1,
        "runs": [],
        "createdAt": "2026-11-24T12:00:00.000Z",
        "updatedAt": "2026-11-24T12:00:00.000Z",
        "processing": {
            "errors": [{"index": 0, "taskIdentifier": "t", "error": "no", "errorCode": "unprocessable"}]
        },
    }
    sent: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        sent.append(request)
        if request.url.path.endswith("/items"):
            assert [json.loads(line) for line in request.read().splitlines()] == [
                {"index": 0, "task": "t", "payload": 1, "options": {}}
            ]
            return httpx2.Response(200, json={"id": "batch_1", "sealed": next(sealed)})
        return httpx2.Response(200, json=batch)

    client = Holdfast("http://localhost:1", "k", transport=httpx2.MockTransport(answer))
    [error] = client.batches.create([("t", 1)]).errors
    assert (error.index, error.task, error.message, error.code) == (0, "t", "no", "unprocessable")
    assert [request.url.path for request in sent] == [
        "/api/v3/batches",
        *["/api/v3/batches/batch_1/items"] * 3,
        "/api/v2/batches/batch_1",
    ]
    assert sent[1].headers["content-type"] == "application/x-ndjson"
    sealed = iter([False] * 9)
    with pytest.raises(errors.Unprocessable, match="batch_1"):
        client.batches.create([("t", 1)])


@pytest.mark.parametrize(
    "items",
    [
        [],
        [("greet", 1)] * 1_001,
        ["greet"],
        [("greet",)],
        [("", 1)],
        [(7, 1)],
        [("greet", object())],
        [("greet", 1, {"delay": "soon"}, 4)],
    ],
)
def test_what_is_no_batch_is_refused(client: Holdfast, items: Any) -> None:
    with pytest.raises(errors.InvalidRequest, match="items"):
        client.batches.create(items)
    with pytest.raises(TypeError, match="no option 'dealy'"):
        client.batches.create([("greet", 1, {"dealy": "1h"})])  # type: ignore[typeddict-unknown-key]  # misspelt


# Queues


@FRONTS
def test_queues_are_read_paused_and_limited(client: Holdfast, served: Served, front: str) -> None:
    queues = Front(client.queues, front)
    payments = Queue("payments/eu", concurrency=5)

    @task(queue=payments)
    def pay() -> None: ...

    declared()
    served.hand().close()
    later(client)
    assert [queue.name for queue in queues.list()] == ["payments/eu", "task/greet"]
    found = queues.retrieve(payments)
    assert (found.name, found.type, found.paused, found.concurrency_limit) == (
        "payments/eu",
        "custom",
        False,
        5,
    )
    assert queues.retrieve("task/greet").type == "task"
    assert queues.retrieve(found.id, by="id") == found
    assert queues.pause("payments/eu").paused
    assert queues.pause(payments).paused
    assert not queues.resume(payments).paused
    overridden = queues.override(payments, 2)
    assert (overridden.concurrency_limit, overridden.base_limit, overridden.override_limit) == (2, 5, 2)
    assert overridden.overridden_at is not None
    assert queues.reset(payments).concurrency_limit == 5
    with pytest.raises(errors.HoldfastError, match="overrid"):
        queues.reset(payments)
    for wrong in ("unknown", "task/unknown"):
        with pytest.raises(errors.NotFound):
            queues.retrieve(wrong)
    for wrong_limit in (-1, 1.5, True, 100_001):
        with pytest.raises(errors.InvalidRequest, match="concurrency"):
            queues.override(payments, wrong_limit)
    with pytest.raises(errors.InvalidRequest, match="by"):
        queues.retrieve(payments, by="size")
    with pytest.raises(errors.InvalidRequest, match="queue"):
        queues.retrieve(7)


# Tokens


@FRONTS
def test_tokens_are_made_listed_and_completed(client: Holdfast, front: str, monkeypatch: Any) -> None:
    tokens = Front(client.tokens, front)
    monkeypatch.setenv("HOLDFAST_API_URL", "http://localhost:1")  # the token knows its own server
    token = tokens.create(int, timeout="1h", tags=["a", "b"], idempotency_key="k")
    again = tokens.create(int, idempotency_key="k")
    assert (again.id, again.is_cached, token.is_cached) == (token.id, True, False)
    assert token.url.startswith("http")
    found = tokens.retrieve(token.id)
    assert (found.status, found.tags, found.idempotency_key) == ("WAITING", ("a", "b"), "k")
    assert found.timeout_at - found.created_at == timedelta(hours=1)
    with pytest.raises(errors.Unprocessable):
        tokens.complete(token.id, "seven")
    tokens.complete(token.id, 7)
    tokens.complete(token.id, 8)
    done = tokens.retrieve(token.id)
    assert (done.status, done.output) == ("COMPLETED", 7)
    assert done.completed_at >= done.created_at
    assert token.result(timeout=5) == 7
    other = tokens.create()
    other.complete({"any": "thing"})
    assert other.result(timeout=5) == {"any": "thing"}
    for filters, expected in (
        ({}, [other.id, token.id]),
        ({"tag": ["a", "c"]}, [token.id]),
        ({"status": ["WAITING", "TIMED_OUT"]}, []),
        ({"idempotency_key": "k"}, [token.id]),
        ({"period": "1h", "status": None}, [other.id, token.id]),
        ({"created_to": datetime(2020, 1, 1, tzinfo=UTC)}, []),
    ):
        assert [one.id for one in tokens.list(**filters)] == expected, filters
    with pytest.raises(TypeError, match="no filter 'tags'"):
        tokens.list(tags="a")
    with pytest.raises(errors.WaitpointNotFound):
        tokens.retrieve("waitpoint_none")


def test_a_token_whose_answer_was_lost_is_made_once(client: Holdfast, served: Served) -> None:
    token = Losing(served).client.tokens.create()
    assert [one.id for one in client.tokens.list()] == [token.id]


# Variables, deployments, keys


@FRONTS
def test_variables_are_set_changed_and_deleted(client: Holdfast, front: str) -> None:
    variables = Front(client.variables, front)
    assert variables.list() == []
    variables.create("URL", "http://a")
    variables.create("PASSWORD", "secret", is_secret=True)
    found = variables.retrieve("URL")
    assert (found.name, found.value, found.is_secret) == ("URL", "http://a", False)
    assert "secret" not in variables.retrieve("PASSWORD").value
    assert [one.name for one in variables.list()] == ["PASSWORD", "URL"]
    with pytest.raises(errors.InvalidRequest):
        variables.create("URL", "http://b")
    variables.update("URL", "http://c")
    assert variables.retrieve("URL").value == "http://c"
    with pytest.raises(errors.InvalidRequest):
        variables.import_({"URL": "http://d", "NEW": "1"})
    variables.import_({"URL": "http://d", "NEW": "1"}, override=True)
    assert (variables.retrieve("URL").value, variables.retrieve("NEW").value) == ("http://d", "1")
    variables.delete("NEW")
    for call in (
        lambda: variables.delete("NEW"),
        lambda: variables.retrieve("NEW"),
        lambda: variables.update("NEW", "1"),
    ):
        with pytest.raises(errors.NotFound):
            call()


@FRONTS
def test_deployments_are_listed_and_promoted(served: Served, front: str) -> None:
    client = Holdfast(served.url, PROD_KEY)
    deployments = Front(client.deployments, front)
    with pytest.raises(errors.NotFound):
        deployments.current()
    with pytest.raises(errors.NotFound):
        deployments.promote("20200101.1")
    for code in ("a", "b"):
        body = {"fingerprint": code, "tasks": [{"id": "greet", "retry": Retry().manifest()}]}
        headers = {"authorization": f"Bearer {PROD_KEY}"}
        answer = httpx2.post(f"{served.url}/api/v1/deployments", json=body, headers=headers)
        assert answer.status_code == 200, answer.text
    newest, oldest = deployments.list()
    assert deployments.current() == newest
    assert (newest.status, newest.external_id, newest.git) == ("DEPLOYED", None, None)
    assert newest.created_at <= newest.deployed_at
    assert deployments.promote(oldest.version).version == oldest.version == deployments.current().version
    for filters, expected in (
        ({"status": "DEPLOYED", "period": "1h"}, 2),
        ({"status": "PENDING"}, 0),
        ({"created_from": datetime(2020, 1, 1, tzinfo=UTC), "created_to": None}, 2),
        ({"created_to": datetime(2020, 1, 1, tzinfo=UTC)}, 0),
    ):
        assert len(deployments.list(**filters)) == expected, filters
    with pytest.raises(TypeError, match="no filter 'tag'"):
        deployments.list(tag="a")
    client.close()


def test_what_a_deployment_tells_is_read() -> None:
    told = {
        "id": "deployment_1",
        "createdAt": "2026-11-24T12:00:00.000Z",
        "deployedAt": "2026-11-24T13:00:00.000Z",
        "shortCode": "abcd",
        "version": "20261124.1",
        "runtime": "python",
        "runtimeVersion": None,
        "status": "DEPLOYED",
        "git": {"commitSha": "0b"},
        "externalId": "build-7",
    }
    client = Holdfast(
        "http://localhost:1",
        "k",
        transport=httpx2.MockTransport(lambda request: httpx2.Response(200, json=told)),
    )
    found = client.deployments.promote("20261124.1")
    assert found == client.deployments.current()
    assert (found.version, found.short_code, found.git, found.external_id) == (
        "20261124.1",
        "abcd",
        {"commitSha": "0b"},
        "build-7",
    )
    assert (found.runtime, found.runtime_version) == ("python", None)
    assert found.deployed_at == datetime(2026, 11, 24, 13, tzinfo=UTC)


@FRONTS
def test_a_key_knows_where_it_belongs_and_gives_away_less(
    client: Holdfast, served: Served, front: str
) -> None:
    auth = Front(client.auth, front)
    found = auth.whoami()
    assert (found.type, found.slug, found.branch) == ("DEVELOPMENT", "dev", None)
    assert found.project.ref
    [run, other] = later(client, 2)
    token = auth.public_token(f"read:runs:{run}", expires_in=timedelta(minutes=1))
    limited = Holdfast(served.url, token)
    assert limited.runs.retrieve(run).id == run
    with pytest.raises(errors.Forbidden):
        limited.runs.retrieve(other)
    with pytest.raises(errors.NotAuthorised):
        limited.bulk_actions.cancel([run])
    limited.close()
    with pytest.raises(errors.InvalidRequest):
        auth.public_token(["fly:runs"])
    with pytest.raises(errors.InvalidRequest):
        auth.public_token(["read:runs"], expires_in="31d")


def test_calls_inside_of_a_run_are_ordinary_calls(client: Holdfast, served: Served) -> None:
    @task
    def manages() -> list[str]:
        tagged = Holdfast().runs
        tagged.add_tags(current_run().id, "managed")
        return tagged.retrieve(current_run().id).tags

    served.hand()
    assert manages.trigger().result(timeout=20) == ["managed"]
