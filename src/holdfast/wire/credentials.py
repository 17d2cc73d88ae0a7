"""Who asks, on the wire: environments, projects, and the public tokens that are asked for (the wire contract, 5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NotRequired

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from holdfast.model.environment import Environment, Project
from holdfast.model.limits import MAX_SCOPE_TEXT, MAX_SCOPES
from holdfast.wire.runs import Flag, Number, moment

# The types of environments, as the SDK knows them.
TYPES: Mapping[str, str] = {
    "dev": "DEVELOPMENT",
    "staging": "STAGING",
    "prod": "PRODUCTION",
    "preview": "PREVIEW",
}


class Realtime(TypedDict):
    skipColumns: NotRequired[Annotated[list[Annotated[str, Field(max_length=128)]], Field(max_length=100)]]


class PublicTokenBody(TypedDict):
    """`expirationTime` is a Unix time in seconds, or text: a span such as "1h", or a date."""

    scopes: Annotated[
        list[Annotated[str, Field(max_length=MAX_SCOPE_TEXT)]], Field(min_length=1, max_length=MAX_SCOPES)
    ]
    expirationTime: NotRequired[
        Annotated[str, Field(max_length=100)] | Annotated[Number, Field(ge=0, le=10**11)]
    ]
    oneTimeUse: NotRequired[Flag]
    realtime: NotRequired[Realtime]


PUBLIC_TOKEN: TypeAdapter[PublicTokenBody] = TypeAdapter(PublicTokenBody)


def project(found: Project) -> dict[str, Any]:
    return {
        "id": found.id,
        "externalRef": found.ref,
        "slug": found.slug,
        "name": found.name,
        "createdAt": moment(found.created_at),
    }


def environment(found: Environment) -> dict[str, Any]:
    """The environment record; `branchName` only for a branch, because absent is not null (1.3)."""
    answer = {
        "id": found.id,
        "type": TYPES[found.type],
        "slug": found.slug,
        "project": project(found.project),
    }
    return answer if found.branch is None else {**answer, "branchName": found.branch}
