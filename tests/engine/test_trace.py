"""A trace is read from what is kept of a run: the same spans each time, a page at a time."""

from __future__ import annotations

from typing import Any

import pytest

from engine.world import BUG, World, end_of, step, until
from holdfast.engine import trace
from holdfast.engine.trace import SpanDetail, TracePage
from holdfast.errors import InvalidRequest, NotFound, RunNotFound
from holdfast.model.trace import NANOSECONDS, Part, Span, span_id

Line = tuple[str, str]


def traced(world: World, run_id: str, size: int = 10_000, after: str | None = None) -> TracePage:
    page: TracePage = world.read(lambda tx: trace.page(tx, "dev", run_id, size, after))
    return page


def detail(world: World, run_id: str, id: str) -> SpanDetail:
    found: SpanDetail = world.read(lambda tx: trace.span(tx, "dev", run_id, id))
    return found


def shown(page: TracePage) -> list[tuple[str, str]]:
    """(message, how it went) of each span."""
    return [(span.message, how(span)) for span in page.spans]


def how(span: Span) -> str:
    words = [
        ("error", span.is_error),
        ("cancelled", span.is_cancelled),
        ("partial", span.ended_at is None),
    ]
    return " ".join(word for word, is_so in words if is_so) or "ok"


def all_pages(world: World, run_id: str, size: int) -> list[Span]:
    spans: list[Span] = []
    after = None
    while True:
        page = traced(world, run_id, size, after)
        assert len(page.spans) <= size
        spans += page.spans
        if page.next is None:
            return spans
        after = page.next


def test_a_failed_attempt_and_one_that_succeeded(world: World) -> None:
    worker = world.worker()
    run_id = world.trigger(max_attempts=2)
    run = world.claim_one(worker)
    world.clock.advance(500)
    world.fail(worker, run, 100_000)
    assert shown(traced(world, run_id)) == [("send", "partial"), ("Attempt 1", "error")]
    world.after(100_000, worker)
    run = world.claim_one(worker)
    world.clock.advance(250)
    world.succeed(worker, run)
    page = traced(world, run_id)
    assert shown(page) == [("send", "ok"), ("Attempt 1", "error"), ("Attempt 2", "ok")]
    root, first, second = page.spans
    assert (root.parent_id, first.parent_id, second.parent_id) == (None, root.id, root.id)
    assert (first.number, second.number) == (1, 2)
    assert first.duration_ns(page.now) == 500 * NANOSECONDS
    assert second.duration_ns(page.now) == 250 * NANOSECONDS
    assert len({span.id for span in page.spans}) == 3
    assert [span.id for span in traced(world, run_id).spans] == [span.id for span in page.spans]


def test_a_run_that_waits_for_a_worker_and_one_under_way(world: World) -> None:
    run_id = world.trigger()
    assert shown(traced(world, run_id)) == [("send", "partial")]
    worker = world.worker()
    world.claim_one(worker)
    world.clock.advance(1_000)
    page = traced(world, run_id)
    assert shown(page) == [("send", "partial"), ("Attempt 1", "partial")]
    assert page.spans[1].duration_ns(page.now) == 1_000 * NANOSECONDS
    world.succeed(worker, world.run(run_id))


def test_what_took_no_time_took_one_nanosecond(world: World) -> None:
    worker = world.worker()
    run_id = world.trigger()
    world.succeed(worker, world.claim_one(worker))
    page = traced(world, run_id)
    assert [span.duration_ns(page.now) for span in page.spans] == [1, 1]


def test_a_cancelled_run(world: World) -> None:
    worker = world.worker()
    run_id, queued = world.trigger(), world.trigger()
    run = world.claim_one(worker)
    world.cancel(run_id)
    world.cancel(queued)
    # Its process is still being stopped: it is over all the same.
    assert shown(traced(world, run_id)) == [("send", "cancelled"), ("Attempt 1", "cancelled")]
    assert shown(traced(world, queued)) == [("send", "cancelled")]
    world.report(worker, world.run(run_id), "closed")
    assert shown(traced(world, run_id)) == [("send", "cancelled"), ("Attempt 1", "cancelled")]
    assert run.id == run_id


