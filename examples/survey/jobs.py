"""A survey of the standard library of the Python that runs it: one child run per package.

`survey` (async) triggers the children as a batch, shows how far they are in its metadata and sums
up. `survey_package` (sync, all CPU) parses every file of its package. The child of `json` fails on
its first attempt and succeeds on its second, to show what a retry looks like.
"""

import ast
import sysconfig
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from holdfast import Retry, arun_all, current_run, progress, task

LIBRARY = Path(sysconfig.get_path("stdlib"))
NOT_OURS = {"site-packages", "dist-packages", "__pycache__", "lib-dynload"}
parsing = threading.Lock()  # Python 3.11 counts the depth of all trees under construction as one, and fails


@dataclass
class Survey:
    """What was found in one package, or in all of them."""

    package: str
    files: int = 0
    unreadable: int = 0  # files that are no valid Python: the library keeps some for its own tests
    functions: int = 0
    classes: int = 0
    lines: int = 0
    longest: str = ""  # the function with most lines, as module.name
    longest_lines: int = 0

    def add(self, other: "Survey") -> None:
        self.files += other.files
        self.unreadable += other.unreadable
        self.functions += other.functions
        self.classes += other.classes
        self.lines += other.lines
        if other.longest_lines > self.longest_lines:
            self.longest, self.longest_lines = other.longest, other.longest_lines


@dataclass
class Report:
    total: Survey
    packages: list[Survey]


def packages() -> list[str]:
    """The names of the top-level packages and modules of the standard library."""
    found = {
        entry.stem if entry.is_file() else entry.name
        for entry in LIBRARY.iterdir()
        if (entry.suffix == ".py" or (entry.is_dir() and next(entry.rglob("*.py"), None)))
        and entry.name not in NOT_OURS
    }
    return sorted(found)


def files_of(package: str) -> Iterator[Path]:
    single = LIBRARY / f"{package}.py"
    if single.is_file():
        yield single
    for file in sorted((LIBRARY / package).rglob("*.py")):
        if not NOT_OURS & set(file.relative_to(LIBRARY).parts):
            yield file


def survey_file(file: Path, found: Survey) -> None:
    found.files += 1
    source = file.read_bytes()
    found.lines += source.count(b"\n")
    try:
        with parsing:
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        found.unreadable += 1
        return
    module = ".".join(file.relative_to(LIBRARY).with_suffix("").parts)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            found.classes += 1
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.functions += 1
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > found.longest_lines:
                found.longest, found.longest_lines = f"{module}.{node.name}", length


@task(retry=Retry(max_attempts=3, min_delay=0.2))
def survey_package(package: str) -> Survey:
    """Parse every file of `package`."""
    if package == "json" and current_run().attempt == 1:
        raise RuntimeError("fails on purpose, once")
    found = Survey(package)
    for file in files_of(package):
        survey_file(file, found)
    current_run().metadata.parent.increment("$.progress.current")
    return found


@task
async def survey() -> Report:
    """Survey every package, each as a run of its own, and sum up."""
    names = packages()
    progress(0, len(names))  # each child adds one when it is done
    total, found = Survey("all"), []
    for result in await arun_all(survey_package.options(tags=[name]).bind(name) for name in names):
        total.add(result)
        found.append(result)
    return Report(total, sorted(found, key=lambda one: -one.lines))
