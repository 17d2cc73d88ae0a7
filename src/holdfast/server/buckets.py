"""Objects in a bucket of S3, Google Cloud or Azure, by obstore (extra `s3`).

Credentials, region and endpoint come from the usual variables: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION,
AWS_ENDPOINT_URL and so on.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

from holdfast.errors import BadSetting, ObjectStoreUnavailable
from holdfast.model.packet import JSON
from holdfast.server.objects import Method, Object

PLAIN = re.compile(r"[^A-Za-z0-9._/-]")
OPTIONS = {"timeout": "30s", "connect_timeout": "5s"}
RETRIES: Any = {"max_retries": 3, "retry_timeout": timedelta(seconds=20)}


class Bucket:
    """The objects below the prefix that an address names. Raises BadSetting."""

    def __init__(self, url: str) -> None:
        try:
            import obstore
            from obstore.store import from_url
        except ImportError as error:
            raise BadSetting(
                f"HOLDFAST_OBJECT_STORE_URL is {url!r}, which needs the package obstore: "
                "pip install 'holdfast[s3]'"
            ) from error
        self._obstore = obstore
        # Many that speak S3 stand beside the server, without TLS.
        plain = os.environ.get("AWS_ENDPOINT_URL", os.environ.get("AWS_ENDPOINT", "")).startswith("http://")
        options: Any = {**OPTIONS, "allow_http": True} if plain else OPTIONS
        try:
            self._store: Any = from_url(url, client_options=options, retry_config=RETRIES)
        except (obstore.exceptions.BaseError, ValueError) as error:
            raise BadSetting(f"HOLDFAST_OBJECT_STORE_URL is {url!r}: {error}") from error

    async def put(self, key: str, data: bytes, data_type: str) -> None:
        try:
            await self._obstore.put_async(
                self._store, _path(key), data, attributes={"Content-Type": data_type}
            )
        except self._failures() as error:
            raise _unavailable(error) from error

    async def get(self, key: str) -> Object | None:
        try:
            found = await self._obstore.get_async(self._store, _path(key))
        except FileNotFoundError:
            return None
        except self._failures() as error:
            raise _unavailable(error) from error
        # Whoever uploads there says what they like; the type is what stands before its parameters.
        data_type = str(found.attributes.get("Content-Type") or JSON).partition(";")[0].strip().lower()
        return Object(data_type, int(found.meta["size"]), self._read(found))

    async def delete(self, keys: Sequence[str]) -> None:
        for key in keys:  # one by one: some services stop at the first that is not there
            try:
                await self._obstore.delete_async(self._store, _path(key))
            except FileNotFoundError:
                continue
            except self._failures() as error:
                raise _unavailable(error) from error

    async def url(self, method: Method, key: str, seconds: int) -> str | None:
        try:
            signed: str = await self._obstore.sign_async(
                self._store, method, _path(key), timedelta(seconds=seconds)
            )
        except self._failures() as error:
            raise _unavailable(error) from error
        return signed

    async def tidy(self) -> None:
        """An upload to a bucket that is cut off leaves nothing."""

    async def _read(self, found: Any) -> AsyncIterator[bytes]:
        try:
            async for chunk in found.stream():
                yield bytes(chunk)
        except self._failures() as error:
            raise _unavailable(error) from error

    def _failures(self) -> tuple[type[Exception], ...]:
        return (self._obstore.exceptions.BaseError, OSError)


def _path(key: str) -> str:
    """The key in letters that no service and no address writes in two ways; it stays readable and its own."""
    return PLAIN.sub(lambda match: "".join(f"={byte:02X}" for byte in match[0].encode()), key)


def _unavailable(error: Exception) -> ObjectStoreUnavailable:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return ObjectStoreUnavailable(f"the object store can not be used: {text[:200]}")
