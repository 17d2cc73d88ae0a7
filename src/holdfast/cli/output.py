"""What commands print: data to stdout, talk to stderr, nothing that a terminal would obey."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, TextIO

import click

# Control characters, and those that turn the direction of writing: data must not steer the terminal.
UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
MARKS = {
    "COMPLETED_SUCCESSFULLY": ("✓", "green"),
    "EXECUTING": ("▶", "cyan"),
    "REATTEMPTING": ("↻", "yellow"),
    "QUEUED": ("○", "white"),
    "DELAYED": ("○", "white"),
    "WAITING_FOR_DEPLOY": ("○", "yellow"),
    "WAITING_TO_RESUME": ("○", "white"),
}  # every other status is an unhappy end
BAR = 24


def say(message: str) -> None:
    """One line to stderr."""
    click.echo(message, err=True)


def fail(message: str, hint: str = "") -> None:
    """`error: …` and a hint, to stderr. Line breaks in the message are shown as such."""
    say(f"{paint('error:', 'red', sys.stderr)} {_lines(message)}")
    if hint:
        say(f"{paint('hint:', 'cyan', sys.stderr)} {_lines(hint)}")


def emit(line: str) -> None:
    """One line of data."""
    click.echo(line)


def emit_json(value: Any) -> None:
    """A JSON document, indented on a terminal; control characters are escaped by JSON itself."""
    pretty = sys.stdout.isatty()
    emit(json.dumps(value, ensure_ascii=not pretty, indent=2 if pretty else None))


def safe(text: object) -> str:
    """`text` with control characters written out, such as `\\x1b`."""
    return UNSAFE.sub(lambda match: _written(match[0]), str(text))


def paint(text: str, colour: str, stream: TextIO) -> str:
    """Coloured on a terminal, unless NO_COLOR is set; never the only carrier of a meaning."""
    wanted = stream.isatty() or bool(os.environ.get("FORCE_COLOR"))
    return click.style(text, fg=colour) if wanted and not os.environ.get("NO_COLOR") else text


def status_text(status: str, stream: TextIO) -> str:
    mark, colour = MARKS.get(status, ("✕", "red"))
    return paint(f"{mark} {safe(status)}", colour, stream)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table with a heading on a terminal, else values separated by tabs."""
    if not sys.stdout.isatty():
        for row in rows:
            emit("\t".join(safe(value) for value in row))
        return
    kept = [[safe(value) for value in row] for row in rows]
    widths = [max([len(name), *(len(row[index]) for row in kept)]) for index, name in enumerate(columns)]
    emit("  ".join(name.upper().ljust(width) for name, width in zip(columns, widths, strict=True)).rstrip())
    for row in kept:
        cells = [value.ljust(width) for value, width in zip(row, widths, strict=True)]
        colour = next(
            (MARKS.get(value, ("", "red"))[1] for value in row if value.isupper() and "_" in value), ""
        )
        emit(paint("  ".join(cells).rstrip(), colour, sys.stdout) if colour else "  ".join(cells).rstrip())


def bar(done: float, total: float) -> str:
    """A progress bar such as `[#####-----] 5/10`."""
    share = min(1.0, max(0.0, done / total)) if total > 0 else 0.0
    full = round(share * BAR)
    return f"[{'#' * full}{'-' * (BAR - full)}] {done:g}/{total:g}"


def ago(moment: str | None, now: datetime | None = None) -> str:
    """How long ago an ISO 8601 date was, such as "3m ago"."""
    if not moment:
        return "-"
    try:
        seconds = ((now or datetime.now(UTC)) - datetime.fromisoformat(moment)).total_seconds()
    except ValueError:
        return safe(moment)
    for length, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= length:
            return f"{int(seconds // length)}{unit} ago"
    return f"{max(0, int(seconds))}s ago"


def _lines(text: str) -> str:
    return "\n".join(safe(line) for line in text.split("\n"))


def _written(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
