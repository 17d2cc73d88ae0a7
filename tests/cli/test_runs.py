"""Commands about runs, against a server in a process of its own. No worker: runs wait."""

import io
import json

import pytest

from cli.world import KEY, Holdfast


def triggered(client: Holdfast, *options: str) -> str:
    done = client("trigger", "hello", '{"name": "you"}', *options)
    assert done.code == 0, done.err
    [run_id] = done.lines
    return run_id


def test_trigger_prints_the_id_and_get_the_run(client: Holdfast):
    run_id = triggered(client, "--tag", "one", "--tag", "two", "--test", "--delay", "1h")
    run = json.loads(client("runs", "get", run_id).out)
    assert run["id"] == run_id
    assert run["status"] == "DELAYED"
    assert run["payload"] == {"name": "you"}
    assert run["tags"] == ["one", "two"]
    assert run["isTest"] is True


def test_the_payload_is_read_from_stdin(client: Holdfast, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("[1, 2]"))
    run_id = client("trigger", "hello", "-").lines[0]
    assert json.loads(client("runs", "get", run_id).out)["payload"] == [1, 2]


def test_an_idempotency_key_gives_the_first_run_again(client: Holdfast):
    first = triggered(client, "--idempotency-key", "once")
    second = client("trigger", "hello", '{"name": "you"}', "--idempotency-key", "once")
    assert second.lines == [first]
    assert "existed already" in second.err


def test_ids_travel_from_list_to_cancel_and_replay(client: Holdfast, monkeypatch: pytest.MonkeyPatch):
    ids = [triggered(client, "--tag", "travel") for _ in range(3)]
    listed = client("runs", "list", "--tag", "travel", "-o", "ids")
    assert listed.lines == ids[::-1]
    monkeypatch.setattr("sys.stdin", io.StringIO(listed.out))
    assert client("runs", "cancel", "-").lines == ids[::-1]
    assert {run["status"] for run in json.loads(client("runs", "list", "--tag", "travel", "--json").out)} == {
        "CANCELLED"
    }
    again = client("runs", "replay", ids[0], "--payload", "7").lines
    assert json.loads(client("runs", "get", *again).out)["payload"] == 7


def test_runs_that_match_are_cancelled_and_replayed_without_their_ids(client: Holdfast):
    ids = [triggered(client, "--tag", "many", "--delay", "1h") for _ in range(2)]
    done = client("runs", "cancel", "--tag", "many", "--status", "active")
    assert (done.code, done.lines) == (0, ["COMPLETED: 2 of 2 runs"])
    assert "bulk_" in done.err
    told = json.loads(client("runs", "replay", "--tag", "many", "--task", "hello", "--json").out)
    assert (told["type"], told["counts"]) == ("REPLAY", {"total": 2, "success": 2, "failure": 0})
    listed = [json.loads(line) for line in client("runs", "list", "--tag", "many", "--json").lines] or []
    runs = listed[0] if isinstance(listed[0], list) else listed
    assert [run["id"] for run in runs][2:] == ids[::-1]
    assert [run["status"] for run in runs][2:] == ["CANCELLED"] * 2
    assert client("runs", "cancel", "--tag", "many", "-o", "ids").lines[0].startswith("bulk_")


@pytest.mark.parametrize(
    "arguments",
    [
        ("runs", "cancel"),
        ("runs", "replay"),
        ("runs", "cancel", "run_1", "--tag", "a"),
        ("runs", "replay", "--tag", "a", "--payload", "1"),
        ("runs", "cancel", "--status", "asleep"),
    ],
)
def test_runs_are_named_or_selected_and_not_both(client: Holdfast, arguments: tuple[str, ...]):
    assert client(*arguments).code == 2


def test_a_list_goes_on_over_pages_up_to_its_limit(client: Holdfast):
    for _ in range(3):
        triggered(client, "--tag", "pages")
    for limit in (1, 2, 3, 200):
        done = client("runs", "list", "--tag", "pages", "--limit", str(limit), "-o", "ids")
        assert len(done.lines) == min(limit, 3)


def test_filters_narrow_the_list(client: Holdfast):
    delayed = triggered(client, "--tag", "filters", "--delay", "2h")
    cancelled = triggered(client, "--tag", "filters")
    client("runs", "cancel", cancelled)

    def ids(*options: str) -> list[str]:
        done = client("runs", "list", "--tag", "filters", "-o", "ids", *options)
        assert done.code == 0, done.err
        return done.lines

    assert ids("--status", "delayed") == [delayed]
    assert ids("--status", "active", "--status", "cancelled") == [cancelled, delayed]
    assert ids("--status", "failed") == []
    assert ids("--task", "other") == []
    assert ids("--task", "hello", "--task", "other", "--period", "1h", "--no-test") == [cancelled, delayed]
    assert ids("--test") == []
    assert ids("--queue", "task/hello") == [cancelled, delayed]
    assert ids("--to", "2020-01-01T00:00:00Z") == []


def test_a_delayed_run_is_rescheduled(client: Holdfast):
    run_id = triggered(client, "--delay", "1h")
    assert client("runs", "reschedule", run_id, "--delay", "2h").lines == [run_id]


def test_one_unknown_run_does_not_keep_the_others(client: Holdfast):
    run_id = triggered(client)
    done = client("runs", "cancel", "run_unknown", run_id)
    assert done.code == 4
    assert done.lines == [run_id]
    assert "run_unknown: Run not found" in done.err


@pytest.mark.parametrize(
    "verb",
    [
        ("get",),
        ("watch",),
        ("cancel",),
        ("replay",),
        ("logs",),
        ("journal",),
        ("reschedule", "--delay", "1h"),
    ],
)
def test_an_unknown_run_ends_with_4(client: Holdfast, verb: tuple[str, ...]):
    done = client("runs", verb[0], "run_unknown", *verb[1:])
    assert done.code == 4
    assert "Run not found" in done.err


def test_an_unknown_key_ends_with_3_and_is_not_shown(client: Holdfast, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOLDFAST_SECRET_KEY", "tr_dev_unknown")
    for arguments in (("runs", "list"), ("runs", "get", "a", "b"), ("trigger", "hello")):
        done = client(*arguments)
        assert done.code == 3
        assert "HOLDFAST_SECRET_KEY" in done.err
        assert "tr_dev_unknown" not in done.err


def test_waiting_ends_with_124_when_the_time_is_over(client: Holdfast):
    done = client("trigger", "hello", "--wait", "--timeout", "0.1")
    assert done.code == 124
    assert "it goes on" in done.err
    assert client("runs", "watch", triggered(client, "--delay", "1h"), "--timeout", "0").code == 124


def test_watching_a_run_that_did_not_succeed_ends_with_1(client: Holdfast):
    run_id = triggered(client)
    client("runs", "cancel", run_id)
    done = client("runs", "watch", run_id, "--json")
    assert done.code == 1
    assert json.loads(done.out)["status"] == "CANCELLED"
    assert f"run {run_id} ended CANCELLED" in done.err


def test_what_the_server_refuses_is_told_with_its_field(client: Holdfast):
    done = client("trigger", "hello", "--tag", "x" * 129)
    assert done.code == 2
    assert "tag" in done.err


def test_the_doctor_finds_the_server_and_its_key(client: Holdfast):
    lines = {line.split()[2]: line for line in client("doctor").lines}
    assert "ok" in lines["server"]
    assert "environment dev" in lines["key"]
    assert KEY not in "".join(lines.values())
