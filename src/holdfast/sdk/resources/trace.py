"""What happened in a run: spans as a tree, and events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any


@dataclass(frozen=True, slots=True)
class Span:
    """A run, an attempt, a step, a wait or a child, with what happened inside of it.

    duration    until now for one that is still going on, which `is_partial` tells
    properties  what else is known, such as {"kind": "attempt"}
    events      {"name": "log" or "exception", "time", "properties"}
    """

    id: str
    run_id: str
    parent_id: str | None
    message: str
    started_at: datetime
    duration: timedelta
    is_error: bool
    is_partial: bool
    is_cancelled: bool
    task: str | None
    version: str | None
    queue: str | None
    properties: Mapping[str, Any] = field(default_factory=dict)
    events: Sequence[Mapping[str, Any]] = ()
    children: Sequence[Span] = ()

    def walk(self) -> Iterator[Span]:
        """This span and all below it, parents before their children."""
        left = [self]
        while left:
            span = left.pop()
            yield span
            left += reversed(span.children)


@dataclass(frozen=True, slots=True)
class Trace:
    """The spans of a run and its descendants; `is_truncated` when there are more than are told (10,000)."""

    id: str
    root: Span
    is_truncated: bool


@dataclass(frozen=True, slots=True)
class RunEvent:
    """A span of a run, or a line of its log (`kind` is "LOG")."""

    span_id: str
    run_id: str
    parent_id: str | None
    message: str
    started_at: datetime
    duration: timedelta
    level: str
    kind: str
    attempt: int | None
    is_error: bool
    is_partial: bool
    is_cancelled: bool


def trace_of(told: Mapping[str, Any]) -> Trace:
    return Trace(told["traceId"], _span(told["rootSpan"]), bool(told.get("truncated", False)))


def _span(root: Mapping[str, Any]) -> Span:
    """A tree may be deeper than Python recurses, so children are made before their parents without that."""
    order, left = [], [root]
    while left:
        told = left.pop()
        order.append(told)
        left += told.get("children", ())
    made: dict[int, Span] = {}
    for told in reversed(order):
        data = told["data"]
        made[id(told)] = Span(
            told["id"],
            told["runId"],
            told.get("parentId"),
            data["message"],
            datetime.fromisoformat(data["startTime"]),
            _duration(data["duration"]),
            data["isError"],
            data["isPartial"],
            data["isCancelled"],
            data.get("taskSlug"),
            data.get("workerVersion"),
            data.get("queueName"),
            data.get("properties", {}),
            tuple(data.get("events", ())),
            tuple(made[id(child)] for child in told.get("children", ())),
        )
    return made[id(root)]


def event_of(told: Mapping[str, Any]) -> RunEvent:
    return RunEvent(
        told["spanId"],
        told["runId"],
        told.get("parentId"),
        told["message"],
        datetime.fromtimestamp(int(told["startTime"]) / 1_000_000_000, UTC),
        _duration(told["duration"]),
        told["level"],
        told["kind"],
        told.get("attemptNumber"),
        told["isError"],
        told["isPartial"],
        told["isCancelled"],
    )


def _duration(nanoseconds: float) -> timedelta:
    return timedelta(microseconds=nanoseconds / 1_000)
