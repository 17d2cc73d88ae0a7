"""The run structure of the wire contract, checked to the letter: keys in order, types, ids, times, nulls."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

LISTED = [
    "id",
    "status",
    "taskIdentifier",
    "version",
    "createdAt",
    "updatedAt",
    "startedAt",
    "finishedAt",
    "isTest",
    "tags",
    "metadata",
]
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
ERRORS = {
    "BUILT_IN_ERROR": ["type", "name", "message", "stackTrace"],
    "STRING_ERROR": ["type", "raw"],
    "INTERNAL_ERROR": ["type", "code", "message"],
}
ATTEMPTED = {
    "EXECUTING",
    "COMPLETED_SUCCESSFULLY",
    "COMPLETED_WITH_ERRORS",
    "CRASHED",
    "FAILED_TO_RUN",
    "TIMED_OUT",
}
FINAL = {*ATTEMPTED, "CANCELLED", "EXPIRED"} - {"EXECUTING"}


def check(run: dict[str, Any]) -> None:
    """Raises AssertionError where `run`, as it was answered, is not in the structure of its status."""
    succeeded = run["status"] == "COMPLETED_SUCCESSFULLY"
    keys = [
        *LISTED[:9],
        "payload",
        *(["output"] if succeeded else []),
        *LISTED[9:],
        "relatedRuns",
        "attempts",
    ]
    assert list(run) == keys
    _check_common(run)
    assert list(run["relatedRuns"]) == ["root", "parent", "children"]
    for relative in [
        run["relatedRuns"]["root"],
        run["relatedRuns"]["parent"],
        *run["relatedRuns"]["children"],
    ]:
        if relative is not None:
            assert list(relative) == LISTED
            _check_common(relative)
    for attempt in run["attempts"]:
        _check_attempt(run, attempt)
    assert len({attempt["id"] for attempt in run["attempts"]}) == len(run["attempts"])
    if run["status"] in ATTEMPTED:
        assert run["attempts"], "a run in this status has been attempted"
    if run["attempts"]:
        # Earlier where a worker was given the run and died before it began an attempt.
        assert run["startedAt"] <= run["attempts"][0]["startedAt"]


def _check_common(run: dict[str, Any]) -> None:
    assert re.fullmatch(r"run_[0-9a-z]+", run["id"])
    assert run["version"] is None or re.fullmatch(r"\d{8}\.\d+", run["version"])
    for name in ("createdAt", "updatedAt"):
        assert MOMENT.fullmatch(run[name])
    for name in ("startedAt", "finishedAt"):
        assert run[name] is None or MOMENT.fullmatch(run[name])
    assert (
        run["createdAt"] <= (run["startedAt"] or run["updatedAt"]) <= (run["finishedAt"] or run["updatedAt"])
    )
    if run["status"] not in FINAL:
        assert run["finishedAt"] is None
    elif run["status"] != "CANCELLED":  # a cancelled run whose process still lives has not finished
        assert run["finishedAt"] is not None
    assert isinstance(run["isTest"], bool)
    assert isinstance(run["tags"], list)
    assert isinstance(run["metadata"], dict)


def _check_attempt(run: dict[str, Any], attempt: dict[str, Any]) -> None:
    assert list(attempt) == ["id", "status", "startedAt", "completedAt", "error"]
    assert re.fullmatch(r"attempt_[0-9a-z_]+", attempt["id"])
    assert MOMENT.fullmatch(attempt["startedAt"])
    under_way = attempt["status"] == "EXECUTING"
    assert (attempt["completedAt"] is None) == under_way
    if not under_way:
        assert MOMENT.fullmatch(attempt["completedAt"])
        assert attempt["startedAt"] <= attempt["completedAt"]
    if attempt["status"] in ("EXECUTING", "COMPLETED"):
        assert attempt["error"] is None
    else:
        assert list(attempt["error"]) == ERRORS[attempt["error"]["type"]]


def seconds(earlier: str, later: str) -> float:
    """Between two moments of a run."""
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()
