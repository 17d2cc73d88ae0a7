"""Ids sort by creation, also between threads and when the clock steps back."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from holdfast.model.ids import MAX_COUNT, Ids, attempt_id, base36
from holdfast.model.version import next_version, version_order


@given(st.lists(st.integers(0, 36**9 - 1), min_size=2))
def test_ids_sort_by_the_order_they_were_asked_for(times: list[int]) -> None:
    ids = Ids()
    made = [ids.new("run", time) for time in times]
    assert made == sorted(made)
    assert len(set(made)) == len(made)
    assert {len(one) for one in made} == {4 + 25}


def test_more_ids_than_fit_in_a_millisecond_go_on_sorting() -> None:
    ids = Ids()
    made = [ids.new("run", 5) for _ in range(MAX_COUNT + 10)]
    assert made == sorted(made)
    assert made[-1][4:13] == base36(6, 9)


def test_threads_never_get_the_same_id() -> None:
    ids = Ids()
    with ThreadPoolExecutor(4) as pool:
        made = [
            one
            for part in pool.map(lambda _: [ids.new("run", 5) for _ in range(1_000)], range(4))
            for one in part
        ]
    assert len(set(made)) == 4_000


def test_a_seed_makes_ids_repeatable() -> None:
    assert Ids(random.Random(7)).new("run", 5) == Ids(random.Random(7)).new("run", 5)


@given(st.integers(0, 36**2 - 2))
def test_attempt_ids_sort_by_start(start: int) -> None:
    assert attempt_id("run_a", start) < attempt_id("run_a", start + 1)


def test_versions_count_up_and_never_go_back() -> None:
    day = 86_400_000
    noon = 1_795_521_600_000
    assert next_version(None, noon) == "20261124.1"
    assert next_version("20261124.9", noon) == "20261124.10"
    assert next_version("20261124.10", noon + day) == "20261125.1"
    assert next_version("20261124.10", noon - day) == "20261124.11"
    assert version_order("20261124.9") < version_order("20261124.10") < version_order("20261125.1")
    assert version_order("nonsense") < version_order("20000101.1")
