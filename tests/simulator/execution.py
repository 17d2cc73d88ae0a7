"""One attempt of a program, as an executor performs it: recorded operations are taken, the others are done.

The code is a generator. It yields what it needs of the world (to perform something, reports to be
answered, an end to wait for) and is given the answer, so that its worker may die between any two of them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from holdfast.engine.reporting import Answer
from holdfast.engine.token import NewToken
from holdfast.model.journal import DONE, FIRST, SLEEP, STEP, TOKEN, TRIGGER, Entry, Journal
from simulator.needs import WARM_MS, Ends, Failed, Need, Parked, Performing, Sign, Telling, Waiting
from simulator.program import (
    Await,
    Both,
    Count,
    First,
    Join,
    NewOne,
    Operation,
    Sleep,
    Spawn,
    Step,
    child,
    program_of,
    summary,
)

LAST = "last"


Asking = Generator[Need, Any, Any]
SIGN = Sign()


class Execution:
    """run      as it was claimed: id, task, depth, environment_id
    entries  what is recorded, on the wire
    written  how many changes of metadata are known to be written
    now      tells the store's time
    """

    def __init__(
        self, run: Any, lease: int, entries: Sequence[Mapping[str, Any]], written: int, now: Callable[[], int]
    ) -> None:
        self.run = run
        self.lease = lease
        told = [Entry.of(seq, one) for seq, one in enumerate(entries)]
        self.journal = Journal(told)
        self.operations = 0  # changes of metadata at the last entry that was asked for
        self._changes = 0
        self._written = written if entries else 0
        self._now = now
        self._failures = Counter(one.name for one in told if one.kind == STEP and one.ok is False)
        self._unsent: list[tuple[Entry, int | None]] = []
        self._children: dict[str, list[dict[str, Any]]] = {}
        self._tokens: dict[str, str] = {}
        self._seen: dict[str, Entry] = {}  # by run: the entry that tells its end
        self._code = self._program()
        self.need: Need | None = None

    def go_on(self, given: Any = None) -> str | None:
        """Executes the code up to its next need; answers its output when there is none. Raises Failed, Gone."""
        try:
            self.need = self._code.send(given)
        except StopIteration as end:
            self.need = None
            return str(end.value)
        return None

    def notes(self) -> list[dict[str, Any]]:
        """The report of entries that nothing depends on yet."""
        part, self._unsent = self._unsent, []
        return [self._entries(part)] if part else []

    def _entries(self, part: Sequence[tuple[Entry, int | None]]) -> dict[str, Any]:
        told = [one.on_wire() | ({} if delay is None else {"delayMs": delay}) for one, delay in part]
        return {
            "kind": "entries",
            "run": self.run.id,
            "lease": self.lease,
            "first": part[0][0].seq,
            "entries": told,
        }

    def _program(self) -> Asking:
        output = []
        for operation in program_of(self.run.id, self.run.task, self.run.depth):
            if (given := (yield from self._operation(operation))) is not None:
                output.append(given)
        self.journal.check_end()
        return json.dumps(output)

    def _operation(self, operation: Operation) -> Asking:
        match operation:
            case Step():
                return (yield from self._step(operation))
            case Sleep():
                return (yield from self._sleep(operation))
            case Spawn():
                return (yield from self._spawn(operation))
            case Join(wake=None):
                results = []
                for answer in self._children[operation.of]:
                    results.append((yield from self._one(answer, operation.raises)))
                return results
            case Join():
                ends = yield from self._all([("", operation.of, operation.wake or "any", operation.raises)])
                return self._summaries(operation.of, ends)
            case Both():
                left, right = operation.of
                branches = [
                    (f"{operation.name}.0", left, "last", False),
                    (f"{operation.name}.1", right, "failure", True),
                ]
                ends = yield from self._all(branches)
                return [self._summaries(of, ends) for of in operation.of]
            case First():
                return (yield from self._first(operation))
            case NewOne():
                return (yield from self._token(operation))
            case Await():
                return (yield from self._await(operation))
            case Count():
                return (yield from self._count())

    # ---- recorded, or new?

    def _ask(self, kind: str, name: str, scope: str = "", among: Sequence[str] = ()) -> Entry | None:
        self.operations = self._changes
        entry = self.journal.ask(scope, kind, name, among=among)
        if entry is not None:
            self.journal.hand_out(entry)
        return entry

    def _note(self, kind: str, name: str, scope: str = "", **told: Any) -> Entry:
        """An entry that travels with the next one."""
        entry = self.journal.add(scope, kind, name, **told)
        self._unsent.append((entry, None))
        self.journal.hand_out(entry)
        return entry

    def _record(self, kind: str, name: str, delay_ms: int | None = None, **told: Any) -> Asking:
        """An entry that is in the store before the code goes on."""
        entry = self.journal.add("", kind, name, **told)
        self._unsent.append((entry, delay_ms))
        answers = yield Telling(self.notes())
        if delay_ms is not None:
            entry.value = answers[-1].values[-1]
        self.journal.hand_out(entry)
        return entry

    def _made(self, report: dict[str, Any], kind: str, name: str, scope: str = "") -> Asking:
        """What the server makes, in one commit with its entry."""
        notes = self.notes()
        entry = self.journal.add(scope, kind, name)
        head = {"run": self.run.id, "lease": self.lease, "first": entry.seq}
        said = {**report, **head, "scope": scope, "name": name, "args": None}
        answer: Answer = (yield Telling([*notes, said]))[-1]
        if answer.status == "refused":
            self.journal.take_back(entry)
            raise Failed("Refused", name, final=True)
        entry.value = answer.value
        self.journal.hand_out(entry)
        return entry

    # ---- operations

    def _step(self, step: Step) -> Asking:
        entry = self._ask(STEP, step.name)
        if entry is None:
            yield Performing(step.name)
            fails = step.caught or self._failures[step.name] < step.fails
            value = json.dumps("it failed" if fails else step.value(self.run.id))
            entry = yield from self._record(STEP, step.name, ok=not fails, value=value)
        if entry.ok or step.caught:
            return json.loads(entry.value)
        raise Failed("StepFailed", step.name, [entry.seq])

    def _sleep(self, sleep: Sleep) -> Asking:
        entry = self._ask(SLEEP, sleep.name)
        if sleep.ms <= WARM_MS:
            if entry is None:
                due_at = self._now() + sleep.ms
                yield Waiting((Parked(due_at=due_at),))
                self._note(SLEEP, sleep.name, value=str(due_at), ref="over")
            return None
        if entry is None:
            entry = yield from self._record(SLEEP, sleep.name, delay_ms=sleep.ms)
        if self._ask(DONE, sleep.name) is None:
            yield Waiting((Parked(due_at=int(entry.value)),))
            self._note(DONE, sleep.name)
        return None

    def _spawn(self, spawn: Spawn) -> Asking:
        """Children; those whose failure failed an attempt are triggered anew, under a scope of their own."""
        first = self._ask(TRIGGER, spawn.name) or (yield from self._triggered(spawn.name, spawn.children))
        answers: list[dict[str, Any]] = json.loads(first.value)
        given = [first] * len(answers)
        scope = f"~{first.seq}"
        while places := self._to_be_tried(given, answers):
            again = self._ask(TRIGGER, spawn.name, scope)
            if again is None:
                failed = [spawn.children[place] for place in places]
                again = yield from self._triggered(spawn.name, failed, scope)
            else:
                places = self._to_be_tried(given, answers, again)
            for place, answer in zip(places, json.loads(again.value), strict=True):
                answers[place], given[place] = answer, again
        self._children[spawn.name] = answers
        return None

    def _to_be_tried(
        self, given: Sequence[Entry], answers: Sequence[Mapping[str, Any]], by: Entry | None = None
    ) -> list[int]:
        return [
            place
            for place, (entry, answer) in enumerate(zip(given, answers, strict=True))
            if self.journal.is_to_be_tried(entry, answer, by)
        ]

    def _triggered(self, name: str, children: Sequence[dict[str, Any]], scope: str = "") -> Asking:
        items = [child(one, self.run.environment_id, self.run.id, self.lease) for one in children]
        return (yield from self._made({"kind": "triggers", "items": items}, TRIGGER, name, scope))

    def _token(self, token: NewOne) -> Asking:
        entry = self._ask(TOKEN, token.name)
        if entry is None:
            new = NewToken(
                environment_id=self.run.environment_id,
                timeout=token.timeout,
                idempotency_key=token.key,
                idempotency_key_ttl="5s" if token.key == "token-2" else None,
                schema=token.schema,
                run_id=self.run.id,
            )
            entry = yield from self._made({"kind": "token", "new": new, "sign": SIGN}, TOKEN, token.name)
        self._tokens[token.name] = json.loads(entry.value)["id"]
        return None

    def _await(self, wait: Await) -> Asking:
        id = self._tokens[wait.of]
        entry = self._ask(DONE, id)
        if entry is None:
            ends = yield Waiting((Parked((id,)),))
            entry = self._note(DONE, id, value=json.dumps(ends[id]), ref=id)
        told = json.loads(entry.value)
        return summary(id, told["status"], told["output"])

    def _count(self) -> Asking:
        self._changes += 1
        if self._changes > self._written:
            said = {
                "kind": "metadata",
                "run": self.run.id,
                "lease": self.lease,
                "operations": [{"type": "increment", "key": "counted", "value": 1}],
                "written": self._changes,
            }
            yield Telling([said])
        return None

    # ---- ends of children

    def _one(self, answer: dict[str, Any], raises: bool) -> Asking:
        if "id" not in answer:
            return ["refused"]
        id = answer["id"]
        entry = self._ask(DONE, id)
        if entry is None:
            ends = yield Waiting((Parked((id,)),))
            self._seen[id] = self._note(DONE, id, ref=id)
        else:
            self._seen[id] = entry
            ends = yield from self._known([id])
        return self._told(ends[id], raises)

    def _all(self, branches: Sequence[tuple[str, str, str, bool]]) -> Asking:
        """The ends of all children of several Spawns: (scope, name, wake, whether a failure raises)."""
        found: dict[str, dict[str, Any]] = {}
        left = [
            list(dict.fromkeys(one["id"] for one in self._children[of] if "id" in one))
            for _, of, _, _ in branches
        ]
        known: list[str] = []
        for (scope, _, _, _), ids in zip(branches, left, strict=True):
            while ids and (entry := self._ask(DONE, ids[0], scope, ids)) is not None:
                ids.remove(entry.name)
                self._seen[entry.name] = entry
                known.append(entry.name)
        if known:
            found |= yield from self._known(known)
            for id in known:
                self._told(found[id], any(raises for (_, of, _, raises) in branches if self._is_of(of, id)))
        while any(left):
            parts = tuple(
                Parked(tuple(ids), wake) for (_, _, wake, _), ids in zip(branches, left, strict=True) if ids
            )
            ends = yield Waiting(parts)
            for (scope, _, _, _), ids in zip(branches, left, strict=True):
                own = [id for id in ids if id in ends]
                for number, id in enumerate(own, 1):
                    ids.remove(id)
                    args = LAST if number == len(own) else None
                    self._seen[id] = self._note(DONE, id, scope, args=args, ref=id)
            found |= ends
            for _, of, _, raises in branches:
                for id in ends:
                    if self._is_of(of, id):
                        self._told(ends[id], raises)
        return found

    def _known(self, ids: Sequence[str]) -> Asking:
        """The results of runs that are recorded to have ended."""
        found: dict[str, dict[str, Any]] = {}
        for id in ids:
            entry = self._seen[id]
            if entry.value is not None:
                found[id] = json.loads(entry.value)
        if rest := [id for id in ids if id not in found]:
            found |= yield Waiting((Parked(tuple(dict.fromkeys(rest))),))
        return found

    def _first(self, first: First) -> Asking:
        ids = tuple(dict.fromkeys(one["id"] for one in self._children[first.of] if "id" in one))
        due_at = None
        if first.within is not None:
            name = f"{first.name}.within"
            limit = self._ask(SLEEP, name) or (yield from self._record(SLEEP, name, first.within))
            due_at = int(limit.value)
        entry = self._ask(FIRST, first.name)
        if entry is None:
            if not ids and due_at is None:
                return None
            ends = yield Waiting((Parked(ids, due_at=due_at),))
            winner = next((id for id in ids if id in ends), None)
            entry = self._note(FIRST, first.name, ref=winner)
        if entry.ref is None:
            return "nobody"
        ends = yield Waiting((Parked((entry.ref,)),))
        return self._told(ends[entry.ref], raises=False)

    def _summaries(self, of: str, ends: Ends) -> list[Any]:
        return [
            self._told(ends[one["id"]], False) if "id" in one else ["refused"] for one in self._children[of]
        ]

    def _is_of(self, of: str, id: str) -> bool:
        return any(one.get("id") == id for one in self._children[of])

    def _told(self, told: dict[str, Any], raises: bool) -> list[Any]:
        id = told["id"]
        if raises and not told["ok"]:
            seen = self._seen.get(id)
            raise Failed("ChildFailed", id, [] if seen is None else [seen.seq])
        return summary(id, told["status"], told.get("output"))
