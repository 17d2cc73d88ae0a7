"""Projects and their environments: dev, staging, prod, and preview with a branch environment for each branch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from holdfast.errors import InvalidRequest
from holdfast.model import limits

DEFAULT_PROJECT = "proj_default"  # owns the environments that are named after their types
# What paths and the prefixes of keys call a type, such as the key tr_stg_….
SLUGS: Mapping[str, str] = {"dev": "dev", "staging": "stg", "prod": "prod", "preview": "preview"}
TYPES = tuple(SLUGS)


@dataclass(frozen=True, slots=True)
class Project:
    """`ref` is what paths and configurations call it; it never changes."""

    id: str
    ref: str
    name: str
    created_at: int

    @property
    def slug(self) -> str:
        return re.sub("[^a-z0-9]+", "-", self.name.lower()).strip("-") or self.ref


@dataclass(frozen=True, slots=True)
class Environment:
    """Where runs, keys and variables belong. `branch` is set for a branch environment, which is of type preview."""

    id: str
    project: Project
    type: str
    branch: str | None
    concurrency_limit: int
    archived_at: int | None
    created_at: int

    @property
    def slug(self) -> str:
        return SLUGS[self.type]

    @property
    def name(self) -> str:
        """For people, such as "preview/my-branch"."""
        return self.type if self.branch is None else f"{self.type}/{self.branch}"


def type_named(word: str) -> str | None:
    """The type of an environment that is called by its type or its slug; None for any other word."""
    return next((type for type, slug in SLUGS.items() if word in (type, slug)), None)


def checked_branch(name: str, param: str = "x-trigger-branch") -> str:
    """Raises InvalidRequest for what can be no name of a branch."""
    if not 0 < len(name) <= limits.MAX_BRANCH or not name.isascii() or not name.isprintable() or " " in name:
        raise InvalidRequest(
            f"{param} is {name[:40]!r}: the name of a branch has 1 to {limits.MAX_BRANCH} printable ASCII "
            "characters without spaces",
            param,
        )
    return name


def checked_name(name: str, what: str) -> str:
    """A name that people give to a project or a key, without blanks around it. Raises InvalidRequest."""
    name = name.strip()
    if not name or len(name) > limits.MAX_NAME or not name.isprintable():
        raise InvalidRequest(
            f"{what} is {name[:40]!r}: expected 1 to {limits.MAX_NAME} printable characters", what
        )
    return name
