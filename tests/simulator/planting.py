"""How a failure is planted into the engine: a patch of a function, or of a part of a statement's text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from holdfast.stores.sql import statements


@dataclass(frozen=True, slots=True)
class Replanted:
    """One failure: its number in the corpus or the invariant it breaks, what happens, how to plant it."""

    number: str
    what: str
    plant: Callable[[], AbstractContextManager[Any]]


@contextmanager
def statement(name: str, old: str, new: str) -> Iterator[None]:
    """Replaces a part of a statement of SQLite."""
    all_of_them: Any = statements("sqlite")
    sound = all_of_them[name]
    if old not in sound.text:
        raise LookupError(f"statement {name} has no {old!r}")
    all_of_them[name] = replace(sound, text=sound.text.replace(old, new))
    try:
        yield
    finally:
        all_of_them[name] = sound


@contextmanager
def together(*patches: AbstractContextManager[Any]) -> Iterator[None]:
    with ExitStack() as stack:
        for one in patches:
            stack.enter_context(one)
        yield
