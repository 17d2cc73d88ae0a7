"""Deployments on the wire (the wire contract, 7.7)."""

from __future__ import annotations

import json
from typing import Annotated, Any, NotRequired

from pydantic import Field, StringConstraints, TypeAdapter
from typing_extensions import TypedDict

from holdfast.model.deployment import Deployment
from holdfast.model.limits import MAX_EXTERNAL_ID, MAX_TASKS
from holdfast.wire.manifests import WireQueue, WireTask
from holdfast.wire.runs import Flag, moment

Word = Annotated[str, StringConstraints(max_length=64)]


class DeployBody(TypedDict):
    """Code as a worker would register it, and what it is called elsewhere."""

    fingerprint: Annotated[str, StringConstraints(min_length=1, max_length=128)]  # equal code is one version
    tasks: Annotated[list[WireTask], Field(max_length=MAX_TASKS)]
    queues: NotRequired[Annotated[list[WireQueue], Field(max_length=MAX_TASKS)]]
    runtime: NotRequired[Word]
    runtimeVersion: NotRequired[Word]
    git: NotRequired[dict[str, Any]]
    externalId: NotRequired[
        Annotated[str, StringConstraints(strip_whitespace=True, max_length=MAX_EXTERNAL_ID)]
    ]
    skipPromotion: NotRequired[Flag]


DEPLOY: TypeAdapter[DeployBody] = TypeAdapter(DeployBody)


def deployment_item(deployment: Deployment) -> dict[str, Any]:
    """A deployment. What is not known of it is left out, but for the fields that may be null."""
    told: dict[str, Any] = {
        "id": deployment.id,
        "createdAt": moment(deployment.created_at),
        "shortCode": deployment.short_code,
        "version": deployment.version,
        "runtime": deployment.runtime,
        "runtimeVersion": deployment.runtime_version,
        "status": deployment.status,
        "externalId": deployment.external_id,
    }
    if deployment.deployed_at is not None:
        told["deployedAt"] = moment(deployment.deployed_at)
    if deployment.git is not None:
        told["git"] = json.loads(deployment.git)
    return told
