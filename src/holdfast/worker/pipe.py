"""Messages between supervisor and executor: frames over a socket pair.

A frame is a length (4 bytes, big-endian) and a JSON list of messages. All that is sent within one
turn of the loop travels in one frame, so frames grow with the load and cost little per message.
End of file means that the other side is gone.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Any, cast

from pydantic_core import from_json, to_json

HEADER = struct.Struct("!I")
MAX_FRAME = 128 * 1024 * 1024  # a journal of 32 MiB doubles at most when it is quoted once more

Message = dict[str, Any]


class Pipe(asyncio.Protocol):
    """One end of the pair.

    on_messages  is given the messages of each frame
    on_closed    is called once: None at end of file, a sentence when the other side broke the rules
    """

    def __init__(
        self, on_messages: Callable[[list[Message]], None], on_closed: Callable[[str | None], None]
    ) -> None:
        self._on_messages = on_messages
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._outgoing: list[Message] = []
        self._incoming = bytearray()
        self._fault: str | None = None

    def send(self, message: Message) -> None:
        """Queue one message; it leaves with the others of this turn. Silently dropped once closed."""
        if not self._outgoing:
            self._loop.call_soon(self.flush)
        self._outgoing.append(message)

    def flush(self) -> None:
        """Write what is queued now."""
        messages, self._outgoing = self._outgoing, []
        if messages and self._transport is not None and not self._transport.is_closing():
            for frame in _frames(messages):
                self._transport.write(frame)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from asyncio's

    def data_received(self, data: bytes) -> None:
        incoming = self._incoming
        incoming += data
        start = 0
        while len(incoming) - start >= HEADER.size:
            (length,) = HEADER.unpack_from(incoming, start)
            if length > MAX_FRAME:
                return self._break(f"a frame of {length} bytes")
            end = start + HEADER.size + length
            if len(incoming) < end:
                break
            try:
                messages = from_json(bytes(incoming[start + HEADER.size : end]))
            except ValueError as error:
                return self._break(f"a frame that is not JSON: {error}")
            if not isinstance(messages, list) or not all(type(message) is dict for message in messages):
                return self._break("a frame that is no list of messages")
            start = end
            self._on_messages(messages)
        del incoming[:start]
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_closed(self._fault)

    def _break(self, fault: str) -> None:
        self._fault = fault
        self._incoming.clear()
        if self._transport is not None:
            self._transport.abort()


def _frames(messages: list[Message]) -> list[bytes]:
    body = to_json(messages)
    if len(body) <= MAX_FRAME or len(messages) == 1:
        return [HEADER.pack(len(body)) + body]
    half = len(messages) // 2
    return _frames(messages[:half]) + _frames(messages[half:])
