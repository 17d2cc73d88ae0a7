"""Errors as data: what is recorded on a run or an attempt, and which status each code ends in.

Shapes (the wire contract's section 3.5):

    {"type": "BUILT_IN_ERROR", "name": "ValueError", "message": "…", "stackTrace": "…",
     "causes"?: [{"name", "message", "stackTrace"}]}
    {"type": "STRING_ERROR", "raw": "…"}
    {"type": "INTERNAL_ERROR", "code": "TASK_PROCESS_SIGSEGV", "message": "…"}
"""

from __future__ import annotations

from typing import Any

from holdfast.errors import HoldfastError
from holdfast.model.limits import MAX_LOG_MESSAGE
from holdfast.model.status import RunStatus

RunError = dict[str, Any]

MAX_NAME = 1_024
MAX_MESSAGE = 16 * 1024
MAX_STACK = 16 * 1024
MISMATCH = "TASK_RUN_REPLAY_MISMATCH"  # the code asks for something else than the journal holds
MAX_FACTS = 20  # of each side of a mismatch
MAX_CAUSES = 5  # exceptions behind the one that is recorded, the nearest first

S = RunStatus
STATUS_OF_CODE: dict[str, RunStatus] = {
    **dict.fromkeys(
        (
            "RECURSIVE_WAIT_DEADLOCK",
            "TASK_INPUT_ERROR",
            "TASK_OUTPUT_ERROR",
            "TASK_MIDDLEWARE_ERROR",
            "TASK_RUN_UNCAUGHT_EXCEPTION",
        ),
        S.COMPLETED_WITH_ERRORS,
    ),
    "TASK_RUN_CANCELLED": S.CANCELLED,
    "MAX_DURATION_EXCEEDED": S.TIMED_OUT,
    **dict.fromkeys(
        (
            "TASK_PROCESS_OOM_KILLED",
            "TASK_PROCESS_MAYBE_OOM_KILLED",
            "TASK_PROCESS_SIGSEGV",
            "TASK_PROCESS_SIGTERM",
            "TASK_PROCESS_EXITED_WITH_NON_ZERO_CODE",
            "DISK_SPACE_EXCEEDED",
            "OUTDATED_SDK_VERSION",
            "HANDLE_ERROR_ERROR",
            "TASK_RUN_CRASHED",
            "TASK_RUN_STALLED_EXECUTING",
        ),
        S.CRASHED,
    ),
}  # every other code: FAILED_TO_RUN

# Codes that no further attempt can mend (engine-semantics section 4).
NEVER_RETRIED = frozenset(
    {
        "COULD_NOT_FIND_EXECUTOR",
        "COULD_NOT_FIND_TASK",
        "COULD_NOT_IMPORT_TASK",
        "CONFIGURED_INCORRECTLY",
        "TASK_ALREADY_RUNNING",
        "TASK_INPUT_ERROR",
        "TASK_RUN_CANCELLED",
        "MAX_DURATION_EXCEEDED",
        "DISK_SPACE_EXCEEDED",
        "OUTDATED_SDK_VERSION",
        "RECURSIVE_WAIT_DEADLOCK",
        "PAYLOAD_TOO_LARGE",
        "TASK_PROCESS_OOM_KILLED",
        "UNSPECIFIED_ERROR",
    }
)


def internal_error(code: str, message: str) -> RunError:
    return {"type": "INTERNAL_ERROR", "code": code, "message": message}


def string_error(text: str) -> RunError:
    return {"type": "STRING_ERROR", "raw": text}


def refusal(error: HoldfastError) -> dict[str, Any]:
    """A refusal as it is answered and recorded: {"error", "code", "param"?}."""
    body: dict[str, Any] = {"error": str(error), "code": error.code}
    if param := getattr(error, "param", None):
        body["param"] = param
    return body


def status_of(error: RunError) -> RunStatus:
    """The status in which a run ends that failed for the last time with `error`."""
    if error.get("type") != "INTERNAL_ERROR":
        return S.COMPLETED_WITH_ERRORS
    return STATUS_OF_CODE.get(str(error.get("code")), S.FAILED_TO_RUN)


def is_mismatch(error: RunError) -> bool:
    return error.get("type") == "INTERNAL_ERROR" and error.get("code") == MISMATCH


def may_be_retried(error: RunError) -> bool:
    return error.get("type") != "INTERNAL_ERROR" or str(error.get("code")) not in NEVER_RETRIED


def trimmed(error: RunError) -> RunError:
    """`error` cut to what is stored: 1 KiB of name, 16 KiB of message and stack, without NUL."""
    limits = {"name": MAX_NAME, "message": MAX_MESSAGE, "stackTrace": MAX_STACK, "raw": MAX_MESSAGE}
    kept = {
        key: _fitting(value, limits.get(key, MAX_NAME)) if key not in ("recorded", "asked") else _facts(value)
        for key, value in error.items()
        if key != "causes"
    }
    causes = error.get("causes")
    if not isinstance(causes, list):
        return kept
    fields = ("name", "message", "stackTrace")
    kept["causes"] = [
        {name: _fitting(cause[name], limits[name]) for name in fields if isinstance(cause.get(name), str)}
        for cause in causes[:MAX_CAUSES]
        if isinstance(cause, dict)
    ]
    return kept


def _fitting(value: Any, longest: int) -> Any:
    return value.replace("\x00", "")[:longest] if isinstance(value, str) else value


def _facts(value: Any) -> Any:
    """One side of a mismatch: a small object of texts and numbers."""
    if not isinstance(value, dict):
        return None
    facts = {str(key)[:100]: _fitting(fact, MAX_NAME) for key, fact in list(value.items())[:MAX_FACTS]}
    return {key: fact for key, fact in facts.items() if not isinstance(fact, dict | list)}


def clean(text: str, limit: int = MAX_LOG_MESSAGE) -> str:
    """`text` as it can be stored: without NUL and lone surrogates, at most `limit` characters."""
    text = text[:limit]
    if "\x00" in text:
        text = text.replace("\x00", "")
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-8", "replace").decode()
    return text
