"""Pages of runs are complete and without duplicates, in both directions (invariant I10)."""

from __future__ import annotations

from typing import Any

import pytest

from engine.world import World
from holdfast.errors import InvalidRequest
from holdfast.model.status import RunStatus


def walk(world: World, size: int, between: Any = None, **filters: Any) -> list[str]:
    """Ids on all pages from the newest to the oldest; `between` happens after each page."""
    found: list[str] = []
    page = world.page(size, **filters)
    while True:
        found += [run.id for run in page.runs]
        if page.next is None:
            return found
        if between:
            between()
        page = world.page(size, after=page.next, **filters)


def walk_back(world: World, size: int, begin: str, between: Any = None, **filters: Any) -> list[str]:
    """Ids on all pages newer than `begin`, from the oldest to the newest."""
    found: list[str] = []
    cursor: str | None = begin
    while cursor is not None:
        page = world.page(size, before=cursor, **filters)
        found += [run.id for run in reversed(page.runs)]
        cursor = page.previous
        if between:
            between()
            between = None
    return found


@pytest.mark.parametrize("size", [1, 3, 10, 100])
def test_a_walk_sees_every_run_once(world: World, size: int) -> None:
    runs = [world.trigger() for _ in range(10)]
    assert walk(world, size) == runs[::-1]
    assert walk_back(world, size, runs[0]) == runs[1:]


def test_runs_that_come_during_a_walk_do_not_shift_its_pages(world: World) -> None:
    runs = [world.trigger() for _ in range(10)]
    assert walk(world, 3, between=world.trigger) == runs[::-1]
    assert walk_back(world, 3, runs[0], between=world.trigger)[:9] == runs[1:]


def test_the_first_page_has_nothing_before_it_and_the_last_nothing_after(world: World) -> None:
    runs = [world.trigger() for _ in range(4)]
    first = world.page(2)
    assert (first.previous, first.next) == (None, runs[2])
    last = world.page(2, after=first.next)
    assert (last.previous, last.next) == (runs[1], None)
    back = world.page(2, before=last.previous)
    assert ([run.id for run in back.runs], back.previous) == ([runs[3], runs[2]], None)


def test_filters_narrow_together_and_their_values_widen(world: World) -> None:
    world.worker("a", "b")
    runs = {
        (name, tag, test): world.trigger(
            name, tags=[tag, "all"], is_test=test, machine=f"m-{tag}", queue=f"q-{tag}"
        )
        for name in ("a", "b")
        for tag in ("x", "y")
        for test in (False, True)
    }

    def found(**filters: Any) -> set[str]:
        ids = walk(world, 3, **filters)
        assert len(ids) == len(set(ids))
        return set(ids)

    def expected(keep: Any) -> set[str]:
        return {run_id for key, run_id in runs.items() if keep(*key)}

    assert found() == set(runs.values())
    assert found(task=["a"]) == expected(lambda name, tag, test: name == "a")
    assert found(task=["a", "b"], tag=["x"]) == expected(lambda name, tag, test: tag == "x")
    assert found(tag=["x", "y", "all"]) == set(runs.values())
    assert found(is_test=True, queue=["q-y"]) == expected(lambda name, tag, test: test and tag == "y")
    assert found(machine=["m-x"], task=["b"]) == expected(lambda name, tag, test: (name, tag) == ("b", "x"))
    assert found(matches_nothing=True) == found(version=["20200101.1"]) == found(batch_id="none") == set()


def test_runs_are_found_by_status_time_parent_batch_and_version(world: World) -> None:
    registered = world.register("send")
    old = world.trigger()
    world.succeed(registered.worker_id, world.claim_one(registered.worker_id))
    world.clock.advance(1_000)
    running = world.trigger(batch_id="batch_1")
    world.claim(registered.worker_id)
    waiting = world.trigger(parent_id=running)
    failed = world.trigger(ttl=1)
    world.after(1_000, registered.worker_id)

    def found(**filters: Any) -> list[str]:
        return [run.id for run in world.page(**filters).runs]

    assert found(status=[RunStatus.COMPLETED_SUCCESSFULLY]) == [old]
    assert found(status=[RunStatus.EXECUTING, RunStatus.QUEUED]) == [waiting, running]
    assert found(status=[RunStatus.EXPIRED, RunStatus.CRASHED]) == [failed]
    assert found(status=[RunStatus.EXPIRED, RunStatus.QUEUED]) == [failed, waiting]
    assert found(batch_id="batch_1") == [running]
    assert found(parent_id=running) == [waiting]
    assert found(version=[registered.version]) == [running, old]
    created = world.run(running).created_at
    assert found(created_from=created) == [failed, waiting, running]
    assert found(created_to=created - 1) == [old]


def test_a_cursor_that_is_no_run_of_the_environment_is_refused(world: World) -> None:
    foreign = world.trigger("send", "prod")
    for cursor in ("run_unknown", foreign, "'; drop table runs"):
        with pytest.raises(InvalidRequest):
            world.page(after=cursor)
        with pytest.raises(InvalidRequest):
            world.page(before=cursor)
