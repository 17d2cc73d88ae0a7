"""Deploying from the command line, against a server in a process of its own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from cli.world import Holdfast, start_in

PROD = "tr_prod_of_the_tests"
CODE = """
from holdfast import Queue, task

mail = Queue("mail", concurrency=3)


@task(queue=mail)
def greet(name: str) -> str:
    return f"Hello, {name}!"
"""


@pytest.fixture(scope="module")
def prod_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    process = start_in(
        tmp_path_factory.mktemp("server"),
        ("server", "--port", "0", "--json"),
        {"HOLDFAST_SECRET_KEY": f"{PROD},tr_dev_of_the_tests"},
    )
    try:
        yield process.ready()["url"]
    finally:
        assert process.end() == 0


@pytest.fixture
def prod(
    holdfast: Holdfast, prod_url: str, monkeypatch: pytest.MonkeyPatch, nothing_registered: None
) -> Holdfast:
    monkeypatch.setenv("HOLDFAST_API_URL", prod_url)
    monkeypatch.setenv("HOLDFAST_SECRET_KEY", PROD)
    return holdfast


def written(folder: Path, name: str, code: str = CODE) -> str:
    """A module of its own for each test: one that is imported stays."""
    (folder / f"{name}.py").write_text(code)
    return f"{name}.py"


def test_deploying_prints_the_version_and_registers_tasks_queues_and_schemas(
    prod: Holdfast, prod_url: str, tmp_path: Path
):
    done = prod("deploy", written(tmp_path, "deployed_one"), "--external-id", "web-1")
    assert done.code == 0, done.err
    [version] = done.lines
    current = json.loads(prod("deployments", "current", "--json").out)
    assert (current["version"], current["status"], current["externalId"]) == (version, "DEPLOYED", "web-1")
    assert current["runtime"] == "python"
    assert prod("deployments", "current").lines == [version]
    queues = json.loads(prod("queues", "list", "--json").out)
    assert {queue["name"]: queue["concurrencyLimit"] for queue in queues} == {"mail": 3}
    refused = httpx2.post(
        f"{prod_url}/api/v1/tasks/greet/trigger",
        json={"payload": 7},
        headers={"authorization": f"Bearer {PROD}"},
        trust_env=False,
    )
    assert refused.status_code == 422, "the schema of the payload is known without a worker"


def test_deploying_makes_the_schedules_that_the_code_declares(prod: Holdfast, tmp_path: Path):
    timed = '\n\n@task(queue=mail, cron="30 4 1 1 *")\ndef tidy() -> None: ...\n'
    done = prod("deploy", written(tmp_path, "deployed_timed", CODE + timed))
    assert done.code == 0, done.err
    [schedule] = json.loads(prod("schedules", "list", "--json").out)
    assert (schedule["task"], schedule["type"], schedule["timezone"]) == ("tidy", "DECLARATIVE", "UTC")
    assert (schedule["generator"]["expression"], schedule["active"]) == ("30 4 1 1 *", True)


def test_the_git_commit_is_told(prod: Holdfast, tmp_path: Path):
    name = written(tmp_path, "deployed_git")
    for arguments in (
        ("init", "-q", "-b", "trunk"),
        ("add", "."),
        ("-c", "user.name=Ann", "-c", "user.email=a@b.example", "commit", "-q", "-m", "Say hello\n\nLoudly."),
    ):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    told = json.loads(prod("deploy", name, "--skip-promotion", "--json").out)["git"]
    assert len(told.pop("commitSha")) == 40
    assert told == {
        "dirty": False,
        "commitRef": "trunk",
        "commitMessage": "Say hello\n\nLoudly.",
        "commitAuthorName": "Ann",
    }
    (tmp_path / name).write_text(CODE + "\n# changed\n")
    assert json.loads(prod("deploy", name, "--skip-promotion", "--json").out)["git"]["dirty"] is True


def test_a_deployment_waits_until_it_is_promoted_and_an_older_one_rolls_back(prod: Holdfast, tmp_path: Path):
    first = prod("deploy", written(tmp_path, "deployed_a", CODE + "# a")).lines[0]
    done = prod(
        "deploy", written(tmp_path, "deployed_b", CODE.replace("greet", "greet_b")), "--skip-promotion"
    )
    [second] = done.lines
    assert f"holdfast deployments promote {second}" in done.err
    assert prod("deployments", "current").lines == [first]
    assert prod("deployments", "promote", second).lines == [second]
    assert prod("deployments", "current").lines == [second]
    assert json.loads(prod("deployments", "promote", first, "--json").out)["version"] == first
    lines = [line.split("\t") for line in prod("deployments", "list", "--limit", "2").lines]
    assert [line[:2] for line in lines] == [[second, "DEPLOYED"], [f"{first} *", "DEPLOYED"]]
    listed = json.loads(prod("deployments", "list", "--status", "deployed", "--period", "1d", "--json").out)
    assert [one["version"] for one in listed][:2] == [second, first]


def test_code_that_does_not_import_is_not_deployed(prod: Holdfast, tmp_path: Path):
    before = prod("deployments", "list").lines
    done = prod("deploy", written(tmp_path, "deployed_broken", "import nothing_of_this_name"))
    assert done.code == 1
    assert "nothing_of_this_name" in done.err
    done = prod("deploy", written(tmp_path, "deployed_empty", "x = 1"))
    assert done.code == 1
    assert "no tasks were found" in done.err
    assert prod("deployments", "list").lines == before


def test_what_can_not_be_done_is_refused(prod: Holdfast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert prod("deploy").code == 2
    assert prod("deploy", written(tmp_path, "deployed_id"), "--external-id", " ").code == 2
    assert prod("deployments", "promote", "20200101.1").code == 4
    assert prod("deployments", "list", "--status", "installing").code == 2
    monkeypatch.setenv("HOLDFAST_SECRET_KEY", "tr_dev_of_the_tests")
    done = prod("deploy", written(tmp_path, "deployed_dev"))
    assert done.code == 2
    assert "has no deployments" in done.err
    assert prod("deployments", "current").code == 4
