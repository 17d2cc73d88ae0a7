"""Replaying a journal: what is asked for again, what has changed, what was forgotten."""

from __future__ import annotations

import json
from typing import Any

import pytest

from holdfast.errors import ReplayMismatch
from holdfast.model.journal import DONE, FIRST, FORGET, STEP, TRIGGER, Entry, Journal


def journal(*entries: tuple[Any, ...]) -> Journal:
    """Entries as (scope, kind, name) and more fields of Entry."""
    return Journal([Entry(seq, *fields) for seq, fields in enumerate(entries)])


def forget(*seqs: int) -> tuple[Any, ...]:
    return "", FORGET, "", None, True, json.dumps(seqs)


def done(run: str) -> tuple[Any, ...]:
    return "", DONE, run, None, True, None, run


def asked(journal: Journal, scope: str, name: str, kind: str = STEP, args: str | None = None) -> int | None:
    entry = journal.ask(scope, kind, name, args)
    if entry is None:
        return None
    journal.hand_out(entry)
    return entry.seq


def test_what_is_recorded_is_given_once_and_then_the_code_is_on_its_own() -> None:
    j = journal(("", STEP, "a"), ("", STEP, "a"))
    assert j.is_replaying
    assert [asked(j, "", "a"), asked(j, "", "a"), asked(j, "", "a")] == [0, 1, None]
    assert not j.is_replaying
    assert j.add("", STEP, "a").seq == 2


def test_branches_find_their_own_entries_whoever_asks_first() -> None:
    j = journal(("f.1", STEP, "a"), ("f.0", STEP, "a"), ("f.1", STEP, "b"))
    assert [asked(j, "f.0", "a"), asked(j, "f.1", "a"), asked(j, "f.1", "b")] == [1, 0, 2]


def test_an_entry_is_next_only_after_all_before_it() -> None:
    j = journal(("f.1", STEP, "a"), ("f.0", STEP, "a"))
    late, early = j.ask("f.0", STEP, "a"), j.ask("f.1", STEP, "a")
    assert late is not None
    assert early is not None
    assert (j.is_next(late), j.is_next(early)) == (False, True)
    j.hand_out(early)
    assert j.is_next(late)


@pytest.mark.parametrize(
    ("kind", "name", "args", "words"),
    [
        (STEP, "refund", "1", "the step charge is recorded, and now it asks for the step refund"),
        (DONE, "run_1", None, "and now it asks for the result of run_1"),
        (STEP, "charge", "2", "the step charge with other arguments"),
    ],
)
def test_code_that_asks_for_something_else_is_told_both_sides(
    kind: str, name: str, args: str | None, words: str
) -> None:
    j = journal(("", STEP, "load"), ("", STEP, "charge", "1"))
    asked(j, "", "load")
    with pytest.raises(ReplayMismatch) as caught:
        j.ask("", kind, name, args)
    assert words in str(caught.value)
    assert caught.value.recorded == {"seq": 1, "scope": "", "kind": "step", "name": "charge", "args": "1"}
    assert caught.value.asked == {"scope": "", "kind": kind, "name": name, "args": args}
    assert asked(j, "", "charge", args="1") == 1  # nothing was used up


def test_arguments_that_can_not_be_told_are_not_compared() -> None:
    j = journal(("", STEP, "a", None), ("", STEP, "b", "1"))
    assert [asked(j, "", "a", args="9"), asked(j, "", "b", args=None)] == [0, 1]


def test_code_that_returns_earlier_than_it_did_is_told() -> None:
    j = journal(("", STEP, "a"), ("f.0", STEP, "b"))
    with pytest.raises(ReplayMismatch, match="the step a is recorded, and now it returns"):
        j.check_end()
    asked(j, "", "a")
    j.check_end()  # what a branch did after the end matters to nobody


def test_a_forgotten_failure_is_new_and_what_came_after_it_is_taken_by_name() -> None:
    j = journal(
        ("", STEP, "a"), ("", STEP, "b", None, False), ("", STEP, "clean"), ("g.0", STEP, "c"), forget(1)
    )
    assert asked(j, "", "a") == 0
    assert asked(j, "", "b") is None  # tried anew, and fails again: the clean-up has been done
    j.add("", STEP, "b", ok=False)
    assert asked(j, "", "clean") == 2
    assert asked(j, "g.0", "c") == 3
    assert asked(j, "", "d") is None


