"""The items of a batch: a stream of lines of JSON, taken as they arrive (the wire contract, 4.3)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import ValidationError
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from holdfast.engine import Line, NewRun
from holdfast.engine.batch_item import check_index
from holdfast.errors import (
    HoldfastError,
    InvalidRequest,
    PayloadTooLarge,
    Unprocessable,
    UnsupportedMediaType,
)
from holdfast.model import limits
from holdfast.model.batch import Batch
from holdfast.model.error import refusal
from holdfast.server.access import covers, lacking
from holdfast.server.offload import placed
from holdfast.server.problems import invalid, respond
from holdfast.server.routing import Call, refuse_other_types
from holdfast.server.trigger import new_run
from holdfast.wire import batches as wire
from holdfast.wire.codec import decode
from holdfast.wire.ndjson import Lines, RawLine

TYPES = ("application/x-ndjson", "application/ndjson")
AT_ONCE = 200  # lines; of one stream in one commit
STREAM_SECONDS = 1_800.0  # of one stream: longer than its batch is open
# How the SDK begins a line. Of a line that is too long, only this can be read.
HEAD = re.compile(rb'\s*\{\s*"index"\s*:\s*(\d{1,9})\s*,\s*"task"\s*:\s*("(?:[^"\\]|\\.){1,768}")')


class Incoming:
    """The items of one request. `batch` is as it was after the last of them."""

    def __init__(self, call: Call, batch: Batch) -> None:
        self.batch = batch
        self.accepted = self.deduplicated = 0
        self._call = call
        self._headers = without_lease(call.request.headers)
        self._asks_each = not may_fill(call, batch.id)

    async def take(self, raw: Sequence[RawLine]) -> None:
        """Raises for the first line that is refused; those before it are kept."""
        for start in range(0, len(raw), AT_ONCE):
            lines: list[Line] = []
            refused: HoldfastError | None = None
            for one in raw[start : start + AT_ONCE]:
                try:
                    lines.append(self._read(one))
                except HoldfastError as error:
                    refused = error
                    break
            if lines:
                await self._place(lines)
            if refused is not None:
                raise refused

    async def _place(self, lines: Sequence[Line]) -> None:
        for answer in await self._call.engine.place_items(await with_payloads(self._call, lines)):
            if isinstance(answer, HoldfastError):
                raise answer
            self.batch = answer.batch
            if answer.is_new:
                self.accepted += 1
            else:
                self.deduplicated += 1

    def _read(self, raw: RawLine) -> Line:
        """Raises InvalidRequest for what is no JSON object, Unprocessable for one that is no item of this batch."""
        if not raw.is_whole:
            return self._cut_off(raw)
        place = f"line {raw.number}"
        value = decode(raw.data, place)
        if not isinstance(value, dict):
            raise InvalidRequest(f"{place} is {str(value)[:40]!r}: expected a JSON object", place)
        try:
            item = wire.ITEM_LINE.validate_python(value)
        except ValidationError as error:
            said = invalid(error)
            raise Unprocessable(f"{place}: {said['error']}", said.get("param", place)) from None
        self._check(item["index"], item["task"])
        return line_of(self.batch, item["index"], item, self._headers)

    def _cut_off(self, raw: RawLine) -> Line:
        """A line over the limit is a run that has failed already, if it says early enough which one."""
        text = f"line {raw.number} is over {limits.MAX_BATCH_LINE} bytes"
        try:
            item = wire.ITEM_LINE.validate_python(decode(_head(raw.data)))
        except (HoldfastError, ValidationError):
            raise PayloadTooLarge(
                f"{text} and does not begin with its index and task", f"line {raw.number}"
            ) from None
        index, task = item["index"], item["task"]
        self._check(index, task)
        return Line(
            environment_id=self.batch.environment_id,
            batch_id=self.batch.id,
            index=index,
            task=task,
            run=refusal(PayloadTooLarge(text, "payload")),
        )

    def _check(self, index: int, task: str) -> None:
        check_index(index, self.batch)
        if not task.strip():
            raise Unprocessable("task is blank: name the task to run", "task")
        if self._asks_each:
            self._call.require("batchTrigger", [("tasks", task)])


def _head(data: bytes) -> bytes:
    """The beginning of a cut off line as an item; nothing that is one if it begins otherwise."""
    found = HEAD.match(data)
    return b"" if found is None else found[0] + b"}"


def without_lease(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers of a request whose runs have the parent of their batch, not the run on whose behalf it is made."""
    return {name: value for name, value in headers.items() if name != "x-holdfast-lease"}


