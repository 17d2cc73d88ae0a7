"""The vocabulary of the SDK is total over the statuses, and what it is told is what its own checks accept."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from holdfast.errors import InvalidRequest
from holdfast.model.run import Run
from holdfast.model.status import FINAL, RunStatus
from holdfast.wire import runs, versions

# The closed set that the SDK checks (the wire contract, 2.1).
SDK_WORDS = {
    "DELAYED", "QUEUED", "PENDING_VERSION", "EXECUTING", "WAITING", "COMPLETED", "FAILED",
    "CANCELED", "CRASHED", "SYSTEM_FAILURE", "TIMED_OUT", "EXPIRED", "DEQUEUED",
}  # fmt: skip
BOOLEANS = ("isQueued", "isExecuting", "isWaiting", "isCompleted", "isSuccess", "isFailed", "isCancelled")


def run(status: RunStatus = RunStatus.QUEUED, **changes: Any) -> Run:
    at = 1_800_000_000_000
    made = Run(
        id="run_1", environment_id="dev", status=status, lease=1, task="echo", version=None, version_lock=None,
        queue="task/echo", concurrency_key="", priority=0, score=0, attempt=0, starts=0, losses=0, alone=False,
        max_attempts=None, max_duration=None, machine=None, worker_id=None, is_test=False, ttl_ms=None,
        due_at=None, delayed_until=None, created_at=at, updated_at=at, started_at=None,
        finished_at=at + 5 if status in FINAL else None, attempt_started_at=None, idempotency_key=None,
        parent_id=None, root_id=None, depth=0, batch_id=None, replay_of=None, tags='["b", "a"]',
        metadata="{}", error=None, payload=None, output=None,
    )  # fmt: skip
    return replace(made, **changes)


@pytest.mark.parametrize("status", list(RunStatus))
def test_every_status_has_a_word_in_both_vocabularies(status: RunStatus) -> None:
    assert runs.list_item(run(status))["status"] == status
    shown = versions.list_item(run(status))
    assert shown["status"] in SDK_WORDS
    assert status in versions.statuses(shown["status"], sdk=True)
    assert versions.statuses(status, sdk=False) == {status}
    assert status in versions.statuses(status, sdk=True)


@pytest.mark.parametrize("status", list(RunStatus))
def test_the_booleans_follow_the_status(status: RunStatus) -> None:
    shown = versions.list_item(run(status))
    assert [type(shown[name]) for name in BOOLEANS] == [bool] * len(BOOLEANS)
    # A run is in exactly one of these four; a run that never completes is polled for ever.
    assert [shown[name] for name in BOOLEANS[:4]].count(True) == 1
    assert shown["isCompleted"] == (status in FINAL)
    assert shown["isSuccess"] == (status is RunStatus.COMPLETED_SUCCESSFULLY)
    assert shown["isFailed"] == (status in FINAL and not shown["isSuccess"])
    assert shown["isCancelled"] == (status is RunStatus.CANCELLED)


@pytest.mark.parametrize("status", list(RunStatus))
def test_the_sdk_is_never_told_null(status: RunStatus) -> None:
    for shown in (versions.full_run(run(status), []), versions.list_item(run(status))):
        assert "null" not in json.dumps(shown)


def test_the_sdk_s_executing_is_also_the_pause_between_attempts() -> None:
    assert versions.statuses("EXECUTING", sdk=True) == {RunStatus.EXECUTING, RunStatus.REATTEMPTING}
    assert versions.statuses("EXECUTING", sdk=False) == {RunStatus.EXECUTING}
    assert versions.statuses("REATTEMPTING", sdk=True) == {RunStatus.REATTEMPTING}


@pytest.mark.parametrize("word", ["INTERRUPTED", "DEQUEUED"])
def test_a_word_of_the_contract_that_no_run_has_selects_nothing(word: str) -> None:
    assert versions.statuses(word, sdk=True) == frozenset()


@pytest.mark.parametrize("word", ["", "executing", "SLEEPWALKING", "x" * 1_000])
def test_any_other_word_is_refused_by_name(word: str) -> None:
    with pytest.raises(InvalidRequest, match=r"filter\[status\]") as raised:
        versions.statuses(word, sdk=True)
    assert len(str(raised.value)) < 600


def test_a_cancelled_run_is_executing_until_its_process_is_gone() -> None:
    closing = run(RunStatus.CANCELLED, finished_at=None, worker_id="worker_1")
    shown = versions.full_run(closing, [])
    assert (shown["status"], shown["isCompleted"], shown["isExecuting"]) == ("EXECUTING", False, True)
    assert runs.full_run(closing, [])["status"] == "CANCELLED"


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (
            {"type": "BUILT_IN_ERROR", "name": "ValueError", "message": "no", "stackTrace": "line 1"},
            {"name": "ValueError", "message": "no", "stackTrace": "line 1"},
        ),
        ({"type": "STRING_ERROR", "raw": "late"}, {"message": "late"}),
        (
            {"type": "INTERNAL_ERROR", "code": "TASK_RUN_CANCELLED"},
            {"name": "TASK_RUN_CANCELLED", "message": "The run was cancelled"},
        ),
    ],
)
def test_errors_are_flat(error: dict[str, Any], shown: dict[str, Any]) -> None:
    failed = run(RunStatus.COMPLETED_WITH_ERRORS, error=json.dumps(error))
    assert versions.full_run(failed, [])["error"] == shown


def test_tags_come_back_sorted_and_the_ttl_as_text() -> None:
    shown = versions.list_item(run(ttl_ms=600_000))
    assert (shown["tags"], shown["ttl"]) == (["a", "b"], "10m")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "trigger"),
        ({"batch_id": "batch_1"}, "batchTrigger"),
        ({"parent_id": "run_0"}, "trigger"),
        ({"parent_id": "run_0", "version_lock": "20260101.1"}, "triggerAndWait"),
        ({"parent_id": "run_0", "version_lock": "20260101.1", "batch_id": "batch_1"}, "batchTriggerAndWait"),
    ],
)
def test_how_a_run_was_triggered(changes: dict[str, Any], word: str) -> None:
    assert versions.full_run(run(**changes), [])["triggerFunction"] == word


def test_a_ttl_is_told_as_it_was_written() -> None:
    assert versions.list_item(run(ttl_ms=86_400_000, ttl_shown="24h"))["ttl"] == "24h"
    assert versions.list_item(run(ttl_ms=86_400_000))["ttl"] == "1d"
