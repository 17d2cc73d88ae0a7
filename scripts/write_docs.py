"""Writes the pages of the reference that are made from the code: `make docs`."""

from __future__ import annotations

from pathlib import Path

from holdfast.config import reference

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "configuration.md"
INTRODUCTION = """# Configuration

Each setting has one environment variable. Options of the command line override it. Durations are seconds or text
such as `1m30s`. `TRIGGER_API_URL` and `TRIGGER_SECRET_KEY` are read where `HOLDFAST_API_URL` and
`HOLDFAST_SECRET_KEY` are absent.

`make docs` makes this page from `src/holdfast/config.py`.

"""
AFTER = """
Which tasks `holdfast dev`, `start` and `worker` load, when the command line names none, stands in `pyproject.toml`:

```toml
[tool.holdfast]
tasks = ["jobs", "more/jobs.py"]
```

`HOLDFAST_DEBUG=1` shows the traceback of an error of a command, `NO_COLOR=1` turns colours off.
"""


def page() -> str:
    """The whole page; a test compares it with the file."""
    return INTRODUCTION + reference() + AFTER


if __name__ == "__main__":
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page())
