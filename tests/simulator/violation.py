"""What is raised when an invariant does not hold."""

from __future__ import annotations

from typing import Any


class Violation(AssertionError):
    """An invariant does not hold. Begins with its number."""


def require(condition: Any, invariant: str, text: str) -> None:
    if not condition:
        raise Violation(f"{invariant}: {text}")
