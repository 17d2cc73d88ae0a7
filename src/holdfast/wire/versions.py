"""What the official SDK is told instead of the run structure (the wire contract, sections 2 and 4).

A request with `x-trigger-api-version: 2025-07-16` gets the words and shapes of this module, any other one gets the run
structure as it is (wire/runs.py). Absent is never null here: the SDK reads a null date as 1970.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from holdfast.errors import InvalidRequest
from holdfast.model.duration import duration_text
from holdfast.model.packet import STORE, projection
from holdfast.model.run import Attempt, Run
from holdfast.model.status import FINAL, RunStatus
from holdfast.wire.errors import flat_error, typed_error
from holdfast.wire.runs import moment
from holdfast.wire.runs import result as run_result

SDK_VERSION = "2025-07-16"
S = RunStatus

STATUS: Mapping[RunStatus, str] = {
    S.DELAYED: "DELAYED",
    S.QUEUED: "QUEUED",
    S.WAITING_FOR_DEPLOY: "PENDING_VERSION",
    S.EXECUTING: "EXECUTING",
    S.REATTEMPTING: "EXECUTING",
    S.WAITING_TO_RESUME: "WAITING",
    S.COMPLETED_SUCCESSFULLY: "COMPLETED",
    S.COMPLETED_WITH_ERRORS: "FAILED",
    S.CANCELLED: "CANCELED",
    S.CRASHED: "CRASHED",
    S.FAILED_TO_RUN: "SYSTEM_FAILURE",
    S.TIMED_OUT: "TIMED_OUT",
    S.EXPIRED: "EXPIRED",
}
# Words that only a filter may hold.
FILTER_ONLY: Mapping[str, frozenset[RunStatus]] = {
    "FROZEN": frozenset({S.WAITING_TO_RESUME}),
    "DEQUEUED": frozenset(),
    "INTERRUPTED": frozenset(),
}
STATUSES = sorted({*RunStatus.__members__, *STATUS.values(), *FILTER_ONLY})
QUEUED = frozenset({S.QUEUED, S.WAITING_FOR_DEPLOY, S.DELAYED})
EXECUTING = frozenset({S.EXECUTING, S.REATTEMPTING})


def statuses(word: str, sdk: bool) -> frozenset[RunStatus]:
    """The statuses that a word in a filter selects, of either vocabulary. Raises InvalidRequest for any other word.

    A word of the run structure selects exactly itself; for the SDK, EXECUTING is also REATTEMPTING, as it shows it.
    """
    if word in RunStatus.__members__ and not (sdk and word == "EXECUTING"):
        return frozenset({RunStatus(word)})
    if word in FILTER_ONLY:
        return FILTER_ONLY[word]
    found = frozenset(status for status, shown in STATUS.items() if shown == word)
    if not found:
        raise InvalidRequest(
            f"filter[status] holds {word[:40]!r}: expected one of {', '.join(STATUSES)}", "filter[status]"
        )
    return found


def list_item(run: Run) -> dict[str, Any]:
    """A run in a list, without `env`."""
    return _common(run) | {"depth": run.depth}


def full_run(
    run: Run,
    attempts: Sequence[Attempt],
    root: Run | None = None,
    parent: Run | None = None,
    children: Sequence[Run] = (),
    *,
    urls: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """What `runs.retrieve` of the SDK reads.

    urls  presigned ones of a payload or output that is kept in the object store: {"payload": …, "output": …}
    """
    urls = urls or {}
    answer = _related(run)
    if run.payload_type == STORE:
        if "payload" in urls:
            answer["payloadPresignedUrl"] = urls["payload"]
    elif run.payload:
        answer["payload"] = projection(run.payload, run.payload_type)
    if run.status is S.COMPLETED_SUCCESSFULLY:
        if run.output_type == STORE:
            if "output" in urls:
                answer["outputPresignedUrl"] = urls["output"]
        elif run.output is not None:
            answer["output"] = projection(run.output, run.output_type)
    elif run.error is not None and run.finished_at is not None:
        answer["error"] = flat_error(json.loads(run.error))
    related: dict[str, Any] = {"children": [_related(child) for child in children]}
    if root is not None:
        related["root"] = _related(root)
    if parent is not None:
        related["parent"] = _related(parent)
    answer["relatedRuns"] = related
    answer["attemptCount"] = run.attempt
    answer["attempts"] = []
    if attempts:
        answer["durationMs"] = _duration(run) or sum(
            (attempt.completed_at or run.updated_at) - attempt.started_at for attempt in attempts
        )
    return answer


def result(run: Run) -> dict[str, Any]:
    """A finished run's outcome, with an error that the SDK can read (4.8)."""
    answer = run_result(run)
    return answer if answer["ok"] else {**answer, "error": typed_error(answer["error"])}


def _common(run: Run) -> dict[str, Any]:
    if run.status is S.CANCELLED and run.finished_at is None:
        # Its process is being stopped: for the SDK a cancelled run has an end (the wire contract, 4.9).
        run = replace(run, status=S.EXECUTING)
    completed = run.status in FINAL
    success = run.status is S.COMPLETED_SUCCESSFULLY
    answer: dict[str, Any] = {
        "id": run.id,
        "status": STATUS[run.status],
        "taskIdentifier": run.task,
        "isQueued": run.status in QUEUED,
        "isExecuting": run.status in EXECUTING,
        "isWaiting": run.status is S.WAITING_TO_RESUME,
        "isCompleted": completed,
        "isSuccess": success,
        "isFailed": completed and not success,
        "isCancelled": run.status is S.CANCELLED,
        "isTest": run.is_test,
        "createdAt": moment(run.created_at),
        "updatedAt": moment(run.updated_at),
        "tags": sorted(json.loads(run.tags)),
        "costInCents": 0,
        "baseCostInCents": 0,
        "durationMs": _duration(run),
    }
    optional = {
        "idempotencyKey": run.idempotency_key_shown or run.idempotency_key,
        "version": run.version,
        "startedAt": moment(run.started_at),
        "finishedAt": moment(run.finished_at),
        "delayedUntil": moment(run.delayed_until),
        "expiredAt": moment(run.finished_at) if run.status is S.EXPIRED else None,
        "ttl": None if run.ttl_ms is None else run.ttl_shown or duration_text(run.ttl_ms),
        "metadata": json.loads(run.metadata) or None,
    }
    return answer | {name: value for name, value in optional.items() if value is not None}


def _related(run: Run) -> dict[str, Any]:
    answer = _common(run)
    answer["depth"] = run.depth
    waited = run.parent_id is not None and run.version_lock is not None
    answer["triggerFunction"] = ("batchTrigger" if run.batch_id else "trigger") + (
        "AndWait" if waited else ""
    )
    if run.batch_id is not None:
        answer["batchId"] = run.batch_id
    return answer


def _duration(run: Run) -> int:
    """Milliseconds from the start to the end; 0 while it is not known."""
    if run.started_at is None or run.finished_at is None:
        return 0
    return max(0, run.finished_at - run.started_at)
