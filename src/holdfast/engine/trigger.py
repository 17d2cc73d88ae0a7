"""Create runs: defaults of the task, delays, ttl, tags, idempotency keys, parents."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from holdfast.engine import once, packet
from holdfast.engine.once import OneTime
from holdfast.engine.payload import UNSEEN, check_payload, key_at, value_of
from holdfast.engine.pin import Pin, Places, load_places
from holdfast.errors import Fenced, HoldfastError, InvalidRequest, Unprocessable
from holdfast.model import limits
from holdfast.model.duration import duration_ms, lifetime_ms, moment_ms
from holdfast.model.metadata import check_size
from holdfast.model.packet import STORE, packet_key
from holdfast.model.retry import RetryPolicy
from holdfast.model.run import Run
from holdfast.model.schedule import ScheduleSpec
from holdfast.model.status import FREES_KEY, RunStatus
from holdfast.model.task import TaskSpec, default_queue
from holdfast.stores.base import Tx, batch

KEY_LIFETIME_MS = 30 * 86_400_000
DEPLOY_MS = 3_600_000  # so long a run waits for a deployment that nobody knows
S = RunStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """What a trigger asks for. Durations and dates are as the caller wrote them; None means not said."""

    environment_id: str
    task: str
    payload: str | None = None  # text of the type, the name of an object for application/store
    payload_type: str | None = None  # None is application/json
    content: Any = UNSEEN  # the value in a stored payload
    queue: str | None = None
    concurrency_key: str | None = None
    delay: Any = None
    ttl: Any = None  # text, or seconds; zero and below mean none
    idempotency_key: str | None = None
    idempotency_key_ttl: str | None = None
    idempotency_key_shown: str | None = None  # what the user wrote, where the key is a hash of it
    machine: str | None = None
    max_attempts: int | None = None
    max_duration: float | None = None
    metadata: str | None = None  # JSON text of an object
    tags: Sequence[str] = ()
    is_test: bool = False
    priority: float = 0
    parent_id: str | None = None
    parent_lease: int | None = None  # given when a live attempt asks; a stale one is fenced
    version_lock: str | None = None
    external_deployment: str | None = None  # what other systems call the one that is to run it
    batch_id: str | None = None
    replay_of: str | None = None
    request_key: str | None = None
    once: OneTime | None = None  # the public token that asks, where it may be used a single time


@dataclass(frozen=True, slots=True)
class Triggered:
    """The run that a trigger made or, with `is_cached`, found by its idempotency key."""

    id: str
    is_cached: bool = False


@dataclass(slots=True)
class _Known:
    """What the items of one call refer to, loaded at once."""

    specs: dict[tuple[str, str], TaskSpec] = field(default_factory=dict)
    parents: dict[str, Run] = field(default_factory=dict)
    keys: dict[tuple[str, str, str], tuple[str, int, str]] = field(default_factory=dict)
    retired: set[tuple[str, str]] = field(default_factory=set)
    places: Places = field(default_factory=Places)
    requests: dict[tuple[str, str], str] = field(default_factory=dict)
    packets: set[str] = field(default_factory=set)


def trigger(tx: Tx, items: list[NewRun]) -> list[Triggered | HoldfastError]:
    """Makes a run for each item, or finds the one that holds its idempotency key.

    A refused item is an error in its place and changes nothing for the others: Unprocessable,
    InvalidRequest or PayloadTooLarge naming the field, Fenced for an attempt that lost its lease.
    An item with a `request_key` that was answered before gets that answer again.
    """
    known = _load(tx, items)
    made: list[Run] = []
    keys: list[list[Any]] = []
    answers: list[Triggered | HoldfastError] = []
    for item in items:
        answer: Triggered | HoldfastError
        try:
            answer = _earlier(tx, item, known) or _make(tx, item, known, made, keys)
        except HoldfastError as error:
            answer = error
        else:
            if item.request_key is not None:
                _remember(tx, item, answer, known)
        answers.append(answer)
    tx.add_runs(made)
    if known.packets:
        packet.use(tx, [(_packet_of(run), run.id) for run in made if run.payload_type == STORE])
    if tags := [[run.environment_id, tag, run.id] for run in made for tag in json.loads(run.tags)]:
        tx.do("add_tags", tags=batch(tags))
    if keys:
        tx.do("save_keys", keys=batch(keys))
    for run in made:
        if run.due_at is not None:
            tx.wake("upkeep")
        if run.status is S.QUEUED:
            tx.wake(f"ready:{run.environment_id}")
            if run.priority > 0:
                tx.wake(f"front:{run.environment_id}")
    return answers


def _make(tx: Tx, item: NewRun, known: _Known, made: list[Run], keys: list[list[Any]]) -> Triggered:
    key = (item.environment_id, item.task, item.idempotency_key or "")
    held = known.keys.get(key) if item.idempotency_key is not None else None
    if held is not None and held[1] > tx.now and held[2] not in FREES_KEY:
        return Triggered(held[0], is_cached=True)
    if item.payload_type == STORE and _packet_of(item) not in known.packets:
        raise Unprocessable(
            f"payload is {item.payload!r}: no such packet, upload it first (PUT /api/v2/packets/…)", "payload"
        )
    pin = known.places.pin(item)
    spec = known.specs.get(key[:2])
    if pin.version is None and key[:2] in known.retired:
        spec = None  # the current deployment does not have it
    run = new_run(tx, item, spec, known.parents, pin)
    if item.once is not None:
        once.use(tx, item.once, run.id)
    made.append(run)
    if item.idempotency_key is not None:
        lifetime = KEY_LIFETIME_MS
        if item.idempotency_key_ttl is not None:
            lifetime = lifetime_ms(item.idempotency_key_ttl, "options.idempotencyKeyTTL")
        keys.append([*key, run.id, tx.now + lifetime])
        known.keys[key] = (run.id, tx.now + lifetime, run.status)
    return Triggered(run.id)


def new_run(
    tx: Tx, item: NewRun, spec: TaskSpec | None, parents: dict[str, Run], pin: Pin | None = None
) -> Run:
    """The row of a new run, checked. `spec` is None while no worker has registered the task."""
    pin = pin or Pin(item.version_lock)
    now = tx.now
    task = _name(item.task, "task", limits.MAX_TASK_ID)
    value = UNSEEN
    if spec is not None and (spec.payload_schema is not None or spec.key is not None):
        value = value_of(item.payload, item.payload_type, item.content)
    check_payload(item.payload, value, spec)
    delayed_until = None if item.delay is None else moment_ms(item.delay, now, "options.delay")
    if delayed_until is not None and delayed_until <= now:
        delayed_until = None
    ttl_ms = spec.ttl_ms if item.ttl is None and spec else None
    if item.ttl is not None:
        ttl_ms = max(0, duration_ms(item.ttl, "options.ttl")) or None
    if pin.is_awaited:
        # Until the deployment is there nothing else counts (transition T3).
        patience = DEPLOY_MS if ttl_ms is None else min(ttl_ms, DEPLOY_MS)
        status, due_at = S.WAITING_FOR_DEPLOY, (delayed_until or now) + patience
    elif delayed_until is not None:
        status, due_at = S.DELAYED, delayed_until
    elif spec is None or (pin.no_queue and item.queue != spec.queue):
        status, due_at = S.WAITING_FOR_DEPLOY, None
    else:
        status, due_at = S.QUEUED, None if ttl_ms is None else now + ttl_ms
    parent = _parent(item, parents)
    queue = item.queue or (spec.queue if spec else default_queue(task))
    concurrency_key = item.concurrency_key
    if concurrency_key is None:
        concurrency_key = key_at(value, spec.key) if spec and spec.key is not None else ""
    priority = round(item.priority)
    run_id = tx.new_id("run")
    return Run(
        id=run_id,
        environment_id=item.environment_id,
        status=status,
        lease=1,
        task=task,
        version=None,
        version_lock=pin.version,
        queue=_queue_name(queue),
        concurrency_key=_text(concurrency_key, "options.concurrencyKey", limits.MAX_CONCURRENCY_KEY),
        priority=priority,
        score=now - priority * 1_000,
        attempt=0,
        starts=0,
        losses=0,
        alone=False,
        max_attempts=item.max_attempts,
        max_duration=_max_duration(item.max_duration, spec),
        machine=item.machine or (spec.machine if spec else None),
        worker_id=None,
        is_test=item.is_test,
        ttl_ms=ttl_ms,
        due_at=due_at,
        delayed_until=delayed_until,
        created_at=now,
        updated_at=now,
        started_at=None,
        finished_at=None,
        attempt_started_at=None,
        idempotency_key=_idempotency_key(item.idempotency_key),
        parent_id=parent.id if parent else None,
        root_id=(parent.root_id or parent.id) if parent else None,
        depth=parent.depth + 1 if parent else 0,
        batch_id=item.batch_id,
        replay_of=item.replay_of,
        tags=json.dumps(clean_tags(item.tags), ensure_ascii=False) if item.tags else "[]",
        metadata="{}" if item.metadata is None else check_size(item.metadata),
        error=None,
        payload=item.payload,
        output=None,
        payload_type=item.payload_type,
        idempotency_key_shown=item.idempotency_key_shown,
        ttl_shown=item.ttl if isinstance(item.ttl, str) and ttl_ms is not None else None,
        external_deployment=pin.external,
    )


def with_defaults(run: Run, spec: TaskSpec) -> Run:
    """`run` with its task's queue and key, which nobody knew when it was triggered and named none itself."""
    if run.queue != default_queue(run.task) or run.concurrency_key:
        return run
    key = key_at(value_of(run.payload, run.payload_type), spec.key) if spec.key is not None else ""
    return replace(run, queue=spec.queue, concurrency_key=key[: limits.MAX_CONCURRENCY_KEY])


