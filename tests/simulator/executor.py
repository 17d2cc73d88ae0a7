"""What a worker does with the runs in its hands: executes their programs, and reports; both may go wrong."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from holdfast.engine import inspect
from holdfast.engine import journal as journals
from holdfast.engine.finish import Reported, report
from holdfast.engine.journal import JournalPage
from holdfast.engine.reporting import Answer
from holdfast.engine.trigger import NewRun, trigger
from holdfast.errors import Fenced, ReplayMismatch, RunNotFound, WaitpointNotFound
from holdfast.model.error import MISMATCH, internal_error
from holdfast.stores.base import Tx
from holdfast.wire.journal import entry
from holdfast.wire.runs import result
from holdfast.wire.waits import token_result
from simulator.execution import Execution
from simulator.journals import JOURNALLED, check_given
from simulator.membership import Held, Membership
from simulator.needs import Failed, Gone, Performing, Telling, Waiting
from simulator.network import Lost
from simulator.violation import Violation, require

if TYPE_CHECKING:
    from simulator.worker import Worker
    from simulator.world import World

RETRY_DELAYS = (None, 0, 500, 5_000, 29_999, 30_000, 60_000)
UNANSWERED = ("metadata", "tags", "logs")
Report = dict[str, Any]


class Executor:
    """The processes of one worker."""

    def __init__(self, world: World, worker: Worker) -> None:
        self.world = world
        self.worker = worker

    def run(self, membership: Membership, run_ids: list[str]) -> None:
        """Each of the runs goes on by a little, or something happens to it."""
        random = self.world.random
        trouble = 0.005 if self.world.ending else self.world.options.trouble
        if random.random() < trouble:
            self._die(membership, run_ids)
            return
        reports: list[Report] = []
        for run_id in run_ids:
            held = membership.held[run_id]
            if held.retry_at is not None:
                if held.retry_at <= self.world.oracle.elapsed:
                    held.reporting = True
                    reports.append({"kind": "started", "run": run_id, "lease": held.lease})
                continue
            if held.awaited:
                continue
            held.begun = True
            choice = random.random()
            if choice < trouble:
                reports += self._outcome(held)
            elif choice < 0.06:
                reports.append(self._streamed(held))
            elif choice < 0.12 and not self.world.ending:
                self._child(held)
            else:
                reports += self._advance(membership, held)
        if reports:
            self.report(membership, reports)

    def release(self, membership: Membership) -> None:
        """Hands back what has not ended."""
        reports: list[Report] = []
        for run_id, held in membership.held.items():
            if not held.reporting:
                held.reporting = True
                said = {"kind": "released", "run": run_id, "lease": held.lease, "started": held.begun}
                reports.append(said)
        if reports:
            self.report(membership, reports)

    def report(self, membership: Membership, reports: list[Report]) -> None:
        """Sends reports until they are answered."""
        items = [Reported(membership.id, self.worker.environment_id, said) for said in reports]

        def answered(results: Any) -> None:
            if isinstance(results, Lost):
                self.world.network.send(self.worker, report, items, answered)
                return
            for said, answer in zip(reports, results, strict=True):
                self._heard(membership, said, answer)

        self.world.network.send(self.worker, report, items, answered)

    # ---- executing

    def _advance(self, membership: Membership, held: Held) -> list[Report]:
        """The code goes on until it needs somebody else, or for a while. Answers what it reports then."""
        random = self.world.random
        try:
            output = None
            if held.execution is None:
                held.execution = self._begun(membership, held)
                if held.execution is None:
                    return []
                if self.worker.is_broken and held.execution.journal.count:
                    held.reporting = True
                    return [self._failure(held, internal_error(MISMATCH, "other code"), None)]
                output = held.execution.go_on()
            while output is None:
                match held.execution.need:
                    case Performing(name):
                        self._performed(membership, held, name)
                        output = held.execution.go_on()
                    case Telling(reports):
                        if len(held.answers) < len(reports):
                            held.awaited = len(reports)
                            return reports
                        answers, held.answers = held.answers, []
                        output = held.execution.go_on(answers)
                    case Waiting() as waiting:
                        ends = self._look(waiting)
                        if ends is None:
                            let_go = random.random() < 0.5 and not waiting.is_short(self.world.now)
                            return self._suspended(held, waiting) if let_go else []
                        output = held.execution.go_on(ends)
                if output is None and not self.world.ending and random.random() < 0.2:
                    return []
        except Failed as failed:
            return self._failed(held, failed)
        except Gone as gone:
            return self._failed(held, Failed("Gone", str(gone), final=True))
        except ReplayMismatch as error:
            raise Violation(f"I16: {held.run.id} does not fit its own journal: {error}") from error
        held.reporting = True
        notes = held.execution.notes() if random.random() < 0.5 else []
        return [*notes, {"kind": "succeeded", "run": held.run.id, "lease": held.lease, "output": output}]

    def _begun(self, membership: Membership, held: Held) -> Execution | None:
        """The code at its beginning, with what is recorded; None when the run is somebody else's by now."""
        recorded = held.journal
        if recorded is None:
            rows: list[Any] = []
            more = True
            while more:
                page = self._page(membership, held, len(rows))
                if page is None:
                    del membership.held[held.run.id]
                    return None
                rows += page.entries
                more, held.operations = page.more, page.operations
            check_given(held.run.id, rows, self.world.oracle.now_before)
            recorded = held.journal = [entry(row) for row in rows]
        return Execution(held.run, held.lease, recorded, held.operations, lambda: self.world.now)

    def _page(self, membership: Membership, held: Held, after: int) -> JournalPage | None:
        def read(tx: Tx, _: list[None]) -> list[JournalPage | None]:
            asked = (self.worker.environment_id, membership.id, held.run.id, held.lease, after)
            try:
                return [journals.page_for_worker(tx, *asked)]
            except (Fenced, RunNotFound):
                return [None]

        [page] = self.world.store.transact(read, [None])
        return page

    def _performed(self, membership: Membership, held: Held, name: str) -> None:
        oracle = self.world.oracle
        self.world.timeline.add(self.worker.name, f"performs {name} of {held.run.id[-8:]}")
        oracle.ledger.performed(held.run.id, held.lease, membership.id, name, oracle.now_before)

    def _look(self, waiting: Waiting) -> dict[str, dict[str, Any]] | None:
        """What of it has ended, by id; nothing when a time has come, None when it all goes on. Raises Gone."""
        ids = dict.fromkeys(id for part in waiting.parts for id in part.ids)
        tokens = [id for id in ids if id.startswith("waitpoint")]
        runs = [id for id in ids if not id.startswith("waitpoint")]

        def read(tx: Tx, _: list[None]) -> list[inspect.Ended | None]:
            try:
                return [inspect.finished(tx, self.worker.environment_id, runs, tokens)]
            except (RunNotFound, WaitpointNotFound):
                return [None]

        found: dict[str, dict[str, Any]] = {}
        if ids:
            [ended] = self.world.store.transact(read, [None])
            if ended is None:
                store = self.world.oracle.now_before
                raise Gone(next(id for id in ids if id not in store.runs and id not in store.tokens))
            found = {run.id: result(run) for run in ended.runs}
            found |= {token.id: token_result(token) for token in ended.tokens}
        due = any(part.due_at is not None and part.due_at <= self.world.now for part in waiting.parts)
        return found if found or due else None

    # ---- what ends an attempt

    def _suspended(self, held: Held, waiting: Waiting) -> list[Report]:
        assert held.execution is not None
        held.reporting = True
        waits = [wait for group, part in enumerate(waiting.parts) for wait in part.on_wire(group)]
        said = {"kind": "suspended", "run": held.run.id, "lease": held.lease, "activeMs": 7, "waits": waits}
        return [*held.execution.notes(), said]

    def _failed(self, held: Held, failed: Failed) -> list[Report]:
        delay = None if failed.final else self.world.random.choice(RETRY_DELAYS)
        said = self._failure(held, failed.error, delay)
        held.reporting = True
        if held.execution is None or delay is None:
            return [said]
        return [
            *held.execution.notes(),
            {**said, "forget": failed.forget, "operations": held.execution.operations},
        ]

    def _outcome(self, held: Held) -> list[Report]:
        """An end that the program does not define."""
        random = self.world.random
        codes = ["MAX_DURATION_EXCEEDED", "COULD_NOT_FIND_TASK", "TASK_RUN_UNCAUGHT_EXCEPTION"]
        if random.random() < 0.6:
            return self._failed(held, Failed("ValueError", "no"))
        held.reporting = True
        return [self._failure(held, internal_error(random.choice(codes), "no"), random.choice(RETRY_DELAYS))]

    def _failure(self, held: Held, error: dict[str, Any], delay: int | None) -> Report:
        head = {"kind": "failed", "run": held.run.id, "lease": held.lease}
        return {**head, "error": error, "retryDelayMs": delay}

    def _die(self, membership: Membership, run_ids: list[str]) -> None:
        reports = []
        error = internal_error("TASK_PROCESS_EXITED_WITH_NON_ZERO_CODE", "exit 1")
        for run_id in run_ids:
            held = membership.held[run_id]
            held.reporting = True
            shared = len(run_ids) > 1 and (not held.alone or self.world.random.random() < 0.2)
            said = {"kind": "crashed", "run": run_id, "lease": held.lease, "error": error, "shared": shared}
            reports.append(said)
        self.report(membership, reports)

    # ---- what is said besides

    def _streamed(self, held: Held) -> Report:
        random = self.world.random
        said: Report = {"run": held.run.id, "lease": held.lease}
        kind = random.choice(["metadata", "tags", "logs"])
        if kind == "metadata":
            operation = [{"type": "increment", "key": "count", "value": 1}]
            said |= {"operations": operation}
            said |= (
                {"parentOperations": operation} if random.random() < 0.5 else {"rootOperations": operation}
            )
        elif kind == "tags":
            said["tags"] = [f"tag-{random.randrange(20)}"]
        else:
            record = {"at": self.world.now, "level": "INFO", "logger": "simulated", "message": "hello"}
            said["records"] = [record]
        return {"kind": kind, **said}

    def _child(self, held: Held) -> None:
        random = self.world.random
        child = NewRun(
            environment_id=self.worker.environment_id,
            task=random.choice(self.world.options.tasks).id,
            payload="{}",
            parent_id=held.run.id,
            parent_lease=held.lease,
            request_key=self.world.request_key(),
        )
        self.world.call_until_answered(self.worker, trigger, [child], self.world.made)

    # ---- answers

    def _heard(self, membership: Membership, said: Report, answer: Answer) -> None:
        held = membership.held.get(said["run"])
        if held is None or held.lease != said["lease"] or said["kind"] == "closed":
            return
        if answer.status == "retry":
            held.lease, held.reporting = answer.lease or 0, False
            held.retry_at = self.world.oracle.elapsed + (answer.delay_ms or 0)
            held.begun = False
        elif answer.status == "started":
            held.lease, held.retry_at, held.reporting, held.begun = answer.lease or 0, None, False, True
            self._anew(held)
        elif said["kind"] in JOURNALLED or "written" in said:
            if held.reporting:
                return  # the attempt has ended meanwhile, and what is said of that counts
            if answer.status == "fenced":
                del membership.held[said["run"]]
                return
            self._made(said, answer)
            held.answers.append(answer)
            if len(held.answers) == held.awaited:
                held.awaited = 0
        elif answer.status == "fenced" or said["kind"] not in UNANSWERED:
            del membership.held[said["run"]]

    def _anew(self, held: Held) -> None:
        """The next attempt begins at the top, with what is recorded by now."""
        if held.run.entries or (held.execution is not None and held.execution.journal.count):
            held.journal = None
        held.execution, held.awaited, held.answers = None, 0, []

    def _made(self, said: Report, answer: Answer) -> None:
        refused = answer.status == "refused"
        require(not refused or said["kind"] == "token", "I16", f"{said} is refused: {answer}")
        if said["kind"] == "triggers":
            told: Sequence[dict[str, Any]] = json.loads(answer.value or "[]")
            self.world.run_ids += [one["id"] for one in told if "id" in one and "isCached" not in one]
