"""Tasks that look at their environment, while they are imported and while they run."""

from __future__ import annotations

import os
import subprocess
import sys

from holdfast import task

AT_IMPORT = os.environ.get("GREETING", "nothing")


@task
def greeting() -> list[str | None]:
    return [AT_IMPORT, os.environ.get("GREETING"), os.environ.get("SET_BY_THE_WORKER")]


@task
def everything() -> dict[str, str]:
    return dict(os.environ)


@task(isolation="process")
def alone() -> str | None:
    return os.environ.get("GREETING")


@task
def of_a_child_process() -> str:
    code = "import os; print(os.environ['GREETING'])"
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()
