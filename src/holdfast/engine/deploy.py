"""Deployments: register code ahead of its workers, and say which version plain runs go to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from holdfast.engine.pin import has_deployments
from holdfast.engine.schedules import retire_schedules
from holdfast.engine.trigger import read_spec
from holdfast.engine.version import announce, declare, version_of_code
from holdfast.engine.wake import wake_before_others
from holdfast.errors import HoldfastError, InvalidRequest, NotFound, Unprocessable
from holdfast.model.deployment import Deployment
from holdfast.model.task import QueueSpec, TaskSpec
from holdfast.stores.base import Tx, batch

BEHIND_ALL = "deployment_~"  # no id sorts behind it
FOR_EVER = 2**53


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDeployment:
    """Code that is deployed. `promote` makes it the current one at once."""

    environment_id: str
    fingerprint: str
    tasks: Sequence[TaskSpec]
    queues: Sequence[QueueSpec] = ()
    runtime: str | None = None
    runtime_version: str | None = None
    git: str | None = None  # JSON object
    external_id: str | None = None
    promote: bool = True


@dataclass(frozen=True, slots=True)
class Promotion:
    environment_id: str
    version: str


@dataclass(frozen=True, slots=True)
class DeploymentFilters:
    """An empty status is any."""

    status: str = ""
    since: int = 0
    until: int = FOR_EVER


@dataclass(frozen=True, slots=True)
class DeploymentPage:
    """Newest first; `next` is the id to go on after, if there is more."""

    deployments: Sequence[Deployment]
    next: str | None


def deploy(tx: Tx, items: list[NewDeployment]) -> list[Deployment | HoldfastError]:
    """Registers code with its tasks and queues. The same code again is the same deployment, told about anew.

    Runs that waited for it, by its external id or for one of its tasks, are put in the queue by upkeep. Unprocessable
    in an environment for development, where the newest registration of a worker is what counts.
    """
    answers: list[Deployment | HoldfastError] = []
    for item in items:
        own = {"environment_id": item.environment_id}
        tx.do("lock_versions", id=item.environment_id)
        if not has_deployments(tx, item.environment_id):
            answers.append(_no_deployments())
            continue
        tx.do("lock_environment", id=item.environment_id)  # before rows of queues, as everywhere
        version = version_of_code(
            tx, item.environment_id, item.fingerprint, item.tasks, item.queues, any_age=True
        )
        told = {
            "runtime": item.runtime,
            "runtime_version": item.runtime_version,
            "git": item.git,
            "external_id": item.external_id,
        }
        known = tx.one("deployment_of_version", version=version, **own)
        if known is not None:
            tx.do("deploy_again", id=known["id"], **told)
        else:
            tx.do(
                "add_deployment",
                id=tx.new_id("deployment"),
                version=version,
                short_code=tx.new_id("code")[-8:],
                tasks=batch([task.as_stored() for task in item.tasks]),
                queues=batch([asdict(queue) for queue in item.queues]),
                now=tx.now,
                **own,
                **told,
            )
        if item.external_id is not None:
            tx.do("add_external_deployment", external_id=item.external_id, version=version, **own)
        if item.promote:
            _promote(tx, _of_version(tx, item.environment_id, version))
        else:
            announce(tx, item.environment_id, version, item.tasks, item.queues)
        tx.wake("upkeep")
        answers.append(_of_version(tx, item.environment_id, version))
    return answers


def promote(tx: Tx, items: list[Promotion]) -> list[Deployment | HoldfastError]:
    """Makes deployments the current ones of their environments, also older ones: that rolls back.

    Once it is answered, plain runs start on this version only. What has begun on another stays there.
    """
    answers: list[Deployment | HoldfastError] = []
    for item in items:
        tx.do("lock_versions", id=item.environment_id)
        try:
            if not has_deployments(tx, item.environment_id):
                raise _no_deployments()
            found = _of_version(tx, item.environment_id, item.version)
        except HoldfastError as error:
            answers.append(error)
            continue
        tx.do("lock_environment", id=item.environment_id)
        _promote(tx, found)
        tx.wake("upkeep")
        answers.append(_of_version(tx, item.environment_id, item.version))
    return answers


def current(tx: Tx, environment_id: str) -> Deployment:
    """The deployment that plain runs go to. Raises NotFound when there is none."""
    row = tx.one("current_deployment", id=environment_id)
    if row is None:
        raise NotFound("No deployment is current: `holdfast deploy` makes one")
    return Deployment(**row)


def page(
    tx: Tx, environment_id: str, filters: DeploymentFilters, size: int, after: str | None
) -> DeploymentPage:
    """At most `size` deployments. Raises InvalidRequest for a cursor that is none of this environment."""
    if after is not None and tx.one("deployment", environment_id=environment_id, id=after) is None:
        raise InvalidRequest(
            "page[after] is not a deployment of this environment: begin again at the first page",
            "page[after]",
        )
    rows = tx.all(
        "deployments_page",
        environment_id=environment_id,
        before=after or BEHIND_ALL,
        limit=size + 1,
        **asdict(filters),
    )
    found = [Deployment(**row) for row in rows[:size]]
    return DeploymentPage(found, found[-1].id if len(rows) > size else None)


def _promote(tx: Tx, found: Deployment) -> None:
    environment_id = found.environment_id
    tasks = [read_spec(json.dumps(task)) for task in json.loads(found.tasks)]
    queues = [QueueSpec(**queue) for queue in json.loads(found.queues)]
    tx.do("set_current_version", id=environment_id, version=found.version)
    tx.do("promote_deployment", id=found.id, now=tx.now)
    declare(tx, environment_id, found.version, tasks, queues)
    tx.do("retire_tasks", environment_id=environment_id, ids=batch([task.id for task in tasks]))
    retire_schedules(tx, environment_id, {task.id for task in tasks})
    wake_before_others(tx, environment_id)


def _of_version(tx: Tx, environment_id: str, version: str) -> Deployment:
    row = tx.one("deployment_of_version", environment_id=environment_id, version=version)
    if row is None:
        raise NotFound(f"Deployment not found: no deployment has the version {version!r}")
    return Deployment(**row)


def _no_deployments() -> Unprocessable:
    return Unprocessable(
        "An environment for development has no deployments: what its worker registers last is what runs. "
        "Deploy with the key of another environment"
    )
