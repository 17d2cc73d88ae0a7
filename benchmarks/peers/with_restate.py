"""Restate: a handler of five steps, which its server calls; `app` is served over HTTP/2.

    python -m benchmarks.peers.with_restate drive ADDRESS N

The server pushes, so a driver keeps 100 calls open instead of a filled queue.
"""

from __future__ import annotations

import asyncio
import sys
from urllib.parse import urlsplit

import restate

from benchmarks.peers.marks import ENDED, STARTED, mark

IN_FLIGHT = 100
service = restate.Service("bench")


def nothing() -> None: ...


@service.handler()
async def five(context: restate.Context) -> None:
    mark(STARTED)
    for number in range(5):
        await context.run_typed(f"nothing {number}", nothing)
    mark(ENDED)


app = restate.app(services=[service])


async def drive(address: str, count: int) -> None:
    """By a client that costs next to nothing."""
    where = urlsplit(address)
    request = f"POST /bench/five HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Length: 0\r\n\r\n".encode()
    left = iter(range(count))

    async def caller() -> None:
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        for _ in left:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            length = next(
                (line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")), b":0"
            )
            await reader.readexactly(int(length.split(b":")[1]))
        writer.close()

    await asyncio.gather(*(caller() for _ in range(min(IN_FLIGHT, count))))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["drive", address, count]:
            asyncio.run(drive(address, int(count)))
        case _:
            sys.exit(__doc__)
