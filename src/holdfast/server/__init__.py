"""The HTTP server: one ASGI app over an engine. Stateless; any number of them share a store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cache
from importlib.metadata import version
from typing import Any

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from holdfast.engine import Engine
from holdfast.errors import HoldfastError, StoreUnavailable
from holdfast.server import (
    batches,
    bulk,
    deployments,
    idempotency,
    listing,
    openapi,
    packets,
    projects,
    public_tokens,
    queues,
    runs,
    schedules,
    timezones,
    trace,
    trigger,
    variables,
    waits,
    workers,
)
from holdfast.server.auth import Keyring, environment_of_key
from holdfast.server.dispatch import METHODS, Dispatch, Segment
from holdfast.server.objects import Objects
from holdfast.server.problems import on_holdfast_error, on_unexpected, on_validation_error, respond
from holdfast.server.routing import BODY_SECONDS
from holdfast.server.sweep import run_sweeps
from holdfast.server.vault import Vault

__all__ = ["ENDPOINTS", "create_app", "environment_of_key"]

# Fixed paths before those with a parameter: the first that matches is taken.
ENDPOINTS = (
    *listing.ENDPOINTS,
    *batches.ENDPOINTS,
    *bulk.ENDPOINTS,
    *idempotency.ENDPOINTS,
    *projects.ENDPOINTS,
    *public_tokens.ENDPOINTS,
    *packets.ENDPOINTS,
    *deployments.ENDPOINTS,
    *queues.ENDPOINTS,
    *runs.ENDPOINTS,
    *schedules.ENDPOINTS,
    *trigger.ENDPOINTS,
    *timezones.ENDPOINTS,
    *trace.ENDPOINTS,
    *variables.ENDPOINTS,
    *waits.ENDPOINTS,
    *workers.ENDPOINTS,
)
READY_SECONDS = 2.0


def create_app(
    engine: Engine,
    keys: Mapping[str, str],
    *,
    public_url: str = "http://localhost:3030",
    body_seconds: float = BODY_SECONDS,
    vault: Vault | None = None,
    objects: Objects | None = None,
) -> ASGIApp:
    """The API over `engine`. `keys` maps secret keys to environments.

    public_url    how the world outside reaches it: the addresses of tokens begin with this
    body_seconds  how long a body may take to arrive
    vault         seals what the database keeps; without it nothing can be sealed
    objects       where large payloads and outputs are; without it they are in the database

    Its lifespan runs the upkeep loop, so it must be entered: uvicorn does; a test enters
    `lifespan(engine)` itself.
    """
    vault = vault or Vault()
    keyring = Keyring(engine, keys, public_url, vault)
    tree, routes = Segment(), _open_routes(engine)
    for endpoint in ENDPOINTS:
        serve = endpoint.serve(engine, keyring, vault, body_seconds)
        tree.add(endpoint.path, endpoint.method, serve)
        routes.append(Route(endpoint.path, serve, methods=[endpoint.method]))
    app = Starlette(
        routes=routes,
        exception_handlers={
            HoldfastError: on_holdfast_error,
            ValidationError: on_validation_error,
            HTTPException: _on_http_error,
            Exception: on_unexpected,
        },
        lifespan=lambda _: lifespan(engine, objects),
    )
    app.state.objects = objects
    app.router.redirect_slashes = False  # a path with one slash too many is no path: 404, not a redirect
    return Dispatch(app, tree)


@asynccontextmanager
async def lifespan(engine: Engine, objects: Objects | None = None) -> AsyncIterator[None]:
    """Runs upkeep beside the server."""
    stop = asyncio.Event()
    beside = [asyncio.create_task(engine.run_upkeep(stop), name="upkeep")]
    if objects is not None:
        beside.append(asyncio.create_task(run_sweeps(engine, objects, stop), name="sweeps"))
    try:
        yield
    finally:
        stop.set()
        await asyncio.gather(*beside)


def _open_routes(engine: Engine) -> list[Route]:
    async def livez(_: Request) -> Response:
        return respond({"status": "ok"})

    async def readyz(_: Request) -> Response:
        try:
            async with asyncio.timeout(READY_SECONDS):
                await engine.store.read(lambda tx: tx.one("environment", id="dev"))
        except (StoreUnavailable, TimeoutError):
            body = {"error": "The database does not answer; try again", "code": StoreUnavailable.code}
            return respond(body, 503, {"retry-after": "1"})
        return respond({"status": "ok"})

    async def describe(_: Request) -> Response:
        return respond(_document())

    return [Route("/livez", livez), Route("/readyz", readyz), Route("/openapi.json", describe)]


@cache
def _document() -> dict[str, Any]:
    return openapi.document(ENDPOINTS, version("holdfast"))


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code != 405:
        body = {"error": "Not found: no such path", "code": "not_found"}
        return respond(body, error.status_code, {"x-should-retry": "false"})
    # A path may have several routes, one for each method; the framework names only the first's.
    path = request.scope["path"]
    routes = [
        route for route in request.app.routes if isinstance(route, Route) and route.path_regex.match(path)
    ]
    allowed = sorted({method for route in routes for method in route.methods or ()})
    if (
        request.method == "OPTIONS"
    ):  # a browser says what it means to send, and is answered before it comes here
        crossing = {"access-control-allow-origin": "*", "access-control-allow-methods": ", ".join(METHODS)}
        return Response(status_code=204, headers={"allow": ", ".join([*allowed, "OPTIONS"]), **crossing})
    body = {"error": "Method not allowed", "code": "method_not_allowed"}
    return respond(body, 405, {"allow": ", ".join(allowed)})
