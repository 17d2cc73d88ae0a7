from datetime import UTC, datetime

import pytest

from holdfast.cli import output
from holdfast.cli.watch import line_of, progress_of


def test_control_characters_of_data_are_written_out():
    assert output.safe("a\x1b[31mb\r\n\x00\u202e") == "a\\x1b[31mb\\x0d\\x0a\\x00\\u202e"
    assert output.safe("naïve 日本 ✓") == "naïve 日本 ✓"


def test_a_message_keeps_its_lines_and_loses_its_escapes(capsys: pytest.CaptureFixture[str]):
    output.fail("one\ntwo \x1b[2J", "three")
    assert capsys.readouterr().err == "error: one\ntwo \\x1b[2J\nhint: three\n"


def test_colour_is_off_where_nobody_sees_it_and_where_it_is_not_wanted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    import sys

    monkeypatch.delenv("FORCE_COLOR", raising=False)
    assert output.paint("x", "red", sys.stdout) == "x"
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert output.paint("x", "red", sys.stdout) == "\x1b[31mx\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert output.paint("x", "red", sys.stdout) == "x"


def test_a_table_is_tabs_where_it_is_piped(capsys: pytest.CaptureFixture[str]):
    output.table(["a", "b"], [["1", "x\ty"], ["2", "z"]])
    assert capsys.readouterr().out == "1\tx\\x09y\n2\tz\n"


@pytest.mark.parametrize(
    ("done", "total", "hashes"), [(0, 4, 0), (1, 4, 6), (4, 4, 24), (9, 4, 24), (-1, 4, 0), (1, 0, 0)]
)
def test_a_bar_is_full_when_all_is_done(done: int, total: int, hashes: int):
    assert output.bar(done, total).count("#") == hashes


def test_ages_are_told_in_the_largest_unit():
    now = datetime(2026, 11, 24, 12, tzinfo=UTC)
    dates = [
        "2026-11-24T11:59:58.000Z",
        "2026-11-24T11:57:00.000Z",
        "2026-11-24T02:00:00.000Z",
        "2026-11-01T00:00:00Z",
    ]
    assert [output.ago(date, now) for date in dates] == ["2s ago", "3m ago", "10h ago", "23d ago"]
    assert output.ago(None, now) == "-"


def test_the_status_line_shows_attempt_and_progress():
    run = {
        "taskIdentifier": "survey",
        "status": "EXECUTING",
        "attempts": [{}, {}],
        "metadata": {"progress": {"current": 1, "total": 2, "message": "half\x1b"}},
    }
    line = line_of(run)
    assert "▶ EXECUTING" in line
    assert "attempt 2" in line
    assert "1/2" in line
    assert "half\\x1b" in line


@pytest.mark.parametrize("value", [None, 3, "x", {"current": 1}, {"current": "a", "total": 2}, []])
def test_a_progress_that_is_none_is_not_shown(value: object):
    assert progress_of({"progress": value}) is None
