"""Traces on the wire: spans as a tree, flat and alone, and the events of a run (the wire contract, 4.14).

Absent is never null but for the parent of a span that is told alone. Nothing of what went in and came out is told.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.model.trace import Part, Span, TracedRun, span_id, trace_id
from holdfast.wire.errors import flat_error
from holdfast.wire.runs import moment

NANOSECONDS = 1_000_000
MAX_MESSAGE = 1_000  # characters, where many are told together
LEVELS = {"WARNING": "WARN", "CRITICAL": "ERROR", "NOTSET": "TRACE"}


def tree(
    runs: Sequence[TracedRun], spans: Sequence[Span], events: Mapping[str, Sequence[Any]], now: int
) -> Any:
    """{"traceId", "rootSpan"}: each span holds its children, in their order. `events` are those of spans, by id."""
    nodes: dict[str, dict[str, Any]] = {}
    for span in spans:
        id = span.id
        node = nodes[id] = _node(span, events.get(id, ()), now)
        parent = nodes.get(node.get("parentId", ""))
        if parent is not None:
            parent["children"].append(node)
    for node in nodes.values():
        node["children"].sort(key=lambda child: child["data"]["startTime"])
    return {"traceId": trace_id(runs[0]), "rootSpan": nodes[span_id(runs[0].id)]}


def _node(span: Span, events: Sequence[Any], now: int) -> dict[str, Any]:
    run = span.run
    data = {
        "message": span.message,
        "taskSlug": run.task,
        "events": list(events),
        "startTime": moment(span.started_at),
        "duration": span.duration_ns(now),
        **_outcome(span),
        "level": "TRACE",
        "workerVersion": run.version,
        "queueName": run.queue,
        "machinePreset": run.machine,
        "properties": properties(span),
    }
    return _known(
        {"id": span.id, "parentId": span.parent_id, "runId": run.id, "data": _known(data), "children": []}
    )


def flat(span: Span, now: int) -> dict[str, Any]:
    told = {
        "id": span.id,
        "parentId": span.parent_id,
        "runId": span.run.id,
        "message": span.message,
        "startTime": moment(span.started_at),
        "duration": span.duration_ns(now),
        **_outcome(span),
        "level": "TRACE",
        "attemptNumber": span.number,
    }
    return _known(told)


def failures(spans: Sequence[Span]) -> list[dict[str, Any]]:
    """The attempts among these that failed."""
    return [
        {"spanId": span.id, "attemptNumber": span.number, "runId": span.run.id}
        for span in spans
        if span.kind == "attempt" and span.is_error
    ]


def alone(
    span: Span, properties: Mapping[str, Any], events: Sequence[Any], triggered: Sequence[Any], now: int
) -> dict[str, Any]:
    return {
        "spanId": span.id,
        "parentId": span.parent_id,
        "runId": span.run.id,
        "message": span.message,
        **_outcome(span),
        "level": "TRACE",
        "startTime": moment(span.started_at),
        "durationMs": span.duration_ns(now) / NANOSECONDS,
        "properties": dict(properties),
        "events": list(events),
        "triggeredRuns": list(triggered),
    }


def event(span: Span, events: Sequence[Any], now: int) -> dict[str, Any]:
    """A span among the events of a run."""
    told = {
        "spanId": span.id,
        "parentId": span.parent_id,
        "runId": span.run.id,
        "message": span.message,
        "style": {},
        "startTime": _nanoseconds(span.started_at),
        "duration": span.duration_ns(now),
        **_outcome(span),
        "level": "TRACE",
        "kind": "SERVER" if span.place[0] is Part.RUN else "INTERNAL",
        "attemptNumber": span.number,
        "taskSlug": span.run.task,
        "properties": properties(span),
        "events": list(events),
    }
    return _known(told)


def log_event(run: TracedRun, span: Span | None, log: Mapping[str, Any]) -> dict[str, Any]:
    """A line of the log among the events of a run: under the span of its attempt."""
    return {
        "spanId": span_id(run.id) if span is None else span.id,
        "parentId": span_id(run.id),
        "runId": run.id,
        "message": log["message"][:MAX_MESSAGE],
        "style": {},
        "startTime": _nanoseconds(log["at"]),
        "duration": 1,
        "isError": log["level"] in ("ERROR", "CRITICAL"),
        "isPartial": False,
        "isCancelled": False,
        "level": LEVELS.get(log["level"], log["level"]),
        "kind": "LOG",
        "attemptNumber": log["attempt"],
        "taskSlug": run.task,
        "properties": {"logger": log["logger"]},
        "events": [],
    }


def log_line(log: Mapping[str, Any]) -> dict[str, Any]:
    """A line of the log as an event of a span."""
    return {
        "name": "log",
        "time": moment(log["at"]),
        "properties": {
            "level": LEVELS.get(log["level"], log["level"]),
            "message": log["message"][:MAX_MESSAGE],
            "logger": log["logger"],
        },
    }


def exception(at: int, error: str, *, whole: bool = False) -> dict[str, Any]:
    """What failed as an event of a span. `error` is as recorded; `whole` with all its words and the stack."""
    recorded = json.loads(error)
    told = flat_error(recorded) if isinstance(recorded, dict) else {"message": str(recorded)}
    described = {
        "type": told.get("name", "Error"),
        "message": told["message"][: None if whole else MAX_MESSAGE],
    }
    if whole and "stackTrace" in told:
        described["stacktrace"] = told["stackTrace"]
    return {"name": "exception", "time": moment(at), "properties": {"exception": described}}


def properties(span: Span) -> dict[str, Any]:
    part, number = span.place
    return {"kind": span.kind, "seq": number} if part is Part.ENTRY else {"kind": span.kind}


def _outcome(span: Span) -> dict[str, bool]:
    return {
        "isError": span.is_error,
        "isPartial": span.ended_at is None,
        "isCancelled": span.is_cancelled,
    }


def _known(told: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in told.items() if value is not None}


def _nanoseconds(ms: int) -> str:
    """As the reference writes it: text, because no JavaScript number holds it."""
    return str(ms * NANOSECONDS)
