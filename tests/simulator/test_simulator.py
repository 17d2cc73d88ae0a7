"""The engine under faults: seeds on both stores, and the proof that a defect would be seen."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from simulator.planting import Replanted
from simulator.replanted import SPINE
from simulator.replanted_durable import DURABLE
from simulator.stores import opener
from simulator.world import Result, simulate

SQLITE_SEEDS = 300
CHUNK = 25
POSTGRES_SEEDS = 25
SEEDS_TO_CATCH = 400


@pytest.mark.parametrize("start", range(0, SQLITE_SEEDS, CHUNK))
def test_every_invariant_holds_under_faults_on_sqlite(start: int) -> None:
    held(simulate(seed, opener("sqlite")) for seed in range(start, start + CHUNK))


def test_every_invariant_holds_under_faults_on_postgres(postgres_url: str) -> None:
    held(simulate(seed, opener("postgres", postgres_url)) for seed in range(POSTGRES_SEEDS))


@pytest.mark.parametrize(
    "failure", [*SPINE, *DURABLE], ids=lambda failure: f"{failure.number}-{failure.what.replace(' ', '-')}"
)
def test_a_failure_planted_again_is_caught(failure: Replanted) -> None:
    with failure.plant():
        for seed in range(SEEDS_TO_CATCH):
            result = simulate(seed, opener("sqlite"))
            if result.failure is not None:
                print(f"{failure.number} is caught by seed {seed}: {result.failure}")
                assert result.timeline
                return
    pytest.fail(f"{failure.number} ({failure.what}) was not caught by {SEEDS_TO_CATCH} seeds")


def test_the_same_seed_is_the_same_world_in_every_process() -> None:
    told = [
        subprocess.run(
            [sys.executable, "-m", "simulator", "--seed", "7"],
            cwd=Path(__file__).parents[1],
            env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": "."},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert told[0].count("\n") > 100
    assert told[0] == told[1]


def held(results: Iterable[Result]) -> None:
    for result in results:
        if result.failure is not None:
            print("\n".join(result.timeline))
            pytest.fail(f"seed {result.seed}: {result.failure}\noptions: {result.options}")
