"""Large payloads and outputs on their way to the engine: into the object store, before there is a transaction.

An object is known to the database before it is made. So what a crash, or a refusal afterwards, leaves behind is found and
deleted by upkeep (engine/packet.py). Where the object store does not answer, a payload or output stays in the database,
which takes it just as well.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from holdfast.engine import NewRun
from holdfast.errors import (
    HoldfastError,
    InvalidRequest,
    ObjectStoreUnavailable,
    PayloadTooLarge,
    Unprocessable,
)
from holdfast.model.ids import Ids
from holdfast.model.limits import OFFLOADED
from holdfast.model.packet import JSON, OWN, STORE, checked_name, packet_key, python_value
from holdfast.server.routing import Call
from holdfast.wire.packets import value_of

log = logging.getLogger("holdfast.server")

AT_ONCE = 8  # objects; read or written for one request at the same time
_ids = Ids()
T = TypeVar("T")


async def placed(call: Call, items: Sequence[NewRun | T]) -> list[NewRun | T | HoldfastError]:
    """Runs to be triggered with their payloads where they belong; what is no NewRun is passed on.

    A payload over OFFLOADED bytes is put into the object store. One that the caller has put there is looked into: an error
    in the place of the run tells that it is not there, or that it can not be read.
    """
    found: list[NewRun | T | HoldfastError] = list(items)
    places = [index for index, item in enumerate(items) if isinstance(item, NewRun) and _is_concerned(item)]
    if not places:
        return found
    room = asyncio.Semaphore(AT_ONCE)

    async def place(index: int) -> None:
        item = found[index]
        assert isinstance(item, NewRun)
        async with room:
            try:
                found[index] = await (_looked_into if item.payload_type == STORE else _offloaded)(call, item)
            except (InvalidRequest, PayloadTooLarge, Unprocessable) as error:
                found[index] = error

    async with asyncio.TaskGroup() as group:
        for index in places:
            group.create_task(place(index))
    return found


async def with_stored_output(call: Call, said: Mapping[str, Any]) -> Mapping[str, Any]:
    """A report of success; a large output is in the object store, and the report names it."""
    output = said["output"]
    if output is None or not _is_large(output):
        return said
    name = await _stored(call, "outputs", output, JSON)
    return said if name is None else {**said, "output": name, "outputType": STORE}


def _is_concerned(item: NewRun) -> bool:
    return item.payload is not None and (item.payload_type == STORE or _is_large(item.payload))


def _is_large(text: str) -> bool:
    return len(text) > OFFLOADED // 4 and len(text.encode()) > OFFLOADED


async def _offloaded(call: Call, item: NewRun) -> NewRun:
    text, data_type = item.payload or "", item.payload_type or JSON
    name = await _stored(call, "payloads", text, data_type)
    if name is None:
        return item
    content = await asyncio.to_thread(python_value, text, data_type)
    return replace(item, payload=name, payload_type=STORE, content=content)


async def _stored(call: Call, kind: str, text: str, data_type: str) -> str | None:
    """The name of a new object; None where it has to stay in the database."""
    objects = call.objects_or_none
    if objects is None:
        return None
    name = f"{OWN}{kind}/{_ids.new('packet', time.time_ns() // 1_000_000)}"
    key = packet_key(call.environment_id, name)
    [refusal] = await call.engine.add_packets([key])
    assert refusal is None
    try:
        await objects.put(key, text.encode(), data_type)
    except ObjectStoreUnavailable as error:
        log.warning("a packet of %s characters stays in the database: %s", len(text), error)
        return None
    return name


async def _looked_into(call: Call, item: NewRun) -> NewRun:
    """Raises InvalidRequest, PayloadTooLarge or Unprocessable."""
    name = checked_name(item.payload, "payload")
    found = await call.objects.get(packet_key(item.environment_id, name))
    if found is None:
        raise Unprocessable(
            f"payload is {name!r}: no such packet, upload it first (PUT /api/v2/packets/…)", "payload"
        )
    content = await asyncio.to_thread(value_of, await found.data(), found.data_type, "payload")
    return replace(item, payload=name, content=content)
