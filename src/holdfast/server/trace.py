"""Traces: what happened in a run and its descendants, as spans."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import Response

from holdfast.engine.trace import Told, TracePage
from holdfast.errors import NotFound
from holdfast.model.limits import MAX_TRACE_SPANS
from holdfast.model.trace import Span, TracedRun
from holdfast.server.listing import one_value
from holdfast.server.problems import respond
from holdfast.server.routing import Call, Endpoint, query_number
from holdfast.server.runs import READ_RUN
from holdfast.wire import trace as wire
from holdfast.wire import trace_answers as answers
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
    return await asyncio.to_thread(_tree, page)  # ten thousand spans would keep the loop for long


def _tree(page: TracePage) -> Response:
    events = _Attempts(page.attempts).events(page.told)
    trace = wire.tree(page.runs, page.spans, events, page.now)
    if page.truncated or page.next is not None:
        trace["truncated"] = True
    return respond({"trace": trace})


async def _flat(call: Call) -> Response:
    size = query_number(call.request, "page[size]", MAX_TRACE_SPANS, MAX_TRACE_SPANS, least=1)
    after = one_value(call.request.query_params, "page[after]")
    page = await call.engine.trace_page(call.environment_id, call.path("run"), size, after)
    return await asyncio.to_thread(_page, page)


def _page(page: TracePage) -> Response:
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
    return await asyncio.to_thread(_events, page)


def _events(page: TracePage) -> Response:
    run = page.runs[0]
    attempts = _Attempts(page.attempts)
    failed = attempts.events([told for told in page.told if told.error is not None])
    events = [wire.event(span, failed.get(span.id, ()), page.now) for span in page.spans]
    events += [wire.log_event(run, attempts.of(told), told.log) for told in page.told if told.log is not None]
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


class _Attempts:
    """Finds the attempt in which something took place."""

    def __init__(self, spans: Sequence[Span]) -> None:
        self._by_start = {span.place[1]: span for span in spans}
        self._by_number: dict[int | None, list[Span]] = {}
        for span in spans:
            self._by_number.setdefault(span.number, []).append(span)

    def of(self, told: Told) -> Span | None:
        """Of an attempt that was started several times, the last start before."""
        if told.start is not None:
            return self._by_start.get(told.start)
        starts = self._by_number.get(told.attempt, [])
        return next(
            (span for span in reversed(starts) if span.started_at <= told.at), next(iter(starts), None)
        )

    def events(self, events: Sequence[Told]) -> Mapping[str, list[Any]]:
        """Events by the ids of their spans, in order."""
        found: dict[str, list[Any]] = {}
        for told in sorted(events, key=lambda told: told.at):
            if (span := self.of(told)) is not None:
                found.setdefault(span.id, []).append(_event(told))
        return found


def _event(told: Told, *, whole: bool = False) -> dict[str, Any]:
    if told.log is not None:
        return wire.log_line(told.log)
    assert told.error is not None
    return wire.exception(told.at, told.error, whole=whole)


ENDPOINTS = (
    Endpoint(
        "GET",
        "/api/v1/runs/{run}/events",
        run_events,
        "Read what happened in a run",
        READ_RUN,
        answer=answers.EVENTS,
        query=PAGE,
    ),
    Endpoint(
        "GET",
        "/api/v1/runs/{run}/trace",
        run_trace,
        "Read the trace of a run: a tree, or a page of spans",
        READ_RUN,
        answer={"oneOf": [answers.TREE, answers.PAGE]},
        query=PAGE,
    ),
    Endpoint(
        "GET",
        "/api/v1/runs/{run}/spans/{span}",
        run_span,
        "Read one span of a run's trace",
        READ_RUN,
        answer=answers.SPAN,
    ),
)
