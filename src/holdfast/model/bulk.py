"""An action on many runs: what is done to whom, and how far it has come."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class BulkType(StrEnum):
    CANCEL = "CANCEL"
    REPLAY = "REPLAY"


class BulkStatus(StrEnum):
    PENDING = "PENDING"  # upkeep goes on with it
    COMPLETED = "COMPLETED"
    ABORTED = "ABORTED"


@dataclass(frozen=True, slots=True)
class BulkAction:
    """A bulk action, as it is stored; its columns stand in the order of these fields.

    filter      what selects its members, as JSON of stores.listing.Filters; None when their ids were given
    scanned     the last run that was looked at for being a member
    scan_until  members are runs before this id; None when all of them are found
    acted       the last member that was acted on
    total       how many members there are, as far as they are found
    """

    id: str
    environment_id: str
    type: str
    status: str
    name: str | None
    filter: str | None
    scanned: str
    scan_until: str | None
    acted: str
    total: int
    success: int
    failure: int
    created_at: int
    updated_at: int
    completed_at: int | None
