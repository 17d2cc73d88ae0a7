"""The import map is the architecture; this test keeps the two equal."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "holdfast"
WORDS = {"errors", "model"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "model": {"errors"},
    "wire": WORDS,
    "config": {"errors"},
    "stores": WORDS,
    "engine": WORDS | {"stores"},
    "server": WORDS | {"wire", "config", "stores", "engine"},
    "sdk": WORDS | {"wire", "config"},
    "worker": WORDS | {"wire", "config", "sdk"},
}
MAY_IMPORT_ANYTHING = {"cli", "testing", "pytest_plugin", "__init__", "__main__"}


def part(file: Path) -> str:
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(file: Path) -> set[str]:
    """The parts of Holdfast that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        match node:
            case ast.Import(names=names):
                found |= {alias.name for alias in names}
            case ast.ImportFrom(module=str(module), names=names, level=0):
                found |= {f"{module}.{alias.name}" for alias in names}
            case ast.ImportFrom(level=level) if level > 0:
                found.add("holdfast.a relative import")
    return {name.split(".")[1] for name in found if name.startswith("holdfast.")}


@pytest.mark.parametrize("own", sorted(MAY_IMPORT))
def test_imports_follow_the_map(own: str) -> None:
    files = [file for file in SOURCE.rglob("*.py") if part(file) == own]
    assert files
    for file in files:
        assert imports(file) - MAY_IMPORT[own] - {own} == set(), file


def test_every_part_is_on_the_map() -> None:
    assert {part(file) for file in SOURCE.rglob("*.py")} - MAY_IMPORT_ANYTHING == set(MAY_IMPORT)
