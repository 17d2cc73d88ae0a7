"""Environment variables: what executors find in their environment (the wire contract, 7.5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from holdfast.engine.variables import ChangeVariable, DeleteVariable, Sealed, SetVariables, not_found
from holdfast.errors import InvalidRequest, NotFound, SealBroken, Unprocessable
from holdfast.model.environment import type_named
from holdfast.model.limits import MAX_VARIABLES_BYTES
from holdfast.model.variable import Variable, checked_name, checked_value, checked_values, seal_context
from holdfast.server.access import Access, Thing
from holdfast.server.problems import respond
from holdfast.server.projects import require_project
from holdfast.server.routing import Call, Endpoint
from holdfast.wire import variables as wire
from holdfast.wire.answers import DONE, FLAG, TEXT, exactly, list_of

PATH = "/api/v1/projects/{project}/envvars/{environment}"
MAX_IMPORT = 2 * MAX_VARIABLES_BYTES  # of a body: JSON writes some characters as two


async def list_variables(call: Call) -> Response:
    await require_environment(call)
    found = await call.engine.variables(call.environment_id)
    return respond([_told(call, variable) for variable in found])


async def create_variable(call: Call) -> Response:
    await require_environment(call)
    body = await call.body(wire.NEW)
    name, value = checked_name(_given(body, "name")), checked_value(_given(body, "value"))
    values = _sealed(call, call.environment_id, {name: value})
    item = SetVariables(call.environment_id, values, is_secret=body.get("isSecret", False))
    await call.engine.set_variables(item)
    return respond({"success": True})


async def retrieve_variable(call: Call) -> Response:
    await require_environment(call)
    name = call.path("name")
    for variable in await call.engine.variables(call.environment_id):
        if variable.name == name:
            return respond(_told(call, variable))
    raise not_found(name)


async def update_variable(call: Call) -> Response:
    await require_environment(call)
    name = call.path("name")
    body = await call.body(wire.CHANGED)
    value = checked_value(_given(body, "value"))
    sealed = _sealed(call, call.environment_id, {name: value})[name]
    await call.engine.change_variable(ChangeVariable(call.environment_id, name, sealed))
    return respond({"success": True})


async def delete_variable(call: Call) -> Response:
    await require_environment(call)
    await call.engine.delete_variable(DeleteVariable(call.environment_id, call.path("name")))
    return respond({"success": True})


async def import_variables(call: Call) -> Response:
    """All or none."""
    await require_environment(call)
    body = await call.body(wire.IMPORTED, limit=MAX_IMPORT)
    values = checked_values(_given(body, "variables"), "variables")
    parents = checked_values(body.get("parentVariables", {}), "parentVariables")
    override, is_secret = body.get("override", False), body.get("isSecret")
    parent = None
    if parents:
        parent_id = await call.engine.parent_environment(call.environment_id)
        if parent_id is None:
            raise InvalidRequest(
                "parentVariables are for the environment that a branch belongs to, and this one is no branch: "
                "leave them out",
                "parentVariables",
            )
        parent = SetVariables(parent_id, _sealed(call, parent_id, parents), override, is_secret)
    sealed = _sealed(call, call.environment_id, values)
    await call.engine.set_variables(SetVariables(call.environment_id, sealed, override, is_secret, parent))
    return respond({"success": True})


async def values_in_force(call: Call) -> dict[str, str]:
    """The opened values of an environment, for the executors of a worker. Raises NoMasterKey, Unprocessable."""
    found = await call.engine.variables(call.environment_id)
    return {variable.name: _opened(call, variable) for variable in found}


async def require_environment(call: Call) -> None:
    """Raises NotFound unless the path names the project and the environment of the key."""
    await require_project(call)
    own, asked = await call.environment(), call.path("environment")
    if type_named(asked) != own.type:
        raise NotFound(f"Environment not found: the key in use is of environment {own.slug}")


def _given(body: Mapping[str, Any], name: str) -> Any:
    if name not in body:
        raise InvalidRequest(f"{name} is missing", name)
    return body[name]


def _sealed(call: Call, environment_id: str, values: Mapping[str, str]) -> dict[str, Sealed]:
    return {
        name: Sealed(call.vault.seal(value, seal_context(environment_id, name)), len(value.encode()))
        for name, value in values.items()
    }


def _told(call: Call, variable: Variable) -> dict[str, Any]:
    value = None if variable.is_secret else _opened(call, variable)
    return wire.variable(variable.name, value, variable.is_secret)


def _opened(call: Call, variable: Variable) -> str:
    """Raises Unprocessable for what this server can not open: asking again does not help."""
    try:
        return call.vault.open(variable.sealed, seal_context(variable.environment_id, variable.name))
    except SealBroken as error:
        raise Unprocessable(str(error), variable.name) from None


async def _this_variable(call: Call) -> list[Thing]:
    return [("envvars", call.path("name"))]


VARIABLE = exactly({"name": TEXT, "value": TEXT, "isSecret": FLAG})
READ, WRITE = Access("read", ("envvars",)), Access("write", ("envvars",))
READ_ONE, WRITE_ONE = (Access(action, ("envvars",), _this_variable) for action in ("read", "write"))
ENDPOINTS = (
    Endpoint(
        "GET",
        PATH,
        list_variables,
        "List environment variables",
        READ,
        answer=list_of(VARIABLE),
    ),
    Endpoint("POST", PATH, create_variable, "Create an environment variable", WRITE, wire.NEW, DONE),
    Endpoint(
        "POST",
        f"{PATH}/import",
        import_variables,
        "Set several environment variables, all or none",
        WRITE,
        wire.IMPORTED,
        DONE,
    ),
    Endpoint(
        "GET",
        f"{PATH}/{{name}}",
        retrieve_variable,
        "Read an environment variable",
        READ_ONE,
        answer=VARIABLE,
    ),
    Endpoint(
        "PUT",
        f"{PATH}/{{name}}",
        update_variable,
        "Change an environment variable",
        WRITE_ONE,
        wire.CHANGED,
        DONE,
    ),
    Endpoint(
        "DELETE",
        f"{PATH}/{{name}}",
        delete_variable,
        "Delete an environment variable",
        WRITE_ONE,
        answer=DONE,
    ),
)