def clean_tags(tags: Sequence[str], param: str = "options.tags") -> list[str]:
    """Tags without blank ones and repeats (engine rule R99). Raises Unprocessable past ten, InvalidRequest for one too long."""
    seen: dict[str, None] = {}
    for tag in tags:
        if not isinstance(tag, str):
            raise InvalidRequest(f"{param} holds {tag!r}: tags are texts", param)
        if len(tag) > limits.MAX_TAG:
            raise InvalidRequest(
                f"{param} holds a tag of {len(tag)} characters ({tag[:20]!r}…): at most {limits.MAX_TAG}",
                param,
            )
        if tag.strip():
            seen[tag] = None
    if len(seen) > limits.MAX_TAGS:
        raise Unprocessable(f"{param} has {len(seen)} tags: at most {limits.MAX_TAGS}", param)
    return list(seen)


def load_specs(tx: Tx, environment_id: str, tasks: set[str]) -> dict[str, TaskSpec]:
    """What workers registered about these tasks."""
    rows = tx.all("task_specs", environment_id=environment_id, ids=batch(sorted(tasks)))
    return {row["id"]: read_spec(row["spec"]) for row in rows}


@lru_cache(maxsize=4_096)
def read_spec(text: str) -> TaskSpec:
    """A task's registration from its JSON."""
    value = json.loads(text)
    value["retry"] = RetryPolicy(**value["retry"])
    if (schedule := value.get("schedule")) is not None:
        value["schedule"] = ScheduleSpec(**schedule)
    return TaskSpec(**value)


