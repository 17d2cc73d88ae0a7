"""Waiting for runs to end: one long poll for many runs, repeated until the time is over."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from holdfast import errors
from holdfast.model.status import RunStatus
from holdfast.sdk.policy import PATIENT_TRIES, Flow, Pause, Request, asked
from holdfast.sdk.stored import with_outputs

HELD_MS = 25_000  # how long the server is asked to hold back one answer
ASKED_AT_ONCE = 500
MANY = 20  # while more runs than this go on, answers are gathered instead of fetched one by one
GATHERED = 0.05  # seconds
FREED = 0.2  # seconds

Result = dict[str, Any]

FAILURES: Mapping[str, type[errors.RunFailed]] = {
    RunStatus.CANCELLED: errors.RunCancelled,
    RunStatus.CRASHED: errors.RunCrashed,
    RunStatus.TIMED_OUT: errors.RunTimedOut,
    RunStatus.EXPIRED: errors.RunExpired,
}


def deadline_of(timeout_ms: int | None) -> float | None:
    """A moment of the monotonic clock."""
    return None if timeout_ms is None else time.monotonic() + timeout_ms / 1_000


def next_results(ids: Sequence[str], deadline: float | None) -> Flow[list[Result]]:
    """The results of those of `ids` that have ended; waits until there is one.

    Raises ResultTimeout when none has ended at `deadline`, and RunNotFound.
    """
    while True:
        left = HELD_MS if deadline is None else int((deadline - time.monotonic()) * 1_000)
        wait_ms = max(0, min(HELD_MS, left))
        body = json.dumps({"runs": list(ids[:ASKED_AT_ONCE]), "waitMs": wait_ms}).encode()
        request = Request(
            "POST", "/api/v1/runs/results", body, timeout=wait_ms / 1_000 + 15, tries=PATIENT_TRIES
        )
        asked_at = time.monotonic()
        answer = yield from asked(request)
        results: list[Result] = answer["results"]
        if results:
            yield from with_outputs(results)
            return results
        if left <= 0:
            shown = ids[0] if len(ids) == 1 else f"{len(ids)} runs"
            raise errors.ResultTimeout(f"{shown} did not end in time; waiting again later is fine")
        if time.monotonic() - asked_at < GATHERED:
            yield Pause(FREED)  # a server that shuts down answers at once


def ended(runs: Sequence[str], tokens: Sequence[str], wait_ms: int) -> Flow[dict[str, Result]]:
    """The results of those runs and tokens that have ended, by id; waits up to `wait_ms` for the first."""
    body = json.dumps({"runs": list(runs), "tokens": list(tokens), "waitMs": wait_ms}).encode()
    answer = yield from asked(
        Request("POST", "/api/v1/runs/results", body, timeout=wait_ms / 1_000 + 15, tries=PATIENT_TRIES)
    )
    yield from with_outputs(answer["results"])
    return {one["id"]: one for one in (*answer["results"], *answer["tokens"])}


def until_ended(
    runs: Sequence[str], tokens: Sequence[str], deadline: float | None
) -> Flow[dict[str, Result]]:
    """As `ended`, waiting until there is one; nothing when none has ended at `deadline`."""
    while True:
        left = HELD_MS if deadline is None else int((deadline - time.monotonic()) * 1_000)
        asked_at = time.monotonic()
        found = yield from ended(runs, tokens, max(0, min(HELD_MS, left)))
        if found or left <= 0:
            return found
        if time.monotonic() - asked_at < GATHERED:
            yield Pause(FREED)  # a server that shuts down answers at once


class Pending:
    """Runs that are waited for, each with the places in a list that its result belongs to."""

    def __init__(self) -> None:
        self.places: dict[str, list[int]] = {}

    def add(self, run_id: str, place: int) -> None:
        self.places.setdefault(run_id, []).append(place)

    def next(self) -> Flow[list[tuple[int, Result]]]:
        """At least one (place, result); those are waited for no longer."""
        results = yield from next_results(list(self.places), None)
        found = [(place, result) for result in results for place in self._ended(result)]
        if len(self.places) > MANY and len(results) < MANY:
            yield Pause(GATHERED)
        return found

    def _ended(self, result: Result) -> Iterator[int]:
        yield from self.places.pop(result["id"], [])


def failure(run: Any, result: Result) -> errors.RunFailed:
    """The exception for a run that did not succeed."""
    return FAILURES.get(result["status"], errors.RunFailed)(run, result.get("error"))
