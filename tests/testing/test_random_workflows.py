"""Random workflows end the same whether they are left alone or killed at any entries of their journals.

A program is a tree of what code may do; one task executes any of them. Each step has a name of its own, so that
the journal shows whether one was recorded twice. Programs are run undisturbed, and then with their process killed
after some of the entries.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast import AbortRun, Retry, RunFailed, arun_all, current_run, run_all, step, task, wait
from holdfast.sdk import registry
from holdfast.sdk.hooks import global_hooks
from holdfast.testing import InMemory
from holdfast.testing.crash import Played, played

Node = list[Any]
EXAMPLES = 25
TOKEN = "7"  # what every token is completed with

# ---- programs

SMALL = st.integers(0, 3)
LEAVES = st.one_of(
    st.tuples(st.sampled_from(["step", "caught", "meta", "token", "thread"])),
    st.tuples(st.just("retried"), st.integers(1, 2)),
    st.tuples(st.just("sleep"), st.sampled_from([0, 1, 60, 86_400])),
    st.tuples(st.just("child"), SMALL, st.booleans()),
    st.tuples(st.just("children"), st.lists(st.tuples(SMALL, st.booleans()), max_size=4)),
    st.tuples(st.just("first"), SMALL),
)
ASYNC_LEAVES = LEAVES | st.just(("limit",))


def _branched(nodes: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(nodes, max_size=4)
    kinds = st.sampled_from(["all", "gather", "group", "wait", "exceptions", "queue", "helper"])
    return st.tuples(kinds, several)


SYNC_PROGRAMS = st.lists(LEAVES, max_size=7).map(lambda nodes: ("all", nodes))
ASYNC_PROGRAMS = st.recursive(ASYNC_LEAVES, _branched, max_leaves=9)
KILLS = st.lists(st.integers(1, 12), min_size=1, max_size=3)


def numbered(node: Any, numbers: Iterator[int]) -> Node:
    """Each node with a number of its own in the second place."""
    kind, *rest = node
    if kind in ("all", "gather", "group", "wait", "exceptions", "queue", "helper"):
        return [kind, next(numbers), [numbered(one, numbers) for one in rest[0]]]
    return [kind, next(numbers), *rest]


# ---- their execution


class Wrong(Exception):
    pass


def as_step(node: Node) -> Any:
    kind, number = node[:2]

    async def act(number: int) -> int:
        if number % 3 == 0:
            await asyncio.sleep(0)
        if kind == "caught" or (kind == "retried" and current_run().attempt <= node[2]):
            raise Wrong(number)
        if kind == "limit":
            await asyncio.sleep(30)
        return number

    return step(name=f"s{number}")(act)


def as_sync_step(node: Node) -> Any:
    kind, number = node[:2]

    def act(number: int) -> int:
        if kind == "caught" or (kind == "retried" and current_run().attempt <= node[2]):
            raise Wrong(number)
        return number

    return step(name=f"s{number}")(act)


@step(name="won")
async def won(numbers: list[int]) -> None: ...


async def act(node: Node, child: Any) -> Any:
    kind, number, *rest = node
    if kind in ("step", "retried"):
        return await as_step(node)(number)
    if kind == "thread":
        return await asyncio.to_thread(as_sync_step(node), number)
    if kind == "caught":
        try:
            return await as_step(node)(number)
        except Wrong as error:
            return ["caught", *error.args]
    if kind == "limit":
        try:
            async with asyncio.timeout(0.01):
                return await as_step(node)(number)
        except TimeoutError:
            return "limited"
    if kind == "meta":
        current_run().metadata.increment(f"m{number}")
        return None
    if kind == "sleep":
        return await wait.asleep(rest[0])
    if kind == "token":
        return await (await wait.atoken(int)).aresult()
    if kind == "child":
        try:
            return await child.arun([number, *rest])
        except RunFailed:
            return "failed"
    if kind == "children":
        items = [
            child.bind([number, minutes, fails, place]) for place, (minutes, fails) in enumerate(rest[0])
        ]
        return [_shown(one) for one in await arun_all(items, return_exceptions=True)]
    if kind == "first":
        runs = [
            await child.atrigger([number, minutes, False, minutes]) for minutes in (rest[0], rest[0] + 60)
        ]
        return await (await wait.afirst(*runs)).aresult()
    parts = [lambda node=node: act(node, child) for node in rest[0]]
    # Which branch a time limit of asyncio's lets win is not recorded.
    return await branched(kind, parts, all(one[0] != "limit" for one in _nodes(node)))


async def branched(kind: str, parts: list[Any], ordered: bool) -> Any:
    if kind == "all":
        return [await part() for part in parts]
    if kind == "gather":
        return await asyncio.gather(*(part() for part in parts))
    if kind == "exceptions":
        return [
            one if not isinstance(one, BaseException) else _raised(one)
            for one in await asyncio.gather(*(part() for part in parts), return_exceptions=True)
        ]
    if kind == "group":
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(part()) for part in parts]
        return [one.result() for one in tasks]
    if kind == "wait":
        tasks = [asyncio.create_task(part()) for part in parts]
        pending = set(tasks)
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                one.result()
            if ordered:
                await won([place for place, one in enumerate(tasks) if one in done])
        return [one.result() for one in tasks]
    if kind == "helper":  # the same coroutine within a step, where it is no branch, and outside
        await step(name="inside")(lambda_of(helper))()
        return await asyncio.gather(*(helper(part) for part in parts))
    queue: asyncio.Queue[Any] = asyncio.Queue()

    async def fill() -> None:
        for part in parts:
            queue.put_nowait(await part())

    filling = asyncio.create_task(fill())
    found = []
    filling.add_done_callback(lambda _: queue.put_nowait(None))
    for _ in parts:
        found.append(await queue.get())
        if filling.done():
            filling.result()
    await filling
    return found


async def helper(part: Any) -> Any:
    return await part()


async def nothing() -> None: ...


def lambda_of(function: Any) -> Any:
    async def inside() -> None:
        await asyncio.gather(function(nothing), function(nothing))

    return inside


def _raised(error: BaseException) -> Any:
    raise error


def _shown(one: Any) -> Any:
    return "failed" if isinstance(one, BaseException) else one


def act_sync(node: Node, child: Any) -> Any:
    kind, number, *rest = node
    if kind == "all":
        return [act_sync(one, child) for one in rest[0]]
    if kind in ("step", "retried", "thread"):
        return as_sync_step(node)(number)
    if kind == "caught":
        try:
            return as_sync_step(node)(number)
        except Wrong as error:
            return ["caught", *error.args]
    if kind == "meta":
        current_run().metadata.increment(f"m{number}")
        return None
    if kind == "sleep":
        return wait.sleep(rest[0])
    if kind == "token":
        return wait.token(int).result()
    if kind == "child":
        try:
            return child.run([number, *rest])
        except RunFailed:
            return "failed"
    if kind == "children":
        items = [
            child.bind([number, minutes, fails, place]) for place, (minutes, fails) in enumerate(rest[0])
        ]
        return [_shown(one) for one in run_all(items, return_exceptions=True)]
    runs = [child.trigger([number, minutes, False, minutes]) for minutes in (rest[0], rest[0] + 60)]
    return wait.first(*runs).result()


def declare() -> None:
    registry.clear()
    global_hooks.clear()

    @task(id="child", retry=Retry(20))
    async def child(asked: list[Any]) -> Any:
        _, minutes, fails = asked[:3]
        await wait.asleep(60 * minutes)
        if fails:
            raise AbortRun("asked to")
        return asked

    @task(id="async", retry=Retry(20))
    async def run_async(program: Node) -> Any:
        return await act(program, child)

    @task(id="sync", retry=Retry(20))
    def run_sync(program: Node) -> Any:
        return act_sync(program, child)


# ---- the property


def check(task_id: str, tree: Any, kills: list[int]) -> None:
    program = numbered(tree, iter(range(10_000)))
    declare()
    try:
        alone, killed = (_played(task_id, program, plan) for plan in ([], kills))
    finally:
        registry.clear()
    assert alone.outcome == killed.outcome
    assert alone.outcome[0] == "COMPLETED_SUCCESSFULLY", alone.outcome


def _played(task_id: str, program: Node, kills: list[int]) -> Played:
    world = InMemory()
    try:
        found = played(world, task_id, program, [TOKEN] * 50, list(accumulate(kills)))
        [run] = [one for one in _runs(world) if one["taskIdentifier"] == task_id]
        _check_once(world, run["id"], program)
    finally:
        world.close()
    return found


def _runs(world: InMemory) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = world._get("/api/v1/runs", {"page[size]": "100"})["data"]
    return found


def _check_once(world: InMemory, run_id: str, program: Node) -> None:
    journal = world.journal(run_id)
    recorded = Counter(
        e["name"] for e in journal if e["kind"] == "step" and e["ok"] and e["name"][1:].isdigit()
    )
    assert max(recorded.values(), default=1) == 1, recorded
    run = world._get(f"/api/v3/runs/{run_id}", {})
    children = Counter(str(one["id"]) for one in run["relatedRuns"]["children"])
    kinds = list(_nodes(program))
    expected = sum(
        {"child": 1, "children": len(node[2]) if node[0] == "children" else 0, "first": 2}.get(node[0], 0)
        for node in kinds
    )
    assert len(children) == expected, (len(children), expected)
    if not any(node[0] == "retried" for node in kinds):
        assert run["metadata"] == {f"m{node[1]}": 1 for node in kinds if node[0] == "meta"}


def _nodes(node: Node) -> Iterator[Node]:
    yield node
    if node[0] in ("all", "gather", "group", "wait", "exceptions", "queue", "helper"):
        for one in node[2]:
            yield from _nodes(one)


RELAXED = {"deadline": None, "suppress_health_check": list(HealthCheck), "max_examples": EXAMPLES}


@settings(**RELAXED)
@given(ASYNC_PROGRAMS, KILLS)
def test_async_workflows_survive_kills(tree: Any, kills: list[int]) -> None:
    check("async", tree, kills)


@settings(**RELAXED)
@given(SYNC_PROGRAMS, KILLS)
def test_sync_workflows_survive_kills(tree: Any, kills: list[int]) -> None:
    check("sync", tree, kills)
