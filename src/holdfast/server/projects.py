"""Where a key belongs: its environment, its project, and the runs of that (the wire contract, 5.5 and 4.10)."""

from __future__ import annotations

from starlette.responses import Response

from holdfast.errors import NotFound
from holdfast.server.access import Access
from holdfast.server.listing import PAGED, list_runs
from holdfast.server.problems import respond
from holdfast.server.routing import Call, Endpoint
from holdfast.wire import credentials as wire
from holdfast.wire.answers import MOMENT, RUNS, SDK_RUNS, TEXT, exactly, list_of


async def whoami(call: Call) -> Response:
    return respond(wire.environment(await call.environment()))


async def list_projects(call: Call) -> Response:
    """The project of the key: a key belongs to one."""
    return respond([wire.project((await call.environment()).project)])


async def project_runs(call: Call) -> Response:
    """The runs of the key's environment, asked for by the name of its project."""
    await require_project(call)
    return await list_runs(call)


async def require_project(call: Call) -> None:
    """Raises NotFound unless the path's `project` is the one of the key."""
    ref = call.path("project")
    own = (await call.environment()).project
    if ref not in (own.ref, own.id):
        raise NotFound(f"Project not found: the key in use is of project {own.ref}")


PROJECT = exactly({"id": TEXT, "externalRef": TEXT, "slug": TEXT, "name": TEXT, "createdAt": MOMENT})
ENVIRONMENT = exactly(
    {"id": TEXT, "type": {"enum": list(wire.TYPES.values())}, "slug": TEXT, "project": PROJECT},
    branchName=TEXT,
)
ANY_KEY = Access("read", ())
ENDPOINTS = (
    Endpoint("GET", "/api/v1/whoami", whoami, "Read where a key belongs", ANY_KEY, answer=ENVIRONMENT),
    Endpoint(
        "GET",
        "/api/v1/projects",
        list_projects,
        "List the project of a key",
        ANY_KEY,
        answer=list_of(PROJECT),
    ),
    Endpoint(
        "GET",
        "/api/v1/projects/{project}/runs",
        project_runs,
        "List the runs of a key's environment by its project",
        Access("read", ("runs",), public_keys=True, inside=True),
        answer=RUNS,
        sdk_answer=SDK_RUNS,
        query=PAGED,
    ),
)
