"""Streams of items over real connections that break, on both stores."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

import httpx2
import pytest
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.engine import Engine
from holdfast.server import create_app
from holdfast.stores import Store, open_store
from holdfast.wire.batches import ITEM_LINE
from holdfast.wire.codec import encode
from server.test_fuzz import JSON, shaped
from server.world import DEV_KEY, KEYS, error_shape, ok

pytestmark = pytest.mark.anyio

LINES = [
    json.dumps({"index": n, "task": "echo", "payload": f"é{n}"}, ensure_ascii=False).encode()
    for n in range(5)
]
BODY = b"\n".join(LINES)


@pytest.fixture
async def client(store: Store) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a server that listens on a port of its own."""
    app = create_app(Engine(store), KEYS)
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="critical", ws="none", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve([listener]))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    headers = {"authorization": f"Bearer {DEV_KEY}"}
    async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=30) as client:
        yield client
    server.should_exit = True
    await serving


async def create(client: httpx2.AsyncClient, count: int = 5) -> str:
    response = await client.post("/api/v3/batches", json={"runCount": count})
    assert response.status_code == 202, response.text
    batch: str = response.json()["id"]
    return batch


class Stream:
    """A request with a chunked body in the hand of the test."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def begin(cls, client: httpx2.AsyncClient, batch: str) -> Stream:
        port = client.base_url.port
        stream = cls(*await asyncio.open_connection("127.0.0.1", port))
        head = (
            f"POST /api/v3/batches/{batch}/items HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {DEV_KEY}\r\n"
            "Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        stream._writer.write(head.encode())
        return stream

    async def send(self, data: bytes) -> None:
        if data:
            self._writer.write(b"%x\r\n%b\r\n" % (len(data), data))
            await self._writer.drain()

    async def end(self) -> dict[str, object]:
        """The server's answer."""
        self._writer.write(b"0\r\n\r\n")
        head = await self._reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        [length] = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
        answer: dict[str, object] = json.loads(await self._reader.readexactly(int(length.split(b":")[1])))
        self._writer.close()
        return answer

    async def cut(self) -> None:
        self._writer.transport.abort()
        with suppress(OSError):
            await self._writer.wait_closed()


async def runs_of(client: httpx2.AsyncClient, batch: str) -> list[str]:
    found: list[str] = (await ok(client.get(f"/api/v2/batches/{batch}")))["runs"]
    return found


async def payloads(client: httpx2.AsyncClient, runs: Sequence[str]) -> list[str]:
    return [(await ok(client.get(f"/api/v3/runs/{run}")))["payload"] for run in runs]


async def test_a_stream_cut_after_three_of_five_is_repeated_from_the_start(client: httpx2.AsyncClient):
    """Scenario 19 of the engine semantics."""
    batch = await create(client)
    stream = await Stream.begin(client, batch)
    await stream.send(b"\n".join([*LINES[:3], LINES[3][:30]]))
    while len(await runs_of(client, batch)) < 3:  # they begin while the stream is still open
        pass
    await stream.cut()
    first = await runs_of(client, batch)
    again = await Stream.begin(client, batch)
    await again.send(BODY)
    answer = await again.end()
    assert (answer["itemsAccepted"], answer["itemsDeduplicated"], answer["sealed"]) == (2, 3, True)
    runs = await runs_of(client, batch)
    assert runs[:3] == first
    assert await payloads(client, runs) == [f"é{n}" for n in range(5)]
    assert len((await ok(client.get("/api/v1/runs")))["data"]) == 5


@pytest.mark.parametrize(
    "place", [0, 1, len(LINES[0]), len(LINES[0]) + 1, 100, 137, len(BODY) - 1, len(BODY)]
)
async def test_wherever_a_stream_is_cut_each_index_is_made_once(client: httpx2.AsyncClient, place: int):
    batch = await create(client)
    for cut in (place, max(0, place - 60), min(len(BODY), place + 60)):
        stream = await Stream.begin(client, batch)
        await stream.send(BODY[:cut])
        await stream.cut()
    last = await Stream.begin(client, batch)
    await last.send(BODY[:place])
    await last.send(BODY[place:])
    assert (await last.end())["sealed"]
    runs = await runs_of(client, batch)
    assert len(set(runs)) == 5
    assert await payloads(client, runs) == [f"é{n}" for n in range(5)]
    assert len((await ok(client.get("/api/v1/runs")))["data"]) == 5


SHAPE = ITEM_LINE.json_schema()
PIECES = st.lists(
    st.one_of(
        st.tuples(shaped(SHAPE, SHAPE["$defs"]) | JSON, st.sampled_from([b"\n", b"\r\n", b""])).map(
            lambda drawn: encode(drawn[0]) + drawn[1]
        ),
        st.binary(max_size=8),
        st.sampled_from([line + b"\n" for line in LINES]),
    ),
    max_size=6,
)


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(st.lists(PIECES, min_size=1, max_size=3))
def test_nothing_in_a_stream_makes_the_server_fail(streams: list[list[bytes]]):
    asyncio.run(_exchange(streams))


async def _exchange(streams: list[list[bytes]]) -> None:
    store = open_store("sqlite:///:memory:")
    try:
        transport = httpx2.ASGITransport(create_app(Engine(store), KEYS), raise_app_exceptions=False)
        headers = {"authorization": f"Bearer {DEV_KEY}"}
        async with httpx2.AsyncClient(
            transport=transport, base_url="http://holdfast", headers=headers
        ) as client:
            batch = await create(client)
            for pieces in streams:

                async def body(pieces: list[bytes] = pieces) -> AsyncIterator[bytes]:
                    for piece in pieces:
                        yield piece

                url = f"/api/v3/batches/{batch}/items"
                headers = {"content-type": "application/x-ndjson"}
                response = await client.post(url, content=body(), headers=headers)
                assert response.status_code in (200, 400, 422), response.text
                if response.status_code != 200:
                    error_shape(response)
            found = await ok(client.get(f"/api/v2/batches/{batch}"))
            listed = await ok(client.get("/api/v1/runs", params={"filter[batch]": batch}))
            assert {run["id"] for run in listed["data"]} == set(found["runs"])
            assert len(found["runs"]) <= 5
    finally:
        store.close()


async def test_streams_of_one_batch_at_once_make_each_index_once(client: httpx2.AsyncClient):
    batch = await create(client, 400)
    lines = [json.dumps({"index": n, "task": "echo", "payload": n}).encode() + b"\n" for n in range(400)]

    async def stream(order: list[bytes]) -> dict[str, object]:
        sending = await Stream.begin(client, batch)
        for start in range(0, 400, 7):
            await sending.send(b"".join(order[start : start + 7]))
        return await sending.end()

    answers = await asyncio.gather(stream(lines), stream(lines[::-1]), stream(lines[200:] + lines[:200]))
    assert sum(int(str(answer["itemsAccepted"])) for answer in answers) == 400
    assert all(answer["sealed"] for answer in answers)
    assert len(set(await runs_of(client, batch))) == 400
