"""Failures that were seen in systems of this kind (invariants.md, part 7), planted into the engine.

Those of journals, waits and tokens are in replanted_durable.py.

Each is a patch of one function or of one statement's text. The simulator must catch every one of
them: a checker that can not fail proves nothing.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from importlib import import_module
from typing import Any
from unittest.mock import patch

from holdfast.engine import claim, finish, operate, upkeep
from holdfast.errors import InvalidRequest
from holdfast.model import queue, run
from holdfast.model.run import Run
from holdfast.model.status import RunStatus
from holdfast.stores.base import Tx
from simulator.planting import Replanted, statement, together

trigger: Any = import_module("holdfast.engine.trigger")  # the package has a function of this name


def requeued_run_expires() -> AbstractContextManager[Any]:
    sound = run.given_back

    def given_back(one: Run, now: int, alone: bool) -> Run:
        back = sound(one, now, alone)
        return (
            replace(back, due_at=now + back.ttl_ms)
            if back.ttl_ms and back.status is RunStatus.QUEUED
            else back
        )

    def due(one: Run, now: int, registered: bool) -> Run:
        return run.expired(one, now) if one.status is RunStatus.QUEUED else sound_due(one, now, registered)

    sound_due = upkeep._due
    return together(patch.object(run, "given_back", given_back), patch.object(upkeep, "_due", due))


def slot_is_kept() -> AbstractContextManager[Any]:
    sound = run.given_back

    def given_back(one: Run, now: int, alone: bool) -> Run:
        return replace(sound(one, now, alone), worker_id=one.worker_id)

    return patch.object(run, "given_back", given_back)


def retry_is_early() -> AbstractContextManager[Any]:
    sound = run.given_back
    return patch.object(
        run, "given_back", lambda one, now, alone: sound(replace(one, due_at=None), now, alone)
    )


def anybody_takes_plain_runs() -> AbstractContextManager[Any]:
    return patch.object(claim._Taker, "is_aside", property(lambda taker: False))


def retired_task_is_there() -> AbstractContextManager[Any]:
    return statement("task_specs", "select id, spec, retired", "select id, spec, 0 as retired")


def upkeep_spins() -> AbstractContextManager[Any]:
    sound = upkeep._next_due
    return patch.object(upkeep, "_next_due", lambda tx, _: sound(tx, True))


def wildcard_key() -> AbstractContextManager[Any]:
    sound = queue.Room.take

    def take(room: queue.Room, name: str, key: str) -> bool:
        return True if key == "*" else sound(room, name, key)

    return patch.object(queue.Room, "take", take)


def key_limit_is_ignored() -> AbstractContextManager[Any]:
    sound = queue.Room.free
    return patch.object(queue.Room, "free", lambda room, name, _: sound(room, name, ""))


def dead_worker_is_renewed() -> AbstractContextManager[Any]:
    return statement("lost_workers", "lease_until < :before", "lease_until < :before - 3600000")


def one_bad_item() -> AbstractContextManager[Any]:
    sound = trigger._make
    broken: list[Any] = []

    def make(tx: Tx, item: Any, known: Any, made: Any, keys: Any) -> Any:
        if any(known is one for one in broken):
            raise InvalidRequest("an item before this one was bad", "items")
        try:
            return sound(tx, item, known, made, keys)
        except Exception:
            broken.append(known)
            raise

    return patch.object(trigger, "_make", make)


def cursor_by_time() -> AbstractContextManager[Any]:
    sound = Tx.select_runs

    def select_runs(tx: Tx, text: str, parameters: Any) -> Any:
        for sign, name in (("<", "after_id"), (">", "before_id")):
            time = f"runs.created_at {sign} (select created_at from runs where id = :{name})"
            text = text.replace(f"runs.id {sign} :{name}", time)
        return sound(tx, text.replace("order by runs.id", "order by runs.created_at"), parameters)

    return patch.object(Tx, "select_runs", select_runs)


def dead_run_in_a_batch() -> AbstractContextManager[Any]:
    sound = trigger._load

    def load(tx: Tx, items: Any) -> Any:
        known = sound(tx, items)
        if len(items) > 1:
            known.keys = {key: (held[0], held[1], "QUEUED") for key, held in known.keys.items()}
        return known

    return patch.object(trigger, "_load", load)


def any_tenant() -> AbstractContextManager[Any]:
    sound = operate._load

    def load(tx: Tx, items: Any, *statement: str) -> dict[str, Run]:
        environments = {item.run_id: item.environment_id for item in items}
        found = sound(tx, items, *statement)
        return {key: replace(one, environment_id=environments[key]) for key, one in found.items()}

    return patch.object(operate, "_load", load)


def request_is_forgotten() -> AbstractContextManager[Any]:
    return together(
        patch.object(trigger, "_earlier", lambda *_: None),
        patch.object(trigger, "_remember", lambda *_: None),
    )


def losses_count() -> AbstractContextManager[Any]:
    sound = claim.after_lost_worker

    def after_lost_worker(one: Run, now: int) -> Any:
        after, attempt = sound(one, now)
        return replace(after, attempt=one.attempt), attempt

    return patch.object(claim, "after_lost_worker", after_lost_worker)


def held_run_is_taken() -> AbstractContextManager[Any]:
    sound = claim.give_back_unknown

    def give_back_unknown(tx: Tx, items: list[Any]) -> list[None]:
        return sound(tx, [(worker_id, held[1:]) for worker_id, held in items])

    return patch.object(claim, "give_back_unknown", give_back_unknown)


def given_back_under_its_lease() -> AbstractContextManager[Any]:
    sound = claim.after_release

    def after_release(one: Run, now: int, started: bool) -> Any:
        after, attempt = sound(one, now, started)
        return (after if started else replace(after, lease=one.lease)), attempt

    return patch.object(claim, "after_release", after_release)


def unknown_run_stays() -> AbstractContextManager[Any]:
    def give_back_unknown(_: Tx, items: list[Any]) -> list[None]:
        return [None] * len(items)

    return patch.object(claim, "give_back_unknown", give_back_unknown)


FINISH_GUARD = "runs.lease = c.v ->> 1 and runs.status = 'EXECUTING' and runs.worker_id = :worker_id"

SPINE = (
    Replanted("K6", "a run that was given back is ended by its ttl", requeued_run_expires),
    Replanted("K7", "a run that was given back keeps its slot", slot_is_kept),
    Replanted("K9", "a concurrency key that means something to the engine escapes the limits", wildcard_key),
    Replanted(
        "K10", "an empty key is accepted", lambda: patch.object(trigger, "_idempotency_key", lambda key: key)
    ),
    Replanted(
        "K11",
        "a lost worker's runs stay under its name",
        lambda: patch.object(claim, "_give_back", lambda *_, **__: None),
    ),
    Replanted(
        "K12",
        "who lost a run finishes it all the same",
        lambda: statement("finish_runs", FINISH_GUARD, "runs.status = 'EXECUTING'"),
    ),
    Replanted(
        "K13",
        "a worker that left can go on claiming",
        lambda: statement("remove_worker", "delete from workers where id = :id returning id", "select :id"),
    ),
    Replanted("K14", "one bad item fails its neighbours", one_bad_item),
    Replanted(
        "K16",
        "the answer to a retry was lost, and the run waits for ever",
        lambda: patch.object(finish, "_again", lambda *_: finish.FENCED),
    ),
    Replanted(
        "K21",
        "a delayed run starts early",
        lambda: statement("due_runs", "due_at <= :now", "due_at <= :now + 900"),
    ),
    Replanted(
        "K23",
        "rescue is measured from the start and runs long jobs again",
        lambda: statement(
            "renew_worker", "lease_until = :lease_until", "lease_until = lease_until + 0 * :lease_until"
        ),
    ),
    Replanted("K23", "rescue comes an hour late", dead_worker_is_renewed),
    Replanted("K26", "the cursor compares times, and equal ones are skipped", cursor_by_time),
    Replanted("K28", "a batch is answered with a dead run for a key that is free", dead_run_in_a_batch),
    Replanted("K31", "another environment's run is cancelled", any_tenant),
    Replanted("K44", "a repeated request triggers twice", request_is_forgotten),
    Replanted(
        "I2",
        "a late completion overwrites a cancel",
        lambda: statement("finish_runs", FINISH_GUARD, "runs.worker_id = :worker_id"),
    ),
    Replanted("I5", "the limit for each key is ignored", key_limit_is_ignored),
    Replanted(
        "I9",
        "a cancel stops at descendants that have ended",
        lambda: statement(
            "active_family",
            "from tree join runs on runs.parent_id = tree.id",
            "from tree join runs on runs.parent_id = tree.id where runs.finished_at is null",
        ),
    ),
    Replanted("I3", "a worker that says what it holds loses some of it", held_run_is_taken),
    Replanted("I3", "what nobody knew of is given back under its old lease", given_back_under_its_lease),
    Replanted(
        "I11",
        "what a lost answer gave stays with a worker that never heard of it",
        unknown_run_stays,
    ),
    Replanted("I12", "a lost attempt is counted", losses_count),
    Replanted("I12", "a retry is early because its worker left", retry_is_early),
    Replanted("I21", "upkeep spins while a silent worker may not be declared lost", upkeep_spins),
    Replanted("R133", "a worker of a version that is not current takes plain runs", anybody_takes_plain_runs),
    Replanted(
        "R11",
        "what a version has begun is taken by the current one",
        lambda: statement("ready_runs", ":stay = 0", ":stay >= 0"),
    ),
    Replanted("R3", "a task that the current version lacks does not park its runs", retired_task_is_there),
)
