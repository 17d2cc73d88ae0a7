"""The two ways to a server, against the same small application."""

import asyncio
import socket
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trustme
import uvicorn

from holdfast.errors import ServerUnreachable
from holdfast.worker.api import AsgiApi, HttpApi
from worker.world import story


async def application(scope, receive, send):
    assert scope["type"] == "http"
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    key = dict(scope["headers"])[b"authorization"]
    if scope["path"] == "/slow":
        await asyncio.sleep(30)
    if scope["path"] == "/broken":
        raise RuntimeError("no")
    status = 200 if key == b"Bearer tr_dev_1" else 401
    await send(
        {"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]}
    )
    await send(
        {
            "type": "http.response.body",
            "body": scope["method"].encode() + b" " + scope["path"].encode(),
            "more_body": True,
        }
    )
    await send({"type": "http.response.body", "body": b" " + body})


@asynccontextmanager
async def way(kind: str, key: str = "tr_dev_1", **config: Any):
    if kind == "asgi":
        yield AsgiApi(application, key)
        return
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(
            application, log_level="critical", lifespan="off", timeout_graceful_shutdown=1, **config
        )
    )
    serving = asyncio.create_task(server.serve([listener]))
    scheme = "https" if "ssl_keyfile" in config else "http"
    api = HttpApi(f"{scheme}://127.0.0.1:{listener.getsockname()[1]}", key)
    try:
        yield api
    finally:
        await api.close()
        server.should_exit = True
        await serving


@pytest.mark.parametrize("kind", ["asgi", "http"])
@story
async def test_a_call_brings_status_and_body(kind):
    async with way(kind) as api:
        assert await api.post("/a/b", b'{"x":1}', 5) == (200, b'POST /a/b {"x":1}')
        assert await api.post("/a/b", b"{}", 5, urgent=True) == (200, b"POST /a/b {}")
        assert await api.delete("/a", 5) == (200, b"DELETE /a ")
    async with way(kind, "tr_dev_2") as api:
        assert (await api.post("/a", b"", 5))[0] == 401


@pytest.mark.parametrize("kind", ["asgi", "http"])
@story
async def test_no_answer_in_time_is_an_error_of_its_own(kind):
    async with way(kind) as api:
        with pytest.raises(ServerUnreachable, match="within"):
            await api.post("/slow", b"", 0.1)


@story
async def test_a_server_that_fails_in_process_is_like_one_that_does_not_answer():
    async with way("asgi") as api:
        with pytest.raises(ServerUnreachable, match="RuntimeError"):
            await api.post("/broken", b"", 1)


@story
async def test_nobody_listening_is_an_error_of_its_own():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    api = HttpApi(f"http://127.0.0.1:{port}", "tr_dev_1")
    with pytest.raises(ServerUnreachable):
        await api.post("/", b"", 1)
    await api.close()


@asynccontextmanager
async def serving(answer):
    """A server that `answer(reader, writer)` is, and the way to it."""
    writers = []

    async def connected(reader, writer):
        writers.append(writer)
        try:
            await answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    api = HttpApi(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/below", "tr_dev_1")
    try:
        yield api, writers
    finally:
        await api.close()
        server.close()
        for writer in writers:
            writer.close()
        await server.wait_closed()


async def request(reader):
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return head, await reader.readexactly(length)


OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@story
async def test_a_connection_serves_one_call_after_another_below_the_path_of_the_server():
    heads = []

    async def answer(reader, writer):
        while True:
            heads.append((await request(reader))[0])
            writer.write(OK)

    async with serving(answer) as (api, writers):
        for _ in range(3):
            assert await api.post("/a", b"{}", 5) == (200, b"ok")
        assert len(writers) == 1
        assert [head.split(b"\r\n")[0] for head in heads] == [b"POST /below/a HTTP/1.1"] * 3
        port = str(writers[0].get_extra_info("sockname")[1]).encode()
        assert b"\r\nhost: 127.0.0.1:" + port + b"\r\nauthorization: Bearer tr_dev_1\r\n" in heads[0]


@story
async def test_calls_at_once_have_connections_of_their_own_up_to_a_limit():
    busy = most = 0

    async def answer(reader, writer):
        nonlocal busy, most
        while True:
            await request(reader)
            busy += 1
            most = max(most, busy)
            await asyncio.sleep(0.02)
            busy -= 1
            writer.write(OK)

    async with serving(answer) as (api, writers):
        answers = await asyncio.gather(*(api.post("/a", b"", 5) for _ in range(30)))
        assert answers == [(200, b"ok")] * 30
        assert (most, len(writers)) == (8, 8)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"", "the connection was closed"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok", "the connection was closed"),
        (b"this is no HTTP", "no HTTP answer"),
    ],
)
@story
async def test_half_an_answer_is_none_and_the_next_call_has_a_new_connection(said, why):
    number = 0

    async def answer(reader, writer):
        nonlocal number
        number += 1
        await request(reader)
        writer.write(OK if number > 1 else said)

    async with serving(answer) as (api, _):
        with pytest.raises(ServerUnreachable, match=why):
            await api.post("/a", b"", 5)
        assert await api.post("/a", b"", 5) == (200, b"ok")


@story
async def test_a_late_answer_is_never_taken_for_that_of_another_call():
    number = 0

    async def answer(reader, writer):
        nonlocal number
        while True:
            number += 1
            mine = number
            await request(reader)
            if mine == 1:
                await asyncio.sleep(0.2)
            writer.write(OK.replace(b"ok", b"%02d" % mine))

    async with serving(answer) as (api, _):
        with pytest.raises(ServerUnreachable, match="within"):
            await api.post("/a", b"", 0.05)
        later = [await api.post("/a", b"", 5) for _ in range(2)]
        await asyncio.sleep(0.3)
        later.append(await api.post("/a", b"", 5))
        assert b"01" not in {body for _, body in later}


@story
async def test_a_server_that_ends_its_connections_is_connected_to_again():
    async def answer(reader, writer):
        await request(reader)
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" + OK.replace(b"OK\r\n", b"OK\r\nconnection: close\r\n"))

    async with serving(answer) as (api, writers):
        assert [await api.post("/a", b"", 5) for _ in range(3)] == [(200, b"ok")] * 3
        assert len(writers) == 3


@story
async def test_over_tls_whoever_has_no_certificate_is_refused(tmp_path, monkeypatch):
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    config = {"ssl_keyfile": str(tmp_path / "server.pem"), "ssl_certfile": str(tmp_path / "server.pem")}
    async with way("http", **config) as api:
        with pytest.raises(ServerUnreachable, match=r"(?i)certificate"):
            await api.post("/a", b"", 5)
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    async with way("http", **config) as api:
        assert await api.post("/a", b"{}", 5) == (200, b"POST /a {}")


@story
async def test_a_proxy_of_the_environment_is_used_unless_it_is_told_not_to(monkeypatch):
    heads = []

    async def answer(reader, writer):
        while True:
            heads.append((await request(reader))[0])
            writer.write(OK)

    async with serving(answer) as (direct, writers):
        assert await direct.post("/a", b"", 5) == (200, b"ok")
        host, port = writers[0].get_extra_info("sockname")
        monkeypatch.setenv("http_proxy", f"http://{host}:{port}")
        proxied = HttpApi("http://holdfast.example:81", "tr_dev_1")
        assert await proxied.post("/a", b"", 5) == (200, b"ok")
        await proxied.close()
        assert heads[-1].startswith(b"POST http://holdfast.example:81/a HTTP/1.1\r\n")
