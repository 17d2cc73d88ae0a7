"""Whatever the documentation shows runs, against a real Holdfast."""

from pathlib import Path

import pytest

from docs.pages import PAGES, ROOT, blocks, is_run, run_page

EXAMPLES = [page for page in PAGES if is_run(page)]


@pytest.mark.parametrize("page", EXAMPLES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_example_of_a_page_runs(page: Path, tmp_path: Path):
    run_page(page, tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_example_is_left_out(page: Path):
    """A page with Python in it has a file of tasks, so that it is run; nothing else but files is Python."""
    kinds = {(block.language, block.mark) for block in blocks(page)}
    if ("python", "") in kinds or ("sh", "") in kinds:
        assert is_run(page)


def test_the_example_of_the_readme_has_ten_lines():
    [tasks, program] = [block for block in blocks(ROOT / "README.md") if block.language == "python"]
    assert len([line for line in (tasks.text + program.text).splitlines() if line]) <= 10
