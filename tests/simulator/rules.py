"""What each use case may and must do, told in terms of the store before and after it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from holdfast.engine.trigger import NewRun, Triggered
from holdfast.errors import Fenced, HoldfastError, InvalidRequest, RunNotFound, Unprocessable
from holdfast.model.duration import lifetime_ms
from holdfast.model.run import Run
from holdfast.model.status import FREES_KEY, RunStatus
from simulator.admission import KEY_LIFETIME_MS, REQUEST_LIFETIME_MS, has_queue, is_bad
from simulator.claims import check_claims
from simulator.journals import check_journal_reports, used_by
from simulator.oracle import Oracle
from simulator.reports import check_reports
from simulator.snapshot import Snapshot
from simulator.tokens import Tokens, check_timeouts
from simulator.violation import require
from simulator.waits import has_resumed

S = RunStatus


@dataclass(slots=True)
class Rules:
    """The model beside the store: who holds which key, and what was answered to which request, and when."""

    keys: dict[tuple[str, str, str], tuple[str, int]] = field(default_factory=dict)
    requests: dict[tuple[str, str], tuple[Triggered, int]] = field(default_factory=dict)
    created: Counter[str] = field(default_factory=Counter)
    tokens: Tokens = field(default_factory=Tokens)

    def check(
        self,
        oracle: Oracle,
        name: str,
        now: int,
        items: Sequence[Any],
        results: Sequence[Any],
        before: Snapshot,
        after: Snapshot,
    ) -> None:
        """Raises Violation where the call did what it may not, or did not what it must."""
        match name:
            case "deploy" | "promote":
                changed = [run.id for run in after.runs.values() if run is not before.runs.get(run.id)]
                require(not changed, "I1", f"{name} changed {changed}")
            case "claim":
                check_claims(items, results, before, after)
            case "report":
                made = check_journal_reports(oracle, self, now, items, results, before, after)
                check_reports(oracle, now, items, results, before, after, made)
            case "trigger":
                self._triggers(oracle.latest, now, items, results, before, after)
            case "cancel":
                _cancels(items, results, before, after)
            case "reschedule":
                _reschedules(items, results, before, after)
            case "register" | "leave":
                _memberships(name, items, results, before, after)
            case "renew":
                for (worker_id, _, lease_ms), result in zip(items, results, strict=True):
                    require(
                        (result is None) == (worker_id in before.workers), "I3", f"renewal of {worker_id}"
                    )
                    if result is None:
                        until = after.workers[worker_id]["lease_until"]
                        require(until == now + lease_ms, "I11", f"{worker_id} was not renewed")
            case "give_back_unknown":
                _unknown(oracle, items, before, after)
            case "upkeep":
                _upkeep(now, items, results, before, after)
            case "retain":
                _retention(now, items, before, after)
            case "add_tags":
                _tags(items, results, after)
            case "change_metadata":
                for item, result in zip(items, results, strict=True):
                    if not isinstance(result, HoldfastError) and len(items) == 1:
                        stored = json.loads(after.runs[item.run_id].metadata)
                        require(stored == result, "I1", f"metadata of {item.run_id} is not what was answered")
            case "replay":
                for item, result in zip(items, results, strict=True):
                    if isinstance(result, Triggered):
                        old, new = before.runs[item.run_id], after.runs[result.id]
                        same = (old.task, old.payload, old.queue) == (new.task, new.payload, new.queue)
                        require(same and new.replay_of == old.id, "I1", f"{new.id} is no replay of {old.id}")
        self.tokens.check(name, now, items, results, before, after)
        if name in ("trigger", "replay"):
            for result in results:
                if isinstance(result, Triggered):
                    require(result.id in after.runs, "I1", f"{result.id} was answered and does not exist")

    def _triggers(
        self,
        latest: int,
        now: int,
        items: Sequence[NewRun],
        results: Sequence[Any],
        before: Snapshot,
        after: Snapshot,
    ) -> None:
        for item, result in zip(items, results, strict=True):
            request = (item.environment_id, item.request_key or "")
            if item.request_key is not None and request in self.requests:
                first, answered_at = self.requests[request]
                if result == first:
                    continue
                forgotten = latest - answered_at > REQUEST_LIFETIME_MS
                require(forgotten, "I15", f"request {request}: {result}, not the first answer")
            self.check_trigger(now, item, result, before, after)
            if item.request_key is not None and isinstance(result, Triggered):
                self.requests[request] = (result, now)
            if isinstance(result, Triggered) and not result.is_cached:
                self.created[result.id] += 1
                require(self.created[result.id] == 1, "I6", f"{result.id} was created twice")
        new = set(after.runs) - set(before.runs)
        answered = {result.id for result in results if isinstance(result, Triggered)}
        require(new <= answered, "I15", f"runs that nobody was told of: {sorted(new - answered)}")

    def check_trigger(self, now: int, item: NewRun, result: Any, before: Snapshot, after: Snapshot) -> None:
        held = self.keys.get((item.environment_id, item.task, item.idempotency_key or ""))
        if item.idempotency_key is not None and held is not None:
            run = before.runs.get(held[0]) or after.runs.get(held[0])
            if run is not None and held[1] > now and run.status not in FREES_KEY:
                require(result == Triggered(held[0], is_cached=True), "I6", f"key of {held[0]}: {result}")
                return
        parent = None if item.parent_id is None else before.runs.get(item.parent_id)
        if item.parent_lease is not None and parent is not None:
            stale = parent.lease != item.parent_lease or not parent.holds_slot
            require(isinstance(result, Fenced) == stale, "I3", f"child of {item.parent_id}: {result}")
            if stale:
                return
        bad = is_bad(item, before)
        require(isinstance(result, HoldfastError) == bad, "I15", f"{item} gave {result}")
        if bad:
            require(isinstance(result, Unprocessable | InvalidRequest), "I15", f"{item} gave {result}")
            return
        require(not result.is_cached, "I6", f"{item} was answered from a key that is free")
        run = after.runs[result.id]
        retired = before.tasks.get((item.environment_id, item.task))
        known = retired is False or (retired is not None and item.version_lock is not None)
        expected = S.QUEUED if known and has_queue(item, before) else S.WAITING_FOR_DEPLOY
        require(
            run.status is (S.DELAYED if run.delayed_until else expected), "moves", f"{run.id} is {run.status}"
        )
        if item.idempotency_key is not None:
            lifetime = KEY_LIFETIME_MS
            if item.idempotency_key_ttl is not None:
                lifetime = lifetime_ms(item.idempotency_key_ttl, "")
            self.keys[item.environment_id, item.task, item.idempotency_key] = (result.id, now + lifetime)


def _cancels(items: Sequence[Any], results: Sequence[Any], before: Snapshot, after: Snapshot) -> None:
    reached: set[str] = set()
    for item, result in zip(items, results, strict=True):
        run = before.runs.get(item.run_id)
        if run is None or run.environment_id != item.environment_id:
            require(isinstance(result, RunNotFound), "I25", f"cancel of {item.run_id}: {result}")
        elif run.is_final:
            require(result == run, "I9", f"cancel of {run.id}, which had ended: {result}")
        else:
            require(result.status is S.CANCELLED, "I9", f"cancel of {run.id}: {result}")
            reached |= {run.id, *descendants(run.id, before)}
    for run_id in reached:
        require(
            after.runs[run_id].is_final, "I9", f"{run_id} is {after.runs[run_id].status} after the cancel"
        )
    for run_id, run in after.runs.items():
        old = before.runs[run_id]
        require(
            run is old or run_id in reached or has_resumed(old, run),
            "I9",
            f"{run_id} was touched by another's cancel",
        )


def descendants(run_id: str, snapshot: Snapshot) -> set[str]:
    """Children, their children and so on, through those that have ended as well."""
    children: dict[str | None, list[str]] = {}
    for run in snapshot.runs.values():
        children.setdefault(run.parent_id, []).append(run.id)
    found: set[str] = set()
    level = [run_id]
    while level:
        level = [child for parent in level for child in children.get(parent, ())]
        found.update(level)
    return found


def _reschedules(items: Sequence[Any], results: Sequence[Any], before: Snapshot, after: Snapshot) -> None:
    last: dict[str, Run] = {}
    for item, result in zip(items, results, strict=True):
        old = before.runs.get(item.run_id)
        if isinstance(result, Run):
            require(
                old is not None and old.status is S.DELAYED, "I13", f"{item.run_id} was rescheduled: {old}"
            )
            last[result.id] = result
    for run_id, answered in last.items():
        stored = after.runs[run_id]
        kept = stored.delayed_until == answered.delayed_until == stored.due_at
        require(kept, "I1", f"{run_id} was answered {answered.delayed_until} and has {stored.delayed_until}")


def _memberships(
    name: str, items: Sequence[Any], results: Sequence[Any], before: Snapshot, after: Snapshot
) -> None:
    gone = set(before.workers) - set(after.workers)
    allowed = set()
    for item, result in zip(items, results, strict=True):
        worker_id, environment_id = item if name == "leave" else (item.replaces, item.environment_id)
        worker = before.workers.get(worker_id)
        if worker is not None and worker["environment_id"] == environment_id:
            allowed.add(worker_id)
        if name == "register":
            require(result.worker_id in after.workers, "I11", f"{result.worker_id} was not registered")
    require(gone == allowed, "I25", f"{name} removed {sorted(gone)}, and may remove {sorted(allowed)}")
    _let_go(gone, after)


def _unknown(
    oracle: Oracle, items: Sequence[tuple[str, Sequence[str]]], before: Snapshot, after: Snapshot
) -> None:
    """What a worker holds and did not name returns as if it had never been claimed; nothing else moves."""
    back = {
        run.id
        for worker_id, held in items
        for run in before.runs.values()
        if run.worker_id == worker_id and run.holds_slot and run.id not in held
    }
    for run_id, run in after.runs.items():
        old = before.runs[run_id]
        if run_id not in back:
            require(run is old, "I3", f"{run_id} was taken from {old.worker_id}, which holds it")
            continue
        seen = f"{run_id} is {run.status} of {run.worker_id}, attempt {run.attempt} after {old.attempt}"
        require(run.status is S.QUEUED and run.worker_id is None, "I11", f"nobody knows of it: {seen}")
        require(run.attempt == old.attempt - 1 and run.losses == old.losses, "I12", f"it was counted: {seen}")
        oracle.unrecorded[run_id] += 1


def _let_go(gone: set[str], after: Snapshot) -> None:
    for run in after.runs.values():
        require(run.worker_id not in gone, "I11", f"{run.id} is left with {run.worker_id}, which is gone")


def _upkeep(
    now: int, items: Sequence[Any], results: Sequence[Any], before: Snapshot, after: Snapshot
) -> None:
    gone = set(before.workers) - set(after.workers)
    for worker_id in gone:
        require(
            before.workers[worker_id]["lease_until"] < now, "I14", f"{worker_id} was lost before its time"
        )
        require(
            any(item.lose_workers for item in items),
            "I14",
            f"{worker_id} was lost without trust in the clock",
        )
    _let_go(gone, after)
    done = not results[-1].more
    if done:
        for run in after.runs.values():
            closing = run.status is S.CANCELLED and run.finished_at is None
            waiting = run.status in (S.DELAYED, S.REATTEMPTING, S.QUEUED) or closing
            overdue = waiting and run.due_at is not None and run.due_at <= now
            require(not overdue, "I13", f"{run.id} {run.status} was due at {run.due_at}, now {now}")
        check_timeouts(now, after)
        at = results[-1].next_due_at
        require(at is None or at >= now, "I21", f"upkeep spins: next due at {at}, now {now}")


def _retention(now: int, items: Sequence[Any], before: Snapshot, after: Snapshot) -> None:
    keep = {item.environment_id: item.keep_ms for item in items}
    for run_id in set(before.runs) - set(after.runs):
        run = before.runs[run_id]
        old = run.finished_at is not None and run.finished_at < now - keep[run.environment_id]
        require(old, "I1", f"retention deleted {run_id}, finished at {run.finished_at}, now {now}")
    gone = (before.runs.keys() - after.runs.keys()) | (before.tokens.keys() - after.tokens.keys())
    if not gone:
        return
    for run_id, rows in after.journals.items():
        if run_id in after.runs and after.runs[run_id].finished_at is None:
            missed = gone & used_by(rows)
            require(not missed, "I1", f"retention deleted {sorted(missed)}, which {run_id} uses")
    for run_id, waits in after.waits.items():
        missed = gone & {wait.target for wait in waits}
        require(not missed, "I7", f"retention deleted {sorted(missed)}, which {run_id} waits for")


def _tags(items: Sequence[Any], results: Sequence[Any], after: Snapshot) -> None:
    for item, result in zip(items, results, strict=True):
        if isinstance(result, int):
            tags = json.loads(after.runs[item.run_id].tags)
            require(set(item.tags) <= set(tags) and len(tags) <= 10, "I1", f"tags of {item.run_id}: {tags}")
