"""Who a key is, and tokens that may do less: `client.auth`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from holdfast.sdk.options import Duration, whole_seconds
from holdfast.sdk.policy import Flow, Request, asked
from holdfast.sdk.resources.base import Resource, texts


@dataclass(frozen=True, slots=True)
class Project:
    """`ref` is what paths of the API name it by."""

    id: str
    ref: str
    slug: str
    name: str


@dataclass(frozen=True, slots=True)
class Environment:
    """Where a key belongs. `branch` is the name of a preview environment's branch."""

    id: str
    type: Literal["DEVELOPMENT", "STAGING", "PRODUCTION", "PREVIEW"]
    slug: str
    branch: str | None
    project: Project


class Auth(Resource):
    """The key in use, and public tokens."""

    def whoami(self) -> Environment:
        """The environment and the project of the key in use."""
        return self._do("whoami", asking_who())

    async def awhoami(self) -> Environment:
        """As `whoami`, inside an event loop."""
        return await self._ado(asking_who())

    def public_token(
        self, scopes: str | Sequence[str], *, expires_in: Duration = "15m", once: bool = False
    ) -> str:
        """A token for a browser, which may do what the scopes say and nothing else. The server signs it.

            token = client.auth.public_token(["read:runs:" + run.id], expires_in="1h")

        scopes      at least one, such as "read:runs:<id>", "read:tags:<tag>", "trigger:tasks:<task>"
        expires_in  up to 30 days
        once        for scopes that trigger: it makes one run, a second use raises Unprocessable

        Each call makes a token of its own; none is kept, so none can be taken back. Raises InvalidRequest for what is
        no scope, and a Forbidden for more than the key in use may do itself.
        """
        return self._do("public_token", _signing(scopes, expires_in, once))

    async def apublic_token(
        self, scopes: str | Sequence[str], *, expires_in: Duration = "15m", once: bool = False
    ) -> str:
        """As `public_token`, inside an event loop."""
        return await self._ado(_signing(scopes, expires_in, once))


def asking_who() -> Flow[Environment]:
    told = yield from asked(Request("GET", "/api/v1/whoami"))
    project: Mapping[str, Any] = told["project"]
    return Environment(
        told["id"],
        told["type"],
        told["slug"],
        told.get("branchName"),
        Project(project["id"], project["externalRef"], project["slug"], project["name"]),
    )


def _signing(scopes: str | Sequence[str], expires_in: Duration, once: bool) -> Flow[str]:
    body: dict[str, Any] = {
        "scopes": texts(scopes, "scopes"),
        "expirationTime": f"{whole_seconds(expires_in, 'expires_in')}s",
    }
    if once:
        body["oneTimeUse"] = True
    answer = yield from asked(Request("POST", "/api/v1/auth/public-tokens", json.dumps(body).encode()))
    token: str = answer["token"]
    return token
