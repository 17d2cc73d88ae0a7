"""The pages of the documentation: their blocks of code, and a Holdfast that runs them.

A block below `<!-- file: jobs.py -->` is a file. The other Python blocks of a page are one program,
with each line at its place in the page, so that a traceback names page and line. Blocks of `sh` are
run before it; a comment after a command is what it prints. `<!-- not run -->` excepts the next block.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cli.world import plain_environment, start_in

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>[^>]*) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
PRINTED = re.compile(r"\s{2,}# (.+)$", re.MULTILINE)
SECONDS = 120
CURL = Path(__file__).with_name("curl.py")  # not every machine has the real one


@dataclass(frozen=True)
class Block:
    language: str
    line: int  # of its first line, from 1
    text: str
    mark: str  # "file: jobs.py", "not run" or nothing


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("text")) + 1
        yield Block(match["language"], line, match["text"], match["mark"] or "")


def is_run(page: Path) -> bool:
    return any(block.mark.startswith("file: ") for block in blocks(page))


def run_page(page: Path, folder: Path) -> None:
    """Raises AssertionError with the output of the first thing that fails."""
    for block in blocks(page):
        if block.mark.startswith("file: "):
            (folder / block.mark.removeprefix("file: ")).write_text(block.text, encoding="utf-8")
    process = start_in(folder, ("dev", "jobs.py", "--no-reload", "--port", "0", "--json"), {})
    try:
        ready = process.ready()
        variables = {
            "HOLDFAST_API_URL": ready["url"],
            "HOLDFAST_SECRET_KEY": Path(ready["keyFile"]).read_text().strip(),
            "PATH": f"{_commands(folder)}{os.pathsep}{os.environ['PATH']}",
        }
        for block in blocks(page):
            if block.language == "sh" and block.mark != "not run":
                printed = _run(["sh", "-eu", "-c", _addressed(block.text, ready["url"])], folder, variables)
                for expected in PRINTED.findall(block.text):
                    assert expected in printed.splitlines(), (
                        f"{page.name}:{block.line}: {expected!r} is not in {printed!r}"
                    )
        program = folder / page.name
        program.write_text(_addressed(_program(page), ready["url"]), encoding="utf-8")
        _run([sys.executable, "-W", "error", str(program)], folder, variables)
    except AssertionError as error:
        error.add_note(f"what `holdfast dev` told: {process.errors.read_text()}")
        raise
    finally:
        assert process.end() == 0, process.errors.read_text()


def _program(page: Path) -> str:
    lines: list[str] = []
    for block in blocks(page):
        if block.language == "python" and not block.mark:
            lines += [""] * (block.line - 1 - len(lines))
            lines += block.text.splitlines()
    return "\n".join(lines) + "\n"


def _addressed(text: str, url: str) -> str:
    return text.replace("http://localhost:3030", url)


def _commands(folder: Path) -> Path:
    """A folder with the commands that pages use."""
    commands = folder / ".commands"
    commands.mkdir()
    for name, rest in (("holdfast", "-m holdfast"), ("python", ""), ("curl", str(CURL))):
        (commands / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {rest} "$@"\n')
        (commands / name).chmod(0o755)
    return commands


def _run(command: list[str], folder: Path, variables: dict[str, str]) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env=plain_environment() | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout
