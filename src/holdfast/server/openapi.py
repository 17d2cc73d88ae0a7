"""The OpenAPI document, made of the declarations that validate."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from holdfast.server.routing import Endpoint

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
    schemas: dict[str, Any] = {"Error": ERROR}
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
    operation: dict[str, Any] = {
        "summary": endpoint.summary,
        "operationId": f"{endpoint.handler.__module__.rpartition('.')[2]}_{endpoint.handler.__name__}",
        "parameters": parameters,
        "responses": {
            str(endpoint.status): {
                "description": "Done",
                "content": {"application/json": {"schema": dict(endpoint.answer or {"type": "object"})}},
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
        schema = endpoint.body.json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(schema.pop("$defs", {}))
        operation["requestBody"] = {
            "required": not endpoint.body_optional,
            "content": {"application/json": {"schema": schema}},
        }
    return operation
