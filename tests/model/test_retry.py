"""The delay between two attempts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.model.retry import DEFAULT_POLICY, RetryPolicy, retry_delay_ms

policies = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 300),
    factor=st.floats(1.0, 100.0),
    min_delay_ms=st.integers(0, 10**9),
    max_delay_ms=st.integers(0, 10**9),
    jitter=st.booleans(),
)
draws = st.floats(0.0, 1.0, exclude_max=True)


@pytest.mark.parametrize(("attempt", "delay"), [(1, 1_000), (2, 2_000), (3, None), (4, None)])
def test_the_documented_curve(attempt: int, delay: int | None) -> None:
    assert retry_delay_ms(DEFAULT_POLICY, attempt, 0.0) == delay


@given(policies, st.integers(1, 300), draws)
def test_a_delay_is_never_over_its_maximum_nor_below_zero(
    policy: RetryPolicy, attempt: int, draw: float
) -> None:
    delay = retry_delay_ms(policy, attempt, draw)
    assert (delay is None) == (attempt >= policy.max_attempts)
    assert delay is None or 0 <= delay <= policy.max_delay_ms


@given(policies, st.integers(1, 300), draws)
def test_jitter_only_lengthens(policy: RetryPolicy, attempt: int, draw: float) -> None:
    least, delay = retry_delay_ms(policy, attempt, 0.0), retry_delay_ms(policy, attempt, draw)
    if least is not None and delay is not None:
        assert least <= delay <= 2 * least + 1


@given(policies, st.integers(1, 298), draws)
def test_later_attempts_wait_no_shorter(policy: RetryPolicy, attempt: int, draw: float) -> None:
    now, then = retry_delay_ms(policy, attempt, draw), retry_delay_ms(policy, attempt + 1, draw)
    assert now is None or then is None or now <= then