def _load(tx: Tx, items: list[NewRun]) -> _Known:
    known = _Known()
    tasks: dict[str, set[str]] = {}
    for item in items:
        tasks.setdefault(item.environment_id, set()).add(item.task)
    keys = sorted(
        {(i.environment_id, i.task, i.idempotency_key) for i in items if i.idempotency_key is not None}
    )
    # All locks in one statement, which takes them in order: two transactions never wait for each other.
    if locks := [*keys, *(once.lock_of(item.once) for item in items if item.once is not None)]:
        tx.do("lock_keys", keys=batch(locks))
    if keys:
        for row in tx.all("keys", keys=batch(keys)):
            held = (row["run_id"], row["expires_at"], row["status"])
            known.keys[row["environment_id"], row["task"], row["key"]] = held
    for environment_id, names in tasks.items():
        for row in tx.all("task_specs", environment_id=environment_id, ids=batch(sorted(names))):
            known.specs[environment_id, row["id"]] = read_spec(row["spec"])
            if row["retired"]:
                known.retired.add((environment_id, row["id"]))
    if parents := sorted({item.parent_id for item in items if item.parent_id is not None}):
        # Locked, so that a cancel either comes first and fences the child, or sees it.
        known.parents = {run.id: run for run in tx.runs("runs_for_update", ids=batch(parents))}
    if stored := [_packet_of(item) for item in items if item.payload_type == STORE]:
        known.packets = packet.usable(tx, stored)
    known.places = load_places(tx, items)
    return known


