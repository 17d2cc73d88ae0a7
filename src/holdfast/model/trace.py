"""The trace of a run: spans made of what is kept anyway (runs, attempts, journal entries), without I/O.

A span's id is made of its run's id and its place in the run, so that each reading gives the same, and so that a place
can be found by its id. Journal entries are kept without a time: they are shown at the last moment that is known
before them, which the ids of children and tokens, and the due times of sleeps, tell.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import IntEnum
from functools import lru_cache
from typing import Any

from holdfast.model.ids import TIME_LENGTH, attempt_id
from holdfast.model.journal import DONE, FIRST, FORGET, SLEEP, STEP, TOKEN, TRIGGER
from holdfast.model.run import Attempt, Run
from holdfast.model.status import ATTEMPT_OF, FINAL, AttemptStatus, RunStatus
from holdfast.model.wait import Waitpoint

PLACE_BITS = 17  # for the number of an attempt or entry
ID_MODULUS = 2**64
MADE = re.compile(r'\{"id": ?"(?P<id>[a-z]+_[0-9a-z]+)"(?P<cached>, ?"isCached": ?true)?')
NANOSECONDS = 1_000_000  # in a millisecond


class Part(IntEnum):
    """The parts of a run, in the order in which they are told. An attempt is numbered by its start."""

    RUN = 0
    ATTEMPT = 1
    ENTRY = 2
    LOG = 3  # an event of its attempt, no span


Place = tuple[Part, int]


@dataclass(frozen=True, slots=True)
class TracedRun:
    """What a trace tells of a run: nothing of what went in and came out."""

    id: str
    parent_id: str | None
    root_id: str | None
    task: str
    status: RunStatus
    version: str | None
    queue: str
    machine: str | None
    attempt: int
    starts: int
    suspended: bool
    created_at: int
    updated_at: int
    started_at: int | None
    finished_at: int | None
    attempt_started_at: int | None
    entries: int

    @classmethod
    def of(cls, run: Run) -> TracedRun:
        return cls(*(getattr(run, field.name) for field in fields(cls)))

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> TracedRun:
        told = {**row, "status": RunStatus(row["status"]), "suspended": bool(row["suspended"])}
        return cls(**told)

    @property
    def ended_at(self) -> int | None:
        """When it ended; a cancelled one has ended before its process is gone."""
        return self.finished_at or (self.updated_at if self.status in FINAL else None)

    @property
    def current_attempt(self) -> Attempt | None:
        """As `model.run.current_attempt`, without its error."""
        status = AttemptStatus.EXECUTING if self.suspended else ATTEMPT_OF.get(self.status)
        if self.attempt_started_at is None or status is None:
            return None
        completed = None if status is AttemptStatus.EXECUTING else self.ended_at
        id = attempt_id(self.id, self.starts)
        return Attempt(id, self.id, self.attempt, status, self.attempt_started_at, completed, None)


@dataclass(frozen=True, slots=True)
class Span:
    """Times are epoch milliseconds; without an end it is under way.

    kind    "run", "attempt", "step", "wait", "trigger" or "token"
    number  of an attempt
    """

    run: TracedRun
    place: Place
    kind: str
    message: str
    started_at: int
    ended_at: int | None
    is_error: bool = False
    is_cancelled: bool = False
    number: int | None = None

    @property
    def id(self) -> str:
        return span_id(self.run.id, self.place)

    @property
    def parent_id(self) -> str | None:
        if self.place[0] is not Part.RUN:
            return span_id(self.run.id)
        return None if self.run.parent_id is None else span_id(self.run.parent_id)

    def duration_ns(self, now: int) -> int:
        """So far, while it is under way. Never nothing: what took place took time."""
        ended = now if self.ended_at is None else self.ended_at
        return max(1, (ended - self.started_at) * NANOSECONDS)


def trace_id(run: TracedRun) -> str:
    """One for a run and all its descendants."""
    return hashlib.sha256(f"trace {run.root_id or run.id}".encode()).hexdigest()[:32]


def span_id(run_id: str, place: Place = (Part.RUN, 0)) -> str:
    part, number = place
    return f"{(_base(run_id) + (part << PLACE_BITS) + number) % ID_MODULUS:016x}"


def place_of(run_id: str, id: str) -> Place | None:
    """The place in a run that a span id names; None for one of another run."""
    offset = (int(id, 16) - _base(run_id)) % ID_MODULUS
    part, number = offset >> PLACE_BITS, offset % 2**PLACE_BITS
    return (Part(part), number) if part < Part.LOG and (part or not number) else None


def run_span(run: TracedRun) -> Span:
    cancelled = run.status is RunStatus.CANCELLED
    failed = run.status in FINAL and not cancelled and run.status is not RunStatus.COMPLETED_SUCCESSFULLY
    return Span(run, (Part.RUN, 0), "run", run.task, run.created_at, run.ended_at, failed, cancelled)


def attempt_span(run: TracedRun, attempt: Attempt) -> Span:
    return Span(
        run,
        (Part.ATTEMPT, start_of(attempt)),
        "attempt",
        f"Attempt {attempt.number}",
        attempt.started_at,
        attempt.completed_at,
        attempt.status is AttemptStatus.FAILED,
        attempt.status is AttemptStatus.CANCELLED,
        attempt.number,
    )


def start_of(attempt: Attempt) -> int:
    """Which start of its run an attempt was, by its id."""
    return int(attempt.id[-2:], 36)


class Moments:
    """The last moment that is known while the entries of a journal pass by in order."""

    def __init__(self, run: TracedRun, now: int) -> None:
        self.latest = run.started_at or run.created_at
        self._until = min(now, run.ended_at or now)
        self._due: dict[tuple[str, str], int] = {}

    def see(self, entry: Mapping[str, Any]) -> None:
        moment = None
        match entry["kind"]:
            case kind if kind in (TRIGGER, TOKEN):
                made = MADE.search(entry["value"] or "")
                if made is not None and made["cached"] is None:
                    moment = _moment_of(made["id"])
            case kind if kind == SLEEP and (due := _due(entry)) is not None:
                if entry["ref"] is not None:  # it was over when it was recorded
                    moment = due
                else:
                    self._due[entry["scope"], entry["name"]] = due
            case kind if kind == DONE and entry["ref"] is None:
                moment = self._due.pop((entry["scope"], entry["name"]), None)
        if moment is not None:
            self.latest = max(self.latest, min(moment, self._until))


def entry_span(
    run: TracedRun, entry: Mapping[str, Any], at: int, tokens: Mapping[str, Waitpoint], now: int
) -> Span | None:
    """The span of a journal entry; None for one that only closes another.

    at  the last moment known before it
    """
    kind, name = entry["kind"], entry["name"]
    place = (Part.ENTRY, entry["seq"])
    failed, cancelled = entry["ok"] == 0, entry["ok"] is None
    if kind == STEP:
        return Span(run, place, "step", name, at, at, failed, cancelled)
    if kind == SLEEP and name != "timeout":
        return _sleep(run, place, entry, at, now)
    if kind == TRIGGER:
        return Span(run, place, "trigger", f"trigger {name}", at, at, bool(entry["refused"]), cancelled)
    if kind == TOKEN:
        token = tokens.get(entry["ref"] or "")
        if token is None:
            return Span(run, place, "token", "token", at, at)
        timed_out = token.status == "TIMED_OUT"
        return Span(run, place, "token", "token", token.created_at, token.completed_at, timed_out)
    if kind == FIRST or (kind == DONE and entry["ref"] is not None):
        message = name if kind == FIRST else f"result of {entry['ref']}"
        return Span(run, place, "wait", message, at, at, failed, cancelled)
    assert kind in (SLEEP, DONE, FORGET)
    return None


def _sleep(run: TracedRun, place: Place, entry: Mapping[str, Any], at: int, now: int) -> Span:
    """From the last moment known to when it was due, unless its run ended before."""
    due, ended = _due(entry), run.ended_at
    if due is None:
        return Span(run, place, "wait", entry["name"], at, at, entry["ok"] == 0, entry["ok"] is None)
    due = max(at, due)
    if ended is not None and ended < due:
        return Span(run, place, "wait", entry["name"], min(at, ended), ended, is_cancelled=True)
    return Span(run, place, "wait", entry["name"], at, due if due <= now else None)


def _due(entry: Mapping[str, Any]) -> int | None:
    """When a sleep is over; None for one that was refused or cancelled."""
    value = entry["value"] or ""
    return int(value) if value.isdecimal() and value.isascii() and len(value) < 16 else None


def _moment_of(id: str) -> int | None:
    """The time that is part of an id of ours; see model/ids.py."""
    time = id.partition("_")[2][:TIME_LENGTH]
    return int(time, 36) if len(time) == TIME_LENGTH else None


@lru_cache(maxsize=2_048)  # asked for twice by every span
def _base(run_id: str) -> int:
    return int.from_bytes(hashlib.sha256(f"span {run_id}".encode()).digest()[:8])
