"""What happened, line by line; kept only when a seed is replayed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from holdfast.model.run import Run


class Timeline:
    def __init__(self, keep: bool) -> None:
        self.keep = keep
        self.now = 0
        self.step = 0
        self.lines: list[str] = []

    def add(self, node: str, text: str, fault: str = "") -> None:
        if self.keep:
            mark = f"   !! {fault}" if fault else ""
            self.lines.append(f"{self.step:4} {self.now % 10**9:>9} {node:<12} {text}{mark}")


def shown(value: Any) -> str:
    """A value in few words: what is not said, and what is as it always is, is left out."""
    if isinstance(value, Run):
        worker = f" by {value.worker_id[-6:]}" if value.worker_id else ""
        return f"<{value.id[-8:]} {value.status} lease {value.lease} attempt {value.attempt}{worker}>"
    if is_dataclass(value) and not isinstance(value, type):
        parts = []
        for field in fields(value):
            said = getattr(value, field.name)
            if said is None or said == () or said == field.default:
                continue
            parts.append(f"{field.name}={shown(said)}")
        return f"{type(value).__name__}({', '.join(parts)})"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name}: {shown(said)}' for name, said in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(shown(one) for one in value)}]"
    return repr(value)
