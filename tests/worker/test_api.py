"""The two ways to a server, against the same small application."""

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest
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
async def way(kind: str, key: str = "tr_dev_1"):
    if kind == "asgi":
        yield AsgiApi(application, key)
        return
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(application, log_level="critical", lifespan="off", timeout_graceful_shutdown=1)
    )
    serving = asyncio.create_task(server.serve([listener]))
    api = HttpApi(f"http://127.0.0.1:{listener.getsockname()[1]}", key)
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
