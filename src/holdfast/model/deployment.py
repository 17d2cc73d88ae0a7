"""A deployment: a version of the code that is registered with its tasks and queues, ahead of its workers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class DeploymentStatus(StrEnum):
    """PENDING until it is promoted for the first time. The other words are of builds, which there are none of here."""

    PENDING = "PENDING"
    BUILDING = "BUILDING"
    DEPLOYING = "DEPLOYING"
    DEPLOYED = "DEPLOYED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"
    TIMED_OUT = "TIMED_OUT"


@dataclass(frozen=True, slots=True)
class Deployment:
    """Times are epoch milliseconds; tasks, queues and git are JSON."""

    id: str
    environment_id: str
    version: str
    short_code: str  # a name that is easy to say
    status: str
    runtime: str | None
    runtime_version: str | None
    git: str | None
    external_id: str | None  # what another system calls it, last of all
    created_at: int
    deployed_at: int | None
    tasks: str
    queues: str
