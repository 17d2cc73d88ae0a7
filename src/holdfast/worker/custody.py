"""The runs that this worker answers for: handed out, stopped, and reported, each exactly once.

A run is in `held` from its claim until its end is queued as a report. After a failure it is kept
aside until the server has said whether another attempt follows here.

How an attempt is stopped: it is asked; when it goes on, its executor is killed, after a time that
depends on the reason. Innocent runs in that executor are given a little time to finish first, and
are then handed back, which costs them no attempt: we know that it was not their fault.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from holdfast.errors import WorkerNotFound
from holdfast.model.error import internal_error
from holdfast.model.limits import NO_MAX_DURATION
from holdfast.worker.child import Child
from holdfast.worker.deaths import OutOfMemoryCounter, death, over_time
from holdfast.worker.fleet import STARTS_PER_RUN, Fleet, FleetSettings
from holdfast.worker.held import CANCELLED, FENCED, JOURNAL, RELEASED, TIMED_OUT, Held, Stop
from holdfast.worker.membership import Membership
from holdfast.worker.pipe import Message
from holdfast.worker.talk import Talk

ASK_SECONDS = 5.0  # from asking to killing
ASK_SECONDS_OVER_TIME = 1.0  # an attempt ends within 2 s of its limit
LAST_SECONDS = 8.5  # innocent neighbours delay a kill no longer: within 10 s of a cancel nothing is left


class Custody:
    """places  how many runs it has room for
    freed   is called when a place became free
    """

    def __init__(self, settings: FleetSettings, talk: Talk, places: int, freed: Callable[[], None]) -> None:
        self.held: dict[str, Held] = {}
        self.changed = asyncio.Event()  # a run left
        self.fleet = Fleet(settings, self, talk)
        self._talk = talk
        self._places = places
        self._freed = freed
        self._loop = asyncio.get_running_loop()
        self._unsettled: dict[str, Held] = {}  # failed, and not answered yet
        self._stopping: set[Held] = set()
        self._closing: dict[str, int] = {}  # leases of "closed" reports without an answer
        self._out_of_memory = OutOfMemoryCounter()
        self._fetching: set[asyncio.Task[None]] = set()

    # ---- from the server

    def take(self, membership: Membership, runs: Sequence[dict[str, Any]]) -> None:
        for run in runs:
            held = Held(run, membership, active_seconds=run["activeMs"] / 1_000, told_at=self._loop.time())
            self.held[run["id"]] = held
            self._begin(held)
        if self._is_full:
            for held in self.held.values():
                self._make_room(held)

    def cancelled(self, membership: Membership, cancelled: list[dict[str, Any]]) -> bool:
        """Stop these; they are named again and again until they are reported closed."""
        news = False
        for item in cancelled:
            run_id, lease = item["id"], item["lease"]
            held = self.held.get(run_id)
            if held is not None and held.membership is membership:
                if held.stop is None or held.stop.reason != CANCELLED:
                    news = True
                    self._stop(held, CANCELLED, lease)
            elif self._closing.get(run_id) != lease:
                news = True
                self._close(membership, run_id, lease)
        return news

    def answered(
        self, membership: Membership, report: Message, answer: dict[str, Any], stopping: bool
    ) -> None:
        run_id, kind, status = report["run"], report["kind"], answer["status"]
        if kind == "closed":
            self._closing.pop(run_id, None)
            return
        unsettled = self._unsettled.pop(run_id, None) if kind in ("failed", "crashed") else None
        held = self.held.get(run_id)
        if kind in JOURNAL and status in ("ok", "refused"):
            if held is not None and held.child is not None and held.lease == report["lease"]:
                held.child.tell_answered(held, report, answer)
            return
        if status == "retry" and unsettled is not None and held is None:
            self._sleep(unsettled, answer, stopping)
        elif status == "started" and held is not None:
            held.run = {
                **held.run,
                "lease": answer["lease"],
                "attempt": answer.get("attempt", held.run["attempt"]),
                "resumed": False,
            }
            self._begin(held)
        elif (
            status == "fenced"
            and held is not None
            and held.run["lease"] == report["lease"]
            and held.stop is None
        ):
            self._stop(held, FENCED, held.lease)
        elif status == "refused":
            self._refused(membership, report, str(answer.get("error", "")))

    def abandon(self, membership: Membership) -> None:
        """The lease is lost: stop all its user code at once, report nothing."""
        for held in [held for held in self.held.values() if held.membership is membership]:
            if held.child is None:
                self.fleet.forget(held)
                self._let_go(held)
            else:
                held.stop = Stop(FENCED, self._loop.time(), held.lease)
                held.child.kill()
        self._unsettled = {
            id: held for id, held in self._unsettled.items() if held.membership is not membership
        }
        self._closing.clear()

    def runs_of(self, membership: Membership) -> list[str]:
        """The ids of what it answers for, also of failures that wait for their answer."""
        every = (*self.held.values(), *self._unsettled.values())
        return [held.id for held in every if held.membership is membership]

    # ---- from executors

    def child_ready(self, child: Child) -> None:
        self.fleet.ready(child)

    def run_begun(self, held: Held) -> None:
        seconds = held.run["maxDuration"]
        if seconds is not None and seconds < NO_MAX_DURATION and held.timer is None:
            held.active_since = self._loop.time()
            left = max(0.0, seconds - held.active_seconds)
            held.timer = self._loop.call_later(left, self._time_over, held)

    def run_waits(self, held: Held) -> None:
        """Its time limit stands still. One that holds the last place may be waiting for a run that needs it."""
        if self._is_full:
            self._make_room(held)
        if held.timer is not None:
            held.timer.cancel()
            held.timer = None
        if held.active_since is not None:
            held.active_seconds += self._loop.time() - held.active_since
            held.active_since = None

    def run_reported(self, child: Child, held: Held, report: Message) -> None:
        kind = report["kind"]
        if kind == "logs":
            self._talk.logged(held.run, report["records"])
        if kind in ("logs", "metadata", "tags") or kind in JOURNAL:
            held.has_journal = held.has_journal or kind in JOURNAL
            if held.stop is None or held.stop.reason != FENCED:
                held.membership.report(report)
            return
        del child.runs[held.run["id"]]
        self._let_go(held)
        if held.stop is not None:
            self._stopped(child, held, held.stop, report)
        elif kind == "ended":
            text = "the attempt ended without an outcome although nobody asked it to"
            self._fail(held, internal_error("TASK_EXECUTION_ABORTED", text))
        else:
            if kind == "failed":
                self._talk.failed(held.run, report["error"])
                if report.get("retryDelayMs") is not None:
                    self._unsettled[held.run["id"]] = held
            held.membership.report(report)
        if child.condemned and not any(other.stop for other in child.runs.values()):
            child.condemned, child.retiring = False, True
        self.fleet.run_over(child)

    def child_died(self, child: Child, code: int) -> None:
        lost = list(child.runs.values())
        if child.reserved is not None:
            lost.append(child.reserved)
        begun = sum(held.begun for held in lost)
        evidence = self._out_of_memory.has_grown()
        child.runs.clear()
        self.fleet.died(child, code)
        for held in lost:
            if not held.gone:
                self._orphaned(held, child, death(code, max(0, begun - 1), evidence), begun > 1)

    # ---- stopping

    def tick(self) -> None:
        """Several times a second: kill what was asked to end and did not."""
        now = self._loop.time()
        for held in list(self._stopping):
            child, stop = held.child, held.stop
            if child is None or stop is None or child.killed or stop.reason == RELEASED:
                continue
            age = now - stop.asked_at
            if age < (ASK_SECONDS_OVER_TIME if stop.reason == TIMED_OUT else ASK_SECONDS):
                continue
            has_innocent = any(other.stop is None for other in child.runs.values())
            if stop.reason == TIMED_OUT or not has_innocent or age >= LAST_SECONDS:
                self._talk.say(
                    f"{child.name}: run {held.id} ({held.run['task']}) did not end when asked; killing it"
                )
                child.kill()
            elif not child.condemned:
                child.condemned = True
                self.fleet.start()

    def ask_all(self, reason: str) -> None:
        for held in list(self.held.values()):
            if held.stop is None:
                self._stop(held, reason, held.lease)

    def release_idle(self) -> None:
        """Hand back what no executor has."""
        for held in [held for held in self.held.values() if held.child is None]:
            self._stop(held, RELEASED, held.lease)

    def release_all(self) -> None:
        """Every executor is gone: account for what they held."""
        error = internal_error("TASK_EXECUTION_ABORTED", "the worker stopped")
        for held in list(self.held.values()):
            self._orphaned(held, held.child, error, False)

    def _time_over(self, held: Held) -> None:
        if held.stop is None and held.child is not None and not held.gone:
            self._stop(held, TIMED_OUT, held.lease)

    def _stop(self, held: Held, reason: str, lease: int) -> None:
        was_asked = held.stop is not None
        since = held.stop.asked_at if held.stop is not None else self._loop.time()
        held.stop = Stop(reason, since, lease)
        if held.child is None:
            self.fleet.forget(held)
            self._let_go(held)
            self._stopped(None, held, held.stop, None)
            return
        self._stopping.add(held)
        if not was_asked:
            held.child.ask_to_stop(held, reason)

    def _stopped(self, child: Child | None, held: Held, stop: Stop, report: Message | None) -> None:
        """The attempt is over, by itself or by force; `report` is what its executor said."""
        finished = report is not None and report["kind"] != "ended"
        if stop.reason == CANCELLED:
            self._close(held.membership, held.id, stop.lease)
        elif stop.reason == FENCED:
            return
        elif finished and report is not None:
            held.membership.report(report)  # its result was on the way when it was asked
        elif stop.reason == TIMED_OUT:
            self._fail(held, over_time(held.run["maxDuration"], killed=report is None))
        else:
            self._release(held)

    def _orphaned(self, held: Held, child: Child | None, error: dict[str, Any], shared: bool) -> None:
        """The executor of a run is gone, and the run's end was not reported."""
        if held.stop is not None:
            self._let_go(held)
            self._stopped(child, held, held.stop, None)
        elif self.fleet.closing or (child is not None and child.killed and held.begun):
            self._let_go(held)
            self._release(held)
        elif held.begun or held.handed >= STARTS_PER_RUN:
            self._let_go(held)
            self._unsettled[held.id] = held
            held.membership.report(
                {"kind": "crashed", "run": held.id, "lease": held.lease, "error": error, "shared": shared}
            )
        else:
            held.child = None
            held.handed += child is not None and child.reserved is held
            self.fleet.dispatch(held)

    # ---- places

    @property
    def _is_full(self) -> bool:
        return len(self.held) >= self._places

    def _make_room(self, held: Held) -> None:
        if held.idle and held.child is not None and held.stop is None:
            held.child.ask_for_place(held)

    # ---- reports of our own

    def _let_go(self, held: Held) -> None:
        held.gone = True
        if held.timer is not None:
            held.timer.cancel()
            held.timer = None
        if held.stop is not None:
            self._stopping.discard(held)
        run_id = held.run["id"]
        if self.held.get(run_id) is held:
            del self.held[run_id]
        self.changed.set()
        self._freed()

    def _begin(self, held: Held) -> None:
        """Hand a run out, with its journal."""
        if held.has_journal or (held.run["entries"] and held.run["journal"] is None):
            held.has_journal = True
            task = self._loop.create_task(self._begin_with_journal(held))
            self._fetching.add(task)
            task.add_done_callback(self._fetching.discard)
        else:
            self.fleet.dispatch(held)

    async def _begin_with_journal(self, held: Held) -> None:
        """What an earlier attempt has recorded, also in this worker, is read from the server."""
        try:
            found = await held.membership.journal(held.id, held.lease)
        except WorkerNotFound:
            return  # the membership is being abandoned, and the run with it
        if held.gone:
            return
        if found is None:
            self._stop(held, FENCED, held.lease)
            return
        held.run = {**held.run, **found}
        self.fleet.dispatch(held)

    def _sleep(self, held: Held, answer: dict[str, Any], stopping: bool) -> None:
        """The server granted another attempt here, after a delay."""
        run = {**held.run, "lease": answer["lease"], "attempt": answer["attempt"], "activeMs": 0}
        # What the failed attempt was given may lack what its failure made the server forget.
        has_journal = held.has_journal or held.run["entries"] > 0
        again = Held(run, held.membership, has_journal=has_journal, told_at=held.told_at)
        if stopping:
            self._release(again)
            return
        self.held[again.id] = again
        again.timer = self._loop.call_later(answer["delayMs"] / 1_000, self._wake, again)

    def _wake(self, held: Held) -> None:
        held.timer = None
        held.membership.report({"kind": "started", "run": held.id, "lease": held.lease})

    def _fail(self, held: Held, error: dict[str, Any]) -> None:
        held.membership.report(
            {"kind": "failed", "run": held.id, "lease": held.lease, "error": error, "retryDelayMs": None}
        )

    def _release(self, held: Held) -> None:
        held.membership.report(
            {"kind": "released", "run": held.id, "lease": held.lease, "started": held.begun}
        )

    def _close(self, membership: Membership, run_id: str, lease: int) -> None:
        self._closing[run_id] = lease
        membership.report({"kind": "closed", "run": run_id, "lease": lease})

    def _refused(self, membership: Membership, report: Message, reason: str) -> None:
        """The server will never take this report. The run must not stay open for that."""
        self._talk.say(f"run {report['run']}: the server refused its {report['kind']} report: {reason}")
        code = report.get("error", {}).get("code")
        if report["kind"] in ("succeeded", "failed", "crashed") and code != "TASK_EXECUTION_FAILED":
            code = "TASK_OUTPUT_ERROR" if report["kind"] == "succeeded" else "TASK_EXECUTION_FAILED"
            error = internal_error(code, f"the server refused what the attempt reported: {reason}"[:1_000])
            head = {"run": report["run"], "lease": report["lease"]}
            membership.report({"kind": "failed", **head, "error": error, "retryDelayMs": None})
