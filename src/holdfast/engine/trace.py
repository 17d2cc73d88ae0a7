"""Reading the trace of a run: it and its descendants as spans, a page at a time. Nothing is kept for it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from holdfast.engine.inspect import one_run
from holdfast.errors import InvalidRequest, NotFound
from holdfast.model.limits import MAX_JOURNAL_ENTRIES, MAX_TRACE_LOGS, MAX_TRACE_RUNS
from holdfast.model.run import Attempt, Run, current_attempt
from holdfast.model.status import AttemptStatus
from holdfast.model.trace import (
    Moments,
    Part,
    Place,
    Span,
    TracedRun,
    attempt_span,
    entry_span,
    place_of,
    run_span,
    start_of,
)
from holdfast.model.wait import Waitpoint
from holdfast.stores.base import Tx, batch

CURSOR = re.compile(r"(?P<run>run_[0-9a-z]{1,60})\.(?P<part>[0-3])\.(?P<number>[0-9]{1,18})")
BEFORE: Place = (Part.RUN, -1)
LOOK_BACK = 20  # entries, for the last moment known before a page
MAX_LEVELS = 100
SHOWN_CHILDREN = 100


@dataclass(frozen=True, slots=True)
class Told:
    """An event of a span: an error, or a line of the log.

    start    of the attempt that an error ended
    attempt  in which a line was logged: several starts may have been the same attempt
    """

    run: TracedRun
    at: int
    start: int | None = None
    attempt: int | None = None
    error: str | None = None  # JSON
    log: Mapping[str, Any] | None = None


@dataclass(slots=True)
class TracePage:
    """Spans in the order of the family, oldest run first within a generation.

    runs         that are told of, the one that was asked for first
    next         the cursor of the next page
    truncated    more descendants than are traced were left out
    told         events of the run that was asked for, where they were asked for
    attempts     all spans of attempts of that run, in which they took place
    """

    now: int
    runs: Sequence[TracedRun]
    spans: list[Span] = field(default_factory=list)
    next: str | None = None
    truncated: bool = False
    told: list[Told] = field(default_factory=list)
    attempts: Sequence[Span] = ()


@dataclass(frozen=True, slots=True)
class SpanDetail:
    """One span with what is known of it, and the runs that it triggered: the first hundred."""

    now: int
    span: Span
    properties: Mapping[str, Any]
    told: Sequence[Told]
    triggered: Sequence[TracedRun]


def page(tx: Tx, environment_id: str, run_id: str, size: int, after: str | None = None) -> TracePage:
    """At most `size` spans of a run and its descendants. Raises RunNotFound, InvalidRequest for a cursor."""
    root = TracedRun.of(one_run(tx, environment_id, run_id))
    runs, truncated = _family(tx, root)
    page = TracePage(tx.now, runs, truncated=truncated)
    index, place = _position(after, runs)
    room = size
    for run in runs[index:]:
        spans, read, last = _spans(tx, run, place, room)
        page.spans += spans
        room -= read
        if last is not None:
            page.next = _cursor(run.id, last)
            break
        place = BEFORE
    return page


def tree(tx: Tx, environment_id: str, run_id: str, size: int) -> TracePage:
    """The first `size` spans, and the errors and first log lines of the run itself. Raises RunNotFound."""
    found = page(tx, environment_id, run_id, size)
    run = one_run(tx, environment_id, run_id)
    attempts = [*tx.attempts(run_id), *_now(run)]
    logs = tx.all("logs", run_id=run_id, after=0, limit=MAX_TRACE_LOGS)
    found.attempts = _attempt_spans(tx, found.runs[0])
    found.told = [*_lines(found.runs[0], logs), *_errors(found.runs[0], attempts)]
    return found


def events(tx: Tx, environment_id: str, run_id: str, size: int, after: str | None = None) -> TracePage:
    """What happened in a run alone: its spans, then its log lines; at most `size`. Raises as `page`."""
    run = one_run(tx, environment_id, run_id)
    traced = TracedRun.of(run)
    page = TracePage(tx.now, [traced])
    _, place = _position(after, page.runs)
    room = size
    page.attempts = _attempt_spans(tx, traced)
    if place[0] is not Part.LOG:
        page.spans, read, last = _spans(tx, traced, place, room)
        room -= read
        if last is not None:
            page.next = _cursor(run_id, last)
            return page
        place = (Part.LOG, 0)
    logs = tx.all("logs", run_id=run_id, after=place[1], limit=room + 1)
    page.told = _lines(traced, logs[:room])
    if len(logs) > room:
        page.next = _cursor(run_id, (Part.LOG, logs[room - 1]["id"] if room else place[1]))
    told = {span.place[1] for span in page.spans if span.place[0] is Part.ATTEMPT}
    if told:
        attempts = [*tx.attempts(run_id), *_now(run)]
        page.told += _errors(traced, [attempt for attempt in attempts if start_of(attempt) in told])
    return page


def span(tx: Tx, environment_id: str, run_id: str, id: str) -> SpanDetail:
    """A span of a run or of a descendant. Raises RunNotFound, and NotFound for one that is not there."""
    root = one_run(tx, environment_id, run_id)
    for run in _family(tx, TracedRun.of(root))[0]:
        place = place_of(run.id, id)
        detail = None if place is None else _detail(tx, environment_id, run, place)
        if detail is not None:
            return detail
    raise NotFound(f"Span not found: run {run_id} has none {id}")


def _detail(tx: Tx, environment_id: str, run: TracedRun, place: Place) -> SpanDetail | None:
    part, number = place
    if part is Part.RUN:
        children = [_traced(row) for row in _children(tx, [run.id], SHOWN_CHILDREN)]
        return SpanDetail(tx.now, run_span(run), {}, (), children)
    if part is Part.ATTEMPT:
        attempts = [*tx.attempts(run.id), *_now(one_run(tx, environment_id, run.id))]
        for attempt in attempts:
            if start_of(attempt) == number:
                lines = tx.all("attempt_logs", run_id=run.id, attempt=attempt.number, limit=MAX_TRACE_LOGS)
                told = [*_lines(run, lines), *_errors(run, [attempt])]
                return SpanDetail(tx.now, attempt_span(run, attempt), {"status": attempt.status}, told, ())
        return None
    spans, _, _ = _spans(tx, run, (part, number - 1), 1)
    if number >= run.entries or not spans:
        return None
    [row] = tx.all("journal_page", run_id=run.id, after=number - 1, limit=1, characters=1)
    told = [Told(run, spans[0].started_at, error=row["value"])] if row["ok"] == 0 and row["value"] else []
    triggered = _triggered(tx, row) if row["kind"] == "trigger" else []
    properties = {"seq": number, "scope": row["scope"], "ref": row["ref"]}
    known = {name: value for name, value in properties.items() if value not in (None, "")}
    return SpanDetail(tx.now, spans[0], known, told, triggered)


def _triggered(tx: Tx, row: Mapping[str, Any]) -> list[TracedRun]:
    ids = re.findall(r'"id": ?"(run_[0-9a-z]+)"', row["value"] or "")[:SHOWN_CHILDREN]
    return [_traced(found) for found in tx.all("traced_runs", ids=batch(ids))] if ids else []


def _family(tx: Tx, root: TracedRun) -> tuple[list[TracedRun], bool]:
    """A run and its descendants, generation by generation, and whether some were left out."""
    family, level = [root], [root.id]
    for _ in range(MAX_LEVELS):
        room = MAX_TRACE_RUNS - len(family)
        rows = _children(tx, level, room + 1)
        family += [_traced(row) for row in rows[:room]]
        if len(rows) > room:
            return family, True
        if not rows:
            return family, False
        level = [row["id"] for row in rows]
    return family, True


def _children(tx: Tx, parents: Sequence[str], limit: int) -> list[dict[str, Any]]:
    return tx.all("traced_children", parents=batch(parents), limit=limit)


_traced = TracedRun.of_row


def _spans(tx: Tx, run: TracedRun, after: Place, room: int) -> tuple[list[Span], int, Place | None]:
    """Spans of one run after a place: they, how much room they took, and the last place if there are more.

    Entries that are no spans take room as well: how much is read for a page has a bound.
    """
    if room <= 0:
        return [], 0, after
    spans: list[Span] = []
    part, number = after
    if after == BEFORE:
        spans.append(run_span(run))
        after = (Part.RUN, 0)
    if part <= Part.ATTEMPT:
        attempts = _attempts(tx, run, number if part is Part.ATTEMPT else 0, room - len(spans) + 1)
        for attempt in attempts:
            if len(spans) == room:
                return spans, room, after
            spans.append(attempt_span(run, attempt))
            after = spans[-1].place
        part, number = Part.ENTRY, -1
    left = room - len(spans)
    if number + 1 >= run.entries:
        return spans, len(spans), None
    if not left:
        return spans, room, after
    rows = tx.all("traced_entries", run_id=run.id, after=number, limit=min(left, MAX_JOURNAL_ENTRIES))
    spans += _entries(tx, run, number, rows)
    if not rows or rows[-1]["seq"] + 1 >= run.entries:
        return spans, room - left + len(rows), None
    return spans, room, (Part.ENTRY, rows[-1]["seq"])


def _attempt_spans(tx: Tx, run: TracedRun) -> list[Span]:
    return [attempt_span(run, attempt) for attempt in _attempts(tx, run, 0, run.starts + 1)]


def _attempts(tx: Tx, run: TracedRun, after: int, limit: int) -> list[Attempt]:
    """Attempts from the start after `after` on, at most `limit`."""
    current = run.current_attempt
    found: list[Attempt] = []
    if run.starts > 1 or (run.starts and current is None):  # only then is one kept apart from the run
        for row in tx.all("traced_attempts", run_id=run.id):
            attempt = Attempt(**{**row, "status": AttemptStatus(row["status"])}, error=None)
            found.append(attempt)
    if current is not None:
        found.append(current)
    return [attempt for attempt in found if start_of(attempt) > after][:limit]


def _entries(tx: Tx, run: TracedRun, after: int, rows: Sequence[Mapping[str, Any]]) -> list[Span]:
    moments = Moments(run, tx.now)
    if after >= 0:
        known = tx.all("moments_before", run_id=run.id, before=after + 1, limit=LOOK_BACK)
        for row in reversed(known):
            moments.see(row)
    refs = sorted({row["ref"] for row in rows if row["kind"] == "token" and row["ref"]})
    tokens = (
        {row["id"]: Waitpoint(**row) for row in tx.all("waitpoints_by_id", ids=batch(refs))} if refs else {}
    )
    spans: list[Span] = []
    for row in rows:
        made = entry_span(run, row, moments.latest, tokens, tx.now)
        if made is not None:
            spans.append(made)
        moments.see(row)
    return spans


def _now(run: Run) -> list[Attempt]:
    current = current_attempt(run)
    return [] if current is None else [current]


def _errors(run: TracedRun, attempts: Sequence[Attempt]) -> list[Told]:
    return [
        Told(run, attempt.completed_at or attempt.started_at, start_of(attempt), error=attempt.error)
        for attempt in attempts
        if attempt.error is not None
    ]


def _lines(run: TracedRun, logs: Sequence[Mapping[str, Any]]) -> list[Told]:
    return [Told(run, row["at"], attempt=row["attempt"], log=row) for row in logs]


def _position(after: str | None, runs: Sequence[TracedRun]) -> tuple[int, Place]:
    """The index of the run and the place in it that a cursor names. Raises InvalidRequest."""
    if after is None:
        return 0, BEFORE
    found = CURSOR.fullmatch(after)
    for index, run in enumerate(runs if found else ()):
        if found is not None and run.id == found["run"]:
            return index, (Part(int(found["part"])), int(found["number"]) - 1)
    raise InvalidRequest(
        f"page[after] is {after[:80]!r}: no cursor of this trace; begin again at the first page",
        "page[after]",
    )


def _cursor(run_id: str, place: Place) -> str:
    """After a place: it names the number to go on with, so that it can also stand before all of a run."""
    part, number = place
    return f"{run_id}.{part.value}.{number + 1}"
