"""What must be true of tokens: completed once, never timed out early, one for a key, and made by who says so."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from holdfast.engine.token import Created, NewToken
from holdfast.errors import HoldfastError, Unprocessable, WaitpointNotFound
from holdfast.model.duration import lifetime_ms
from simulator.snapshot import Snapshot, Token
from simulator.violation import require

UNREADABLE = "soon"


@dataclass(slots=True)
class Tokens:
    """The model beside the store: who holds which key, and until when."""

    keys: dict[tuple[str, str], tuple[str, int | None]] = field(default_factory=dict)

    def check(
        self,
        name: str,
        now: int,
        items: Sequence[Any],
        results: Sequence[Any],
        before: Snapshot,
        after: Snapshot,
    ) -> None:
        """Raises Violation where the call did to tokens what it may not."""
        made: set[str] = set()
        if name == "report":
            made = self._reported(now, items, results, before, after)
        elif name == "create_tokens":
            for item, result in zip(items, results, strict=True):
                bad = item.timeout == UNREADABLE
                require(isinstance(result, HoldfastError) == bad, "I15", f"{item} gave {result}")
                if isinstance(result, Created):
                    self._created(now, item, result, made, before)
        elif name == "complete":
            _completions(items, results, before, after)
        if after.tokens == before.tokens:
            return
        given = [(one.id, one.output) for one in items] if name == "complete" else []
        for id, token in after.tokens.items():
            old = before.tokens.get(id)
            if old is None:
                require(id in made and token.status == "WAITING", "I15", f"{id} appeared by {name}: {token}")
            elif token != old:
                _changed(name, now, old, token, given)
        for id, old in before.tokens.items():
            if id not in after.tokens:
                creator = after.runs.get(old.run_id or "")
                over = old.status != "WAITING" and (creator is None or creator.finished_at is not None)
                require(name == "retain" and over, "I1", f"{id} {old.status} vanished by {name}")

    def _reported(
        self, now: int, items: Sequence[Any], results: Sequence[Any], before: Snapshot, after: Snapshot
    ) -> set[str]:
        made: set[str] = set()
        found: dict[tuple[str, int], tuple[NewToken, Created]] = {}
        for item, answer in zip(items, results, strict=True):
            said = item.report
            if said["kind"] == "token" and answer.status == "ok":
                told = json.loads(answer.value)
                place = (said["run"], said["first"])
                if said["first"] >= before.runs[said["run"]].entries:
                    found[place] = said["new"], Created(told["id"], told["isCached"])
        for new, created in sorted(found.values(), key=lambda pair: pair[1].is_cached):
            self._created(now, new, created, made, before)
            require(created.id in after.tokens, "I1", f"{created} was answered and does not exist")
        return made

    def _created(self, now: int, item: NewToken, made: Created, fresh: set[str], before: Snapshot) -> None:
        held = None
        if item.idempotency_key is not None:
            place = (item.environment_id, item.idempotency_key)
            held = self.keys.get(place)
            if held is not None:
                there = held[0] in before.tokens or held[0] in fresh
                held = held if there and (held[1] is None or held[1] > now) else None
        if held is not None:
            require(made == Created(held[0], is_cached=True), "I6", f"key of {held[0]}: {made}")
            return
        require(not made.is_cached and made.id not in before.tokens, "I6", f"{item} gave {made}")
        require(made.id not in fresh, "I6", f"{made.id} was made for two")
        fresh.add(made.id)
        if item.idempotency_key is not None:
            ttl = item.idempotency_key_ttl
            self.keys[place] = (made.id, None if ttl is None else now + lifetime_ms(ttl, ""))


def check_timeouts(now: int, after: Snapshot) -> None:
    """After upkeep that says it is done (I13)."""
    for token in after.tokens.values():
        overdue = token.status == "WAITING" and token.timeout_at is not None and token.timeout_at <= now
        require(not overdue, "I13", f"{token} was due, now {now}")
    for run_id, rows in after.waits.items():
        for row in rows:
            require(row.due_at is None or row.due_at > now, "I13", f"{run_id} waits for {row}, now {now}")


def _changed(name: str, now: int, old: Token, token: Token, given: Sequence[tuple[str, str]]) -> None:
    where = f"{old} -> {token} by {name}"
    fixed = ("id", "environment_id", "timeout_at", "schema", "run_id")
    require(all(getattr(old, one) == getattr(token, one) for one in fixed), "I18", where)
    if token.idempotency_key != old.idempotency_key:
        until = old.idempotency_key_expires_at
        require(until is not None and until <= now, "I6", f"{where}: the key is not free")
    if old.status != "WAITING":
        same = (old.status, old.output, old.completed_at) == (token.status, token.output, token.completed_at)
        require(same, "I2", f"{where}: completed twice")
    elif token.status == "TIMED_OUT":
        due = token.timeout_at is not None and token.timeout_at <= now
        require(name == "upkeep" and due and token.output_is_error, "I13", f"{where}: too early, now {now}")
    elif token.status == "COMPLETED":
        require(name == "complete" and (token.id, token.output) in given, "I2", where)
        require(token.completed_at == now and _accepts(token, token.output or ""), "I18", where)


def _completions(items: Sequence[Any], results: Sequence[Any], before: Snapshot, after: Snapshot) -> None:
    done: set[str] = set()
    for item, result in zip(items, results, strict=True):
        token = before.tokens.get(item.id)
        what = f"completing {token} with {item.output}: {result}"
        if token is None or token.environment_id != item.environment_id:
            require(isinstance(result, WaitpointNotFound), "I25", what)
        elif token.status != "WAITING" or item.id in done:
            require(result is None, "I2", what)
        elif not _accepts(token, item.output):
            require(isinstance(result, Unprocessable), "I18", what)
        else:
            done.add(item.id)
            stored = after.tokens[item.id]
            kept = (stored.status, stored.output) == ("COMPLETED", item.output)
            require(result is None and kept, "I1", f"{what}, and it is {stored}")


def _accepts(token: Token, output: str) -> bool:
    return token.schema is None or isinstance(json.loads(output), int)
