"""What an attempt says besides its outcome."""

import pytest

from holdfast.errors import InvalidRequest
from holdfast.worker.session import AttemptSession


def session() -> tuple[AttemptSession, list[AttemptSession]]:
    touched: list[AttemptSession] = []
    return AttemptSession("run_1", 7, touched.append), touched


def test_changes_of_one_key_are_merged_and_their_order_is_kept():
    own, touched = session()
    for _ in range(1_000):
        own.metadata([{"type": "increment", "key": "count", "value": 1}])
    own.metadata([{"type": "set", "key": "step", "value": 1}])
    own.metadata(
        [{"type": "set", "key": "step", "value": 2}],
        parent_operations=[{"type": "append", "key": "a", "value": 0}],
    )
    own.metadata([{"type": "increment", "key": "count", "value": 1}])

    [report] = own.reports()
    assert report == {
        "kind": "metadata",
        "run": "run_1",
        "lease": 7,
        "operations": [
            {"type": "increment", "key": "count", "value": 1_000},
            {"type": "set", "key": "step", "value": 2},
            {"type": "increment", "key": "count", "value": 1},
        ],
        "parentOperations": [{"type": "append", "key": "a", "value": 0}],
        "written": 1_003,
    }
    assert len(touched) == 1
    assert list(own.reports()) == []


def test_a_value_that_is_not_json_is_refused_where_it_is_written():
    own, _ = session()
    with pytest.raises(InvalidRequest):
        own.metadata([{"type": "set", "key": "x", "value": object()}])
    with pytest.raises(InvalidRequest):
        own.metadata([{"type": "set", "key": "x", "value": float("nan")}])
    assert list(own.reports()) == []


def test_later_changes_to_what_was_queued_do_not_change_it():
    own, _ = session()
    value = [1]
    own.metadata([{"type": "set", "key": "x", "value": value}])
    value.append(2)
    [report] = own.reports()
    assert report["operations"][0]["value"] == [1]


def test_printed_text_is_cut_into_lines_and_the_rest_comes_at_the_end():
    own, _ = session()
    own.write("stdout", "one\ntw")
    own.write("stdout", "o\nthree")
    [first] = own.reports()
    [last] = own.close()
    assert [record["message"] for record in first["records"]] == ["one", "two"]
    assert [record["message"] for record in last["records"]] == ["three"]
    own.write("stdout", "too late\n")
    assert list(own.reports()) == []


def test_what_can_not_be_stored_is_cleaned():
    own, _ = session()
    own.log(1, "INFO", "x" * 1_000, "a\x00b\ud800c" + "y" * 100_000)
    [report] = own.reports()
    [record] = report["records"]
    assert record["message"].startswith("ab?c")
    assert len(record["message"]) <= 16 * 1024
    assert len(record["logger"]) == 256


def test_tags_are_sent_once():
    own, _ = session()
    own.tags(["a", "b"])
    own.tags(["b"])
    assert list(own.reports()) == [{"kind": "tags", "run": "run_1", "lease": 7, "tags": ["a", "b"]}]


def test_changes_that_an_earlier_process_has_written_are_passed_over():
    own = AttemptSession("run_1", 7, lambda _: None, written=2)
    assert own.metadata([{"type": "increment", "key": "count", "value": 1}]) is False
    assert own.metadata([{"type": "set", "key": "step", "value": 1}]) is False
    assert list(own.reports()) == []
    assert own.metadata([{"type": "set", "key": "step", "value": 2}]) is True
    [report] = own.reports()
    assert (report["operations"], report["written"]) == ([{"type": "set", "key": "step", "value": 2}], 3)
