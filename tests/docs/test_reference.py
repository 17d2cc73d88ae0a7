"""The reference says what the code says, and the pages lead to one another."""

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

import holdfast
from docs.pages import PAGES, ROOT
from holdfast.model.scope import KINDS as KINDS_OF_THINGS
from holdfast.model.scope import PRESETS
from holdfast.model.status import AttemptStatus, RunStatus
from holdfast.sdk.hooks import KINDS
from holdfast.server import ENDPOINTS

DOCS = ROOT / "docs"
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
SCRIPT: dict[str, Any] = runpy.run_path(str(ROOT / "scripts" / "write_docs.py"))


@pytest.mark.parametrize("name", SCRIPT["PAGES"])
def test_a_generated_page_is_what_make_docs_writes(name: str):
    assert (DOCS / "reference" / name).read_text(encoding="utf-8") == SCRIPT["PAGES"][name](), (
        "run `make docs`"
    )


def test_every_status_is_explained_with_the_runs():
    words = set(re.findall(r"`([A-Z_]+)`", (DOCS / "runs.md").read_text(encoding="utf-8")))
    assert {*map(str, RunStatus), *map(str, AttemptStatus)} <= words


def test_every_public_name_is_in_the_reference_and_has_a_docstring():
    page = (DOCS / "reference" / "python.md").read_text(encoding="utf-8")
    for name in holdfast.__all__:
        assert f"\n## {name}\n" in page or f"\n| `{name}` | " in page, name
        assert getattr(holdfast, name).__doc__, name


def test_every_route_is_in_the_reference():
    page = (DOCS / "reference" / "api.md").read_text(encoding="utf-8")
    for endpoint in ENDPOINTS:
        assert f"\n### {endpoint.method} {endpoint.path}\n" in page


def test_every_option_of_a_trigger_is_in_its_guide():
    page = (DOCS / "triggering.md").read_text(encoding="utf-8")
    assert [name for name in holdfast.Options.__annotations__ if f"`{name}`" not in page] == []


def test_every_kind_of_thing_and_every_preset_is_explained():
    page = (DOCS / "authentication.md").read_text(encoding="utf-8")
    assert [name for name in (*KINDS_OF_THINGS, *PRESETS) if f"\n| `{name}`" not in page] == []


def test_every_hook_is_in_its_guide():
    page = (DOCS / "hooks.md").read_text(encoding="utf-8")
    assert [kind for kind in KINDS if f"`{kind}(" not in page] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path):
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_the_index_lists_every_page():
    index = DOCS / "index.md"
    listed = {(DOCS / target).resolve() for target in LINK.findall(index.read_text(encoding="utf-8"))}
    assert set(DOCS.rglob("*.md")) - {index} - listed == set()
