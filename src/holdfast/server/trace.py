"""Traces: what happened in a run and its descendants, as spans."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import Response

from holdfast.engine.trace import Told
from holdfast.errors import NotFound
from holdfast.model.limits import MAX_TRACE_SPANS
from holdfast.model.trace import Span, TracedRun
from holdfast.server.listing import one_value
from holdfast.server.problems import respond
from holdfast.server.routing import Call, Endpoint, query_number
from holdfast.server.runs import READ_RUN
from holdfast.wire import trace as wire
from holdfast.wire.runs import moment
from holdfast.wire.versions import STATUS

EVENTS = 1_000
SPAN_ID = re.compile(r"[0-9a-f]{16}")
PAGE = ("page[size]", "page[after]")


async def run_trace(call: Call) -> Response:
    """A tree; with a page in the query a page of flat spans."""
    query = call.request.query_params
    if any(name in query for name in PAGE):
        return await _flat(call)
    page = await call.engine.trace(call.environment_id, call.path("run"), MAX_TRACE_SPANS)
    events = _events_by_span(page.spans, page.told)
    trace = wire.tree(page.runs, page.spans, events, page.now)
    if page.truncated or page.next is not None:
        trace["truncated"] = True
    return respond({"trace": trace})


async def _flat(call: Call) -> Response:
    size = query_number(call.request, "page[size]", MAX_TRACE_SPANS, MAX_TRACE_SPANS, least=1)
    after = one_value(call.request.query_params, "page[after]")
    page = await call.engine.trace_page(call.environment_id, call.path("run"), size, after)
    pagination: dict[str, Any] = {} if page.next is None else {"next": page.next}
    if page.truncated and page.next is None:
        pagination["truncated"] = True
    return respond(
        {
            "data": [wire.flat(span, page.now) for span in page.spans],
            "attemptFailures": wire.failures(page.spans),
            "pagination": pagination,
        }
    )


async def run_events(call: Call) -> Response:
    """Of the run alone, in the order in which they took place on their page."""
    size = query_number(call.request, "page[size]", EVENTS, MAX_TRACE_SPANS, least=1)
    after = one_value(call.request.query_params, "page[after]")
    page = await call.engine.run_events(call.environment_id, call.path("run"), size, after)
    run = page.runs[0]
    failed = _events_by_span(page.spans, [told for told in page.told if told.error is not None])
    events = [wire.event(span, failed.get(span.id, ()), page.now) for span in page.spans]
    events += [
        wire.log_event(run, _attempt_of(page.spans, told), told.log)
        for told in page.told
        if told.log is not None
    ]
    events.sort(key=lambda event: int(event["startTime"]))
    return respond({"events": events, "pagination": {} if page.next is None else {"next": page.next}})


async def run_span(call: Call) -> Response:
    run_id, span_id = call.path("run"), call.path("span")
    if SPAN_ID.fullmatch(span_id) is None:
        raise NotFound(f"Span not found: {span_id[:40]!r} is no id of one, which has 16 hexadecimal digits")
    found = await call.engine.span(call.environment_id, run_id, span_id)
    events = [_event(told, whole=True) for told in sorted(found.told, key=lambda told: told.at)]
    triggered = [_triggered(run, call.sdk) for run in found.triggered]
    properties = {**wire.properties(found.span), **found.properties}
    return respond(wire.alone(found.span, properties, events, triggered, found.now))


def _triggered(run: TracedRun, sdk: bool) -> dict[str, Any]:
    return {
        "runId": run.id,
        "taskIdentifier": run.task,
        "status": STATUS[run.status] if sdk else run.status,
        "createdAt": moment(run.created_at),
    }


def _events_by_span(spans: Sequence[Span], events: Sequence[Told]) -> Mapping[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for told in sorted(events, key=lambda told: told.at):
        span = _attempt_of(spans, told)
        if span is not None:
            found.setdefault(span.id, []).append(_event(told))
    return found


def _attempt_of(spans: Sequence[Span], told: Told) -> Span | None:
    """The attempt among the spans in which something took place; of one that was started several times, the latest."""
    found = None
    for span in spans:
        if span.kind == "attempt" and span.run.id == told.run.id:
            if told.start is not None:
                if span.place[1] == told.start:
                    return span
            elif span.number == told.attempt and (found is None or span.started_at <= told.at):
                found = span
    return found


def _event(told: Told, *, whole: bool = False) -> dict[str, Any]:
    if told.log is not None:
        return wire.log_line(told.log)
    assert told.error is not None
    return wire.exception(told.at, told.error, whole=whole)


OBJECT = {"type": "object"}
SPANS = {"type": "array", "items": OBJECT}
ENDPOINTS = (
    Endpoint(
        "GET",
        "/api/v1/runs/{run}/events",
        run_events,
        "Read what happened in a run",
        READ_RUN,
        answer={
            "type": "object",
            "properties": {"events": SPANS, "pagination": OBJECT},
            "required": ["events"],
        },
        query=PAGE,
    ),
    Endpoint(
        "GET",
        "/api/v1/runs/{run}/trace",
        run_trace,
        "Read the trace of a run: a tree, or a page of spans",
        READ_RUN,
        answer={
            "oneOf": [
                {
                    "type": "object",
                    "properties": {
                        "trace": {
                            "type": "object",
                            "properties": {"traceId": {"type": "string"}, "rootSpan": OBJECT},
                            "required": ["traceId", "rootSpan"],
                        }
                    },
                    "required": ["trace"],
                },
                {
                    "type": "object",
                    "properties": {"data": SPANS, "attemptFailures": SPANS, "pagination": OBJECT},
                    "required": ["data", "attemptFailures", "pagination"],
                },
            ]
        },
        query=PAGE,
    ),
    Endpoint(
        "GET",
        "/api/v1/runs/{run}/spans/{span}",
        run_span,
        "Read one span of a run's trace",
        READ_RUN,
        answer={
            "type": "object",
            "properties": {"spanId": {"type": "string"}, "durationMs": {"type": "number"}},
            "required": ["spanId", "runId", "message", "startTime", "durationMs"],
        },
    ),
)
