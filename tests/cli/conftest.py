"""Fixtures for tests of the command line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.world import KEY, VARIABLES, Done, Holdfast, Process, Start, start_in
from holdfast import cli


@pytest.fixture
def holdfast(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Holdfast:
    """Runs a command line in an empty folder, in this process."""
    for name in os.environ:
        if name.startswith(VARIABLES):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Done:
        capsys.readouterr()
        code = cli.run(arguments)
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return run


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts commands that go on, in the folder of the test; those still there at its end are ended."""
    started: list[Process] = []

    def begin(*arguments: str, **variables: str) -> Process:
        process = start_in(tmp_path, arguments, variables)
        started.append(process)
        return process

    yield begin
    for process in reversed(started):
        process.end()


@pytest.fixture(scope="module")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server without workers."""
    process = start_in(
        tmp_path_factory.mktemp("server"), ("server", "--port", "0", "--json"), {"HOLDFAST_SECRET_KEY": KEY}
    )
    try:
        yield process.ready()["url"]
    finally:
        assert process.end() == 0


@pytest.fixture
def client(holdfast: Holdfast, server_url: str, monkeypatch: pytest.MonkeyPatch) -> Holdfast:
    """Command lines that talk to the server."""
    monkeypatch.setenv("HOLDFAST_API_URL", server_url)
    monkeypatch.setenv("HOLDFAST_SECRET_KEY", KEY)
    return holdfast
