"""Files of variables are read strictly: what is not clear is refused, and no value is told."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.cli.dotenv import parsed
from holdfast.errors import InvalidRequest


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", {}),
        ("\ufeffA=1", {"A": "1"}),
        ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        ("A = b c ", {"A": "b c"}),
        ("A==", {"A": "="}),
        ("A=", {"A": ""}),
        ("A=''", {"A": ""}),
        ("A=x#y", {"A": "x#y"}),
        ("A='x # y' # why", {"A": "x # y"}),
        ("A=$HOME ${B}", {"A": "$HOME ${B}"}),
        ("A='\\n'", {"A": "\\n"}),
        (r'A="\n\t\"\\\$"', {"A": '\n\t"\\$'}),
        ("A=it's", {"A": "it's"}),
    ],
)
def test_a_file_is_read_as_it_says(text: str, values: dict[str, str]):
    assert parsed(text, "f") == values


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("\nhunter2", "line 2: expected NAME=value"),
        ("=hunter2", "line 1: expected NAME=value"),
        ("A B=hunter2", "line 1: expected NAME=value"),
        ("1A=hunter2", "'1A' is no name"),
        ("A=hunter2 # why", "quote the value"),
        ("A=#hunter2", "quote the value"),
        ('A="hunter2', "its end is not in this line"),
        ("A='hunter2\nB'", "its end is not in this line"),
        ("A='x'hunter2", "something follows"),
        (r'A="hunter2\x"', r"\x is no escape"),
        ("A=1\n#\nA=hunter2", "line 3: A was set in line 1 already"),
    ],
)
def test_what_is_not_clear_is_refused_without_telling_the_value(text: str, reason: str):
    with pytest.raises(InvalidRequest) as caught:
        parsed(text, "some.env")
    assert reason in str(caught.value)
    assert str(caught.value).startswith("some.env, line ")
    assert "hunter2" not in str(caught.value)


NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,10}", fullmatch=True)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(st.dictionaries(NAMES, TEXTS, max_size=5))
def test_what_is_quoted_comes_back(values: dict[str, str]):
    def quoted(text: str) -> str:
        for letter, escape in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
            text = text.replace(letter, escape)
        return f'"{text}"'

    assert parsed("\n".join(f"{name}={quoted(value)}" for name, value in values.items()), "f") == values


@given(TEXTS)
def test_no_text_makes_the_reader_fail(text: str):
    with suppress(InvalidRequest):
        parsed(text, "f")
