"""Versions of user code: `YYYYMMDD.N`, where N counts up within the environment and day."""

from __future__ import annotations

import re
from datetime import UTC, datetime

VERSION = re.compile(r"([0-9]{8})\.([0-9]{1,9})")


def next_version(latest: str | None, now_ms: int) -> str:
    """The version after `latest`; it never goes back, also when the clock does."""
    today = f"{datetime.fromtimestamp(now_ms / 1_000, UTC):%Y%m%d}"
    match = VERSION.fullmatch(latest or "")
    if match is None or match[1] < today:
        return f"{today}.1"
    return f"{match[1]}.{int(match[2]) + 1}"


def version_order(version: str) -> tuple[str, int]:
    """A key that sorts versions by age: "20261124.9" before "20261124.10"."""
    match = VERSION.fullmatch(version)
    return (match[1], int(match[2])) if match else ("", 0)
