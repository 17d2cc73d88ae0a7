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

HERE = Path(__file__).parent
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
