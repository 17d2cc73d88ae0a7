"""Frames between supervisor and executor."""

import asyncio
import socket

import pytest

from holdfast.worker import pipe
from holdfast.worker.pipe import HEADER, Message, Pipe
from worker.world import story


async def pair() -> tuple[Pipe, list[list[Message]], socket.socket, list[str | None]]:
    """A pipe, what it received, the raw other end, and how it was closed."""
    received: list[list[Message]] = []
    closed: list[str | None] = []
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    end = Pipe(received.append, closed.append)
    await asyncio.get_running_loop().create_unix_connection(lambda: end, sock=ours)
    return end, received, theirs, closed


async def until(condition) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


@story
async def test_messages_of_one_turn_travel_in_one_frame():
    end, _, other, _ = await pair()
    with other:
        end.send({"n": 1})
        end.send({"n": 2})
        await asyncio.sleep(0.01)
        assert other.recv(1_000) == HEADER.pack(17) + b'[{"n":1},{"n":2}]'
        end.close()


@story
async def test_frames_are_understood_however_they_are_cut():
    end, received, other, _ = await pair()
    frame = HEADER.pack(9) + b'[{"n":1}]'
    with other:
        for byte in frame + frame:
            other.send(bytes([byte]))
            await asyncio.sleep(0.001)
        other.send(frame * 3)
        await until(lambda: len(received) == 5)
        end.close()
    assert received == [[{"n": 1}]] * 5


@pytest.mark.parametrize(
    "data",
    [HEADER.pack(2**31) + b"x", HEADER.pack(3) + b"{{{", HEADER.pack(2) + b"{}", HEADER.pack(3) + b"[1]"],
)
@story
async def test_a_frame_against_the_rules_closes_the_pipe_and_says_why(data):
    _, received, other, closed = await pair()
    with other:
        other.send(data)
        await until(lambda: closed)
    assert received == []
    assert closed[0].startswith("a frame")


@story
async def test_what_is_too_large_for_one_frame_travels_in_several(monkeypatch):
    monkeypatch.setattr(pipe, "MAX_FRAME", 40)
    assert len(pipe._frames([{"n": "x" * 15}] * 4)) == 4
