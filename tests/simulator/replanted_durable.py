"""More failures to plant: of journals, waits and tokens."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from importlib import import_module
from typing import Any
from unittest.mock import patch

from holdfast.engine import claim, finish, operate, progress, upkeep
from holdfast.engine.reporting import Answer, Reported, is_live
from holdfast.engine.trigger import NewRun
from holdfast.model import run
from holdfast.model.run import Run
from holdfast.model.wait import Ended, Wait, Waitpoint
from holdfast.stores.base import Tx
from simulator.planting import Replanted, statement, together

Plant = AbstractContextManager[Any]
journal: Any = import_module("holdfast.engine.journal")
token: Any = import_module("holdfast.engine.token")
trigger: Any = import_module("holdfast.engine.trigger")
wait: Any = import_module("holdfast.engine.wait")


def nothing(module: Any, name: str) -> Callable[[], Plant]:
    """A function that does nothing any more."""
    return lambda: patch.object(module, name, lambda *_, **__: None)


def nobody_looks() -> Plant:
    sound = wait._over

    def over(one: Wait, *rest: Any) -> Ended | None:
        return sound(one, *rest) if one.target is None else None

    return patch.object(wait, "_over", over)


def journal_is_deleted() -> Plant:
    sound = claim._give_back

    def give_back(tx: Tx, worker_id: str, lost: bool) -> None:
        held = "select id from runs where worker_id = :worker_id"
        tx.select(f"delete from journal where run_id in ({held}) returning 1", {"worker_id": worker_id})
        sound(tx, worker_id, lost)

    return patch.object(claim, "_give_back", give_back)


def entries_are_not_counted() -> Plant:
    sound = run.given_back

    def given_back(one: Run, now: int, alone: bool) -> Run:
        return replace(sound(one, now, alone), entries=0, journal_bytes=0)

    return patch.object(run, "given_back", given_back)


def repeated(kind: str, instead: Callable[[Tx, Any, Reported, Callable[[], Answer]], Answer]) -> Plant:
    """Something else happens when a report of this kind comes again under a live lease."""
    sound = progress._repeated

    def again(tx: Tx, one: Run | None, item: Reported, count: int) -> Answer:
        if item.report["kind"] == kind and is_live(one, item):
            return instead(tx, one, item, lambda: sound(tx, one, item, count))
        return sound(tx, one, item, count)

    return patch.object(progress, "_repeated", again)


def appended_twice() -> Plant:
    def append(tx: Tx, one: Run, item: Reported, _: Callable[[], Answer]) -> Answer:
        answers: list[Any] = [None]
        anew = replace(item, report={**item.report, "first": one.entries})
        progress._append(tx, [anew], [0], answers)
        return answers[0]

    return repeated("entries", append)


def triggered_twice() -> Plant:
    def make(tx: Tx, _: Run, item: Reported, answer: Callable[[], Answer]) -> Answer:
        trigger.trigger(tx, [one for one in item.report["items"] if isinstance(one, NewRun)])
        return answer()

    return repeated("triggers", make)


def answered_as_a_gap() -> Plant:
    return repeated("entries", lambda *_: Answer("refused", error="a gap", code="invalid_request"))


def last_is_any() -> Plant:
    return patch.object(wait, "resumes", lambda ended, _: bool(list(ended)))


def failure_is_last() -> Plant:
    sound = wait.resumes
    return patch.object(
        wait, "resumes", lambda ended, left: sound([replace(one, failed=False) for one in ended], left)
    )


def successes_are_forgotten() -> Plant:
    sound = finish._forgetting

    def forgetting(one: Run, said: Any, entries: Any) -> Run:
        more = [seq - 1 for seq in said.get("forget", ()) if seq]
        return sound(one, {**said, "forget": [*more, *said.get("forget", ())]}, entries)

    return patch.object(finish, "_forgetting", forgetting)


def completed_twice() -> Plant:
    class Forgetful(Waitpoint):
        @property
        def is_complete(self) -> bool:
            return False

    return together(
        patch.object(token, "Waitpoint", Forgetful),
        statement("complete_waitpoint", "and status = 'WAITING' returning", "returning"),
    )


def slot_is_kept() -> Plant:
    sound = wait.suspended

    def suspended(one: Run, active_ms: int, now: int) -> Run:
        return replace(sound(one, active_ms, now), worker_id=one.worker_id)

    return patch.object(wait, "suspended", suspended)


def last_entry_is_left_out() -> Plant:
    sound = journal.journals_of
    return patch.object(
        claim, "journals_of", lambda tx, runs: {id: rows[:-1] for id, rows in sound(tx, runs).items()}
    )


def attempt_is_new() -> Plant:
    sound = wait.resumed
    return patch.object(wait, "resumed", lambda one, now: replace(sound(one, now), suspended=False))


def children_are_orphans() -> Plant:
    sound = progress.trigger

    def make(tx: Tx, items: Any) -> Any:
        return sound(tx, [replace(item, parent_id=None, parent_lease=None) for item in items])

    return patch.object(progress, "trigger", make)


def key_makes_two() -> Plant:
    return statement(
        "waitpoint_of_key", "and idempotency_key = :key", "and idempotency_key = :key and status = 'WAITING'"
    )


def value_is_cut() -> Plant:
    sound = progress._filled

    def filled(entry: Any, now: int) -> Any:
        kept = sound(entry, now)
        text = kept["value"]
        return (
            kept if text is None or "of" not in text else {**kept, "value": json.dumps(json.loads(text)[:8])}
        )

    return patch.object(progress, "_filled", filled)


APPEND_GUARD = "runs.lease = c.v ->> 1 and runs.status = 'EXECUTING' and runs.worker_id = c.v ->> 2"

DURABLE = (
    Replanted("K1", "a wait begins and nobody looks whether its target has ended", nobody_looks),
    Replanted("K2", "a run succeeds and its waiting parent is not told", nothing(finish, "settle")),
    Replanted("K3", "a cancelled child leaves its parent waiting", nothing(operate, "settle_runs")),
    Replanted("K3", "an expired child leaves its parent waiting", nothing(upkeep, "settle_runs")),
    Replanted("K3", "a child lost with its worker leaves its parent waiting", nothing(claim, "settle_runs")),
    Replanted("K15", "a run that is given back loses its journal", journal_is_deleted),
    Replanted("K15", "a run that is given back forgets how many entries it has", entries_are_not_counted),
    Replanted(
        "I3",
        "a stale lease adds to the journal",
        lambda: statement("append_entries", APPEND_GUARD, "runs.status = 'EXECUTING'"),
    ),
    Replanted("I4", "a repeated report of entries adds them twice", appended_twice),
    Replanted("I4", "a repeated report of entries is taken for a gap", answered_as_a_gap),
    Replanted("I4", "the value of an entry is cut", value_is_cut),
    Replanted("I5", "a suspended run keeps its slot", slot_is_kept),
    Replanted("I6", "a repeated report triggers children twice", triggered_twice),
    Replanted("I6", "a token's key makes a second one when the first is complete", key_makes_two),
    Replanted("I15", "children of an entry are nobody's", children_are_orphans),
    Replanted("I16", "the last entry is not handed over", last_entry_is_left_out),
    Replanted("I16", "a forgotten failure takes a success with it", successes_are_forgotten),
    Replanted(
        "I1",
        "retention takes what a run found by a key",
        lambda: statement("old_runs", "keeper.finished_at is null", "keeper.finished_at < 0"),
    ),
    Replanted("I7", "a timed-out token leaves its run waiting", nothing(token, "settle")),
    Replanted("I7", "the last of several is any of them", last_is_any),
    Replanted("I7", "a failure resumes nobody before the last", failure_is_last),
    Replanted("I9", "a cancelled run goes on waiting", nothing(operate, "forget_waits")),
    Replanted(
        "I12",
        "a resume counts as an attempt",
        lambda: statement("start_runs", "runs.attempt + 1 - runs.suspended", "runs.attempt + 1"),
    ),
    Replanted("I12", "a resumed run begins a new attempt", attempt_is_new),
    Replanted(
        "I13",
        "a timer fires early",
        lambda: together(
            statement("due_waits", "due_at <= :now", "due_at <= :now + 900"),
            statement("end_due_waits", "due_at <= :now", "due_at <= :now + 900"),
        ),
    ),
    Replanted(
        "I13",
        "a token times out early",
        lambda: statement("time_out_waitpoints", "timeout_at <= :now", "timeout_at <= :now + 900"),
    ),
    Replanted("I2", "a second completion overwrites a token", completed_twice),
)
