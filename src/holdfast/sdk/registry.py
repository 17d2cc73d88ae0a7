"""The tasks and queues of this process, and how their modules are imported.

Tasks register when their module is imported; there is no app object.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from holdfast.errors import HoldfastError, TaskImportFailed

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.sdk.queue import Queue
    from holdfast.sdk.task import Task

_tasks: dict[str, Task[Any, Any]] = {}
_queues: dict[str, Queue] = {}


class DuplicateName(HoldfastError):
    """Two functions with one task id, or two different queues of one name."""

    code = "duplicate_name"


def tasks() -> dict[str, Task[Any, Any]]:
    """Every task by its id."""
    return dict(_tasks)


def queues() -> dict[str, Queue]:
    """Every queue by its name."""
    return dict(_queues)


def clear() -> None:
    """Forget all tasks and queues. Modules stay imported: loading them again registers nothing."""
    _tasks.clear()
    _queues.clear()


def add_task(task: Task[Any, Any]) -> None:
    """Register `task`. The same function again (a reloaded module) takes the place of the old one."""
    known = _tasks.get(task.id)
    if known is not None and place(known) != place(task):
        raise DuplicateName(
            f"two tasks have the id {task.id!r}: {'.'.join(place(known))} and {'.'.join(place(task))}; "
            f'give one of them another one: @task(id="…")'
        )
    _tasks[task.id] = task


def add_queue(queue: Queue) -> None:
    known = _queues.get(queue.name)
    if known is not None and known.module != queue.module and known.manifest() != queue.manifest():
        raise DuplicateName(
            f"the queue {queue.name!r} is declared twice with different limits: "
            f"in {known.module} as {known} and in {queue.module} as {queue}"
        )
    _queues[queue.name] = queue


def place(task: Task[Any, Any]) -> tuple[str, str]:
    """Module and qualified name of a task's function."""
    return task.fn.__module__, task.fn.__qualname__


def load(names: Sequence[str]) -> list[TaskImportFailed]:
    """Import the modules that hold tasks, and return those that fail, each with its cause chained.

    names  files ("jobs.py"), folders ("jobs": every module below it) or dotted modules ("shop.jobs")

    The folder that imports start from (for a package the one above it) is put on `sys.path`. What a
    failing module registered before it failed is taken back. Importing twice does nothing.
    """
    failures = []
    for name in names:
        for module, failure in _modules(name):
            if failure is None:
                failure = _imported(*module)
            if failure is not None:
                failures.append(failure)
    return failures


Module = tuple[str, str, "Path | None"]  # how to call it in errors, its dotted name, its file


def _modules(name: str) -> Iterator[tuple[Module, TaskImportFailed | None]]:
    from pathlib import Path

    path = Path(name)
    if path.is_dir():
        files = [file for file in sorted(path.rglob("*.py")) if _is_module(file.relative_to(path))]
        if not files:
            yield (name, "", None), TaskImportFailed(name, "the folder holds no Python module")
        for file in files:
            yield _of_file(file), None
    elif path.is_file() or name.endswith(".py"):
        if path.is_file():
            yield _of_file(path), None
        else:
            yield (name, "", None), TaskImportFailed(name, "there is no such file")
    else:
        _make_importable(Path.cwd())
        yield (name, name, None), None
        found = sys.modules.get(name)
        for folder in getattr(found, "__path__", ()):
            for file in sorted(Path(folder).rglob("*.py")):
                if file != Path(folder) / "__init__.py" and _is_module(file.relative_to(folder)):
                    yield _of_file(file), None


def _is_module(file: Path) -> bool:
    parts = file.with_suffix("").parts
    return all(part.isidentifier() and part not in ("__pycache__", "__main__") for part in parts)


def _of_file(file: Path) -> Module:
    """The dotted name that makes relative imports work: from the topmost package downwards."""
    resolved = file.resolve()
    parts = [] if resolved.name == "__init__.py" else [resolved.stem]
    folder = resolved.parent
    while (folder / "__init__.py").is_file() and folder.name.isidentifier():
        parts.insert(0, folder.name)
        folder = folder.parent
    _make_importable(folder)
    return str(file), ".".join(parts), resolved


def _make_importable(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _imported(shown: str, name: str, file: Path | None) -> TaskImportFailed | None:
    try:
        module = importlib.import_module(name)
    except (Exception, SystemExit) as error:
        for task in [task for task in _tasks.values() if task.fn.__module__ == name]:
            del _tasks[task.id]
        for queue in [queue for queue in _queues.values() if queue.module == name]:
            del _queues[queue.name]
        failure = TaskImportFailed(shown, f"{type(error).__name__}: {error}")
        failure.__cause__ = error
        return failure
    found = getattr(module, "__file__", None)
    if file is not None and (found is None or not file.samefile(found)):
        reason = f"the module name {name!r} is taken by {found or 'a built-in module'}; rename the file"
        return TaskImportFailed(shown, reason)
    return None
