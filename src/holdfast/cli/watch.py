"""One run, followed: a line that changes in place on a terminal, else a line for each change."""

from __future__ import annotations

import sys
from typing import Any

from holdfast.cli.api import JSON, Server
from holdfast.cli.output import bar, safe, say, status_text

CLEAR_LINE = "\r\x1b[K"
WIDTH = 100


def follow(there: Server, run_id: str, timeout: float | None) -> JSON:
    """Shows the run on stderr until it ends; returns it."""
    line = StatusLine()
    try:
        return there.watched(run_id, line.show, timeout)
    finally:
        line.close()


class StatusLine:
    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._last = ""

    def show(self, run: JSON) -> None:
        text = line_of(run) if self._live else f"{run['id']}  {run['status']}"
        if text == self._last:
            return
        self._last = text
        if self._live:
            sys.stderr.write(CLEAR_LINE + text)
            sys.stderr.flush()
        else:
            say(text)

    def close(self) -> None:
        if self._live and self._last:
            sys.stderr.write("\n")


def line_of(run: JSON) -> str:
    """Status, attempt and progress of a run."""
    parts = [safe(run["taskIdentifier"]), status_text(run["status"], sys.stderr)]
    if len(run["attempts"]) > 1:
        parts.append(f"attempt {len(run['attempts'])}")
    if (progress := progress_of(run["metadata"])) is not None:
        done, total, message = progress
        parts.append(bar(done, total))
        if message:
            parts.append(safe(message)[:WIDTH])
    return "  ".join(parts)


def progress_of(metadata: dict[str, Any]) -> tuple[float, float, str] | None:
    """Done, total and a message, of what `progress(done, total)` has left in the metadata."""
    found = metadata.get("progress")
    if not isinstance(found, dict):
        return None
    done, total, message = found.get("current"), found.get("total"), found.get("message")
    if not isinstance(done, int | float) or not isinstance(total, int | float):
        return None
    return done, total, message if isinstance(message, str) else ""