def test_steps_children_and_tokens_are_spans_of_their_run(world: World) -> None:
    worker = world.worker("send", "child")
    run_id = world.trigger()
    run = world.claim_one(worker)
    world.record(worker, run, step("a"), step("b", '{"name":"E","message":"no"}', ok=False))
    world.clock.advance(1_000)
    [child] = world.spawn(worker, run, "child")
    world.clock.advance(1_000)
    world.make_token(worker, run)
    token = world.journal(run_id)[3]["ref"]
    world.record(worker, run, step("c"), step("d", None, ok=None))
    [child_run] = world.claim(worker)
    world.succeed(worker, child_run)
    world.record(worker, run, step(child["id"], None, kind="done", ref=child["id"]))
    world.clock.advance(1_000)
    world.complete(token)
    page = traced(world, run_id)
    assert shown(page) == [
        ("send", "partial"),
        ("Attempt 1", "partial"),
        ("a", "ok"),
        ("b", "error"),
        ("trigger children", "ok"),
        ("token", "ok"),
        ("c", "ok"),
        ("d", "cancelled"),
        (f"result of {child['id']}", "ok"),
        ("child", "ok"),
        ("Attempt 1", "ok"),
    ]
    spans = {span.message: span for span in page.spans[2:-1]}
    assert spans["child"].parent_id == page.spans[0].id
    assert page.spans[-1].parent_id == spans["child"].id
    began = page.spans[0].started_at
    # Steps have no time of their own: they are shown at the last moment known before them.
    assert [spans[name].started_at - began for name in "abc"] == [0, 0, 2_000]
    assert (spans["token"].started_at - began, spans["token"].duration_ns(page.now)) == (
        2_000,
        1_000 * NANOSECONDS,
    )
    # A descendant's own trace begins with itself and is of the same trace.
    own = traced(world, child["id"])
    assert shown(own) == [("child", "ok"), ("Attempt 1", "ok")]
    assert own.spans[0].parent_id == page.spans[0].id
    world.succeed(worker, world.run(run_id))


def test_a_sleep_lasts_until_it_was_due_or_its_run_ended(world: World) -> None:
    worker = world.worker()
    run_id = world.trigger()
    run = world.claim_one(worker)
    due = world.clock.now + 60_000
    sleep = step("sleep", None, kind="sleep", delayMs=60_000)
    world.record(worker, run, step("timeout", None, kind="sleep", delayMs=5_000), sleep)
    world.suspend(worker, run, until(due))
    page = traced(world, run_id)
    assert shown(page)[2:] == [("sleep", "partial")]
    world.after(61_000, worker)
    run = world.claim_one(worker)
    world.record(worker, run, step("sleep", None, kind="done"), step("after"))
    page = traced(world, run_id)
    assert shown(page)[2:] == [("sleep", "ok"), ("after", "ok")]
    nap, after = page.spans[2:]
    assert (nap.duration_ns(page.now), nap.ended_at) == (60_000 * NANOSECONDS, due)
    assert after.started_at == due
    # Each page tells it the same, also where the sleep was on the page before.
    assert [span.started_at for span in all_pages(world, run_id, 1)] == [
        span.started_at for span in page.spans
    ]
    world.record(worker, run, step("until", str(due + 10**9), kind="sleep"))
    world.cancel(run_id)
    world.report(worker, world.run(run_id), "closed")
    assert shown(traced(world, run_id))[-1] == ("until", "cancelled")


@pytest.mark.parametrize("value", ['"soon"', '{"error":"no"}', "9" * 30, "-5", "1.5", None])
def test_a_sleep_that_tells_no_time_is_a_span_without_one(world: World, value: str | None) -> None:
    worker = world.worker()
    run_id = world.trigger()
    run = world.claim_one(worker)
    world.record(worker, run, step("sleep", value, kind="sleep", ok=False), step("after"))
    assert shown(traced(world, run_id))[2:] == [("sleep", "error"), ("after", "ok")]
    world.succeed(worker, run)


def test_a_trigger_that_was_refused_is_an_error(world: World) -> None:
    worker = world.worker("send", "child")
    run_id = world.trigger()
    run = world.claim_one(worker)
    refused = {"error": "no", "code": "invalid_request"}
    said = {"scope": "", "name": "children", "args": None}
    world.report(worker, run, "triggers", first=0, items=[refused], **said)
    assert shown(traced(world, run_id))[-1] == ("trigger children", "error")
    world.succeed(worker, run)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
def test_pages_of_any_size_hold_each_span_once_and_in_order(world: World, size: int) -> None:
    worker = world.worker("send", "child")
    run_id = world.trigger(max_attempts=3)
    run = world.claim_one(worker)
    world.record(worker, run, *[step(f"s{number}") for number in range(6)])
    for child in world.spawn(worker, run, "child", "child", "child"):
        assert child["id"]
    for child_run in world.claim(worker):
        world.record(worker, child_run, step("inner"))
        world.succeed(worker, child_run)
    world.record(worker, run, step("", None, kind="forget"), step("x"))
    world.fail(worker, run, 100_000)
    world.after(100_000, worker)
    world.succeed(worker, world.claim_one(worker))
    whole = traced(world, run_id)
    assert whole.next is None
    assert len(whole.spans) == 1 + 2 + 8 + 3 * 3
    assert [span.id for span in all_pages(world, run_id, size)] == [span.id for span in whole.spans]


def test_a_page_reads_no_more_of_a_journal_than_it_shows(world: World) -> None:
    worker = world.worker()
    run_id = world.trigger()
    run = world.claim_one(worker)
    for _ in range(5):
        world.record(worker, run, *[step("s", '"' + "x" * 1_000 + '"') for _ in range(1_000)])
    read: list[int] = []
    plain = trace._entries

    def counted(tx: Any, run: Any, after: int, rows: Any) -> Any:
        read.append(len(rows))
        assert all(row["value"] is None for row in rows)
        return plain(tx, run, after, rows)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(trace, "_entries", counted)
        page = traced(world, run_id, 10)
        assert (len(page.spans), sum(read)) == (10, 8)
        read.clear()
        assert len(traced(world, run_id, 10, page.next).spans) == 10
        assert sum(read) == 10
    world.succeed(worker, run)


