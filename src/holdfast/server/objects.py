"""Where large payloads and outputs are kept: a folder of this machine, or a bucket (server/buckets.py).

An object has a key, `<environment>/<name>`, and remembers the type of its data. In a folder each is one file, named by a
digest of the key, so that no name can lead out of it or get in another one's way; its first line tells type and key.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, Protocol
from urllib.parse import unquote

from holdfast.config import BUCKETS
from holdfast.errors import BadSetting, ObjectStoreUnavailable, PayloadTooLarge
from holdfast.model.limits import MAX_PACKET

CHUNK = 256 * 1024
DRAFT_SECONDS = 86_400.0  # no upload takes that long
Method = Literal["GET", "PUT"]


@dataclass(frozen=True, slots=True)
class Object:
    """An object that was found; `chunks` may be read once."""

    data_type: str
    size: int
    chunks: AsyncIterator[bytes]

    async def data(self) -> bytes:
        """All of it. Raises PayloadTooLarge over the limit, before anything is read."""
        if self.size > MAX_PACKET:
            raise PayloadTooLarge(f"the stored packet is {self.size} bytes: at most {MAX_PACKET}")
        return b"".join([chunk async for chunk in self.chunks])


class Objects(Protocol):
    """Each call raises ObjectStoreUnavailable where the store does not answer."""

    async def put(self, key: str, data: bytes, data_type: str) -> None:
        """Keeps an object, whole or not at all."""

    async def get(self, key: str) -> Object | None: ...

    async def delete(self, keys: Sequence[str]) -> None:
        """One that is not there counts as deleted."""

    async def url(self, method: Method, key: str, seconds: int) -> str | None:
        """An address at the store that is good for one method and object; None where this server serves them."""

    async def tidy(self) -> None:
        """Removes what uploads have left that were cut off long ago."""


class Folder:
    """Objects in a folder; it is made when it is needed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._drafts = path / "drafts"  # in the same file system, so that a draft becomes an object at once

    async def put(self, key: str, data: bytes, data_type: str) -> None:
        async def once() -> AsyncIterator[bytes]:
            yield data

        await self.receive(key, once(), data_type)

    async def receive(self, key: str, chunks: AsyncIterator[bytes], data_type: str) -> None:
        """Writes an object as its chunks arrive. What `chunks` raises leaves nothing behind."""
        draft, file = await asyncio.to_thread(self._begin, key, data_type)
        try:
            try:
                async for chunk in chunks:
                    await asyncio.to_thread(file.write, chunk)
            finally:
                await asyncio.to_thread(_close, file)
            await asyncio.to_thread(self._keep, draft, key)
        except OSError as error:
            raise _unavailable(error) from error
        finally:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)

    async def get(self, key: str) -> Object | None:
        try:
            found = await asyncio.to_thread(self._head, key)
        except OSError as error:
            raise _unavailable(error) from error
        if found is None:
            return None
        data_type, begins, size = found
        return Object(data_type, size, _read(self._file(key), begins))

    async def delete(self, keys: Sequence[str]) -> None:
        def unlink() -> None:
            for key in keys:
                self._file(key).unlink(missing_ok=True)

        try:
            await asyncio.to_thread(unlink)
        except OSError as error:
            raise _unavailable(error) from error

    async def url(self, method: Method, key: str, seconds: int) -> str | None:
        return None

    async def tidy(self) -> None:
        await asyncio.to_thread(self._tidy)

    def _file(self, key: str) -> Path:
        digest = hashlib.sha256(key.encode()).hexdigest()
        return self._path / digest[:2] / digest[2:]

    def _begin(self, key: str, data_type: str) -> tuple[Path, IO[bytes]]:
        try:
            self._drafts.mkdir(parents=True, exist_ok=True)
            number, name = tempfile.mkstemp(dir=self._drafts)
        except OSError as error:
            raise _unavailable(error) from error
        file = os.fdopen(number, "wb")
        file.write(json.dumps({"type": data_type, "key": key}).encode() + b"\n")
        return Path(name), file

    def _keep(self, draft: Path, key: str) -> None:
        """The draft becomes the object, and is on the disk before anyone is told so."""
        file = self._file(key)
        file.parent.mkdir(exist_ok=True)
        draft.replace(file)
        if os.name == "posix":
            folder = os.open(file.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _tidy(self) -> None:
        before = time.time() - DRAFT_SECONDS
        with contextlib.suppress(OSError):  # another server may do the same
            for draft in self._drafts.iterdir():
                if draft.stat().st_mtime < before:
                    draft.unlink()

    def _head(self, key: str) -> tuple[str, int, int] | None:
        """The type of the data, where in the file it begins, and its bytes."""
        try:
            with self._file(key).open("rb") as file:
                head = json.loads(file.readline())
                return head["type"], file.tell(), os.fstat(file.fileno()).st_size - file.tell()
        except FileNotFoundError:
            return None
        except (ValueError, KeyError) as error:
            raise ObjectStoreUnavailable(f"object {key} is damaged: {error}") from error


def open_objects(url: str, database_url: str = "") -> Objects:
    """The store that an address names: a folder (`file:///var/lib/objects`) or a bucket (`s3://bucket/prefix`).

    Without an address the folder `objects` beside an SQLite database, else below `.holdfast`. Raises BadSetting.
    """
    if not url:
        beside = database_url.removeprefix("sqlite:///") if database_url.startswith("sqlite:///") else ""
        beside = "" if beside == ":memory:" else beside
        return Folder(Path(unquote(beside) or ".holdfast/holdfast.db").absolute().parent / "objects")
    if url.startswith(BUCKETS):
        from holdfast.server.buckets import Bucket

        return Bucket(url)
    path = url.removeprefix("file://").removeprefix("file:")
    if not path:
        raise BadSetting(
            f"HOLDFAST_OBJECT_STORE_URL is {url!r}: expected a folder such as file:///var/lib/holdfast/objects"
        )
    return Folder(Path(path).absolute())


def _close(file: IO[bytes]) -> None:
    with file:
        file.flush()
        os.fsync(file.fileno())


async def _read(path: Path, begins: int) -> AsyncIterator[bytes]:
    try:
        with await asyncio.to_thread(path.open, "rb") as file:
            file.seek(begins)
            while chunk := await asyncio.to_thread(file.read, CHUNK):
                yield chunk
    except OSError as error:
        raise _unavailable(error) from error


def _unavailable(error: OSError) -> ObjectStoreUnavailable:
    return ObjectStoreUnavailable(f"the object store can not be used: {error.strerror or error}")
