"""The deployments of an environment: `client.deployments`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypedDict, Unpack

from holdfast.sdk.options import Duration, duration_on_wire
from holdfast.sdk.policy import Flow, Request, asked
from holdfast.sdk.resources.base import Resource, cursor_pages, epoch_ms, moment, segment, texts

PATH = "/api/v1/deployments"


class DeploymentFilters(TypedDict, total=False):
    """They narrow together.

    status                    such as "DEPLOYED"
    created_from, created_to  both inclusive
    period                    created in the last so much
    """

    status: str
    created_from: datetime
    created_to: datetime
    period: Duration


@dataclass(frozen=True, slots=True)
class Deployment:
    """A version of the code that was deployed.

    version      such as "20261124.1"
    status       PENDING until it is promoted for the first time, then DEPLOYED
    deployed_at  when it was promoted
    git          what was told of its commit
    external_id  what another system calls it
    """

    id: str
    version: str
    short_code: str
    status: Literal["PENDING", "BUILDING", "DEPLOYING", "DEPLOYED", "FAILED", "CANCELED", "TIMED_OUT"]
    runtime: str | None
    runtime_version: str | None
    git: Mapping[str, Any] | None
    external_id: str | None
    created_at: datetime
    deployed_at: datetime | None


class Deployments(Resource):
    """The deployments of an environment; dev has none."""

    def list(self, **filters: Unpack[DeploymentFilters]) -> Iterator[Deployment]:
        """Those that match every filter, newest first; pages are fetched as needed."""
        return self._each(cursor_pages(PATH, _deployment, _query(filters)))

    def alist(self, **filters: Unpack[DeploymentFilters]) -> AsyncIterator[Deployment]:
        """As `list`, for `async for`."""
        return self._aeach(cursor_pages(PATH, _deployment, _query(filters)))

    def current(self) -> Deployment:
        """The one that new runs are made for. Raises NotFound when nothing is promoted."""
        return self._do("current", _reading_current())

    async def acurrent(self) -> Deployment:
        """As `current`, inside an event loop."""
        return await self._ado(_reading_current())

    def promote(self, version: str) -> Deployment:
        """Make a version the current one, also an older one, which rolls back; runs that are pinned stay so.

        Promoting the current one changes nothing. Raises NotFound for a version that was not deployed.
        """
        return self._do("promote", _promoting(version))

    async def apromote(self, version: str) -> Deployment:
        """As `promote`, inside an event loop."""
        return await self._ado(_promoting(version))


def _reading_current() -> Flow[Deployment]:
    return _deployment((yield from asked(Request("GET", f"{PATH}/current"))))


def _promoting(version: str) -> Flow[Deployment]:
    path = f"{PATH}/{segment(version, 'version')}/promote"
    return _deployment((yield from asked(Request("POST", path, b"{}"))))


def _query(filters: Mapping[str, Any]) -> dict[str, str]:
    query: dict[str, str] = {}
    for name, value in filters.items():
        match name:
            case _ if name not in DeploymentFilters.__annotations__:
                raise TypeError(
                    f"there is no filter {name!r}; there are {', '.join(DeploymentFilters.__annotations__)}"
                )
            case _ if value is None:
                pass
            case "status":
                query["status"] = texts(value, name)[0]
            case "period":
                query["period"] = duration_on_wire(value, name)
            case _:
                query[name.removeprefix("created_")] = str(epoch_ms(value, name))
    return query


def _deployment(told: Mapping[str, Any]) -> Deployment:
    created_at = moment(told["createdAt"])
    assert created_at is not None
    return Deployment(
        told["id"],
        told["version"],
        told["shortCode"],
        told["status"],
        told.get("runtime"),
        told.get("runtimeVersion"),
        told.get("git"),
        told.get("externalId"),
        created_at,
        moment(told.get("deployedAt")),
    )
