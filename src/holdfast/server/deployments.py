"""Deployments: register code, list what was deployed, promote (the wire contract, 7.7)."""

from __future__ import annotations

from starlette.responses import Response

from holdfast.engine.deploy import FOR_EVER, DeploymentFilters, NewDeployment, Promotion
from holdfast.errors import InvalidRequest
from holdfast.model import limits
from holdfast.model.deployment import DeploymentStatus
from holdfast.server.access import Access
from holdfast.server.listing import answer_page, created_between, one_value
from holdfast.server.manifests import MAX_MANIFEST_BYTES, queue_specs, task_specs
from holdfast.server.problems import respond
from holdfast.server.routing import Call, Endpoint, query_number
from holdfast.wire import deployments as wire
from holdfast.wire.answers import MOMENT, OBJECT, TEXT, exactly, or_null, page_of
from holdfast.wire.codec import encode_checked


async def list_deployments(call: Call) -> Response:
    query = call.request.query_params
    size = query_number(call.request, "page[size]", limits.DEFAULT_PAGE, limits.MAX_PAGE, least=1)
    status = query.get("status", "")
    if status and status not in DeploymentStatus.__members__:
        raise InvalidRequest(
            f"status is {status[:40]!r}: expected one of {', '.join(DeploymentStatus)}", "status"
        )
    now = await call.engine.store.read(lambda tx: tx.now)
    since, until = created_between(query, now, "{}")
    filters = DeploymentFilters(status, since or 0, FOR_EVER if until is None else until)
    page = await call.engine.deployments_page(
        call.environment_id, filters, size, one_value(query, "page[after]")
    )
    return answer_page([wire.deployment_item(one) for one in page.deployments], page.next)


async def retrieve_current(call: Call) -> Response:
    return respond(wire.deployment_item(await call.engine.current_deployment(call.environment_id)))


async def deploy(call: Call) -> Response:
    body = await call.body(wire.DEPLOY, limit=MAX_MANIFEST_BYTES)
    deployed = await call.engine.deploy(
        NewDeployment(
            environment_id=call.environment_id,
            fingerprint=body["fingerprint"],
            tasks=task_specs(body["tasks"]),
            queues=queue_specs(body.get("queues", [])),
            runtime=body.get("runtime"),
            runtime_version=body.get("runtimeVersion"),
            git=encode_checked(body["git"], "git", limits.MAX_GIT) if body.get("git") else None,
            external_id=body.get("externalId") or None,
            promote=not body.get("skipPromotion", False),
        )
    )
    return respond(wire.deployment_item(deployed))


async def promote(call: Call) -> Response:
    promoted = await call.engine.promote(Promotion(call.environment_id, call.path("version")))
    return respond(wire.deployment_item(promoted))


READ = Access("read", ("deployments",), tokens=True)
WRITE = Access("write", ("deployments",))
ITEM = exactly(
    {
        "id": TEXT,
        "createdAt": MOMENT,
        "shortCode": TEXT,
        "version": TEXT,
        "runtime": or_null(TEXT),
        "runtimeVersion": or_null(TEXT),
        "status": {"enum": list(DeploymentStatus.__members__)},
        "externalId": or_null(TEXT),
    },
    deployedAt=MOMENT,
    git=OBJECT,
)
PAGE = page_of(ITEM)

ENDPOINTS = (
    Endpoint(
        "GET",
        "/api/v1/deployments",
        list_deployments,
        "List deployments, newest first",
        READ,
        answer=PAGE,
        query=("status", "period", "from", "to", "page[after]", "page[size]"),
    ),
    Endpoint(
        "GET",
        "/api/v1/deployments/current",
        retrieve_current,
        "Read the current deployment",
        READ,
        answer=ITEM,
    ),
    Endpoint(
        "POST", "/api/v1/deployments", deploy, "Deploy code", WRITE, wire.DEPLOY, ITEM, opens_branch=True
    ),
    Endpoint(
        "POST",
        "/api/v1/deployments/{version}/promote",
        promote,
        "Make a deployment the current one",
        WRITE,
        answer=ITEM,
    ),
)
