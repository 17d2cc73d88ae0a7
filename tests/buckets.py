"""An S3 for tests: a server process of its own, with a new bucket for each test."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from uuid import uuid4

READY_SECONDS = 30.0


@contextmanager
def server() -> Iterator[str]:
    """The address of an S3 that keeps everything in memory."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + READY_SECONDS
        while True:
            with suppress(OSError):
                urllib.request.urlopen(f"{url}/moto-api/", timeout=5).close()
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the S3 server did not start")
            time.sleep(0.05)
        yield url
    finally:
        process.kill()
        process.wait()


def variables(url: str) -> dict[str, str]:
    """What names the server to whoever speaks S3."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
    }


def new_bucket(url: str) -> str:
    """The address of a prefix in a new bucket, such as s3://bucket/prefix."""
    name = f"bucket-{uuid4().hex}"
    request = urllib.request.Request(f"{url}/{name}", method="PUT", data=b"")
    urllib.request.urlopen(request, timeout=10).close()
    return f"s3://{name}/some/prefix"
