"""What an executor found: the tasks, their queues, and what did not import."""

from __future__ import annotations

import hashlib
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from holdfast.errors import HoldfastError, TaskImportFailed
from holdfast.model.error import clean
from holdfast.sdk import registry
from holdfast.worker.pipe import Message

INSTALLED = {"site-packages", "dist-packages"}
ELSEWHERE = (Path(sysconfig.get_path("stdlib")), Path(__file__).parents[1])


def collect(names: Sequence[str]) -> Message:
    """Import `names` and describe what they hold, as the executor's first message.

    {"kind": "manifest", "tasks": [WireTask], "queues": [WireQueue], "memory": {task: bytes or null},
     "failures": ["jobs.py: ModuleNotFoundError: …"], "fingerprint": "…"}
    `memory` names the tasks with isolation="process". Equal code gives an equal fingerprint.
    """
    failures = [_sentence(failure) for failure in registry.load(names)]
    tasks = registry.tasks()
    manifests = []
    for id, task in sorted(tasks.items()):
        try:
            manifests.append(task.manifest())
        except (HoldfastError, TypeError, ValueError, NameError) as error:  # its declaration can not be read
            failures.append(clean(f"task {id} is left out: {type(error).__name__}: {error}"))
    described: Message = {
        "kind": "manifest",
        "tasks": manifests,
        "queues": [queue.manifest() for _, queue in sorted(registry.queues().items())],
        "memory": {
            id: task.memory_limit for id, task in sorted(tasks.items()) if task.isolation == "process"
        },
    }
    digest = hashlib.sha256(to_json(described))
    for name, source in sorted(_sources([task.fn for task in tasks.values()]).items()):
        digest.update(name.encode())
        digest.update(source.read_bytes())
    return {**described, "failures": failures, "fingerprint": digest.hexdigest()}


def _sources(functions: Sequence[Any]) -> dict[str, Path]:
    """The files that the code of these functions is made of, by module: all that are imported and lie where theirs do.

    What is installed is no part of it, nor is Holdfast, whose commands import more of it than executors do.
    """
    roots = set()
    for function in functions:
        name = getattr(inspect.unwrap(function), "__module__", "")
        if (file := _file_of(name)) is not None:
            is_package = file.name == "__init__.py"
            roots.add(file.parents[name.count(".") + is_package] if name != "__main__" else file.parent)
    found = {}
    for name in list(sys.modules):
        file = _file_of(name)
        if file is None or name == "__main__" or any(file.is_relative_to(place) for place in ELSEWHERE):
            continue
        if not INSTALLED & set(file.parts) and any(file.is_relative_to(root) for root in roots):
            found[name] = file
    return found


def _file_of(module: str) -> Path | None:
    path = getattr(sys.modules.get(module), "__file__", None)
    return Path(path) if isinstance(path, str) and Path(path).is_file() else None


def _sentence(failure: TaskImportFailed) -> str:
    """Module, the error's last line and its place."""
    cause = failure.__cause__
    if cause is None:
        return clean(str(failure))
    last = traceback.format_exception_only(type(cause), cause)[-1].strip()
    place = ""
    if isinstance(cause, SyntaxError):
        place = f" ({cause.filename}, line {cause.lineno})"
    else:
        frames = traceback.extract_tb(cause.__traceback__)
        of_user = [frame for frame in frames if _is_of_user(frame.filename)]
        if of_user:
            place = f" ({of_user[-1].filename}, line {of_user[-1].lineno})"
    return clean(f"{failure.module} does not import: {last}{place}")


def _is_of_user(filename: str) -> bool:
    return not filename.startswith("<") and not any(
        Path(filename).is_relative_to(place) for place in ELSEWHERE
    )
