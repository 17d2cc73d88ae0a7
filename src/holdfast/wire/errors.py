"""Recorded errors as the official SDK is told them (the wire contract, 3.5 and 4.7).

It takes a closed list of codes, and texts that are never absent: a result that has anything else it can not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CODES = frozenset(
    (
        "COULD_NOT_FIND_EXECUTOR",
        "COULD_NOT_FIND_TASK",
        "COULD_NOT_IMPORT_TASK",
        "CONFIGURED_INCORRECTLY",
        "TASK_ALREADY_RUNNING",
        "TASK_EXECUTION_FAILED",
        "TASK_EXECUTION_ABORTED",
        "TASK_PROCESS_EXITED_WITH_NON_ZERO_CODE",
        "TASK_PROCESS_SIGKILL_TIMEOUT",
        "TASK_PROCESS_SIGSEGV",
        "TASK_PROCESS_SIGTERM",
        "TASK_PROCESS_OOM_KILLED",
        "TASK_PROCESS_MAYBE_OOM_KILLED",
        "TASK_RUN_CANCELLED",
        "TASK_INPUT_ERROR",
        "TASK_OUTPUT_ERROR",
        "TASK_MIDDLEWARE_ERROR",
        "HANDLE_ERROR_ERROR",
        "GRACEFUL_EXIT_TIMEOUT",
        "TASK_RUN_HEARTBEAT_TIMEOUT",
        "TASK_RUN_CRASHED",
        "TASK_RUN_UNCAUGHT_EXCEPTION",
        "MAX_DURATION_EXCEEDED",
        "DISK_SPACE_EXCEEDED",
        "POD_EVICTED",
        "POD_UNKNOWN_ERROR",
        "TASK_HAS_N0_EXECUTION_SNAPSHOT",
        "TASK_DEQUEUED_INVALID_STATE",
        "TASK_DEQUEUED_QUEUE_NOT_FOUND",
        "TASK_RUN_DEQUEUED_MAX_RETRIES",
        "TASK_RUN_STALLED_EXECUTING",
        "TASK_RUN_STALLED_EXECUTING_WITH_WAITPOINTS",
        "OUTDATED_SDK_VERSION",
        "TASK_DID_CONCURRENT_WAIT",
        "RECURSIVE_WAIT_DEADLOCK",
        "BATCH_ITEM_COULD_NOT_TRIGGER",
        "PAYLOAD_TOO_LARGE",
        "UNSPECIFIED_ERROR",
    )
)
STOCK_MESSAGES = {
    "TASK_RUN_CANCELLED": "The run was cancelled",
    "MAX_DURATION_EXCEEDED": "The run took longer than its maximum duration",
}


def typed_error(error: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded error as one of the four kinds of 3.5, with all that its kind must have."""
    match error.get("type"):
        case "STRING_ERROR" | "CUSTOM_ERROR":
            return {**error, "raw": str(error.get("raw", ""))}
        case "INTERNAL_ERROR":
            code = error.get("code")
            message = error.get("message") or STOCK_MESSAGES.get(str(code), str(code))
            told = {**error, "code": code if code in CODES else "UNSPECIFIED_ERROR", "message": str(message)}
            return told | ({"stackTrace": str(error["stackTrace"])} if "stackTrace" in error else {})
        case _:
            texts = {name: str(error.get(name) or "") for name in ("name", "message", "stackTrace")}
            told = {**error, **texts, "type": "BUILT_IN_ERROR", "name": texts["name"] or "Error"}
            return told | ({"causes": _causes(error["causes"])} if "causes" in error else {})


def flat_error(error: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded error as retrieve shows it: {"message", "name"?, "stackTrace"?, "causes"?}."""
    told = typed_error(error)
    if "raw" in told:
        return {"message": told["raw"]}
    name = str(error.get("code", "UNSPECIFIED_ERROR")) if told["type"] == "INTERNAL_ERROR" else told["name"]
    flat = {"name": name, "message": told["message"]}
    return flat | {more: told[more] for more in ("stackTrace", "causes") if told.get(more)}


def _causes(given: Any) -> list[dict[str, str]]:
    found = [cause for cause in given if isinstance(cause, dict)] if isinstance(given, list) else []
    return [
        {"message": str(cause.get("message", ""))}
        | {name: cause[name] for name in ("name", "stackTrace") if isinstance(cause.get(name), str)}
        for cause in found
    ]
