"""Which version of the code a new run belongs to, and whether what it names is known yet (rules R3, R10, R13, R109)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from holdfast.errors import InvalidRequest, Unprocessable
from holdfast.model import limits
from holdfast.model.task import default_queue
from holdfast.model.version import version_order
from holdfast.stores.base import Tx, batch


class Asking(Protocol):
    """The part of a trigger that matters here."""

    @property
    def environment_id(self) -> str: ...
    @property
    def task(self) -> str: ...
    @property
    def queue(self) -> str | None: ...
    @property
    def version_lock(self) -> str | None: ...
    @property
    def external_deployment(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Pin:
    """Where a new run belongs.

    version     the only one that may run it; None for the current one, whichever that is when it starts
    external    what other systems call the deployment that is to run it
    is_awaited  that deployment is not known yet
    no_queue    its queue is not known yet
    """

    version: str | None = None
    external: str | None = None
    is_awaited: bool = False
    no_queue: bool = False


@dataclass(slots=True)
class Places:
    """What the items of one call name."""

    versions: dict[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)
    queues: set[tuple[str, str]] = field(default_factory=set)
    externals: dict[tuple[str, str], str] = field(default_factory=dict)
    undeployed: set[str] = field(default_factory=set)  # environments without deployments

    def pin(self, item: Asking) -> Pin:
        """Raises Unprocessable for a version, or a queue of it, that there is not."""
        own = item.environment_id
        external = _external_id(item.external_deployment)
        no_queue = _names_queue(item) and (own, item.queue) not in self.queues
        if item.version_lock is not None:
            self._check_version(item, item.version_lock)
            return Pin(item.version_lock, external, no_queue=no_queue)
        if external is None or own in self.undeployed:
            return Pin(no_queue=no_queue)
        version = self.externals.get((own, external))
        return Pin(version, external, version is None, no_queue)

    def _check_version(self, item: Asking, version: str) -> None:
        known = self.versions.get((item.environment_id, version))
        if known is None:
            raise Unprocessable(f"lockToVersion is {version!r}: no such version", "options.lockToVersion")
        # A version without the task is one of other workers, which do not know its queues.
        if item.queue is None or known["tasks"] is None or item.task not in json.loads(known["tasks"]):
            return
        if item.queue not in json.loads(known["queues"]):
            raise Unprocessable(
                f"options.queue.name is {item.queue!r}: version {version} has no such queue",
                "options.queue.name",
            )


def load_places(tx: Tx, items: Sequence[Asking]) -> Places:
    """What these items name, as far as it is known."""
    places = Places()
    for environment_id, version in {(i.environment_id, i.version_lock) for i in items if i.version_lock}:
        if row := tx.one("version", environment_id=environment_id, version=version):
            places.versions[environment_id, version] = row
    for environment_id, names in _grouped(
        (i.environment_id, i.queue or "") for i in items if _names_queue(i)
    ):
        rows = tx.all("known_queues", environment_id=environment_id, names=batch(names))
        places.queues |= {(environment_id, row["name"]) for row in rows}
    asked = ((i.environment_id, i.external_deployment.strip()) for i in items if i.external_deployment)
    for environment_id, ids in _grouped(asked):
        if has_deployments(tx, environment_id):
            places.externals |= external_versions(tx, environment_id, ids)
        else:
            places.undeployed.add(environment_id)
    return places


def external_versions(tx: Tx, environment_id: str, ids: Sequence[str]) -> dict[tuple[str, str], str]:
    """The highest version of each external id that is known."""
    found: dict[tuple[str, str], str] = {}
    for row in tx.all("external_versions", environment_id=environment_id, ids=batch(ids)):
        place = (environment_id, row["external_id"])
        found[place] = max(found.get(place, ""), row["version"], key=version_order)
    return found


def has_deployments(tx: Tx, environment_id: str) -> bool:
    """Whether code is deployed to an environment at all: in those for development, what runs is what was saved."""
    row = tx.one("deploys", id=environment_id)
    return row is not None and row["type"] != "dev"


def _names_queue(item: Asking) -> bool:
    return item.queue is not None and item.queue != default_queue(item.task)


def _external_id(text: str | None) -> str | None:
    """Blank is absent."""
    text = (text or "").strip()
    if len(text) > limits.MAX_EXTERNAL_ID:
        raise InvalidRequest(
            f"options.externalDeploymentId has {len(text)} characters: at most {limits.MAX_EXTERNAL_ID}",
            "options.externalDeploymentId",
        )
    if "\x00" in text:
        raise InvalidRequest(
            "options.externalDeploymentId holds a NUL character", "options.externalDeploymentId"
        )
    return text or None


def _grouped(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    groups: dict[str, set[str]] = {}
    for environment_id, name in pairs:
        if "\x00" not in name:  # which no store keeps; it is refused where its item is looked at
            groups.setdefault(environment_id, set()).add(name)
    return [(environment_id, sorted(names)) for environment_id, names in sorted(groups.items())]
