"""Many runs at once: trigger them as batches and collect what they return."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, TypeVar, overload

from holdfast.errors import HoldfastError
from holdfast.model.journal import Entry
from holdfast.model.limits import MAX_BATCH
from holdfast.sdk.client import default_client
from holdfast.sdk.context import (
    CurrentRun,
    Durable,
    current_durable,
    current_run,
    current_run_or_none,
    refuse_in_step,
)
from holdfast.sdk.options import on_same_version
from holdfast.sdk.policy import Flow, Request, asked, error_from
from holdfast.sdk.run import Run
from holdfast.sdk.task import Bound
from holdfast.sdk.transport import Connection, refuse_in_loop
from holdfast.sdk.values import digest
from holdfast.sdk.waiting import Pending

R = TypeVar("R")

MAX_BYTES = 32 * 1024 * 1024  # of one batch, half of what the server takes
Items = Iterable[Bound[Any]]


@overload
def run_all(bound: Iterable[Bound[R]], *, return_exceptions: Literal[False] = False) -> list[R]: ...
@overload
def run_all(bound: Iterable[Bound[R]], *, return_exceptions: Literal[True]) -> list[R | HoldfastError]: ...
def run_all(bound: Items, *, return_exceptions: bool = False) -> Any:
    """Trigger a run for each item, wait for all, and give what they returned, in the order of the items.

        receipts = run_all(fulfil.bind(order) for order in orders)

    Raises for the first one that fails (RunFailed, or why it could not be triggered) as soon as it
    does; the others go on. With `return_exceptions` the list always has one entry per item, and
    errors are entries. Nothing in, nothing out: no call is made for no item.
    """
    refuse_in_loop("run_all", "arun_all")
    refuse_in_step("run_all()")
    items = _items(bound)
    if items and (durable := current_durable()) is not None:
        return durable.blocking(lambda: _all_durably(durable, items, return_exceptions))
    connection = default_client().connection
    return connection.run(_all(connection, items, return_exceptions)) if items else []


@overload
async def arun_all(bound: Iterable[Bound[R]], *, return_exceptions: Literal[False] = False) -> list[R]: ...
@overload
async def arun_all(
    bound: Iterable[Bound[R]], *, return_exceptions: Literal[True]
) -> list[R | HoldfastError]: ...
async def arun_all(bound: Items, *, return_exceptions: bool = False) -> Any:
    """As `run_all`, inside an event loop."""
    refuse_in_step("arun_all()")
    items = _items(bound)
    if items and (durable := current_durable()) is not None:
        return await _all_durably(durable, items, return_exceptions)
    connection = default_client().connection
    return await connection.arun(_all(connection, items, return_exceptions)) if items else []


def _items(bound: Items) -> list[Bound[Any]]:
    items = list(bound)
    for item in items:
        if not isinstance(item, Bound):
            raise TypeError(f"run_all takes what `.bind(…)` gives, and this is {item!r}")
    return items


def _all(connection: Connection, items: Sequence[Bound[Any]], return_exceptions: bool) -> Flow[list[Any]]:
    results: list[Any] = [None] * len(items)

    def failed(place: int, error: HoldfastError) -> None:
        if not return_exceptions:
            raise error
        results[place] = error

    runs: dict[int, Run[Any]] = {}
    pending = Pending()
    for start, texts in _chunks(items, current_run_or_none()):
        answer = yield from _triggering(texts, return_exceptions)
        for place, one in enumerate(answer, start):
            if isinstance(one, HoldfastError):
                failed(place, one)
            else:
                task = items[place].task
                data = {**one, "taskIdentifier": task.id}
                runs[place] = Run(connection, data, task.shape.decode_output)
                pending.add(one["id"], place)
    while pending.places:
        for place, result in (yield from pending.next()):
            try:
                results[place] = runs[place].settled(result)
            except HoldfastError as error:
                failed(place, error)
    return results


async def _all_durably(durable: Durable, items: Sequence[Bound[Any]], return_exceptions: bool) -> list[Any]:
    """As `_all`, recorded in the journal of the current run, whose children they are."""
    results: list[Any] = [None] * len(items)
    runs: dict[str, list[tuple[int, Run[Any]]]] = {}
    connection = default_client().connection

    def failed(place: int, error: HoldfastError, about: Entry | str) -> None:
        durable.failed(error, about)
        if not return_exceptions:
            raise error
        results[place] = error

    run_here = current_run()
    for start, texts in _chunks(items, run_here):
        tasks = ", ".join(dict.fromkeys(item.task.id for item in items[start : start + len(texts)]))
        children = [json.loads(text) for text in texts]
        on_same_version(children, run_here)
        entry, answers = await durable.trigger(tasks[:200], digest(texts, {}), children)
        for place, one in enumerate(answers, start):
            if "error" in one:
                failed(place, error_from(one), entry)
            else:
                task = items[place].task
                run: Run[Any] = Run(connection, {**one, "taskIdentifier": task.id}, task.shape.decode_output)
                runs.setdefault(one["id"], []).append((place, run))
    while runs:
        for id, result in await durable.next_results(list(runs), "last" if return_exceptions else "failure"):
            for place, run in runs.pop(id, ()):
                try:
                    results[place] = run.settled(result)
                except HoldfastError as error:
                    failed(place, error, id)
    return results


def _triggering(texts: list[str], return_exceptions: bool) -> Flow[list[Any]]:
    """For each item the answer {"id", "isCached"?}, or the error why there is no run."""
    body = f'{{"items": [{", ".join(texts)}]}}'.encode()
    try:
        answer = yield from asked(Request("POST", "/api/v1/tasks/batch", body, timeout=60))
    except HoldfastError as error:
        if not return_exceptions:
            raise
        return [error] * len(texts)
    return [error_from(one) if "error" in one else one for one in answer["runs"]]


def _chunks(items: Sequence[Bound[Any]], run: CurrentRun | None) -> Iterator[tuple[int, list[str]]]:
    """Items as JSON, at most 1,000 and 32 MiB together, each with the place of the first."""
    start, size, texts = 0, 0, list[str]()
    for place, item in enumerate(items):
        text = item.on_wire(run)
        if texts and (len(texts) == MAX_BATCH or size + len(text) > MAX_BYTES):
            yield start, texts
            start, size, texts = place, 0, []
        texts.append(text)
        size += len(text)
    if texts:
        yield start, texts
