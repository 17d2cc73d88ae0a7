"""How often a failed run is tried again, and after which delays."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from holdfast.model.duration import duration_ms
from holdfast.model.limits import MAX_ATTEMPTS
from holdfast.model.retry import RetryPolicy

if TYPE_CHECKING:
    from holdfast.wire.manifests import WireRetry


@dataclass(frozen=True, slots=True)
class Retry:
    """A task's retry policy: `@task(retry=Retry(5, give_up_on=(CardDeclined,)))`.

    max_attempts  all attempts, the first one included; 1 means no retry; at most 250
    factor        by which the delay grows from one attempt to the next
    min_delay     before the second attempt; `timedelta`, seconds, or text such as "1s"
    max_delay     the longest delay
    jitter        lengthen each delay by a random part of itself, up to twice
    give_up_on    exceptions that end the run without another attempt
    retry_on      when given, only these exceptions lead to another attempt

    Raises ValueError or TypeError for what can not be, Unprocessable for an unreadable duration.
    """

    max_attempts: int = 3
    factor: float = 2
    min_delay: timedelta | float | str = "1s"
    max_delay: timedelta | float | str = "60s"
    jitter: bool = True
    give_up_on: tuple[type[BaseException], ...] = ()
    retry_on: tuple[type[BaseException], ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.max_attempts, bool) or not isinstance(self.max_attempts, int):
            raise TypeError(f"max_attempts is {self.max_attempts!r}: expected a whole number")
        if not 1 <= self.max_attempts <= MAX_ATTEMPTS:
            raise ValueError(f"max_attempts is {self.max_attempts}: expected 1 to {MAX_ATTEMPTS}")
        if not 0 <= self.factor <= 1_000:
            raise ValueError(f"factor is {self.factor!r}: expected 0 to 1000")
        for name in ("give_up_on", "retry_on"):
            object.__setattr__(self, name, _exceptions(name, getattr(self, name)))
        policy = self.policy
        if policy.min_delay_ms < 0 or policy.max_delay_ms < 0:
            raise ValueError("min_delay and max_delay can not be negative")

    @property
    def policy(self) -> RetryPolicy:
        """The numbers of it, in milliseconds."""
        return RetryPolicy(
            self.max_attempts,
            float(self.factor),
            duration_ms(self.min_delay, "min_delay"),
            duration_ms(self.max_delay, "max_delay"),
            self.jitter,
        )

    def manifest(self) -> WireRetry:
        policy = self.policy
        return {
            "maxAttempts": policy.max_attempts,
            "factor": policy.factor,
            "minTimeoutInMs": policy.min_delay_ms,
            "maxTimeoutInMs": policy.max_delay_ms,
            "randomize": policy.jitter,
        }


def _exceptions(name: str, given: object) -> tuple[type[BaseException], ...]:
    """One exception class counts as a tuple of one."""
    classes = tuple(given) if isinstance(given, tuple | list | set | frozenset) else (given,)
    for one in classes:
        if not (isinstance(one, type) and issubclass(one, BaseException)):
            raise TypeError(f"{name} holds {one!r}: expected classes of exceptions")
    return classes