def test_more_descendants_than_are_traced_are_left_out_and_that_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace, "MAX_TRACE_RUNS", 4)
    worker = world.worker("send", "child")
    run_id = world.trigger()
    run = world.claim_one(worker)
    children = [child["id"] for child in world.spawn(worker, run, *["child"] * 3)]
    page = traced(world, run_id)
    assert ([run.id for run in page.runs], page.truncated) == ([run_id, *children], False)
    more = world.spawn(worker, run, "child")
    page = traced(world, run_id)
    assert ([run.id for run in page.runs], page.truncated) == ([run_id, *children], True)
    assert more[0]["id"] not in {span.run.id for span in page.spans}
    world.cancel(run_id)
    world.report(worker, world.run(run_id), "closed")


@pytest.mark.parametrize(
    "after", ["x", "", "run_x.0.0", "run_x", "{run}.4.0", "{run}.0", "{run}.0.-1", "{run}.2." + "9" * 30]
)
def test_a_cursor_that_is_none_is_refused(world: World, after: str) -> None:
    run_id = world.trigger()
    with pytest.raises(InvalidRequest, match="page\\[after\\]"):
        traced(world, run_id, 10, after.format(run=run_id))
    world.cancel(run_id)


def test_a_run_of_another_environment_has_no_trace(world: World) -> None:
    run_id = world.trigger(environment="prod")
    for read in (traced, lambda *of: detail(*of, id=span_id(run_id))):
        with pytest.raises(RunNotFound):
            read(world, run_id)


def test_a_span_is_found_by_its_id_also_that_of_a_descendant(world: World) -> None:
    worker = world.worker("send", "child")
    run_id = world.trigger(max_attempts=2)
    run = world.claim_one(worker)
    world.record(worker, run, step("a"), step("b", '{"name":"E","message":"no"}', ok=False))
    [child] = world.spawn(worker, run, "child")
    [child_run] = world.claim(worker)
    line = {"at": world.clock.now, "level": "INFO", "logger": "app", "message": "hello"}
    world.report(worker, child_run, "logs", records=[line])
    world.fail(worker, child_run, None)
    for span in traced(world, run_id).spans:
        found = detail(world, run_id, span.id)
        assert found.span == span
        if span.place == (Part.RUN, 0) and span.run.id == run_id:
            assert [run.id for run in found.triggered] == [child["id"]]
        elif span.message == "b":
            [told] = found.told
            assert told.error == '{"name":"E","message":"no"}'
        elif span.message == "trigger children":
            assert [run.id for run in found.triggered] == [child["id"]]
        elif span.run.id == child["id"] and span.kind == "attempt":
            log, error = found.told
            assert error.error is not None
            assert BUG["message"] in error.error
            assert log.log is not None
            assert log.log["message"] == "hello"
    for id in (
        span_id(run_id, (Part.ENTRY, 3)),
        span_id(run_id, (Part.ATTEMPT, 9)),
        span_id("run_x"),
        "0" * 16,
        "f" * 16,
    ):
        with pytest.raises(NotFound):
            detail(world, run_id, id)
    world.succeed(worker, run)


def test_events_are_of_the_run_alone_and_end_with_its_log(world: World) -> None:
    worker = world.worker("send", "child")
    run_id = world.trigger()
    run = world.claim_one(worker)
    world.record(worker, run, step("a"))
    world.spawn(worker, run, "child")
    lines = [
        {"at": world.clock.now + number, "level": "INFO", "logger": "app", "message": f"line {number}"}
        for number in range(3)
    ]
    world.report(worker, run, "logs", records=lines)
    spans: list[str] = []
    logged: list[str] = []
    after = None
    for _ in range(20):
        cursor = after
        page: TracePage = world.read(lambda tx, c=cursor: trace.events(tx, "dev", run_id, 2, c))
        spans += [span.message for span in page.spans]
        logged += [told.log["message"] for told in page.told if told.log is not None]
        assert len(page.spans) + len(page.told) <= 2
        after = page.next
        if after is None:
            break
    assert spans == ["send", "Attempt 1", "a", "trigger children"]
    assert logged == ["line 0", "line 1", "line 2"]
    world.cancel(run_id)
    world.report(worker, world.run(run_id), "closed")


def test_a_suspended_run_is_under_way(world: World) -> None:
    worker = world.worker()
    run_id = world.trigger()
    run = world.claim_one(worker)
    world.make_token(worker, run)
    token = world.journal(run_id)[0]["ref"]
    world.suspend(worker, run, end_of(token))
    assert shown(traced(world, run_id)) == [
        ("send", "partial"),
        ("Attempt 1", "partial"),
        ("token", "partial"),
    ]
    world.complete(token)
    world.succeed(worker, world.claim_one(worker))
