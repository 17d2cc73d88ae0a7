"""Errors -> status codes, and the one error shape of the whole API.

{"error": "what happened and what to do", "code": "run_not_found", "param"?: "the field", "details"?: […]}
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from holdfast import errors
from holdfast.wire.codec import encode

log = logging.getLogger("holdfast.server")

STATUS: Mapping[type[errors.HoldfastError], int] = {
    errors.InvalidRequest: 400,
    errors.NotAuthorised: 401,
    errors.Forbidden: 403,
    errors.ScopesExceedKeyAccess: 403,
    errors.NotFound: 404,
    errors.WaitpointNotFound: 404,
    errors.BulkActionNotFound: 404,
    errors.RunNotFound: 404,
    errors.BatchNotFound: 404,
    errors.WorkerNotFound: 404,
    errors.Fenced: 409,
    errors.LengthRequired: 411,
    errors.PayloadTooLarge: 413,
    errors.UnsupportedMediaType: 415,
    errors.Unprocessable: 422,
    errors.NoMasterKey: 422,  # a setting is missing: to repeat the request does not help
    errors.StoreUnavailable: 503,
    errors.ObjectStoreUnavailable: 503,
    errors.StoreTooNew: 503,
}
MAX_DETAILS = 20
# A run or batch that was just made may be asked of a replica that has not got it (the wire contract, 1.5).
RETRIEVE = re.compile(r"/api/v[123]/(runs|batches)/[^/]+")


def respond(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """`body` as JSON."""
    return Response(encode(body), status, dict(headers or {}), "application/json")


def problem(error: errors.HoldfastError) -> dict[str, Any]:
    """The error shape of a refusal."""
    body: dict[str, Any] = {"error": str(error), "code": error.code}
    if param := getattr(error, "param", None):
        body["param"] = param
    if isinstance(error, errors.Forbidden):
        body["type"] = "authorization"
    return body


def answer_error(error: errors.HoldfastError, *, may_appear: bool = False) -> Response:
    """The refusal; `may_appear` where what is not there now may be in a moment, so that the SDK asks again."""
    status = STATUS.get(type(error), 500)
    headers = {}
    if status == 404:
        headers["x-should-retry"] = "true" if may_appear else "false"
    if status == 503:
        headers["retry-after"] = "1"
        log.warning("%s", error)
        what = "object store" if isinstance(error, errors.ObjectStoreUnavailable) else "database"
        return respond({"error": f"The {what} does not answer; try again", "code": error.code}, 503, headers)
    return respond(problem(error), status, headers)


def invalid(error: ValidationError) -> dict[str, Any]:
    """The error shape of a value of the wrong shape: it names each place."""
    details = []
    for found in error.errors(include_url=False, include_input=True)[:MAX_DETAILS]:
        path = ".".join(str(step) for step in found["loc"])
        seen = repr(found.get("input"))
        details.append({"path": path, "message": f"{found['msg']} (seen: {seen[:80]})"})
    first = details[0]
    text = f"{first['path']}: {first['message']}" if first["path"] else first["message"]
    body: dict[str, Any] = {"error": text, "code": errors.InvalidRequest.code, "details": details}
    return body | {"param": first["path"]} if first["path"] else body


async def on_holdfast_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, errors.HoldfastError)
    read = request.method == "GET" and RETRIEVE.fullmatch(request.scope["path"]) is not None
    return answer_error(error, may_appear=read)


async def on_validation_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ValidationError)
    return respond(invalid(error), 400)


async def on_unexpected(request: Request, error: Exception) -> Response:
    """A defect: told in the log, never to the client."""
    log.error(
        "%s %s failed", request.method, request.url.path.encode("unicode_escape").decode(), exc_info=error
    )
    return respond({"error": "Internal server error", "code": "internal_error"}, 500)
