"""Every answer of the server in this process is held to what the OpenAPI document says of it."""

from __future__ import annotations

import re
from functools import cache

import httpx2
import jsonschema_rs
from pydantic import TypeAdapter

from holdfast.server import ENDPOINTS, openapi
from holdfast.wire.versions import SDK_VERSION

SCHEMAS = openapi.document(ENDPOINTS, "test")["components"]
PATHS = [
    (endpoint, re.compile(re.sub(r"\{\w+\}", "[^/]+", endpoint.path)))
    for endpoint in sorted(ENDPOINTS, key=lambda endpoint: endpoint.path.count("{"))
]


async def as_described(response: httpx2.Response) -> None:
    """A hook for a client. Raises ValidationError for a success that is not as described."""
    request = response.request
    path = request.url.raw_path.decode().partition("?")[0]
    index = next(
        (
            index
            for index, (one, regex) in enumerate(PATHS)
            if one.method == request.method and regex.fullmatch(path)
        ),
        None,
    )
    if index is None or PATHS[index][0].answer is None or not response.is_success:
        return
    await response.aread()
    sdk = request.headers.get("x-trigger-api-version") == SDK_VERSION
    validator(index, sdk).validate(response.json())


@cache
def validator(index: int, sdk: bool) -> jsonschema_rs.Draft202012Validator:
    endpoint = PATHS[index][0]
    told = endpoint.sdk_answer if sdk and endpoint.sdk_answer is not None else endpoint.answer
    if isinstance(told, TypeAdapter):
        told = told.json_schema(ref_template="#/components/schemas/{model}")
    return jsonschema_rs.Draft202012Validator({**(told or {}), "components": SCHEMAS}, validate_formats=True)