def test_the_code_may_go_another_way_where_a_failure_was_forgotten() -> None:
    j = journal(
        ("", STEP, "a", None, False), ("", STEP, "clean"), forget(0), ("", STEP, "a"), ("", STEP, "z")
    )
    assert [asked(j, "", "a"), asked(j, "", "z")] == [3, 4]
    j.check_end()


def test_a_failed_child_is_triggered_anew_and_its_siblings_are_not() -> None:
    j = journal(
        ("", TRIGGER, "t"), ("", DONE, "run_1", None, True, None, "run_1"),
        ("", DONE, "run_2", None, True, None, "run_2"), forget(2),
    )  # fmt: skip
    trigger = j.ask("", TRIGGER, "t")
    assert trigger is not None
    answers = [{"id": "run_1"}, {"id": "run_2"}]
    assert [j.is_to_be_tried(trigger, answer) for answer in answers] == [False, True]


def test_children_that_fail_one_after_another_are_each_triggered_anew_once() -> None:
    j = journal(
        ("", TRIGGER, "t"), done("run_1"), done("run_2"),
        forget(1), ("~0", TRIGGER, "t"), forget(2), ("~0", TRIGGER, "t"), done("run_3"), forget(7),
    )  # fmt: skip
    answers = [{"id": "run_1"}, {"id": "run_2"}]
    first, second, third = j.ask("", TRIGGER, "t"), j.ask("~0", TRIGGER, "t"), j.ask("~0", TRIGGER, "t")
    assert first is not None
    assert second is not None
    assert third is not None
    assert [second.seq, third.seq] == [4, 6]  # the first of them is loose, and the older all the same
    assert [j.is_to_be_tried(first, answer, second) for answer in answers] == [True, False]
    assert [j.is_to_be_tried(first, answer, third) for answer in answers] == [True, True]


def test_a_child_that_is_found_again_by_its_key_is_not_triggered_anew_for_ever() -> None:
    j = journal(("", TRIGGER, "t"), done("run_1"), forget(1), ("~0", TRIGGER, "t"))
    first, second = j.ask("", TRIGGER, "t"), j.ask("~0", TRIGGER, "t")
    assert first is not None
    assert second is not None
    assert j.is_to_be_tried(first, {"id": "run_1"}, second)
    assert not j.is_to_be_tried(second, {"id": "run_1", "isCached": True})


def test_a_refused_trigger_that_was_forgotten_is_tried_again() -> None:
    j = journal(("", TRIGGER, "t"), forget(0))
    trigger = j.ask("", TRIGGER, "t")
    assert trigger is not None
    assert j.is_to_be_tried(trigger, {"error": "no", "code": "unprocessable"})
    assert not j.is_to_be_tried(trigger, {"id": "run_1"})


def test_the_results_of_several_runs_come_in_the_order_that_is_recorded() -> None:
    j = journal(("", DONE, "run_2"), ("", DONE, "run_1"), ("", STEP, "a"))
    names = []
    for _ in range(2):
        entry = j.ask("", DONE, "run_1", among=["run_1", "run_2"])
        assert entry is not None
        names.append(entry.name)
    assert names == ["run_2", "run_1"]


def test_only_the_last_entry_can_be_taken_back() -> None:
    j = journal()
    first, second = j.add("", STEP, "a"), j.add("", STEP, "b")
    assert (j.take_back(first), j.take_back(second), j.count) == (False, True, 1)


def test_a_trigger_that_was_cancelled_and_forgotten_is_made_anew() -> None:
    j = journal(("", STEP, "a", None, False), ("f.0", TRIGGER, "child", None, None), forget(0, 1))
    assert asked(j, "f.0", "child", TRIGGER) is None


def test_what_was_recorded_of_a_run_that_has_a_successor_is_forgotten_everywhere() -> None:
    j = journal(
        ("", TRIGGER, "child", None, True, '[{"id": "run_1"}]'),
        ("f.0", FIRST, "first of 1", None, True, None, "run_1"),
        ("f.0", STEP, "a"),
        ("", DONE, "run_1", None, True, None, "run_1"),
        forget(3),
    )
    assert asked(j, "", "child", TRIGGER) == 0
    assert asked(j, "f.0", "first of 1", FIRST) is None
    assert asked(j, "f.0", "a") == 2
