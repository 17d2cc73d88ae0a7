"""When a task runs by itself: `@task(cron=Cron("0 9 * * 1-5", tz="Europe/Paris"))`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, get_args

from holdfast.errors import Unprocessable

if TYPE_CHECKING:
    from holdfast.model.schedule import ScheduleSpec
    from holdfast.wire.manifests import WireSchedule

Overlap = Literal["skip", "allow"]
CatchUp = Literal["one", "none"]


@dataclass(frozen=True, slots=True)
class Cron:
    """The times at which a task runs by itself: `@task(cron=Cron("0 9 * * 1-5", tz="Europe/Paris"))`.

    expression  minute, hour, day of the month, month, day of the week; or an alias such as "@daily". `L` is the last day
                of the month, `1L` to `7L` the last Monday to Sunday of it
    tz          the zone that the expression is read in, such as "Europe/Paris"
    overlap     "skip" makes no run while the one before has not ended; "allow" makes one all the same
    catch_up    after a time when nothing could run: "one" makes up for the latest time that was missed, "none" for none
    window      spreads the runs of many schedules: each begins late by up to so much, always by the same for one time;
                `timedelta` (in whole minutes) or text such as "30m" or "2h", at most 24 hours, or a part of the interval such as "30%"

    Raises ValueError or TypeError for what can not be, also for an expression that never comes true.
    """

    expression: str
    tz: str = "UTC"
    overlap: Overlap = "skip"
    catch_up: CatchUp = "one"
    window: timedelta | str | None = None

    def __post_init__(self) -> None:
        for name in ("expression", "tz"):
            if not isinstance(getattr(self, name), str):
                raise TypeError(f"{name} of a Cron is {getattr(self, name)!r}: expected a text")
        for name, known in (("overlap", get_args(Overlap)), ("catch_up", get_args(CatchUp))):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} of a Cron is {getattr(self, name)!r}: expected "
                    + " or ".join(f'"{one}"' for one in known)
                )
        if self.window is not None and not isinstance(self.window, timedelta | str):
            raise TypeError(
                f'window of a Cron is {self.window!r}: expected a timedelta, or text such as "30m" or "30%"'
            )
        if isinstance(self.window, timedelta) and self.window < timedelta(0):
            raise ValueError(f"window of a Cron is {self.window!r}: expected none that is negative")
        from holdfast.model.schedule import check

        try:
            check(self.spec)
        except Unprocessable as error:
            field = error.param or ""
            name = {"cron": "expression", "timezone": "tz"}.get(field, field)
            raise ValueError(f"{name} of a Cron {str(error).removeprefix(field + ' ')}") from None

    @property
    def spec(self) -> ScheduleSpec:
        """What the server keeps of it."""
        from holdfast.model.schedule import ScheduleSpec

        window = self.window
        if isinstance(window, timedelta):  # the API knows whole minutes and hours only
            window = f"{math.ceil(window / timedelta(minutes=1))}m"
        return ScheduleSpec(self.expression, self.tz, window, self.overlap, self.catch_up)

    def manifest(self) -> WireSchedule:
        """What a worker tells the server about it."""
        spec = self.spec
        told: WireSchedule = {
            "expression": spec.expression,
            "timezone": spec.timezone,
            "overlap": self.overlap,
            "catchUp": self.catch_up,
        }
        if spec.window is not None:
            told["window"] = spec.window
        return told