def _earlier(tx: Tx, item: NewRun, known: _Known) -> Triggered | None:
    """The answer that the same request got before."""
    if item.request_key is None:
        return None
    place = (item.environment_id, item.request_key)
    if place not in known.requests:
        row = tx.one("request", environment_id=item.environment_id, key=item.request_key)
        if row is None:
            return None
        known.requests[place] = row["answer"]
    answer = json.loads(known.requests[place])
    return Triggered(answer["id"], answer["is_cached"])


def _remember(tx: Tx, item: NewRun, answer: Triggered, known: _Known) -> None:
    place = (item.environment_id, item.request_key or "")
    if place in known.requests:
        return
    text = json.dumps({"id": answer.id, "is_cached": answer.is_cached})
    tx.do("add_request", environment_id=place[0], key=place[1], answer=text, now=tx.now)
    known.requests[place] = text


def _parent(item: NewRun, parents: dict[str, Run]) -> Run | None:
    if item.parent_id is None:
        return None
    parent = parents.get(item.parent_id)
    if parent is None or parent.environment_id != item.environment_id:
        raise Unprocessable(f"options.parentRunId is {item.parent_id!r}: no such run", "options.parentRunId")
    if item.parent_lease is not None and (parent.lease != item.parent_lease or not parent.holds_slot):
        raise Fenced(parent.id)
    return parent


def _packet_of(of: NewRun | Run) -> str:
    return packet_key(of.environment_id, of.payload or "")


def _max_duration(asked: float | None, spec: TaskSpec | None) -> int | None:
    seconds = asked if asked is not None else spec.max_duration if spec else None
    if seconds is None or seconds >= limits.NO_MAX_DURATION:
        return None
    return max(limits.MIN_MAX_DURATION, round(seconds))


def _idempotency_key(key: str | None) -> str | None:
    if key is None:
        return None
    if not key:
        raise InvalidRequest(
            "options.idempotencyKey is empty: leave it out, or give it a value", "options.idempotencyKey"
        )
    return _text(key, "options.idempotencyKey", limits.MAX_IDEMPOTENCY_KEY)


def _queue_name(name: str) -> str:
    return _name(name, "options.queue.name", limits.MAX_QUEUE_NAME + len("task/"))


def _name(value: str, param: str, longest: int) -> str:
    if not value or not value.strip():
        raise InvalidRequest(f"{param} is empty", param)
    return _text(value, param, longest)


def _text(value: str, param: str, longest: int) -> str:
    if len(value) > longest:
        raise InvalidRequest(f"{param} has {len(value)} characters: at most {longest}", param)
    if "\x00" in value:
        raise InvalidRequest(f"{param} holds a NUL character", param)
    return value
