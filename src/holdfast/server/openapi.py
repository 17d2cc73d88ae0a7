"""The OpenAPI document, made of the declarations that validate."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter

from holdfast.server.routing import Endpoint
from holdfast.wire import answers, trace_answers
from holdfast.wire.versions import SDK_VERSION

ERROR = {
    "type": "object",
    "properties": {
        "error": {"type": "string"},
        "code": {"type": "string"},
        "param": {"type": "string"},
        "details": {"type": "array", "items": {"type": "object"}},
    },
    "required": ["error", "code"],
}


def document(endpoints: Sequence[Endpoint], version: str) -> dict[str, Any]:
    """OpenAPI 3.1 for these endpoints."""
    paths: dict[str, dict[str, Any]] = {}
    schemas: dict[str, Any] = {"Error": ERROR, **answers.NAMED, **trace_answers.NAMED}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Holdfast", "version": version},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"secretKey": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"secretKey": []}],
    }


def _operation(endpoint: Endpoint, schemas: dict[str, Any]) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", endpoint.path)
    ]
    parameters += [{"name": name, "in": "query", "schema": {"type": "string"}} for name in endpoint.query]
    if endpoint.sdk_answer is not None:
        schema = {"type": "string", "enum": [SDK_VERSION]}
        parameters.append({"name": "x-trigger-api-version", "in": "header", "schema": schema})
    operation: dict[str, Any] = {
        "summary": endpoint.summary,
        "operationId": f"{endpoint.handler.__module__.rpartition('.')[2]}_{endpoint.handler.__name__}",
        "parameters": parameters,
        "responses": {
            str(endpoint.status): {
                "description": "Done",
                "content": {"application/json": {"schema": _answer(endpoint, schemas)}},
            },
            "default": {
                "description": "Refused",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
            },
        },
    }
    access = endpoint.access
    if access is None:
        operation["security"] = []
    else:
        operation["x-holdfast-access"] = {
            "action": access.action,
            "kinds": list(access.kinds),
            "publicTokens": access.tokens,
            "publicKeys": access.public_keys,
        }
    if endpoint.body is not None:
        operation["requestBody"] = {
            "required": not endpoint.body_optional,
            "content": {"application/json": {"schema": _shape(endpoint.body, schemas)}},
        }
    return operation


def _answer(endpoint: Endpoint, schemas: dict[str, Any]) -> dict[str, Any]:
    """What a success looks like; with the header of the SDK's version it may be another shape."""
    told = endpoint.answer
    answer = _shape(told, schemas) if isinstance(told, TypeAdapter) else dict(told or {"type": "object"})
    return answer if endpoint.sdk_answer is None else {"anyOf": [answer, dict(endpoint.sdk_answer)]}


def _shape(adapter: TypeAdapter[Any], schemas: dict[str, Any]) -> dict[str, Any]:
    schema = adapter.json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(schema.pop("$defs", {}))
    return schema
