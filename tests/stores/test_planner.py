"""The statements that run all day use their indexes, however long the history is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clock import Clock
from engine.world import World
from holdfast.engine.finish import Reported, report
from holdfast.engine.token import Created, NewToken, create_tokens
from holdfast.engine.trigger import NewRun, trigger
from holdfast.stores import Store, open_store
from holdfast.stores.base import Tx
from holdfast.stores.link import converted
from holdfast.stores.listing import OF_BATCH, Filters, keep_members, list_runs
from holdfast.stores.sql import statements

FINISHED, LIVE = 3_000, 60

# Statement, parameters, and the index that it must use in SQLite and in PostgreSQL.
HOT: list[tuple[str, dict[str, Any], str]] = [
    (
        "lanes",
        {"environment_id": "dev", "task": "", "queue": "", "concurrency_key": "", "limit": 200},
        "runs_ready",
    ),
    (
        "ready_runs",
        {
            "lanes": '[["send","task/send","",0]]',
            "environment_id": "dev",
            "version": "1",
            "limit": 10,
            "stay": 1,
        },
        "runs_ready",
    ),
    (
        "pinned_runs",
        {"lanes": '[["send","task/send","",0]]', "environment_id": "dev", "version": "1", "limit": 10},
        "runs_pinned",
    ),
    ("due_runs", {"now": 1_795_521_600_000, "limit": 500}, "runs_due"),
    ("next_due", {}, "runs_due"),
    ("due_packets", {"now": 1_795_521_600_000, "limit": 200}, "packets_due"),
    ("release_packets", {"runs": '["r"]', "now": 1}, "packet_runs_by_run"),
    ("forget_packet_runs", {"runs": '["r"]'}, "packet_runs_by_run"),
    ("parked_runs", {"limit": 200}, "runs_parked"),
    ("held", {"environment_id": "dev"}, "runs_held"),
    ("queued", {"environment_id": "dev", "names": '["task/send"]'}, "runs_ready"),
    ("queues", {"environment_id": "dev"}, "queues_limited"),
    ("runs_of_worker", {"worker_id": "w", "limit": 100}, "runs_held"),
    ("cancelled_of_workers", {"ids": '["w"]'}, "runs_held"),
    ("finish_runs", {"outcomes": '[["r",1,null]]', "worker_id": "w", "now": 1}, "runs_pkey"),
    (
        "start_runs",
        {"starts": '["r"]', "policies": "[]", "max_attempts": 3, "worker_id": "w", "version": "1", "now": 1},
        "runs_pkey",
    ),
    ("save_runs", {"changes": json.dumps([["r", 1, *[None] * 14]])}, "runs_pkey"),
    ("runs_for_update", {"ids": '["r"]'}, "runs_pkey"),
    ("run_states", {"ids": '["r"]'}, "runs_pkey"),
    ("active_family", {"ids": '["r"]'}, "runs_by_parent"),
    (
        "append_entries",
        {"changes": '[["r",1,"w",0,1,1]]', "now": 1, "max_entries": 1, "max_bytes": 1},
        "runs_pkey",
    ),
    ("entries_of", {"ids": '["r"]'}, "journal_pkey"),
    ("journal_page", {"run_id": "r", "after": -1, "limit": 100, "characters": 1_000}, "journal_pkey"),
    ("traced_entries", {"run_id": "r", "after": -1, "limit": 100}, "journal_pkey"),
    ("moments_before", {"run_id": "r", "before": 10, "limit": 20}, "journal_pkey"),
    ("traced_runs", {"ids": '["r"]'}, "runs_pkey"),
    ("traced_children", {"parents": '["r"]', "limit": 100}, "runs_by_parent"),
    ("traced_attempts", {"run_id": "r"}, "attempts_by_run"),
    ("attempt_logs", {"run_id": "r", "attempt": 1, "limit": 100}, "logs_by_run"),
    ("values_between", {"run_id": "r", "first": 0, "until": 10}, "journal_pkey"),
    ("outcomes", {"environment_id": "dev", "ids": '["r"]', "characters": 4_096}, "runs_pkey"),
    ("wait_on_runs", {"ids": '["r"]'}, "runs_pkey"),
    ("wait_on_waitpoints", {"ids": '["t"]'}, "waitpoints_pkey"),
    ("suspended_runs", {"ids": '["r"]'}, "runs_pkey"),
    ("waits_on", {"targets": '["t"]'}, "waits_by_target"),
    ("end_waits", {"targets": '["t"]', "runs": '["r"]'}, "waits_by_target"),
    ("look_later", {"targets": '["t"]', "runs": '["r"]', "due_at": 1}, "waits_by_target"),
    ("end_due_waits", {"runs": '["r"]', "now": 1}, "waits_pkey"),
    ("parts_waiting", {"parts": '[["r",0]]'}, "waits_pkey"),
    ("delete_waits", {"runs": '["r"]'}, "waits_pkey"),
    ("due_waits", {"now": 1, "limit": 500}, "waits_due"),
    ("time_out_waitpoints", {"now": 1, "output": "{}", "limit": 500}, "waitpoints_due"),
    ("waitpoint_of_key", {"environment_id": "dev", "key": "k"}, "waitpoints_by_key"),
    ("delete_journals", {"ids": '["r"]', "entries": 500}, "journal_pkey"),
    (
        "old_waitpoints",
        {"environment_id": "dev", "id_before": "waitpoint_0", "before": 1, "limit": 500},
        "waitpoints_",  # ids of all environments sort by creation: either index will do
    ),
    ("delete_waitpoints", {"ids": '["t"]'}, "waitpoints_pkey"),
    ("keep_runs", {"uses": '[["r","s"]]'}, "runs_pkey"),
    ("keep_waitpoints", {"uses": '[["t","s"]]'}, "waitpoints_"),
    (
        "bulk_window",
        {"environment_id": "dev", "after": "run_0", "until": "run_z", "looked": 1_000},
        "runs_by_environment",
    ),
    ("bulk_members", {"bulk_id": "b", "after": "", "limit": 100}, "runs_pkey"),
    ("keys", {"keys": '[["dev","send","k"]]'}, "idempotency_keys_pkey"),
    ("lost_workers", {"before": 1, "limit": 10}, "workers_by_lease"),
    ("batch_items", {"batch_id": "b"}, "batch_items_pkey"),
    ("items_at", {"places": '[["b",0]]'}, "batch_items_pkey"),
    ("batches_for_update", {"ids": '["b"]'}, "batches_pkey"),
    ("batch_of_key", {"key_digest": "d"}, "batches_by_key"),
    ("count_items", {"counts": '[["b",1]]', "now": 1}, "batches_pkey"),
    ("abort_batches", {"now": 1, "limit": 500}, "batches_due"),
    ("delete_batches", {"environment_id": "dev", "before": 1, "limit": 500}, "batches_by_age"),
    ("logs", {"run_id": "r", "after": 0, "limit": 100}, "logs_by_run"),
    ("due_schedules", {"now": 1, "limit": 100}, "schedules_due"),
    ("move_schedules", {"moves": '[["s",1,1,null,null]]'}, "schedules_pkey"),
    ("known_ticks", {"ticks": '[["s",1]]'}, "ticks_pkey"),
    ("schedule", {"environment_id": "dev", "id": "s"}, "ticks_pkey"),
    ("schedules_page", {"environment_id": "dev", "limit": 20, "skipped": 0}, "schedules_by_environment"),
    ("schedule_of_key", {"project": "proj_default", "key": "k"}, "schedules_by_key"),
    ("declared_schedules", {"environment_id": "dev"}, "schedules_by_task"),
    ("schedule_of_run", {"environment_id": "dev", "run_id": "r"}, "ticks_by_run"),
    ("forget_ticks", {"runs": '["r"]'}, "ticks_by_run"),
    ("forget_refusals", {"before": 1, "limit": 100}, "ticks_refused"),
    (
        "old_runs",
        {"environment_id": "dev", "id_before": "run_0", "before": 1, "limit": 500},
        "runs_by_environment",
    ),
    ("delete_finished", {"ids": '["r"]'}, "runs_pkey"),
]
LISTS = [
    ("runs.environment_id = 'dev'", "runs_by_environment"),
    ("runs.environment_id = 'dev' and runs.task in ('rare')", "runs_by_task"),
    (
        "runs.environment_id = 'dev' and runs.finished_at is null and runs.status in ('EXECUTING')",
        "runs_unfinished",
    ),
    ("runs.environment_id = 'dev' and " + OF_BATCH.replace(":batch_id", "'b'"), "runs_by_batch"),
    ("runs.environment_id = 'dev' and runs.parent_id = 'p'", "runs_by_parent"),
]


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def seeded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store with a long history and little live work, whose planner has looked at it."""
    import databases

    clock = Clock()
    folder: Path = tmp_path_factory.mktemp("planner")
    url = f"sqlite:///{folder}/holdfast.db"
    if request.param == "postgres":
        url = request.getfixturevalue("migrated_postgres_url")
        databases.emptied(url)
    store = open_store(url, clock=clock)
    world = World(store, clock)
    worker = world.worker("send")
    store.transact(trigger, [NewRun(environment_id="dev", task="send", payload="1") for _ in range(FINISHED)])
    world.read(lambda tx: tx.do("set_environment", id="dev", concurrency_limit=10_000, paused=0))
    said = [
        {"kind": "succeeded", "run": run.id, "lease": run.lease, "output": "1"}
        for run in world.claim(worker, FINISHED)
    ]
    store.transact(report, [Reported(worker, "dev", one) for one in said])
    store.transact(trigger, [NewRun(environment_id="dev", task="send") for _ in range(LIVE)])
    world.claim(worker, LIVE // 2)
    store.transact(durable_history, [str(one["run"]) for one in said])
    store.transact(lambda tx, _: [tx._connection.raw.execute("analyze")], [None])  # type: ignore[attr-defined]  # both dialects keep their connection there
    yield store
    store.close()


def durable_history(tx: Tx, run_ids: list[str]) -> list[str]:
    """Journals, tokens, and one run that waits for very many others; statements are explained, not executed."""
    tx.add_entries(
        [(run_id, seq, "", "step", "s", None, 1, "1", None) for run_id in run_ids for seq in range(3)]
    )
    waits = [[run_ids[0], 0, number, target, None, "last"] for number, target in enumerate(run_ids)]
    waits += [[run_id, 0, 0, None, 1_900_000_000_000, "any"] for run_id in run_ids[1:200]]
    tx.do("add_waits", waits=json.dumps(waits))
    for number in range(1_000):
        key = f"key-{number}"
        made = NewToken(environment_id="dev", timeout="1h" if number % 5 else None, idempotency_key=key)
        [token] = create_tokens(tx, [made])
        assert isinstance(token, Created)
        if number % 20:
            tx.do("complete_waitpoint", id=token.id, output="1", now=1)
    for number in range(500):
        add_schedule(tx, number)
    made = [[f"sched_{number % 20}", number, run_id, None] for number, run_id in enumerate(run_ids)]
    made += [[f"sched_{number % 20}", number, None, "missed"] for number in range(len(made), len(made) + 500)]
    tx.do("add_ticks", ticks=json.dumps(made), now=1)
    [[live]] = tx.select("select min(id) from runs where finished_at is null", {})
    tx.do("keep_runs", uses=json.dumps([[run_id, live] for run_id in run_ids[: len(run_ids) // 2]]))
    return run_ids


def add_schedule(tx: Tx, number: int) -> None:
    """A schedule; every tenth is declared by a task, every fifth is not active."""
    is_declared = number % 10 == 0
    tx.do(
        "add_schedule",
        id=f"sched_{number}",
        environment_id="dev",
        project="proj_default",
        type="DECLARATIVE" if is_declared else "IMPERATIVE",
        task=f"task-{number}",
        expression="@daily",
        timezone="UTC",
        spread_window=None,
        overlap="allow",
        catch_up="one",
        external_id=None,
        deduplication_key=None if is_declared else f"key-{number}",
        active=1,
        tick_at=1_900_000_000_000 + number,
        due_at=1_900_000_000_000 + number if number % 5 else None,
        created_at=1,
        updated_at=1,
    )


def plan(store: Store, text: str, parameters: dict[str, Any]) -> str:
    """What the planner would do, as text; in PostgreSQL under the settings that every transaction has."""
    sqlite = store.dialect == "sqlite"

    def ask(tx: Tx, _: list[None]) -> list[list[tuple[Any, ...]]]:
        explain = "explain query plan " if sqlite else "explain "
        return [tx._connection.select(explain + text, parameters)]

    [rows] = store.transact(ask, [None])
    return "\n".join(str(row[-1]) for row in rows)


@pytest.mark.parametrize(("name", "parameters", "index"), HOT, ids=[name for name, _, _ in HOT])
def test_a_hot_statement_uses_its_index(
    seeded: Store, name: str, parameters: dict[str, Any], index: str
) -> None:
    found = plan(seeded, statements(seeded.dialect)[name].text, parameters)
    own = index
    for table in ("runs", "waitpoints", "batches"):
        own = own.replace(f"{table}_pkey", f"sqlite_autoindex_{table}_1")
    for table in ("idempotency_keys", "journal", "waits", "batch_items", "schedules", "ticks"):
        own = own.replace(f"{table}_pkey", "PRIMARY KEY")
    assert (own if seeded.dialect == "sqlite" else index) in found, found
    if seeded.dialect == "sqlite":
        assert "SCAN runs\n" not in found + "\n", found
    else:
        assert "Seq Scan on runs" not in found, found


@pytest.mark.parametrize("name", ["old_runs", "delete_finished", "old_waitpoints", "delete_waitpoints"])
def test_retention_looks_up_what_is_kept(seeded: Store, name: str) -> None:
    """One by one: all that goes on may be very much, and a planner with old numbers joins it as a whole for each row."""
    [parameters] = [parameters for hot, parameters, _ in HOT if hot == name]
    found = plan(seeded, statements(seeded.dialect)[name].text, parameters)
    if seeded.dialect == "postgres":
        assert "SubPlan" in found, found
        assert "Index Cond: (target = " in found, found
    elif name.startswith("old"):
        assert "kept_for_by_target (target=?)" in found, found


@pytest.mark.parametrize(("where", "index"), LISTS, ids=[index for _, index in LISTS])
def test_a_page_uses_an_index(seeded: Store, where: str, index: str) -> None:
    text = f"select runs.* from runs where {where} and runs.id < 'run_z' order by runs.id desc limit 11"
    assert index in plan(seeded, text, {}), plan(seeded, text, {})


@pytest.mark.parametrize(
    ("filters", "looked_up"),
    [
        (Filters(), "runs"),
        (Filters(tag=["a", "b"]), "run_tags"),
        (Filters(bulk_id="bulk_1"), "bulk_members"),
        (Filters(tag=["a"], bulk_id="bulk_1"), "run_tags"),
        (Filters(schedule="sched_1"), "ticks"),
    ],
)
def test_members_of_a_bulk_action_are_found_within_their_window(
    seeded: Store, monkeypatch: pytest.MonkeyPatch, filters: Filters, looked_up: str
) -> None:
    said = told(
        seeded, monkeypatch, lambda tx: keep_members(tx, "dev", filters, "bulk_2", "run_0", "run_1", True)
    )
    assert looked_up in said
    if seeded.dialect == "postgres":
        assert "Seq Scan" not in said, said
        if looked_up != "runs":
            assert "ANY" in said, said
    else:
        assert "SCAN" not in said, said


@pytest.mark.parametrize("tag", [(), ("a",)])
def test_the_runs_of_a_bulk_action_are_read_along_its_members(
    seeded: Store, monkeypatch: pytest.MonkeyPatch, tag: tuple[str, ...]
) -> None:
    said = told(seeded, monkeypatch, lambda tx: list_runs(tx, "dev", Filters(bulk_id="bulk_1", tag=tag), 25))
    assert "bulk_members" in said
    assert "Seq Scan" not in said
    assert "SCAN" not in said


@pytest.mark.parametrize("tag", [(), ("a",)])
def test_the_runs_of_a_schedule_are_read_along_its_ticks(
    seeded: Store, monkeypatch: pytest.MonkeyPatch, tag: tuple[str, ...]
) -> None:
    said = told(
        seeded, monkeypatch, lambda tx: list_runs(tx, "dev", Filters(schedule="sched_1", tag=tag), 25)
    )
    assert "ticks" in said
    assert "Seq Scan" not in said
    assert "SCAN" not in said


def told(store: Store, monkeypatch: pytest.MonkeyPatch, query: Callable[[Tx], Any]) -> str:
    """The plans of the statements that a query puts together."""
    built: list[tuple[str, Any]] = []

    def keep(tx: Tx, text: str, parameters: Any) -> list[Any]:
        built.append((text, parameters))
        return []

    with monkeypatch.context() as patched:
        patched.setattr(Tx, "select", keep)
        patched.setattr(Tx, "select_runs", keep)
        store.transact(lambda tx, _: [query(tx)], [None])
    return "\n".join(plan(store, text, parameters) for text, parameters in built)


def test_the_shape_of_a_statement_that_is_explained_is_the_one_that_runs() -> None:
    for name, parameters, _ in HOT:
        assert statements("postgres")[name].parameters == set(parameters), name
        assert ":" not in converted(statements("postgres")[name].text).replace("::", "")
