"""Environment variables, which workers are given: `client.variables`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.sdk.policy import Flow, Request, asked
from holdfast.sdk.resources.auth import asking_who
from holdfast.sdk.resources.base import Resource, segment


@dataclass(frozen=True, slots=True)
class Variable:
    """The value of a secret one is not told: it shows as the server redacts it."""

    name: str
    value: str
    is_secret: bool


class Variables(Resource):
    """The variables of the environment that the key in use belongs to. Names that there are not raise NotFound."""

    _base: str | None = None

    def list(self) -> Sequence[Variable]:
        """All variables, in the order of their names."""
        return self._do("list", self._listing())

    async def alist(self) -> Sequence[Variable]:
        """As `list`, inside an event loop."""
        return await self._ado(self._listing())

    def retrieve(self, name: str) -> Variable:
        """One variable. Raises NotFound."""
        return self._do("retrieve", self._reading(name))

    async def aretrieve(self, name: str) -> Variable:
        """As `retrieve`, inside an event loop."""
        return await self._ado(self._reading(name))

    def create(self, name: str, value: str, *, is_secret: bool = False) -> None:
        """Add a variable. Raises InvalidRequest when there is one of this name, or the name can not be one.

        is_secret  its value is told to workers and to nobody else from then on
        """
        self._do("create", self._creating(name, value, is_secret))

    async def acreate(self, name: str, value: str, *, is_secret: bool = False) -> None:
        """As `create`, inside an event loop."""
        await self._ado(self._creating(name, value, is_secret))

    def update(self, name: str, value: str) -> None:
        """Change the value of a variable; a secret stays one. Raises NotFound."""
        self._do("update", self._updating(name, value))

    async def aupdate(self, name: str, value: str) -> None:
        """As `update`, inside an event loop."""
        await self._ado(self._updating(name, value))

    def delete(self, name: str) -> None:
        """Remove a variable. Raises NotFound, also the second time."""
        self._do("delete", self._deleting(name))

    async def adelete(self, name: str) -> None:
        """As `delete`, inside an event loop."""
        await self._ado(self._deleting(name))

    def import_(
        self, variables: Mapping[str, str], *, override: bool = False, is_secret: bool | None = None
    ) -> None:
        """Add many variables at once, all or none.

        override   whether to replace those that are there; without it one that is there raises InvalidRequest
        is_secret  of all of them; without it those that are there stay as they are
        """
        self._do("import_", self._importing(variables, override, is_secret))

    async def aimport_(
        self, variables: Mapping[str, str], *, override: bool = False, is_secret: bool | None = None
    ) -> None:
        """As `import_`, inside an event loop."""
        await self._ado(self._importing(variables, override, is_secret))

    def _path(self, rest: str = "") -> Flow[str]:
        """Paths name project and environment, which the key knows: asked for once."""
        if self._base is None:
            found = yield from asking_who()
            project, slug = segment(found.project.ref, "project"), segment(found.slug, "environment")
            self._base = f"/api/v1/projects/{project}/envvars/{slug}"
        return self._base + rest

    def _listing(self) -> Flow[Sequence[Variable]]:
        answer = yield from asked(Request("GET", (yield from self._path())))
        return [_variable(told) for told in answer]

    def _reading(self, name: str) -> Flow[Variable]:
        path = yield from self._path(f"/{segment(name, 'name')}")
        return _variable((yield from asked(Request("GET", path))))

    def _creating(self, name: str, value: str, is_secret: bool) -> Flow[None]:
        body = {"name": name, "value": value, "isSecret": is_secret}
        # A try whose answer was lost would make the next one find it there.
        yield from self._sending("POST", "", body, repeatable=False)

    def _updating(self, name: str, value: str) -> Flow[None]:
        yield from self._sending("PUT", f"/{segment(name, 'name')}", {"value": value})

    def _deleting(self, name: str) -> Flow[None]:
        path = yield from self._path(f"/{segment(name, 'name')}")
        yield from asked(Request("DELETE", path, repeatable=False))

    def _importing(self, variables: Mapping[str, str], override: bool, is_secret: bool | None) -> Flow[None]:
        body: dict[str, Any] = {"variables": dict(variables), "override": override}
        if is_secret is not None:
            body["isSecret"] = is_secret
        yield from self._sending("POST", "/import", body, repeatable=override)

    def _sending(
        self, method: str, rest: str, body: Mapping[str, Any], *, repeatable: bool = True
    ) -> Flow[None]:
        path = yield from self._path(rest)
        yield from asked(Request(method, path, json.dumps(body).encode(), repeatable=repeatable))


def _variable(told: Mapping[str, Any]) -> Variable:
    return Variable(told["name"], told["value"], told["isSecret"])
