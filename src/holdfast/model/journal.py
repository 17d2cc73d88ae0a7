"""A run's journal, and replaying it: what the code did already is answered, not done again. Without I/O.

An attempt always executes its code from the top. Whatever the code asks for (a step, a wait, a child)
is looked up here first. Code runs in *scopes*, its branches: the attempt itself is "", an asyncio task
that it starts is "fetch.0", one of that again "fetch.0/parse.0" (worker/scope.py). Within a scope calls come one after another, so a
call is known by its scope and its place there; across scopes nothing depends on who was faster.

    pinned   recorded, and asked for again at the same place of its scope, or the code has changed
    loose    recorded after a failure that was forgotten since: taken by name when it is asked for,
             and passed over when the code, which does not fail there any more, goes another way
    forgotten  a failure that ended an attempt: the next attempt tries it anew; a child that failed is
               triggered anew, under the scope "~" and the place of its first trigger

Results are handed to the code in the order in which they were recorded, whichever branch asks first:
so `asyncio.wait` sees the same branch win as it did the first time.
"""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.errors import ReplayMismatch

STEP, SLEEP, TRIGGER, TOKEN, DONE, FIRST, FORGET = (
    "step",
    "sleep",
    "trigger",
    "token",
    "done",
    "first",
    "forget",
)
SHOWN = {
    STEP: "the step {name}",
    SLEEP: "a sleep",
    TRIGGER: "a trigger of {name}",
    TOKEN: "a new token",
    DONE: "the result of {name}",
    FIRST: "the first of several results",
}


@dataclass(slots=True)
class Entry:
    """One thing that the code asked for.

    args   a digest of the arguments; None when they can not be told
    ok     whether it succeeded; None when the code cancelled it
    value  JSON text: a result, an error, a due time, what a trigger was answered
    ref    the run or token that it is about
    """

    seq: int
    scope: str
    kind: str
    name: str
    args: str | None = None
    ok: bool | None = True
    value: str | None = None
    ref: str | None = None
    loose: bool = False

    @classmethod
    def of(cls, seq: int, told: Mapping[str, Any]) -> Entry:
        """From its shape on the wire."""
        return cls(
            seq,
            told["scope"],
            told["kind"],
            told["name"],
            told["args"],
            told["ok"],
            told["value"],
            told["ref"],
        )

    def on_wire(self) -> dict[str, Any]:
        return {
            "scope": self.scope,
            "kind": self.kind,
            "name": self.name,
            "args": self.args,
            "ok": self.ok,
            "value": self.value,
            "ref": self.ref,
        }


