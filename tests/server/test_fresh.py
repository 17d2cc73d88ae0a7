"""What is known for a moment: loaded once, forgotten in time, bounded for what does not exist."""

from __future__ import annotations

import asyncio

import pytest

from holdfast.errors import StoreUnavailable
from holdfast.server import fresh
from holdfast.server.fresh import FRESH_SECONDS, MOST_ABSENT, Fresh

pytestmark = pytest.mark.anyio


class Source:
    """A database that answers what a test lets it."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.asked: list[str] = []
        self.changes = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.failing = False

    async def load(self, key: str) -> str | None:
        self.asked.append(key)
        await self.gate.wait()
        if self.failing:
            raise StoreUnavailable("away")
        return self.values.get(key)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    seconds = [0.0]
    monkeypatch.setattr(fresh, "monotonic", lambda: seconds[0])
    return seconds


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def known(source: Source, now: list[float]) -> Fresh[str, str]:
    return Fresh(source.load, lambda: source.changes)


async def test_an_answer_is_good_for_a_moment(
    source: Source, known: Fresh[str, str], now: list[float]
) -> None:
    source.values["a"] = "1"
    assert await known.get("a") == "1"
    source.values["a"] = "2"
    now[0] = FRESH_SECONDS - 0.001
    assert await known.get("a") == "1"
    now[0] = FRESH_SECONDS
    assert await known.get("a") == "2"
    assert FRESH_SECONDS < 1


async def test_what_is_absent_is_known_for_a_moment_too(
    source: Source, known: Fresh[str, str], now: list[float]
) -> None:
    assert await known.get("a") is None
    assert await known.get("a") is None
    source.values["a"] = "1"
    now[0] = FRESH_SECONDS
    assert await known.get("a") == "1"
    assert source.asked == ["a", "a"]


async def test_a_change_makes_all_old(source: Source, known: Fresh[str, str]) -> None:
    await known.get("a")
    source.values["a"] = "1"
    source.changes += 1
    assert await known.get("a") == "1"


async def test_a_change_while_it_is_loaded_is_not_missed(source: Source, known: Fresh[str, str]) -> None:
    source.values["a"] = "old"
    source.gate.clear()
    first = asyncio.create_task(known.get("a"))
    while not source.asked:
        await asyncio.sleep(0)
    source.changes += 1
    source.gate.set()
    await first
    source.values["a"] = "new"
    assert await known.get("a") == "new"


async def test_simultaneous_calls_load_once_also_when_the_first_gives_up(
    source: Source, known: Fresh[str, str]
) -> None:
    source.values["a"] = "1"
    source.gate.clear()
    calls = [asyncio.create_task(known.get("a")) for _ in range(10)]
    while not source.asked:
        await asyncio.sleep(0)
    calls[0].cancel()
    source.gate.set()
    assert await asyncio.gather(*calls[1:]) == ["1"] * 9
    assert source.asked == ["a"]


async def test_a_failure_is_told_and_not_remembered(source: Source, known: Fresh[str, str]) -> None:
    source.failing = True
    with pytest.raises(StoreUnavailable):
        await known.get("a")
    source.failing = False
    source.values["a"] = "1"
    assert await known.get("a") == "1"


async def test_whoever_asks_for_what_does_not_exist_pushes_out_nothing_else(
    source: Source, known: Fresh[str, str]
) -> None:
    source.values["a"] = "1"
    await known.get("a")
    for number in range(2 * MOST_ABSENT):
        assert await known.get(f"no{number}") is None
    source.asked.clear()
    await known.get("a")
    assert source.asked == []
    assert len(known._absent) == MOST_ABSENT
