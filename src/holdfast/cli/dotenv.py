"""Files of `NAME=value` lines, read strictly: what other readers take in different ways is refused.

    # a comment
    NAME=value                the rest of the line, without blanks around it
    export NAME=value         as shells write it
    NAME='as it is'           no escapes
    NAME="two\\nlines"         \\n \\r \\t \\" \\\\ and \\$ are escapes
    NAME=                     empty

Nothing is put in the place of `$NAME`, and a value ends with its line.
"""

from __future__ import annotations

import re

from holdfast.errors import InvalidRequest

LINE = re.compile(r"(?:export[ \t]+)?(?P<name>[^=\s]+)[ \t]*=[ \t]*(?P<value>.*)")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
SINGLE = re.compile(r"'(?P<text>[^']*)'")
DOUBLE = re.compile(r'"(?P<text>(?:[^"\\]|\\.)*)"')
ESCAPE = re.compile(r"\\(.)")
ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$"}


def parsed(text: str, file: str) -> dict[str, str]:
    """Names and values in their order. Raises InvalidRequest that names file and line, and tells no value."""
    values: dict[str, str] = {}
    lines: dict[str, int] = {}
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        kept = line.strip(" \t\r")
        if not kept or kept.startswith("#"):
            continue
        found = LINE.fullmatch(kept)
        if found is None:
            raise InvalidRequest(f"{file}, line {number}: expected NAME=value", "FILE")
        name = found["name"]
        if NAME.fullmatch(name) is None:
            raise InvalidRequest(
                f"{file}, line {number}: {name[:40]!r} is no name of a variable: expected letters, digits and "
                "underscores, not beginning with a digit",
                "FILE",
            )
        if name in values:
            raise InvalidRequest(
                f"{file}, line {number}: {name} was set in line {lines[name]} already", "FILE"
            )
        try:
            values[name] = _value(found["value"])
        except ValueError as error:
            raise InvalidRequest(f"{file}, line {number}: {error}", "FILE") from None
        lines[name] = number
    return values


def _value(written: str) -> str:
    """Raises ValueError."""
    if not written.startswith(("'", '"')):
        if re.search(r"(^|[ \t])#", written):
            raise ValueError("a # after a blank: quote the value, or put the comment on a line of its own")
        return written
    quote = written[0]
    found = (SINGLE if quote == "'" else DOUBLE).match(written)
    if found is None:
        raise ValueError(
            f"the value begins with {quote} and its end is not in this line: write line breaks as \\n"
        )
    rest = written[found.end() :].strip(" \t")
    if rest and not rest.startswith("#"):
        raise ValueError("something follows the value after its closing quote")
    if quote == "'":
        return found["text"]
    return ESCAPE.sub(_escaped, found["text"])


def _escaped(found: re.Match[str]) -> str:
    letter = found[1]
    if letter not in ESCAPES:
        known = " ".join(f"\\{known}" for known in ESCAPES)
        raise ValueError(f"\\{letter} is no escape; there are {known}")
    return ESCAPES[letter]