def line_of(batch: Batch, index: int, item: Mapping[str, Any], headers: Mapping[str, str]) -> Line:
    """An item as the engine takes it: the parent is that of its batch, and what is wrong with it fails its run."""
    options = {name: value for name, value in (item.get("options") or {}).items() if name != "parentRunId"}
    if batch.parent_id is not None:
        options["parentRunId"] = batch.parent_id
    run: NewRun | dict[str, Any]
    try:
        run = new_run(
            batch.environment_id, item["task"], {**item, "options": options}, headers, batch.id, single=False
        )
    except HoldfastError as error:
        run = refusal(error)
    return Line(
        environment_id=batch.environment_id, batch_id=batch.id, index=index, task=item["task"], run=run
    )


async def with_payloads(call: Call, lines: Sequence[Line]) -> list[Line]:
    """Lines whose payloads are where they belong; one that can not be had fails its run."""
    ready = await placed(call, [line.run for line in lines])
    return [
        line
        if run is line.run
        else replace(line, run=refusal(run) if isinstance(run, HoldfastError) else run)
        for line, run in zip(lines, ready, strict=True)
    ]


def may_fill(call: Call, batch_id: str) -> bool:
    """Whether the caller may write the whole batch; others need the task of each item."""
    scopes = call.credential.scopes
    return scopes is None or any(
        covers(scopes, action, [("batch", batch_id)]) for action in ("write", "batchTrigger")
    )


async def stream_items(call: Call) -> Response:
    """Phase 2. Lines are kept as they come: what a broken stream has brought is there when it is repeated."""
    batch_id, headers = call.path("batch"), call.request.headers
    if not headers.get("content-type"):
        raise UnsupportedMediaType(f"Content-Type is missing: send the items as {TYPES[0]}")
    refuse_other_types(headers["content-type"], TYPES)
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise InvalidRequest("Content-Encoding is not supported: send the body as it is", "content-encoding")
    try:
        batch = await call.engine.open_batch(call.environment_id, batch_id, call.credential.once)
    except Unprocessable:
        if (
            not may_fill(call, batch_id) and call.credential.once is None
        ):  # it need not know which ones there are
            raise lacking("write", [("batch", batch_id)]) from None
        raise
    incoming = Incoming(call, batch)
    lines = Lines(limits.MAX_BATCH_LINE)
    async for chunk in _arriving(call, lines):
        await incoming.take(chunk)
    await incoming.take(lines.end())
    if incoming.accepted + incoming.deduplicated == 0 and not may_fill(call, batch_id):
        raise lacking("write", [("batch", batch_id)])
    return respond(wire.arrived(incoming.batch, incoming.accepted, incoming.deduplicated))


async def _arriving(call: Call, lines: Lines) -> AsyncIterator[list[RawLine]]:
    """The lines that each piece of the body ends. Raises InvalidRequest when it is cut off, or no line ends in time."""
    clock = asyncio.get_running_loop().time
    latest = clock() + STREAM_SECONDS
    pieces = aiter(call.request.stream())
    deadline = clock() + call.body_seconds
    while True:
        try:
            async with asyncio.timeout_at(min(deadline, latest)):
                piece = await anext(pieces, None)
        except TimeoutError:
            raise InvalidRequest(
                f"no line arrived within {call.body_seconds:g} seconds; those before are kept: repeat the request",
                "body",
            ) from None
        except ClientDisconnect:
            raise InvalidRequest("Request body was cut off", "body") from None
        if piece is None:
            return
        if found := lines.feed(piece):
            yield found
            deadline = clock() + call.body_seconds
