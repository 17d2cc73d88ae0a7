"""When a failed attempt is followed by another one, and after how long."""

from __future__ import annotations

from dataclasses import dataclass

# A shorter delay is slept in the worker, which keeps the slot; from here on the run goes back
# through the queue and frees it (engine rule R25).
IN_PROCESS_BELOW_MS = 30_000


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Attempts and the curve between them; the defaults are the documented ones of the reference."""

    max_attempts: int = 3
    factor: float = 2.0
    min_delay_ms: int = 1_000
    max_delay_ms: int = 60_000
    jitter: bool = True


DEFAULT_POLICY = RetryPolicy()


def retry_delay_ms(policy: RetryPolicy, attempt: int, draw: float) -> int | None:
    """Milliseconds to wait after `attempt` (counted from 1) failed; None when it was the last.

    round(min(max_delay, r * min_delay * factor ** (attempt - 1))), where r is 1 + `draw` with
    jitter and else 1; `draw` is uniform in [0, 1). Jitter only lengthens, and the cap comes
    after it (engine-semantics 5.1).
    """
    if attempt >= policy.max_attempts:
        return None
    spread = 1 + draw if policy.jitter else 1.0
    try:
        delay = spread * policy.min_delay_ms * policy.factor ** (attempt - 1)
    except OverflowError:
        delay = float("inf")
    return round(min(policy.max_delay_ms, delay))
