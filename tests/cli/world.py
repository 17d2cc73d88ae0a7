"""Worlds for tests of the command line: a command with its output, and a server in a process of its own."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

READY_SECONDS = 30
KEY = "tr_dev_of_the_tests"
VARIABLES = ("HOLDFAST_", "TRIGGER_", "NO_COLOR", "FORCE_COLOR")


@dataclass(frozen=True)
class Done:
    """A command line that has ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


Holdfast = Callable[..., Done]


def plain_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(VARIABLES)}


@dataclass
class Process:
    """A command that goes on, such as a server."""

    popen: subprocess.Popen[str]
    errors: Path

    def ready(self) -> dict[str, str]:
        """What it prints with --json when it is ready."""
        assert self.popen.stdout is not None
        readable, _, _ = select.select([self.popen.stdout], [], [], READY_SECONDS)
        assert readable, f"not ready in time: {self.errors.read_text()}"
        line = self.popen.stdout.readline()
        assert line, self.errors.read_text()
        found: dict[str, str] = json.loads(line)
        return found

    def end(self, number: int = signal.SIGTERM) -> int:
        if self.popen.poll() is None:
            self.popen.send_signal(number)
        try:
            return self.popen.wait(20)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            raise AssertionError(f"it did not end by itself: {self.errors.read_text()}") from None
        finally:
            if self.popen.stdout is not None:
                self.popen.stdout.close()


Start = Callable[..., Process]


def start_in(folder: Path, arguments: tuple[str, ...], variables: dict[str, str]) -> Process:
    errors = folder / f"errors-{len(list(folder.glob('errors-*')))}"
    with errors.open("w") as stream:
        popen = subprocess.Popen(
            [sys.executable, "-m", "holdfast", *arguments],
            cwd=folder,
            env=plain_environment() | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stream,
            text=True,
        )
    return Process(popen, errors)
