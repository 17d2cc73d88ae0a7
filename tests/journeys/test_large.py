"""Large payloads and outputs in real processes: on a folder and on S3, over both databases."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import buckets
from holdfast import Holdfast
from holdfast.sdk.client import in_place_of_default
from journeys import large_tasks
from journeys.world import World, until

TASKS = str(Path(__file__).with_name("large_tasks.py"))
MEGABYTE = 1_000_000


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, lonely: World) -> World:
    variables = {}
    if request.param == "s3":
        server = request.getfixturevalue("s3_server")
        variables = {**buckets.variables(server), "HOLDFAST_OBJECT_STORE_URL": buckets.new_bucket(server)}
    lonely.start_server(**variables)
    return lonely


def test_large_values_reach_tasks_clients_and_parents(place: World) -> None:
    place.start_worker(TASKS, HOLDFAST_WARM_WAIT="0")
    client = Holdfast(str(place.client.base_url), place.key)
    with in_place_of_default(client):
        assert large_tasks.measure.trigger("x" * MEGABYTE).result(timeout=30) == MEGABYTE
        produced = large_tasks.produce.trigger(MEGABYTE)
        assert produced.result(timeout=30) == "x" * MEGABYTE
        assert client.runs.retrieve(produced.id).output == "x" * MEGABYTE
        relayed = large_tasks.relay.trigger(MEGABYTE)
        assert relayed.result(timeout=30) == MEGABYTE
        measured = large_tasks.measure.trigger("y" * MEGABYTE)
        assert client.runs.retrieve(measured.id).payload == "y" * MEGABYTE
    # It was suspended for its child, so its code ran twice, and the second time the output came out of the journal.
    assert len(place.begun(relayed.id)) == 2
    shown = place.run(produced.id)
    assert "outputPresignedUrl" in shown
    assert "output" not in shown
    printed = place.command("trigger", "produce", str(MEGABYTE), "--wait")
    assert json.loads(printed) == "x" * MEGABYTE


def test_a_payload_that_can_not_be_read_now_costs_an_attempt_and_one_that_is_gone_the_run(
    lonely: World, tmp_path: Path
) -> None:
    objects, link = tmp_path / "objects", tmp_path / "link"
    objects.mkdir()
    link.symlink_to(objects)
    lonely.start_server(HOLDFAST_OBJECT_STORE_URL=f"file://{link}")
    kept = lonely.trigger("measure", "x" * MEGABYTE)
    gone = lonely.trigger("measure", "y" * MEGABYTE)
    for file in [file for file in objects.rglob("*") if file.is_file()]:
        if b"yyy" in file.read_bytes():
            file.unlink()
    point(link, lonely.ledger)  # a folder that is none can not be read
    lonely.start_worker(TASKS)
    until(lambda: lonely.run(kept)["attempts"][1:], "another attempt", seconds=120)
    point(link, objects)
    assert lonely.ends(kept, seconds=60)["output"] == MEGABYTE
    ended = lonely.ends(gone, seconds=60)
    assert (ended["status"], ended["attempts"][-1]["error"]["code"]) == (
        "COMPLETED_WITH_ERRORS",
        "TASK_INPUT_ERROR",
    )


def point(link: Path, target: Path) -> None:
    """At one moment the link leads elsewhere."""
    draft = link.with_name("draft")
    draft.symlink_to(target)
    draft.replace(link)
