"""Scopes such as "read:runs:run_1": what a key or a public token is limited to (the wire contract, 5.3).

`action:kind` or `action:kind:id`, where the id may hold colons; `admin` grants all, the action `*` is any and the kind
`all` is any.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from holdfast.errors import InvalidRequest
from holdfast.model import limits

Thing = tuple[str, str | None]  # a kind and an id, such as ("runs", "run_1"); None stands for all of the kind
ADMIN = "admin"
ACTIONS = ("read", "write", "trigger", "batchTrigger", "work", "*")
# The things of this server that scopes may name. Others can be read, and grant nothing yet.
KINDS = (
    "runs",
    "tasks",
    "tags",
    "batch",
    "queues",
    "schedules",
    "waitpoints",
    "packets",
    "envvars",
    "deployments",
    "workers",
)
# What additional keys are usually for; None for everything in the environment.
PRESETS: Mapping[str, tuple[str, ...] | None] = {
    "full": None,
    "read-only": ("read:all",),
    "trigger-only": ("trigger:tasks", "batchTrigger:tasks", "batchTrigger:batch", "write:batch"),
    "worker": (
        "work:workers",
        "trigger:tasks",
        "batchTrigger:tasks",
        "batchTrigger:batch",
        "write:batch",
        "read:all",
        "write:runs",
        "write:waitpoints",
    ),
}


def covers(scopes: Sequence[str], action: str, things: Sequence[Thing]) -> bool:
    """Whether any scope grants the action on any of the things."""
    for scope in scopes:
        if scope == ADMIN:
            return True
        asked, _, rest = scope.partition(":")
        of, has_id, only = rest.partition(":")
        if asked not in (action, "*") or not of:
            continue
        if any(of in (kind, "all") and (not has_id or only == id) for kind, id in things):
            return True
    return False


def exceeding(asked: Sequence[str], held: Sequence[str] | None) -> list[str]:
    """Those of the scopes that grant more than the ones held do; None holds everything."""
    return [] if held is None else [scope for scope in asked if not _within(scope, held)]


def _within(scope: str, held: Sequence[str]) -> bool:
    action, _, rest = scope.partition(":")
    kind, has_id, id = rest.partition(":")
    for own in held:
        if own in (ADMIN, scope):
            return True
        own_action, _, own_rest = own.partition(":")
        own_kind, own_has_id, own_id = own_rest.partition(":")
        if scope == ADMIN or own_action not in (action, "*") or own_kind not in (kind, "all"):
            continue
        if not own_has_id or (has_id and own_id == id):
            return True
    return False


def checked_scopes(scopes: Sequence[str], param: str = "scopes") -> list[str]:
    """The scopes without repeats. Raises InvalidRequest for none, too many, or one that can not be read."""
    if not 1 <= len(scopes) <= limits.MAX_SCOPES:
        raise InvalidRequest(f"{param} has {len(scopes)} entries: expected 1 to {limits.MAX_SCOPES}", param)
    for scope in scopes:
        action, _, rest = scope.partition(":")
        kind, has_id, id = rest.partition(":")
        if len(scope) > limits.MAX_SCOPE_TEXT or not scope.isprintable():
            raise InvalidRequest(
                f"{param} holds {scope[:40]!r}…: a scope has at most {limits.MAX_SCOPE_TEXT} printable characters",
                param,
            )
        if scope != ADMIN and (action not in ACTIONS or not kind.isalnum() or bool(has_id) != bool(id)):
            raise InvalidRequest(
                f"{param} holds {scope[:80]!r}: expected admin, or action:kind or action:kind:id such as "
                f"read:runs:run_1, with one of the actions {', '.join(ACTIONS)}",
                param,
            )
    return list(dict.fromkeys(scopes))
