"""Durations: a `timedelta`, seconds as a number, or text such as "1h30m"."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta

from holdfast.errors import InvalidRequest, Unprocessable
from holdfast.model.limits import MAX_DURATION_TEXT

UNITS_MS = {"w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "hr": 3_600_000, "m": 60_000, "s": 1_000}
PART = re.compile(r"([0-9]{1,12})(w|d|hr|h|m|s)")
LIFETIME = re.compile(r"[0-9]{1,12}[smhd]")
MAX_MS = 100 * 365 * 86_400_000  # a hundred years: beyond it dates no longer print


def duration_ms(value: timedelta | float | str, param: str) -> int:
    """Milliseconds in `value`; `param` names the field in the error.

    Text is one or more of number + `w`, `d`, `h` or `hr`, `m`, `s`, at most 100 characters, without
    spaces, fractions or repeated units (engine rule R22; a repeated unit is refused here).

    Raises InvalidRequest when `value` can not be read, is not finite, or is over a hundred years.
    """
    if isinstance(value, timedelta):
        total = round(value.total_seconds() * 1_000)
    elif isinstance(value, bool):
        raise _unreadable(value, param)
    elif isinstance(value, int | float):
        if isinstance(value, float) and not math.isfinite(value):
            raise _unreadable(value, param)
        total = round(value * 1_000)
    else:
        total = _text_ms(value, param)
    if abs(total) > MAX_MS:
        raise InvalidRequest(f"{param} is {value!r}: longer than a hundred years", param)
    return total


def moment_ms(value: str | float | timedelta | datetime, now_ms: int, param: str) -> int:
    """The epoch millisecond that a delay names: a duration from now, or a date in ISO 8601.

    A date without an offset is UTC. A date in the past means now. Raises as `duration_ms`.
    """
    if isinstance(value, datetime):
        return max(now_ms, epoch_ms(value))
    if isinstance(value, str) and not PART.match(value):
        try:
            return max(now_ms, epoch_ms(datetime.fromisoformat(value)))
        except (ValueError, OverflowError):
            raise _unreadable(value, param) from None
    if isinstance(value, str):
        try:
            return now_ms + max(0, duration_ms(value, param))
        except InvalidRequest:
            try:
                return max(now_ms, epoch_ms(datetime.fromisoformat(value)))
            except (ValueError, OverflowError):
                raise _unreadable(value, param) from None
    return now_ms + max(0, duration_ms(value, param))


def lifetime_ms(value: str, param: str) -> int:
    """Milliseconds in an idempotency key's lifetime: one number and one of s, m, h, d (rule R84)."""
    if not isinstance(value, str) or not LIFETIME.fullmatch(value):
        raise Unprocessable(
            f'{param} is {_shown(value)}: expected one number and one of s, m, h, d, such as "24h"', param
        )
    return duration_ms(value, param)


def epoch_ms(moment: datetime) -> int:
    """Milliseconds since 1970 of a date; one without an offset is taken as UTC."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1_000)


def duration_text(ms: int) -> str:
    """The shortest text for `ms`, such as "1h30m"; milliseconds are dropped."""
    rest, parts = ms // 1_000, []
    for unit in ("w", "d", "h", "m", "s"):
        count, rest = divmod(rest, UNITS_MS[unit] // 1_000)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def _text_ms(text: str, param: str) -> int:
    total, position, seen = 0, 0, set()
    if not isinstance(text, str) or not text or len(text) > MAX_DURATION_TEXT:
        raise _unreadable(text, param)
    while position < len(text):
        part = PART.match(text, position)
        if part is None:
            raise _unreadable(text, param)
        unit = part[2][0]
        if unit in seen:
            raise InvalidRequest(f"{param} is {_shown(text)}: the unit {unit} is repeated", param)
        seen.add(unit)
        total += int(part[1]) * UNITS_MS[unit]
        position = part.end()
    return total


def _unreadable(value: object, param: str) -> InvalidRequest:
    return InvalidRequest(f'{param} is {_shown(value)}: expected a duration such as "1h30m" or a date', param)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."