class Journal:
    """What a run has recorded. `entries` are those of earlier attempts and processes, from seq 0 on."""

    def __init__(self, entries: Sequence[Entry] = ()) -> None:
        self.count = len(entries)
        self.latest: dict[str, int] = {}  # the last entry that each scope asked for or made
        self._pinned: dict[str, deque[Entry]] = defaultdict(deque)
        self._loose: dict[tuple[str, str, str], deque[Entry]] = defaultdict(deque)
        self._order: list[int] = []  # of pinned entries, as they are to be handed out
        self._next = 0  # the place in `_order` up to which all are handed out
        self._handed: set[int] = set()
        # Runs whose failure was forgotten, and triggers whose refusals were: by which entries.
        self._given_up: dict[str | int, list[int]] = defaultdict(list)
        forgotten, loose = _after_forgetting(entries)
        for entry in entries:
            for seq in forgotten.get(entry.seq, ()):
                self._given_up[entry.seq if entry.ref is None else entry.ref].append(seq)
            was_made = entry.kind == TRIGGER and entry.ok is not None  # it stays, whatever became of the runs
            if entry.kind == FORGET or (entry.seq in forgotten and not was_made):
                continue
            if entry.seq in loose:
                if entry.ok is None:
                    continue  # who cancelled it may not do so again
                entry.loose = True
                self._loose[entry.scope, entry.kind, entry.name].append(entry)
            else:
                self._pinned[entry.scope].append(entry)
                self._order.append(entry.seq)

    @property
    def is_replaying(self) -> bool:
        """Whether something recorded was not handed out yet: the code is where it has been before."""
        return self._next < len(self._order)

    def ask(
        self, scope: str, kind: str, name: str, args: str | None = None, *, among: Collection[str] = ()
    ) -> Entry | None:
        """The entry that this call made before, or None: then it is new.

        among   further names, of which any will do: the result of whichever run ended next

        Raises ReplayMismatch, which changes nothing, if this place of the scope holds something else.
        """
        pinned = self._pinned.get(scope)
        found = pinned[0] if pinned and _is_same(pinned[0], kind, name, args, among) else None
        # Of several that fit, the oldest: what is younger was recorded when that one had been taken.
        for wanted in among or (name,):
            for entry in self._loose.get((scope, kind, wanted), ()):
                if _is_same(entry, kind, wanted, args, ()) and (found is None or entry.seq < found.seq):
                    found = entry
                    break
        if found is not None:
            if found.loose:
                self._loose[scope, kind, found.name].remove(found)
            elif pinned:
                pinned.popleft()
            self.latest[scope] = found.seq
            return found
        if pinned:
            raise mismatch(pinned[0], scope, kind, name, args)
        return None

    def add(
        self,
        scope: str,
        kind: str,
        name: str,
        args: str | None = None,
        ok: bool | None = True,
        value: str | None = None,
        ref: str | None = None,
    ) -> Entry:
        """A new entry at the end, to be handed out after all before it."""
        entry = Entry(self.count, scope, kind, name, args, ok, value, ref)
        self.count += 1
        self.latest[scope] = entry.seq
        self._order.append(entry.seq)
        return entry

    def take_back(self, entry: Entry) -> bool:
        """Undo `add`, for an entry that was refused; False when others came after it."""
        if entry.seq != self.count - 1:
            return False
        self.count -= 1
        self._order.remove(entry.seq)
        return True

    def is_to_be_tried(self, trigger: Entry, answer: Mapping[str, Any], by: Entry | None = None) -> bool:
        """Whether a child, by what `trigger` was answered for it, failed an attempt and is triggered anew.

        by  a recorded trigger that followed: it tried what had been forgotten by then, and nothing else
        """
        until = self.count if by is None else by.seq
        given_up = self._given_up.get(answer.get("id", trigger.seq), ())
        return any(trigger.seq < seq < until for seq in given_up)

    def is_next(self, entry: Entry) -> bool:
        """Whether everything recorded before `entry` was handed out. A loose one waits for nobody."""
        return entry.loose or self._next >= len(self._order) or self._order[self._next] >= entry.seq

    def hand_out(self, entry: Entry) -> None:
        self._handed.add(entry.seq)
        while self._next < len(self._order) and self._order[self._next] in self._handed:
            self._handed.discard(self._order[self._next])
            self._next += 1

    def check_end(self) -> None:
        """The code has returned. Raises ReplayMismatch if it once did more before it did."""
        if left := self._pinned.get(""):
            raise mismatch(left[0], "", "end", "", None)


def mismatch(recorded: Entry, scope: str, kind: str, name: str, args: str | None) -> ReplayMismatch:
    """The error that shows both sides, in words and as data."""
    had = {"scope": recorded.scope, "kind": recorded.kind, "name": recorded.name, "args": recorded.args}
    asked = {"scope": scope, "kind": kind, "name": name, "args": args}
    now = "it returns" if kind == "end" else f"it asks for {_told(kind, name)}"
    how = ""
    if (recorded.kind, recorded.name) == (kind, name):
        how = " with other arguments"
    where = f" in branch {scope} (asyncio task)" if scope else ""
    text = (
        f"the code does something else than it did before: at entry {recorded.seq}{where} "
        f"{_told(recorded.kind, recorded.name)} is recorded, and now {now}{how}. Nothing was done. "
        "The run goes on as soon as a version of the code runs that agrees with what is recorded"
    )
    return ReplayMismatch({**had, "seq": recorded.seq}, asked, text)


def _told(kind: str, name: str) -> str:
    return SHOWN.get(kind, kind).format(name=name)


def _is_same(entry: Entry, kind: str, name: str, args: str | None, among: Collection[str]) -> bool:
    if entry.kind != kind or (entry.name not in among if among else entry.name != name):
        return False
    return entry.args is None or args is None or entry.args == args


def _after_forgetting(entries: Sequence[Entry]) -> tuple[dict[int, list[int]], set[int]]:
    """The forgotten entries, with those that forget them, and what was recorded in between: it is loose."""
    forgotten: dict[int, list[int]] = defaultdict(list)
    loose: set[int] = set()
    for entry in entries:
        if entry.kind == FORGET and (gone := json.loads(entry.value or "[]")):
            # A run that failed has a successor: what was recorded of its end elsewhere is about nobody now.
            runs = {entries[seq].ref for seq in gone if entries[seq].ref is not None}
            about = (one for one in entries[: entry.seq] if one.ref in runs and one.kind in (DONE, FIRST))
            gone = {*gone, *(one.seq for one in about)}
            for seq in gone:
                forgotten[seq].append(entry.seq)
            loose.update(range(min(gone) + 1, entry.seq))
    return forgotten, loose - set(forgotten)
