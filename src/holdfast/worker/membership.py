"""One registration with the server: its lease, its claims, its reports.

A worker has one at a time, except when it changes its code, or can not know what a claim gave it
(the answer was lost). Then a new membership claims, and the old one keeps its leases until its runs
are done. Its heartbeats name all that it holds, so whatever else it was given returns to the queue.

Three loops, each with a connection to itself where it matters: a full pipe of reports must never
delay a heartbeat.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any, Protocol

from pydantic_core import from_json, to_json

from holdfast.errors import ServerUnreachable, WorkerNotFound
from holdfast.model.limits import MAX_REPORTS, MAX_SLOTS
from holdfast.worker.api import Api
from holdfast.worker.held import JOURNAL
from holdfast.worker.limits import lease_clock
from holdfast.worker.pipe import Message

ANSWERED = frozenset({"failed", "crashed", "closed", *JOURNAL})
CLAIM_WAIT_MS = 20_000
FULL_WAIT_SECONDS = 0.25  # a full worker waits so long for a place before it asks for cancellations only
CALL_SECONDS = 10.0
MAX_BODY = 16 * 1024 * 1024  # of one report request, roughly
# A larger claim would leave the executors idle while it is fetched, and the store idle while they run it.
MAX_CLAIM = 500
LINGER_SECONDS = 0.002  # after a full claim: more places become free in this time than a claim costs


class MembershipOwner(Protocol):
    def free_places(self, membership: Membership) -> int:
        """How many runs it may claim; 0 for one that is being left."""
        ...

    def runs_held(self, membership: Membership) -> list[str]:
        """The ids of all runs that it answers for."""
        ...

    def runs_claimed(self, membership: Membership, runs: list[dict[str, Any]]) -> None: ...
    def runs_cancelled(self, membership: Membership, cancelled: list[dict[str, Any]]) -> bool:
        """Whether any of them was news."""
        ...

    def report_answered(self, membership: Membership, report: Message, answer: dict[str, Any]) -> None:
        """Called for every answer that is not "ok", and for what somebody waits for (ANSWERED)."""
        ...

    def lease_renewed(self) -> None: ...

    def claim_lost(self, membership: Membership) -> None:
        """A claim was sent and its answer never came: the server may believe that we hold runs."""
        ...


class Membership:
    def __init__(self, api: Api, registered: dict[str, Any], owner: MembershipOwner, sent_at: float) -> None:
        self.id = str(registered["workerId"])
        self.version = str(registered["version"])
        self.variables: dict[str, str] = registered.get("variables", {})  # of the environment, for executors
        self.current: str | None = registered.get("current")  # what is deployed, where something is
        self.lease_seconds = int(registered["leaseMs"]) / 1_000
        self.leaving = False  # claims no more runs
        self.deleting = False
        self.freed = asyncio.Event()  # set when a place became free
        self._api = api
        self._owner = owner
        self._path = f"/api/v1/workers/{self.id}"
        self._renewed_at = sent_at
        self._outbox: list[Message] = []
        self._sent: list[Message] = []  # and not answered yet
        self._settled = False  # no claim is under way any more, nor will there be one
        self._settling = asyncio.Event()
        self._waiting = asyncio.Event()
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._claiming: asyncio.Future[Any] | None = None  # a request that may bring runs

    @property
    def deadline(self) -> float:
        """When to give up, a fifth of the lease before the server would."""
        return self._renewed_at + self.lease_seconds * 4 / 5

    async def live(self) -> None:
        """Run the three loops until cancelled. Raises WorkerNotFound when the lease is lost."""
        self._owner.lease_renewed()
        loops = [
            asyncio.ensure_future(loop) for loop in (self._beat(), self._deliver_all(), self._claim_all())
        ]
        try:
            done, _ = await asyncio.wait(loops, return_when=asyncio.FIRST_COMPLETED)
            for finished in done:
                finished.result()
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)

    @property
    def end(self) -> float:
        """When executors end by themselves should this process be frozen: later than `deadline`, before the lease."""
        return self._renewed_at + self.lease_seconds * 9 / 10

    def stop_claiming(self) -> None:
        """Ask for no more runs, and drop a request that does. What it may have brought goes back with the next beat."""
        self.leaving = True
        self.freed.set()
        if self._claiming is not None:
            self._claiming.cancel()

    def report(self, report: Message) -> None:
        """Queue a report; it is sent until it is answered."""
        self._outbox.append(report)
        if len(self._outbox) == 1:
            self._quiet.clear()
            self._waiting.set()

    async def flushed(self, timeout: float) -> bool:
        """Until every report is answered; whether that was in time."""
        try:
            async with asyncio.timeout(timeout):
                await self._quiet.wait()
        except TimeoutError:
            return False
        return True

    async def delete(self, timeout: float = 5.0) -> None:
        """Leave: what the server believes we hold goes back to the queue.

        What no claim has brought us goes back before that, as not begun.
        """
        try:
            await self._api.post(f"{self._path}/heartbeat", self._sign_of_life(), timeout, urgent=True)
            await self._api.delete(self._path, timeout)
        except ServerUnreachable:
            return  # it will miss our heartbeats instead

    # ---- the lease

    async def _beat(self) -> None:
        every = self.lease_seconds / 3
        pause = every
        while True:
            if await _within(self._settling, pause):
                self._settling.clear()  # no need to wait: what is not ours goes back at once
            sent_at = lease_clock()
            left = self.deadline - sent_at
            if left <= 0:
                raise WorkerNotFound(self.id)
            try:
                status, _ = await self._api.post(
                    f"{self._path}/heartbeat", self._sign_of_life(), min(every, left), urgent=True
                )
            except ServerUnreachable:
                status = 0
            if status == 404:
                raise WorkerNotFound(self.id)
            if status == 200:
                self._renewed_at = sent_at
                self._owner.lease_renewed()
                pause = every
            else:
                pause = min(
                    random.uniform(0.05, 0.1) * self.lease_seconds, max(0.0, self.deadline - lease_clock())
                )

    def _sign_of_life(self) -> bytes:
        if not self._settled:
            return b"{}"  # a claim may be on its way: what it brings is not known yet
        unanswered = {report["run"] for report in (*self._outbox, *self._sent)}
        held = unanswered.union(self._owner.runs_held(self))
        return to_json({"held": sorted(held)}) if len(held) <= MAX_SLOTS else b"{}"

    # ---- claims

    async def _claim_all(self) -> None:
        failures = 0
        was_full = False
        while True:
            if self.leaving and not self._settled:
                self._settled = True
                self._settling.set()
            slots = self._owner.free_places(self)
            if was_full and slots:
                await asyncio.sleep(LINGER_SECONDS)
                slots = self._owner.free_places(self)
            if not slots and not self.leaving:
                self.freed.clear()
                if await _within(self.freed, FULL_WAIT_SECONDS):
                    continue
            try:
                answer = await self._claim(min(slots, MAX_CLAIM))
            except ServerUnreachable:
                if slots:
                    self._owner.claim_lost(self)
                answer = None
            if answer is None:
                failures += 1
                await asyncio.sleep(random.uniform(0.5, 1.0) * min(2.0, 0.1 * 2 ** min(failures, 6)))
                continue
            failures = 0
            runs, cancelled = answer["runs"], answer["cancelled"]
            for run in runs:
                run["now"] = answer["now"]
            news = bool(cancelled) and self._owner.runs_cancelled(self, cancelled)
            if runs:
                self._owner.runs_claimed(self, runs)
            elif cancelled and not news:
                await asyncio.sleep(0.1)  # it is told again at once until it is reported closed
            was_full = 0 < slots <= MAX_CLAIM and len(runs) == slots

    async def _claim(self, slots: int) -> dict[str, Any] | None:
        """The answer, an empty one when a place became free before there was any, None when refused."""
        body = b'{"slots":%d,"waitMs":%d}' % (slots, CLAIM_WAIT_MS)
        call = asyncio.ensure_future(
            self._api.post(f"{self._path}/claim", body, CLAIM_WAIT_MS / 1_000 + CALL_SECONDS)
        )
        if slots == 0 and not self.leaving:
            # A request without slots gives nothing, so it may be dropped as soon as a place is free.
            freed = asyncio.ensure_future(self.freed.wait())
            await asyncio.wait((call, freed), return_when=asyncio.FIRST_COMPLETED)
            freed.cancel()
            if not call.done():
                call.cancel()
        else:
            self._claiming = call
        try:
            await asyncio.wait((call,))
        finally:
            call.cancel()
            self._claiming = None
        if call.cancelled():
            return {"runs": [], "cancelled": [], "now": 0}
        status, data = call.result()
        if status == 404:
            raise WorkerNotFound(self.id)
        if status >= 500:
            raise ServerUnreachable(f"status {status}")  # it may have claimed before it failed
        if status != 200:
            return None
        answer: dict[str, Any] = from_json(data)
        return answer

    # ---- the journals of runs

    async def journal(self, run_id: str, lease: int) -> dict[str, Any] | None:
        """What a run has recorded, as in a claimed run; None when it is not ours any more."""
        entries: list[Any] = []
        failures = 0
        while True:
            body = to_json({"run": run_id, "lease": lease, "after": len(entries)})
            try:
                status, data = await self._api.post(f"{self._path}/journal", body, CALL_SECONDS)
            except ServerUnreachable:
                status, data = 0, b""
            if status == 404:
                raise WorkerNotFound(self.id)
            if status == 409:
                return None
            if status == 200:
                page = from_json(data)
                entries += page["entries"]
                if not page["more"]:
                    return {"entries": len(entries), "journal": entries, "operations": page["operations"]}
                continue
            failures += 1
            await asyncio.sleep(random.uniform(0.5, 1.0) * min(2.0, 0.1 * 2 ** min(failures, 6)))

    # ---- reports

    async def _deliver_all(self) -> None:
        while True:
            await self._waiting.wait()
            self._sent = self._next_batch()
            await self._deliver(self._sent)
            self._sent = []
            if not self._outbox:
                self._waiting.clear()
                self._quiet.set()

    def _next_batch(self) -> list[Message]:
        count, size = 0, 0
        for report in self._outbox[:MAX_REPORTS]:
            size += _size(report)
            if size > MAX_BODY and count:
                break
            count += 1
        batch = self._outbox[:count]
        # Emptied before the answer is there: `report` must wake this loop for what comes meanwhile.
        del self._outbox[:count]
        return batch

    async def _deliver(self, batch: Sequence[Message]) -> None:
        """Send until answered; a body that is refused as a whole is halved until the culprit is alone."""
        body = to_json({"reports": batch})
        failures = 0
        while True:
            try:
                status, data = await self._api.post(f"{self._path}/reports", body, CALL_SECONDS)
            except ServerUnreachable:
                status, data = 0, b""
            if status == 200:
                break
            if status == 404:
                raise WorkerNotFound(self.id)
            if status in (400, 413, 422):
                if len(batch) > 1:
                    await self._deliver(batch[: len(batch) // 2])
                    await self._deliver(batch[len(batch) // 2 :])
                else:
                    text = data[:500].decode("utf-8", "replace")
                    self._owner.report_answered(self, batch[0], {"status": "refused", "error": text})
                return
            failures += 1
            await asyncio.sleep(random.uniform(0.5, 1.0) * min(2.0, 0.1 * 2 ** min(failures, 6)))
        for report, answer in zip(batch, from_json(data)["answers"], strict=True):
            if answer["status"] != "ok" or report["kind"] in ANSWERED:
                self._owner.report_answered(self, report, answer)


def _size(report: Message) -> int:
    """Roughly."""
    values = (entry["value"] or "" for entry in report.get("entries", ()))
    return 500 + len(report.get("output") or "") + sum(map(len, values))


async def _within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
