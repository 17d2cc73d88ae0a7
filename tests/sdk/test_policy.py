"""Which answers are repeated, what they become, and what each call carries."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from holdfast import CurrentRun, Holdfast, HoldfastError, ServerUnreachable, errors
from holdfast.sdk import policy
from holdfast.sdk.context import entered
from holdfast.sdk.policy import Pause, Reply, Request, Send, Unanswered, asked
from holdfast.sdk.transport import Connection
from sdk.world import Session, claimed

URL = "http://holdfast.example"
RUN = {"id": "run_1", "status": "QUEUED"}


def answers(*given: Any) -> tuple[list[httpx2.Request], Callable[[httpx2.Request], httpx2.Response]]:
    """A transport that gives one answer after another: a status, a status with headers, or an error."""
    seen: list[httpx2.Request] = []
    left = list(given)

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        one = left.pop(0)
        if isinstance(one, Exception):
            raise one
        status, body = one if isinstance(one, tuple) else (one, RUN)
        return httpx2.Response(status, json=body)

    return seen, answer


@pytest.fixture(autouse=True)
def no_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "FIRST_DELAY", 0.0)
    monkeypatch.setattr(policy, "LONGEST_DELAY", 0.0)


def client(answer: Any) -> Holdfast:
    return Holdfast(URL, "tr_dev_key", transport=httpx2.MockTransport(answer))


@pytest.mark.parametrize("front", ["blocking", "async"])
@pytest.mark.parametrize(
    "first", [408, 429, 500, 502, 503, 504, httpx2.ConnectError("refused"), httpx2.ReadError("gone")]
)
def test_what_may_mend_itself_is_asked_again_under_the_same_key(first: Any, front: str) -> None:
    seen, answer = answers(first, first, 200)
    there = client(answer)

    run = there.runs.retrieve("run_1") if front == "blocking" else asyncio.run(there.runs.aretrieve("run_1"))

    assert run.id == "run_1"
    assert len(seen) == 3
    assert len({request.headers[policy.REQUEST_KEY] for request in seen}) == 1
    assert seen[0].headers["authorization"] == "Bearer tr_dev_key"
    there.close()


def test_the_fifth_failure_is_the_last() -> None:
    seen, answer = answers(*[httpx2.ConnectError("refused")] * 9)
    with pytest.raises(ServerUnreachable, match="is it running"):
        client(answer).runs.retrieve("run_1")
    assert len(seen) == 5


def test_each_call_has_a_key_of_its_own() -> None:
    seen, answer = answers(200, 200)
    there = client(answer)
    there.runs.retrieve("run_1")
    there.runs.retrieve("run_1")
    assert len({request.headers[policy.REQUEST_KEY] for request in seen}) == 2


def test_what_counts_twice_when_made_twice_is_not_sent_again_when_it_may_have_arrived() -> None:
    seen, answer = answers(503, 429, httpx2.ConnectError("refused"), httpx2.ReadError("gone"), 200)
    with pytest.raises(ServerUnreachable):
        client(answer).runs.update_metadata("run_1", increment={"looks": 1})
    assert len(seen) == 4
    for first in (408, 500, 502):
        seen, answer = answers((first, {"error": "no", "code": "x"}), 200)
        with pytest.raises(HoldfastError):
            client(answer).runs.update_metadata("run_1", append={"notes": 1})
        assert len(seen) == 1


@pytest.mark.parametrize(
    ("status", "said", "tries"),
    [
        (503, "false", 1),
        (429, "false", 1),
        (500, "false", 1),
        (409, "true", 2),
        (404, "true", 1),  # what this server does not find is not there
        (404, None, 1),
        (409, None, 1),
        (501, None, 2),
        (599, None, 2),
    ],
)
def test_the_server_has_the_last_word_on_asking_again(status: int, said: str | None, tries: int) -> None:
    seen = 0

    def answer(request: httpx2.Request) -> httpx2.Response:
        nonlocal seen
        seen += 1
        if seen > 1:
            return httpx2.Response(200, json=RUN)
        headers = {} if said is None else {"x-should-retry": said}
        return httpx2.Response(status, headers=headers, json={"error": "no", "code": "x"})

    there = client(answer)
    if tries == 1:
        with pytest.raises(HoldfastError):
            there.runs.retrieve("run_1")
    else:
        assert there.runs.retrieve("run_1").id == "run_1"
    assert seen == tries


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.InvalidRequest),
        (401, errors.NotAuthorised),
        (404, errors.RunNotFound),
        (404, errors.NotFound),
        (404, errors.WaitpointNotFound),
        (404, errors.BatchNotFound),
        (404, errors.BulkActionNotFound),
        (403, errors.Forbidden),
        (415, errors.UnsupportedMediaType),
        (409, errors.Fenced),
        (413, errors.PayloadTooLarge),
        (422, errors.Unprocessable),
    ],
)
def test_a_code_becomes_its_class_at_once(status: int, kind: type[HoldfastError]) -> None:
    body = {"error": "tags has 11 tags", "code": kind.code, "param": "options.tags"}
    seen, answer = answers((status, body))
    with pytest.raises(kind) as caught:
        client(answer).runs.retrieve("run_1")
    assert type(caught.value) is kind
    own = getattr(kind, "param", "options.tags")  # of some classes it is always the same
    assert getattr(caught.value, "param", own) == own
    assert len(seen) == 1


def test_a_database_that_does_not_answer_is_named() -> None:
    body = {"error": "The database does not answer; try again", "code": "store_unavailable"}
    _, answer = answers(*[(503, body)] * 5)
    with pytest.raises(errors.StoreUnavailable):
        client(answer).runs.retrieve("run_1")


@pytest.mark.parametrize("status", [200, 404])
def test_what_no_holdfast_server_answers_is_said_so(status: int) -> None:
    there = client(lambda request: httpx2.Response(status, text="<html>"))
    with pytest.raises(ServerUnreachable, match="address"):
        there.runs.retrieve("run_1")


def test_the_server_says_how_long_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "LONGEST_DELAY", 8.0)
    flow = asked(Request("GET", "/"))
    assert isinstance(next(flow), Send)
    assert flow.send(Reply(503, {"retry-after": "30"}, b"{}")) == Pause(30.0)
    assert isinstance(flow.send(None), Send)
    assert flow.send(Reply(503, {"retry-after": "900"}, b"{}")) == Pause(60.0)


def test_a_date_and_a_reset_of_a_rate_limit_are_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_800_000_000.0  # 2027-01-15T08:00:00Z
    monkeypatch.setattr(policy.time, "time", lambda: now)
    for status, headers, expected in (
        (503, {"retry-after": "Fri, 15 Jan 2027 08:00:07 GMT"}, 7.0),
        (503, {"retry-after": "Fri, 15 Jan 2027 07:00:00 GMT"}, 0.0),
        (503, {"retry-after": "soon"}, None),
        (429, {"x-ratelimit-reset": str(round(now + 5) * 1_000)}, 5.0),
        (429, {"x-ratelimit-reset": str(round(now - 5) * 1_000)}, None),
        (429, {"x-ratelimit-reset": str(round(now + 5))}, None),  # seconds: long past as milliseconds
        (429, {"x-ratelimit-reset": "later"}, None),
        (429, {"retry-after": "2", "x-ratelimit-reset": str(round(now + 5) * 1_000)}, 2.0),
        (503, {"x-ratelimit-reset": str(round(now + 5) * 1_000)}, None),
        (429, {}, None),
    ):
        assert policy.asked_delay(Reply(status, headers, b"{}")) == expected, headers


def test_delays_double_with_jitter_up_to_the_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "FIRST_DELAY", 0.2)
    monkeypatch.setattr(policy, "LONGEST_DELAY", 8.0)
    lost = Unanswered(OSError(), sent=False)
    for number in range(1, 12):
        middle = min(8.0, 0.2 * 2 ** (number - 1))
        assert middle / 2 <= policy.delay_before_next(number, lost) <= middle * 1.5


def test_calls_inside_of_a_run_carry_its_lease_to_its_own_server_only() -> None:
    seen, answer = answers(200, 200, 200)
    own = Connection(URL, "", in_run=True, transport=httpx2.MockTransport(answer))
    other = Connection(URL, "", transport=httpx2.MockTransport(answer))
    run = CurrentRun(claimed(), "1", Session("run_1", 7))

    with entered(run):
        own.run(asked(Request("GET", "/")))
        other.run(asked(Request("GET", "/")))
    own.run(asked(Request("GET", "/")))

    assert [request.headers.get("x-holdfast-lease") for request in seen] == ["run_1:7", None, None]
    assert "authorization" not in seen[0].headers


def test_an_async_client_closes_with_its_loop() -> None:
    _, answer = answers(200, 200)
    there = client(answer)
    clients: list[httpx2.AsyncClient] = []

    async def main() -> None:
        await there.runs.aretrieve("run_1")
        [(one, _)] = there.connection._async_clients.values()
        clients.append(one)
        assert not one.is_closed

    asyncio.run(main())
    asyncio.run(main())

    assert clients[0] is not clients[1]
    assert all(one.is_closed for one in clients)
    assert not there.connection._async_clients


def test_waiting_goes_on_while_the_server_restarts() -> None:
    result = {
        "ok": True,
        "id": "run_1",
        "taskIdentifier": "t",
        "status": "COMPLETED_SUCCESSFULLY",
        "output": "5",
    }
    seen, answer = answers(
        200,
        *[httpx2.ConnectError("refused")] * 8,
        (200, {"results": [], "pending": ["run_1"]}),
        (200, {"results": [result], "pending": []}),
    )
    run = client(answer).runs.retrieve("run_1")
    assert run.result() == 5
    assert json.loads(seen[-1].content) == {"runs": ["run_1"], "waitMs": 25_000}
