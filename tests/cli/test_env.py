"""`holdfast env` against a server in a process of its own."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.world import KEY, Holdfast, start_in


@pytest.fixture(scope="module")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that can seal."""
    variables = {"HOLDFAST_SECRET_KEY": KEY, "HOLDFAST_MASTER_KEY": "the-master-key-of-these-tests-is-long"}
    process = start_in(tmp_path_factory.mktemp("server"), ("server", "--port", "0", "--json"), variables)
    try:
        yield process.ready()["url"]
    finally:
        assert process.end() == 0


@pytest.fixture(autouse=True)
def empty(client: Holdfast) -> None:
    names = [one["name"] for one in json.loads(client("env", "list", "--json").out)]
    if names:
        assert client("env", "unset", *names).code == 0


def test_a_variable_is_set_read_listed_and_unset(client: Holdfast):
    assert client("env", "list").out == ""
    assert client("env", "set", "B", "two").code == 0
    assert client("env", "set", "A", "one two=three").code == 0
    assert client("env", "set", "A=chan=ged").code == 0
    assert client("env", "get", "A").out.strip() == "chan=ged"
    assert client("env", "set", "A", "changed").code == 0
    assert client("env", "get", "A").out == "changed\n"
    assert client("env", "list").lines == ["A\tchanged\t", "B\ttwo\t"]
    assert json.loads(client("env", "get", "B", "--json").out) == {
        "name": "B",
        "value": "two",
        "isSecret": False,
    }
    assert client("env", "unset", "A", "B").code == 0
    assert client("env", "get", "A").code == 4
    assert client("env", "unset", "A").code == 4


def test_a_secret_is_read_from_stdin_and_not_shown(client: Holdfast, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("hunter2\n"))
    done = client("env", "set", "S", "--secret")
    assert done.code == 0
    assert "hunter2" not in done.out + done.err
    shown = client("env", "get", "S")
    assert (shown.out, "told to workers only" in shown.err) == ("<redacted>\n", True)
    assert client("env", "list").lines == ["S\t<redacted>\tsecret"]
    monkeypatch.setattr("sys.stdin", io.StringIO("other\n"))
    assert client("env", "set", "S").code == 0  # it stays one
    assert client("env", "list").lines == ["S\t<redacted>\tsecret"]


def test_a_file_is_imported_all_or_none(client: Holdfast, monkeypatch: pytest.MonkeyPatch):
    Path(".env").write_text("# ours\nA=1\nexport B='two words'\n\nC=\"x\\ny\"\n")
    done = client("env", "import", ".env")
    assert (done.code, done.err) == (0, "3 variables set\n")
    assert client("env", "get", "C").out == "x\ny\n"
    monkeypatch.setattr("sys.stdin", io.StringIO("B=2\nD=4\n"))
    refused = client("env", "import", "-")
    assert refused.code == 2
    assert "B exists already" in refused.err
    assert "D" not in client("env", "list").out
    monkeypatch.setattr("sys.stdin", io.StringIO("B=2\nD=4\n"))
    assert client("env", "import", "-", "--override", "--secret").code == 0
    assert client("env", "list").lines == [
        "A\t1\t",
        "B\t<redacted>\tsecret",
        "C\tx\\x0ay\t",
        "D\t<redacted>\tsecret",
    ]


@pytest.mark.parametrize("name", ["1A", "HOLDFAST_API_URL", "TRIGGER_X", "A-B", "../../x"])
def test_a_name_that_can_be_none_is_refused(client: Holdfast, name: str):
    done = client("env", "set", name, "hunter2")
    assert done.code == 2
    assert "hunter2" not in done.err


def test_a_file_that_can_not_be_read_is_told(client: Holdfast):
    assert "can not be read" in client("env", "import", "nowhere.env").err
    Path("latin.env").write_bytes(b"A=\xe9\n")
    done = client("env", "import", "latin.env")
    assert (done.code, "not UTF-8" in done.err) == (2, True)


def test_a_branch_is_named_by_an_option(client: Holdfast):
    done = client("env", "list", "--branch", "feature")
    # The key is of dev, which has no branches: the header that names one is not looked at.
    assert done.code == 0
