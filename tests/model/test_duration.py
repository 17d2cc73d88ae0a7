"""Durations and dates as people write them."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import InvalidRequest, Unprocessable
from holdfast.model.duration import MAX_MS, duration_ms, duration_text, epoch_ms, lifetime_ms, moment_ms

NOW = 1_795_521_600_000


@pytest.mark.parametrize(
    ("value", "ms"),
    [
        ("1s", 1_000),
        ("1m", 60_000),
        ("1h", 3_600_000),
        ("1hr", 3_600_000),
        ("2d", 172_800_000),
        ("1w", 604_800_000),
        ("1h30m", 5_400_000),
        ("30m1h", 5_400_000),
        ("0s", 0),
        (1.5, 1_500),
        (-2, -2_000),
        (timedelta(minutes=2), 120_000),
    ],
)
def test_durations_that_can_be_read(value: str | float | timedelta, ms: int) -> None:
    assert duration_ms(value, "delay") == ms


@pytest.mark.parametrize(
    "value",
    [
        "",
        "1",
        "h",
        "1 h",
        "1.5h",
        "-1h",
        "1h1h",
        "1h 30m",
        "1y",
        "1ms",
        "1H",
        "9" * 13 + "s",
        "1h" * 60,
        "\u0661h",
        True,
        float("nan"),
        float("inf"),
        10**12,
        "99999999w",
        timedelta(days=365 * 101),
        None,
        [],
        {},
    ],
)
def test_durations_that_can_not_be_read_are_refused_by_name(value: object) -> None:
    with pytest.raises(InvalidRequest, match="delay") as raised:
        duration_ms(value, "delay")  # type: ignore[arg-type]  # what comes over the wire is anything
    assert raised.value.param == "delay"
    assert len(str(raised.value)) < 300


@given(st.integers(0, MAX_MS // 1_000))
def test_a_duration_that_is_written_can_be_read_again(seconds: int) -> None:
    assert duration_ms(duration_text(seconds * 1_000), "delay") == seconds * 1_000


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("1m", NOW + 60_000),
        (5, NOW + 5_000),
        (-5, NOW),
        (timedelta(seconds=1), NOW + 1_000),
        ("2026-11-24T12:00:01Z", NOW + 1_000),
        ("2026-11-24T14:00:01+02:00", NOW + 1_000),
        ("2026-11-24T12:00:01", NOW + 1_000),
        ("2026-11-25", NOW + 43_200_000),
        ("2020-01-01T00:00:00Z", NOW),
        (datetime(2026, 11, 24, 12, 0, 1, tzinfo=UTC), NOW + 1_000),
    ],
)
def test_a_delay_names_a_moment_from_now_on(value: object, moment: int) -> None:
    assert moment_ms(value, NOW, "delay") == moment  # type: ignore[arg-type]  # what comes over the wire is anything


@pytest.mark.parametrize("value", ["", "tomorrow", "2026-13-01", "0000-00-00", "1h-1m", True, [], "1m" * 100])
def test_a_delay_that_can_not_be_read_is_refused(value: object) -> None:
    with pytest.raises(InvalidRequest):
        moment_ms(value, NOW, "delay")  # type: ignore[arg-type]  # what comes over the wire is anything


@given(st.text())
def test_any_text_is_a_moment_or_refused(text: str) -> None:
    with suppress(InvalidRequest):
        assert moment_ms(text, NOW, "delay") >= NOW


@pytest.mark.parametrize(("value", "ms"), [("30s", 30_000), ("24h", 86_400_000), ("30d", 2_592_000_000)])
def test_lifetimes_of_keys(value: str, ms: int) -> None:
    assert lifetime_ms(value, "ttl") == ms


@pytest.mark.parametrize("value", ["1w", "1h30m", "", "h", "1hr", 5, None])
def test_lifetimes_of_keys_that_are_refused(value: object) -> None:
    with pytest.raises(Unprocessable):
        lifetime_ms(value, "ttl")  # type: ignore[arg-type]  # what comes over the wire is anything


def test_a_date_without_an_offset_is_utc() -> None:
    assert epoch_ms(datetime(2026, 11, 24, 12)) == epoch_ms(datetime(2026, 11, 24, 12, tzinfo=UTC)) == NOW
