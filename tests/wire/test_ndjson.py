"""Lines out of a stream that may be cut anywhere."""

from __future__ import annotations

import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from holdfast.wire.ndjson import HEAD, Lines, RawLine

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["é", "漢字", "😀\r", "\n"]
)
VALUES = st.dictionaries(TEXTS, TEXTS | st.integers(), max_size=3)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """`data` in pieces that end at these places, wherever they are."""
    bounds = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(bounds)]


def lines_of(pieces: list[bytes], limit: int = 1_000_000) -> list[RawLine]:
    lines = Lines(limit)
    return [line for piece in pieces for line in lines.feed(piece)] + lines.end()


@given(
    st.lists(VALUES | st.sampled_from(["", "  ", "\r"]), max_size=6),
    st.booleans(),
    st.lists(st.integers(0, 10_000), max_size=12),
)
def test_values_come_through_whatever_the_pieces(
    sent: list[dict[str, object] | str], final_newline: bool, places: list[int]
) -> None:
    texts = [
        one if isinstance(one, str) else json.dumps(one, ensure_ascii=False) + "\r" * (len(one) % 2)
        for one in sent
    ]
    data = "\n".join(texts).encode() + (b"\n" if final_newline else b"")
    found = lines_of(cut(data, places))
    assert all(line.is_whole for line in found)
    wanted = [(number, one) for number, one in enumerate(sent, 1) if isinstance(one, dict)]
    assert [(line.number, json.loads(line.data)) for line in found] == wanted


@given(st.integers(1, 60), st.lists(st.integers(0, 10_000), max_size=12))
def test_the_limit_is_the_same_wherever_a_line_is_cut(limit: int, places: list[int]) -> None:
    texts = [b"a" * length for length in (10, 40, 20, 60, 30, 1)]
    found = lines_of(cut(b"\n".join(texts), places), limit)
    assert [line.is_whole for line in found] == [len(text) <= limit for text in texts]
    for line, text in zip(found, texts, strict=True):
        assert line.data == text if line.is_whole else text.startswith(line.data)


def test_no_more_is_kept_of_a_line_than_the_limit() -> None:
    lines = Lines(limit=10_000)
    for _ in range(1_000):
        assert lines.feed(b"x" * 1_000) == []
        assert sum(map(len, lines._parts)) <= 10_000
    [line] = lines.feed(b"\n")
    assert (line.is_whole, line.data) == (False, b"x" * HEAD)
    assert lines.feed(b"next\n") == [RawLine(2, b"next", True)]
