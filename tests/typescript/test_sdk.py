"""The official TypeScript SDK, as npm has it, against `holdfast dev` and a Python worker, on both stores.

Needs Node. Where there is none the test is skipped; CI sets HOLDFAST_REQUIRE_NODE, and then it fails.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from conformance.run import served
from docs.pages import ROOT, blocks

HERE = Path(__file__).parent
PAGE = ROOT / "docs" / "typescript-sdk.md"
NODE = shutil.which("node")


@pytest.fixture(scope="module")
def sdk() -> None:
    """The SDK, installed beside the test the first time."""
    if NODE is None or shutil.which("npm") is None:
        if os.environ.get("HOLDFAST_REQUIRE_NODE"):
            pytest.fail("HOLDFAST_REQUIRE_NODE is set, and there is no Node on the PATH")
        pytest.skip("no Node on the PATH: the TypeScript SDK is not tried")
    with (HERE / ".installing").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several processes run the tests
        if not (HERE / "node_modules" / "@trigger.dev" / "sdk").exists():
            install = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--silent"]
            subprocess.run(install, cwd=HERE, check=True, timeout=300)


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
@pytest.mark.usefixtures("sdk")
def test_the_sdk_works_unchanged(store: str) -> None:
    with served(store) as environment:
        command = ["node", "--test", "--test-reporter=spec", "sdk.test.mjs"]
        said = subprocess.run(
            command, cwd=HERE, env=environment, capture_output=True, text=True, timeout=180, check=False
        )
    assert said.returncode == 0, said.stdout[-20_000:] + said.stderr[-5_000:]


@pytest.mark.usefixtures("sdk")
def test_the_page_about_the_sdk_says_what_works(tmp_path: Path) -> None:
    [tasks] = [block.text for block in blocks(PAGE) if block.mark == "file: jobs.py"]
    (tmp_path / "jobs.py").write_text(tasks)
    programs = [block for block in blocks(PAGE) if block.language == "js"]
    assert len(programs) >= 4
    with served("sqlite", tmp_path / "jobs.py") as environment:
        for program in programs:
            command = ["node", "--input-type=module", "--eval", program.text]
            said = subprocess.run(
                command, cwd=HERE, env=environment, capture_output=True, text=True, timeout=60, check=False
            )
            assert said.returncode == 0, f"{PAGE.name}:{program.line}: {said.stdout}{said.stderr}"
