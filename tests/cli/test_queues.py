"""Commands about queues, against a server in a process of its own."""

import json

import httpx2
import pytest

from cli.world import KEY, Holdfast


@pytest.fixture
def registered(server_url: str) -> None:
    """A worker that registers a task and a shared queue, and takes nothing."""
    body = {
        "name": "w",
        "fingerprint": "f",
        "tasks": [{"id": "send"}, {"id": "pay", "queue": "money/eur"}],
        "queues": [{"name": "money/eur", "concurrencyLimit": 7}],
    }
    answer = httpx2.post(
        f"{server_url}/api/v1/workers", json=body, headers={"authorization": f"Bearer {KEY}"}, trust_env=False
    )
    assert answer.status_code == 200


@pytest.mark.usefixtures("registered")
def test_queues_are_listed(client: Holdfast):
    done = client("queues", "list")
    assert done.code == 0, done.err
    assert done.lines == ["money/eur\t0\t0\t7\tactive", "task/send\t0\t0\t-\tactive"]
    listed = json.loads(client("queues", "list", "--json").out)
    assert [queue["name"] for queue in listed] == ["money/eur", "send"]


@pytest.mark.usefixtures("registered")
def test_a_queue_is_paused_and_resumed(client: Holdfast):
    assert client("queues", "pause", "task/send").lines == ["task/send\t0\t0\t-\tpaused"]
    assert client("queues", "pause", "task/send").code == 0
    queue = json.loads(client("queues", "resume", "task/send", "--json").out)
    assert queue["paused"] is False
    assert json.loads(client("queues", "pause", queue["id"], "--json").out)["paused"] is True
    client("queues", "resume", queue["id"])


@pytest.mark.usefixtures("registered")
def test_a_limit_is_overridden_and_reset(client: Holdfast):
    assert client("queues", "limit", "money/eur", "2").lines == ["money/eur\t0\t0\t2 (declared: 7)\tactive"]
    assert client("queues", "limit", "money/eur", "--reset").lines == ["money/eur\t0\t0\t7\tactive"]
    done = client("queues", "limit", "money/eur", "--reset")
    assert done.code == 2
    assert "not overridden" in done.err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("limit", "q"), 2),
        (("limit", "q", "1", "--reset"), 2),
        (("limit", "q", "-1"), 2),
        (("pause", "none"), 4),
    ],
)
def test_what_can_not_be_done_is_refused(client: Holdfast, arguments: tuple[str, ...], code: int):
    assert client("queues", *arguments).code == code
