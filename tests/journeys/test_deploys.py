"""Two versions of the code in real processes: which of them takes what, and what stays where it has begun."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from journeys.conftest import open_url
from journeys.world import World, until, world

KEY = "tr_prod_of_the_journeys"
CODE = """
from holdfast import CurrentRun, task, wait

from helper import NAME


@task
async def child(what: str) -> str:
    return f"{what} by {NAME}"


@task
async def parent(run: CurrentRun) -> list[str]:
    token = await wait.atoken(int)
    run.metadata["token"] = token.id
    await token.aresult()
    free = await child.atrigger("free")
    return [NAME, await child.arun("awaited"), await free.aresult()]
"""


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with world(tmp_path, open_url(request, tmp_path), KEY) as made:
        made.start_server()
        yield made
        assert made.stuck() == []


def code(place: World, name: str) -> str:
    """The file of a version that differs in a module that its tasks use, and nowhere else."""
    folder = place.folder / name
    folder.mkdir()
    (folder / "jobs.py").write_text(CODE)
    (folder / "helper.py").write_text(f'NAME = "{name}"\n')
    return str(folder / "jobs.py")


def worker(place: World, tasks: str) -> Any:
    return place.start_worker(tasks, executors=1, HOLDFAST_WARM_WAIT="0.2")


def waiting(place: World) -> tuple[str, str]:
    """A parent that waits, and its token."""
    run_id = place.trigger("parent")
    place.reaches(run_id, "WAITING_TO_RESUME")
    return run_id, str(place.run(run_id)["metadata"]["token"])


def complete(place: World, token: str) -> None:
    place.call("POST", f"/api/v1/waitpoints/tokens/{token}/complete", {"data": 1})


def test_runs_stay_on_the_version_that_has_begun_them_while_plain_ones_go_to_the_current_one(
    place: World,
) -> None:
    old, new = code(place, "old"), code(place, "new")
    first = place.command("deploy", old)
    worker(place, old)
    run_id, token = waiting(place)

    second = place.command("deploy", new, "--skip-promotion")
    assert second != first
    worker(place, new)
    run = place.ends(place.trigger("child", "before"))
    assert (run["output"], run["version"]) == ("before by old", first)
    locked = place.ends(place.trigger("child", "tried", lockToVersion=second))
    assert (locked["output"], locked["version"]) == ("tried by new", second)

    assert place.command("deployments", "promote", second) == second
    run = place.ends(place.trigger("child", "after"))
    assert (run["output"], run["version"]) == ("after by new", second)

    complete(place, token)
    run = place.ends(run_id)
    assert run["output"] == ["old", "awaited by old", "free by new"]
    assert run["version"] == first
    versions = {child["version"] for child in run["relatedRuns"]["children"]}
    assert versions == {first, second}

    place.command("deployments", "promote", first)
    assert place.ends(place.trigger("child", "back"))["output"] == "back by old"


def test_what_waits_goes_on_with_the_current_version_when_the_last_old_worker_has_left(place: World) -> None:
    old, new = code(place, "old"), code(place, "new")
    first = place.command("deploy", old)
    leaving = worker(place, old)
    run_id, token = waiting(place)
    second = place.command("deploy", new)
    leaving.popen.send_signal(signal.SIGTERM)
    assert leaving.popen.wait(20) == 0
    complete(place, token)
    until(lambda: place.run(run_id)["status"] == "QUEUED", "it is in the queue")
    assert place.run(run_id)["version"] == first
    worker(place, new)
    run = place.ends(run_id)
    assert (run["output"], run["version"]) == (["new", "awaited by new", "free by new"], second)


def test_a_worker_of_code_that_is_not_deployed_says_so_and_takes_no_plain_runs(place: World) -> None:
    place.command("deploy", code(place, "deployed"))
    other = worker(place, code(place, "other"))
    told = "is deployed: only runs that belong to this version come here"
    until(lambda: told in other.errors.read_text(), "it says so")  # a thread of its own writes it
    run_id = place.trigger("child", "x")
    version = place.command("deploy", str(place.folder / "other" / "jobs.py"))
    run = place.ends(run_id)
    assert (run["output"], run["version"]) == ("x by other", version)
