"""What a run's code did is kept once and in order, whoever reports it how often."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from engine.world import LEASE_MS, World, end_of, step
from holdfast.engine import journal, upkeep
from holdfast.engine.finish import report
from holdfast.engine.reporting import Reported
from holdfast.engine.trigger import NewRun
from holdfast.engine.upkeep import Retention, retain
from holdfast.errors import Fenced, RunNotFound
from holdfast.model import limits

MISMATCH = {
    "type": "INTERNAL_ERROR",
    "code": "TASK_RUN_REPLAY_MISMATCH",
    "message": "no",
    "recorded": {"kind": "step", "name": "a", "seq": 0},
    "asked": {"kind": "step", "name": "b" * 5_000, "deep": {"no": 1}},
}


def test_entries_are_numbered_from_zero_and_kept_in_order(world: World) -> None:
    worker = world.worker()
    world.trigger()
    run = world.claim_one(worker)
    first = world.record(worker, run, step("a", "1"), step("b", '{"x":2}', ok=False))
    assert (first.status, first.now, first.values) == ("ok", world.clock.now, None)
    world.record(worker, run, step("c", None, ok=None, ref="run_x", args="d", scope="fetch.0"))
    assert world.journal(run.id) == [
        {"seq": 0, **step("a", "1"), "ok": 1},
        {"seq": 1, **step("b", '{"x":2}'), "ok": 0},
        {"seq": 2, **step("c", None, ref="run_x", args="d", scope="fetch.0"), "ok": None},
    ]
    kept = world.run(run.id)
    assert (kept.entries, kept.journal_bytes, kept.lease) == (3, 1 + 7, run.lease)
    world.succeed(worker, run)
    assert len(world.journal(run.id)) == 3


def test_a_sleep_is_due_by_the_clock_of_the_store(world: World) -> None:
    worker = world.worker()
    world.trigger()
    run = world.claim_one(worker)
    sleep = step("", None, kind="sleep", delayMs=7_000)
    due = str(world.clock.now + 7_000)
    assert world.record(worker, run, step(), sleep).values == [None, due]
    world.clock.advance(60_000)
    assert world.record(worker, run, step(), sleep, first=0).values == [None, due]
    assert world.journal(run.id)[1]["value"] == due


def test_a_report_that_comes_again_is_answered_as_before_and_changes_nothing(world: World) -> None:
    worker = world.worker("send", "child")
    world.trigger()
    run = world.claim_one(worker)
    world.record(worker, run, step("a"))
    made = world.spawned(worker, run, "child", "child")
    token = world.make_token(worker, run)
    before = (world.run(run.id), world.journal(run.id))
    assert world.record(worker, run, step("a"), first=0).status == "ok"
    assert world.spawned(worker, run, "child", "child", first=1).value == made.value
    assert world.make_token(worker, run, first=2).value == token.value
    assert (world.run(run.id), world.journal(run.id)) == before
    assert len(world.details(run.id).children) == 2


def test_a_report_that_comes_twice_in_one_call_counts_once(world: World) -> None:
    worker = world.worker()
    world.trigger()
    run = world.claim_one(worker)
    said = {"run": run.id, "lease": run.lease}
    reports = [
        {**said, "kind": "entries", "first": 0, "entries": [step("a"), step("b")]},
        {**said, "kind": "entries", "first": 0, "entries": [step("a"), step("b")]},
        {**said, "kind": "entries", "first": 2, "entries": [step("c")]},
        {**said, "kind": "succeeded", "output": "1"},
    ]
    answers = world.store.transact(report, [Reported(worker, "dev", one) for one in reports])
    assert [answer.status for answer in answers] == ["ok"] * 4
    assert [entry["name"] for entry in world.journal(run.id)] == ["a", "b", "c"]
    assert world.status(run.id) == "COMPLETED_SUCCESSFULLY"


def test_many_runs_report_in_one_call(world: World) -> None:
    worker = world.worker("send", "child")
    for _ in range(20):
        world.trigger()
    runs = world.claim(worker, 20)
    said = [
        {
            "kind": "entries",
            "run": run.id,
            "lease": run.lease if number % 5 else run.lease + 1,
            "first": 0,
            "entries": [step(f"s{number}", str(number))],
        }
        for number, run in enumerate(runs)
    ]
    answers = world.store.transact(report, [Reported(worker, "dev", one) for one in said])
    assert [answer.status for answer in answers] == [
        "fenced" if number % 5 == 0 else "ok" for number in range(20)
    ]
    for number, run in enumerate(runs):
        assert len(world.journal(run.id)) == (0 if number % 5 == 0 else 1)


def test_a_gap_is_refused(world: World) -> None:
    worker = world.worker("send", "child")
    world.trigger()
    run = world.claim_one(worker)
    world.record(worker, run, step())
    for answer in (
        world.record(worker, run, step(), first=2),
        world.record(worker, run, step(), step(), first=0),
        world.spawned(worker, run, "child", first=2),
        world.make_token(worker, run, first=2),
    ):
        assert answer.status == "refused"
    assert world.run(run.id).entries == 1
    assert world.details(run.id).children == []


@pytest.mark.parametrize("how", ["lease", "worker", "cancelled", "lost", "ended", "suspended", "unknown"])
def test_nobody_writes_to_a_journal_that_is_not_its_own(world: World, how: str) -> None:
    worker, other = world.worker("send", "child"), world.worker("send", "child")
    run_id = world.trigger()
    run = world.claim_one(worker)
    match how:
        case "worker":
            worker = other
        case "cancelled":
            world.cancel(run_id)
        case "lost":
            world.clock.advance(LEASE_MS - 1)
            world.renew(other)
            world.after(2, other)
        case "ended":
            world.succeed(worker, run)
        case "suspended":
            world.suspend(worker, run, end_of(world.token().id))
    entries = world.run(run_id).entries
    if how == "unknown":
        run = world.run(run_id)
        said = {"kind": "entries", "run": "run_unknown", "lease": 1, "first": 0, "entries": [step()]}
        assert world.do(report, Reported(worker, "dev", said)).status == "fenced"
        return
    if how == "lease":
        run = replace(run, lease=run.lease - 1)
    assert world.record(worker, run, step(), first=0).status == "fenced"
    assert world.spawned(worker, run, "child", first=0).status == "fenced"
    assert world.make_token(worker, run, first=0).status == "fenced"
    assert world.run(run_id).entries == entries
    assert (world.journal(run_id), world.details(run_id).children) == ([], [])


def test_children_and_their_entry_are_made_together(world: World) -> None:
    worker = world.worker("send", "child")
    run_id = world.trigger()
    run = world.claim_one(worker)
    good, bad, again = json.loads(
        world.report(
            worker,
            run,
            "triggers",
            first=0,
            scope="a.0",
            name="child",
            args="x",
            items=[
                *world_items(run.id, {"idempotency_key": "k"}, {"tags": ["t"] * 3, "delay": "no such time"}),
                *world_items(run.id, {"idempotency_key": "k"}),
            ],
        ).value
        or ""
    )
    assert again == {"id": good["id"], "isCached": True}
    assert (bad["code"], bad["param"]) == ("invalid_request", "options.delay")
    [child] = world.details(run_id).children
    assert (child.id, child.parent_id, child.root_id, child.depth) == (good["id"], run_id, run_id, 1)
    [entry] = world.journal(run_id)
    assert (entry["kind"], entry["scope"], entry["name"], entry["args"], entry["ok"]) == (
        "trigger",
        "a.0",
        "child",
        "x",
        1,
    )
    assert json.loads(entry["value"]) == [good, bad, again]


def world_items(parent: str, *options: dict[str, object]) -> list[object]:
    return [NewRun(environment_id="dev", task="child", parent_id=parent, **one) for one in options]  # type: ignore[arg-type]  # as a test says them


def test_refusals_of_the_server_stand_in_the_place_of_their_items(world: World) -> None:
    worker = world.worker("send", "child")
    world.trigger()
    run = world.claim_one(worker)
    refusal = {"error": "no", "code": "invalid_request"}
    items = [refusal, *world_items(run.id, {})]
    said = {"scope": "", "name": "child", "args": None, "items": items}
    answer = world.report(worker, run, "triggers", first=0, **said)
    first, second = json.loads(answer.value or "")
    assert (first, set(second)) == (refusal, {"id"})


def test_many_runs_trigger_in_one_call_and_get_their_own(world: World) -> None:
    worker = world.worker("send", "child")
    for _ in range(4):
        world.trigger()
    runs = world.claim(worker, 4)
    said = [
        {
            "scope": "",
            "name": "c",
            "args": None,
            "kind": "triggers",
            "run": run.id,
            "lease": run.lease,
            "first": 0,
        }
        | {"items": world_items(run.id, *[{}] * count)}
        for count, run in enumerate(runs, 1)
    ]
    answers = world.store.transact(report, [Reported(worker, "dev", one) for one in said])
    for count, (run, answer) in enumerate(zip(runs, answers, strict=True), 1):
        told = [one["id"] for one in json.loads(answer.value or "")]
        assert sorted(told) == sorted(child.id for child in world.details(run.id).children)
        assert len(told) == count


def test_a_full_journal_takes_no_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_JOURNAL_ENTRIES", 3)
    monkeypatch.setattr(limits, "MAX_JOURNAL_BYTES", 100)
    worker = world.worker("send", "child")
    world.trigger()
    run = world.claim_one(worker)
    assert world.record(worker, run, step(value='"' + "ä" * 50 + '"')).code == "journal_full"
    assert world.record(worker, run, *[step()] * 4).code == "journal_full"
    assert world.record(worker, run, *[step()] * 3).status == "ok"
    assert world.spawned(worker, run, "child").code == "journal_full"
    assert world.make_token(worker, run).status == "refused"
    assert (world.run(run.id).entries, world.details(run.id).children) == (3, [])


def test_what_ended_an_attempt_is_forgotten_for_the_next_one(world: World) -> None:
    worker = world.worker()
    world.trigger()
    run = world.claim_one(worker)
    world.record(worker, run, step("a"), step("b", '{"name":"E"}', ok=False))
    said = {
        "error": {"type": "STRING_ERROR", "raw": "no"},
        "retryDelayMs": 1_000,
        "forget": [1],
        "operations": 4,
    }
    retry = world.report(worker, run, "failed", **said)
    assert retry.status == "retry"
    again = world.report(worker, run, "failed", **said)  # the answer was lost
    assert again == retry
    assert [(e["kind"], e["value"]) for e in world.journal(run.id)][2:] == [("forget", "[1]")]
    kept = world.run(run.id)
    assert (kept.entries, kept.operations, kept.active_ms) == (3, 4, 0)


def test_nothing_is_forgotten_by_the_last_attempt(world: World) -> None:
    worker = world.worker()
    world.trigger(max_attempts=1)
    run = world.claim_one(worker)
    world.record(worker, run, step("b", '{"name":"E"}', ok=False))
    said = {"error": {"type": "STRING_ERROR", "raw": "no"}, "retryDelayMs": None, "forget": [0]}
    assert world.report(worker, run, "failed", **said).status == "ok"
    assert [entry["kind"] for entry in world.journal(run.id)] == ["step"]


def test_the_next_attempt_gets_the_journal_of_the_one_before(world: World) -> None:
    worker = world.worker()
    run_id = world.trigger()
    run = world.claim_one(worker)
    world.record(worker, run, step("a"))
    world.fail(worker, run, 40_000)
    world.after(40_000, worker)
    claimed = world.claimed(worker)
    [again] = claimed.runs
    assert (again.attempt, again.entries, again.resumes, claimed.now) == (2, 1, 0, world.clock.now)
    assert [entry["name"] for entry in claimed.journals[run_id]] == ["a"]
    assert world.record(worker, again, step("b"), first=1).status == "ok"


def test_a_lost_worker_leaves_the_journal_and_entries_reset_the_losses(world: World) -> None:
    run_id = world.trigger()
    for loss in range(4):
        worker = world.worker(fingerprint=f"code {loss}")
        run = world.claim_one(worker)
        assert run.losses == [0, 1, 1, 2][loss]
        assert run.entries == (0 if loss < 2 else 1)
        if loss == 1:
            world.record(worker, run, step("a"))
        world.after(LEASE_MS + 1)
        assert world.status(run_id) == "QUEUED"
    assert world.run(run_id).starts == 4


def test_a_large_journal_is_read_page_by_page(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "INLINE_BYTES", 10_000)
    monkeypatch.setattr(journal, "PAGE_CHARACTERS", 5_000)
    worker, other = world.worker(), world.worker()
    run_id = world.trigger()
    run = world.claim_one(worker)
    world.record(worker, run, *[step(f"s{number}", '"' + "x" * 2_000 + '"') for number in range(7)])
    world.record(worker, run, step("large", '"' + "x" * 9_000 + '"'), step("last"))
    world.report(worker, run, "released", started=True)
    claimed = world.claimed(worker)
    [again] = claimed.runs
    assert run_id not in claimed.journals

    def page(after: int) -> journal.JournalPage:
        found: journal.JournalPage = world.read(
            lambda tx: journal.page_for_worker(tx, "dev", worker, run_id, again.lease, after)
        )
        return found

    pages, found, more = 0, [], True
    while more:
        read = page(len(found))
        found += [entry["name"] for entry in read.entries]
        pages, more = pages + 1, read.more
    assert found == [*(f"s{number}" for number in range(7)), "large", "last"]
    assert pages == 6
    for environment, holder, lease, error in (
        ("dev", worker, run.lease, Fenced),
        ("dev", other, again.lease, Fenced),
        ("prod", worker, again.lease, RunNotFound),
    ):
        with pytest.raises(error):
            world.read(lambda tx: journal.page_for_worker(tx, environment, holder, run_id, lease, 0))  # noqa: B023


def test_the_result_of_a_child_stands_beside_the_entry_about_its_end(world: World) -> None:
    worker = world.worker("send", "child")
    run_id = world.trigger()
    run = world.claim_one(worker)
    small, large = (one["id"] for one in world.spawn(worker, run, "child", "child"))
    for child in world.claim(worker):
        world.succeed(worker, child, '"' + "x" * (9_000 if child.id == large else 9) + '"')
    done = [step("child", None, kind="done", ref=ref) for ref in (small, large, "run_gone")]
    world.record(worker, run, *done, step("t", '{"ok":true}', kind="done", ref="waitpoint_1"))
    world.report(worker, run, "released", started=True)
    claimed = world.claimed(worker)
    entries = claimed.journals[run_id][1:]
    assert [entry.get("outcome", {}).get("output") for entry in entries] == ['"xxxxxxxxx"', None, None, None]
    assert entries[0]["outcome"]["status"] == "COMPLETED_SUCCESSFULLY"
    assert entries[3]["value"] == '{"ok":true}'


def test_code_that_does_not_fit_its_journal_waits_for_another_version(world: World) -> None:
    worker = world.worker(fingerprint="old")
    run_id = world.trigger(ttl=3_600, max_attempts=1)
    run = world.claim_one(worker)
    world.record(worker, run, step("a"))
    world.clock.advance(1_000)
    assert world.report(worker, run, "failed", error=MISMATCH, retryDelayMs=None).status == "ok"
    parked = world.run(run_id)
    assert (parked.status, parked.attempt, parked.worker_id, parked.error) == (
        "WAITING_FOR_DEPLOY",
        0,
        None,
        None,
    )
    [attempt] = world.details(run_id).attempts
    error = json.loads(attempt.error or "")
    assert (str(attempt.status), error["recorded"]) == ("FAILED", MISMATCH["recorded"])
    assert error["asked"] == {"kind": "step", "name": "b" * 1_024}
    world.worker(fingerprint="old")  # the same code again
    assert world.status(run_id) == "WAITING_FOR_DEPLOY"
    world.after(3_600_000, worker)
    later = world.trigger()
    newer = world.worker(fingerprint="new")
    released = world.run(run_id)
    assert (released.status, released.score, released.due_at) == ("QUEUED", parked.score, None)
    claimed = world.claimed(newer)
    assert [run.id for run in claimed.runs] == [run_id, later]
    assert (claimed.runs[0].attempt, claimed.runs[0].starts) == (1, 2)
    assert [entry["name"] for entry in claimed.journals[run_id]] == ["a"]
    world.succeed(newer, claimed.runs[0])
    assert world.attempts(run_id) == [(1, "FAILED"), (1, "COMPLETED")]


def test_metadata_and_tags_say_how_many_changes_of_the_code_are_written(world: World) -> None:
    worker = world.worker()
    world.trigger()
    run = world.claim_one(worker)
    change = [{"type": "set", "key": "a", "value": 1}]
    world.report(worker, run, "metadata", operations=change, written=3)
    assert world.run(run.id).operations == 3
    world.report(worker, run, "tags", tags=["t"], written=5)
    world.report(worker, run, "metadata", parentOperations=change, written=4)
    kept = world.run(run.id)
    assert (kept.operations, json.loads(kept.metadata), json.loads(kept.tags)) == (5, {"a": 1}, ["t"])
    world.suspend(worker, run, end_of(world.token().id), active_ms=1)
    world.report(worker, run, "metadata", operations=change, written=9)
    assert world.run(run.id).operations == 5


def test_a_journal_goes_before_its_run_in_bounded_steps(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "ENTRIES_BATCH", 3)
    worker = world.worker()
    for _ in range(3):
        world.trigger()
    for run, count in zip(world.claim(worker), (4, 0, 3), strict=True):
        if count:
            world.record(worker, run, *[step()] * count)
        world.succeed(worker, run)
    world.clock.advance(10_000)
    left = []
    more = True
    while more:
        more = world.do(retain, Retention("dev", 5_000, limit=2)) == 2
        left += [row[0] for row in world.read(lambda tx: tx.select("select count(*) from journal", {}))]
    assert (left, world.page().runs) == ([4, 1, 0], [])
