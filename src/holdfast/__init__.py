"""Background jobs and durable execution for Python.

Every public name is here and is loaded when it is first used, so that `import holdfast` costs little.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.errors import (
        AbortRun,
        BatchNotFound,
        BlockingCallInLoop,
        BulkActionNotFound,
        Fenced,
        Forbidden,
        HoldfastError,
        InvalidRequest,
        JournalFull,
        NotAuthorised,
        NotFound,
        PayloadTooLarge,
        ReplayMismatch,
        ResultTimeout,
        RetryAfter,
        RunCancelled,
        RunCrashed,
        RunExpired,
        RunFailed,
        RunNotFound,
        RunTimedOut,
        ServerUnreachable,
        StepFailed,
        StepTimedOut,
        SuspensionSwallowed,
        TokenTimedOut,
        Unprocessable,
        WaitInStep,
        WaitpointNotFound,
    )
    from holdfast.sdk import wait
    from holdfast.sdk.batch import arun_all, run_all
    from holdfast.sdk.client import Holdfast
    from holdfast.sdk.context import CurrentRun, NoCurrentRun, current_run, progress
    from holdfast.sdk.cron import Cron
    from holdfast.sdk.decorator import task
    from holdfast.sdk.hooks import Hooks, global_hooks
    from holdfast.sdk.options import Options
    from holdfast.sdk.payload import OutputInvalid, PayloadInvalid
    from holdfast.sdk.queue import Queue
    from holdfast.sdk.registry import DuplicateName
    from holdfast.sdk.resources.auth import Environment
    from holdfast.sdk.resources.batches import Batch, RunResult
    from holdfast.sdk.resources.bulk import BulkAction
    from holdfast.sdk.resources.deployments import Deployment
    from holdfast.sdk.resources.filters import BulkFilters, RunFilters
    from holdfast.sdk.resources.queues import QueueState
    from holdfast.sdk.resources.runs import LogRecord
    from holdfast.sdk.resources.schedules import LastTick, Schedule
    from holdfast.sdk.resources.tokens import TokenState
    from holdfast.sdk.resources.trace import RunEvent, Span, Trace
    from holdfast.sdk.resources.variables import Variable
    from holdfast.sdk.retry import Retry
    from holdfast.sdk.run import Run
    from holdfast.sdk.step import step
    from holdfast.sdk.task import Bound, Task
    from holdfast.sdk.tick import Tick
    from holdfast.sdk.token import Token

_HOMES = {
    "AbortRun": "errors",
    "Batch": "sdk.resources.batches",
    "BatchNotFound": "errors",
    "BlockingCallInLoop": "errors",
    "Bound": "sdk.task",
    "BulkAction": "sdk.resources.bulk",
    "BulkActionNotFound": "errors",
    "BulkFilters": "sdk.resources.filters",
    "Cron": "sdk.cron",
    "CurrentRun": "sdk.context",
    "Deployment": "sdk.resources.deployments",
    "DuplicateName": "sdk.registry",
    "Environment": "sdk.resources.auth",
    "Fenced": "errors",
    "Forbidden": "errors",
    "Holdfast": "sdk.client",
    "HoldfastError": "errors",
    "Hooks": "sdk.hooks",
    "InvalidRequest": "errors",
    "JournalFull": "errors",
    "LastTick": "sdk.resources.schedules",
    "LogRecord": "sdk.resources.runs",
    "NoCurrentRun": "sdk.context",
    "NotAuthorised": "errors",
    "NotFound": "errors",
    "Options": "sdk.options",
    "OutputInvalid": "sdk.payload",
    "PayloadInvalid": "sdk.payload",
    "PayloadTooLarge": "errors",
    "Queue": "sdk.queue",
    "QueueState": "sdk.resources.queues",
    "ReplayMismatch": "errors",
    "ResultTimeout": "errors",
    "Retry": "sdk.retry",
    "RetryAfter": "errors",
    "Run": "sdk.run",
    "RunCancelled": "errors",
    "RunCrashed": "errors",
    "RunEvent": "sdk.resources.trace",
    "RunExpired": "errors",
    "RunFailed": "errors",
    "RunFilters": "sdk.resources.filters",
    "RunNotFound": "errors",
    "RunResult": "sdk.resources.batches",
    "RunTimedOut": "errors",
    "Schedule": "sdk.resources.schedules",
    "ServerUnreachable": "errors",
    "Span": "sdk.resources.trace",
    "StepFailed": "errors",
    "StepTimedOut": "errors",
    "SuspensionSwallowed": "errors",
    "Task": "sdk.task",
    "Tick": "sdk.tick",
    "Token": "sdk.token",
    "TokenState": "sdk.resources.tokens",
    "TokenTimedOut": "errors",
    "Trace": "sdk.resources.trace",
    "Unprocessable": "errors",
    "Variable": "sdk.resources.variables",
    "WaitInStep": "errors",
    "WaitpointNotFound": "errors",
    "arun_all": "sdk.batch",
    "current_run": "sdk.context",
    "global_hooks": "sdk.hooks",
    "progress": "sdk.context",
    "run_all": "sdk.batch",
    "step": "sdk.step",
    "task": "sdk.decorator",
    "wait": "sdk.wait",
}

__all__ = [
    "AbortRun",
    "Batch",
    "BatchNotFound",
    "BlockingCallInLoop",
    "Bound",
    "BulkAction",
    "BulkActionNotFound",
    "BulkFilters",
    "Cron",
    "CurrentRun",
    "Deployment",
    "DuplicateName",
    "Environment",
    "Fenced",
    "Forbidden",
    "Holdfast",
    "HoldfastError",
    "Hooks",
    "InvalidRequest",
    "JournalFull",
    "LastTick",
    "LogRecord",
    "NoCurrentRun",
    "NotAuthorised",
    "NotFound",
    "Options",
    "OutputInvalid",
    "PayloadInvalid",
    "PayloadTooLarge",
    "Queue",
    "QueueState",
    "ReplayMismatch",
    "ResultTimeout",
    "Retry",
    "RetryAfter",
    "Run",
    "RunCancelled",
    "RunCrashed",
    "RunEvent",
    "RunExpired",
    "RunFailed",
    "RunFilters",
    "RunNotFound",
    "RunResult",
    "RunTimedOut",
    "Schedule",
    "ServerUnreachable",
    "Span",
    "StepFailed",
    "StepTimedOut",
    "SuspensionSwallowed",
    "Task",
    "Tick",
    "Token",
    "TokenState",
    "TokenTimedOut",
    "Trace",
    "Unprocessable",
    "Variable",
    "WaitInStep",
    "WaitpointNotFound",
    "arun_all",
    "current_run",
    "global_hooks",
    "progress",
    "run_all",
    "step",
    "task",
    "wait",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module = import_module(f"{__name__}.{home}")
    value = module if name == "wait" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
