"""What a scheduled run is told about its time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Literal
from zoneinfo import ZoneInfo


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


@dataclass(frozen=True, slots=True)
class Tick:
    """The time that a scheduled run is for, as the parameter of its task: `def digest(tick: Tick) -> None`.

    timestamp       when the run was due by its schedule, whenever it began
    last_timestamp  the time that the schedule's run before this one was for; None for the first one
    schedule_id     of the schedule, such as "sched_…"
    type            "DECLARATIVE" for that of `@task(cron=…)`, "IMPERATIVE" for one that was made over the API
    timezone        the zone of the schedule
    external_id     what another system calls the schedule, if it was made with one
    upcoming        the next times after this one, ten of them

    All times have a zone. Only `timestamp` must be given to one that is made by hand, for a test or a run in between:
    `digest.trigger(Tick(datetime.now(UTC)))`. Raises ValueError for a time without a zone.
    """

    # For pydantic: the names on the wire are those of the API.
    __pydantic_config__: ClassVar[dict[str, Any]] = {
        "alias_generator": _camel,
        "populate_by_name": True,
        "serialize_by_alias": True,
        "json_schema_extra": {"description": "The time that a scheduled run is for."},
    }

    timestamp: datetime
    last_timestamp: datetime | None = None
    schedule_id: str = ""
    type: Literal["DECLARATIVE", "IMPERATIVE"] = "DECLARATIVE"
    timezone: str = "UTC"
    external_id: str | None = None
    upcoming: tuple[datetime, ...] = ()

    def __post_init__(self) -> None:
        for time in (self.timestamp, self.last_timestamp, *self.upcoming):
            if time is not None and time.tzinfo is None:
                raise ValueError(f"{time!r} of a Tick has no zone: expected such as datetime.now(UTC)")

    @property
    def local_time(self) -> datetime:
        """`timestamp` by the clocks of `timezone`: its date is the day that the schedule means."""
        return self.timestamp.astimezone(ZoneInfo(self.timezone))
