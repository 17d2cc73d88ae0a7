"""superjson: JSON beside which stands what some of its values are (the wire contract, 3.1).

    {"json": {"when": "2026-11-24T00:00:00.000Z"}, "meta": {"values": {"when": ["Date"]}}}

`meta.values` is a tree. An object names places below, as paths of keys and indices with dots between them; a list is the
type of the place itself, and may hold a second tree for what lies below it.

What becomes of each type in JSON that Python code can use:

    bigint                     an integer
    map                        an object where all keys are texts, else the list of pairs as it is
    number                     -0.0; NaN and the infinities stay the texts "NaN", "Infinity", "-Infinity"
    Date, URL, regexp          the text as it is
    undefined                  null
    set, typed-array, custom   the list as it is
    Error, class               the object as it is
    symbol                     the text as it is

`meta.referentialEqualities` is ignored: values that were one object in JavaScript are equal here.
"""

from __future__ import annotations

import json
import re
from typing import Any

from holdfast.errors import InvalidRequest
from holdfast.model.limits import MAX_DEPTH, MAX_INTEGER_DIGITS

SIMPLE = frozenset({"undefined", "bigint", "Date", "Error", "regexp", "set", "map", "number", "URL"})
COMPOSED = frozenset({"symbol", "class", "custom", "typed-array"})
STEP = re.compile(r"(?:\\\.|[^.])*")  # a key in a path; its own dots have a backslash before them
INDEX = re.compile(r"0|[1-9][0-9]{0,8}")
INTEGER = re.compile(f"-?[0-9]{{1,{MAX_INTEGER_DIGITS}}}")
SHOWN = 60  # characters of a mistaken value or place in a message


def check(value: Any, place: str) -> None:
    """Raises InvalidRequest for what is no superjson. What a type says of a value is not looked at."""
    if not isinstance(value, dict) or "json" not in value:
        raise InvalidRequest(f'{place} is no superjson: expected {{"json": …, "meta"?: {{…}}}}', place)
    meta = value.get("meta")
    if meta is None:
        return
    if not isinstance(meta, dict):
        raise InvalidRequest(f"{place}.meta is {_told(meta)}: expected an object", f"{place}.meta")
    if (values := meta.get("values")) is not None:
        _check_tree(values, f"{place}.meta.values")


def decoded(value: dict[str, Any]) -> Any:
    """The plain value that superjson stands for, as the table above says. `value` is used up.

    A place that is not there, or whose value does not fit its type, stays as it is.
    """
    meta = value.get("meta")
    tree = meta.get("values") if isinstance(meta, dict) else None
    holder = [value["json"]]
    if tree is not None:
        _apply(tree, holder, 0, {})
    return holder[0]


def is_plain(value: dict[str, Any]) -> bool:
    """Whether the `json` part says all."""
    meta = value.get("meta")
    return not isinstance(meta, dict) or not meta.get("values")


def _check_tree(tree: Any, place: str) -> None:
    if isinstance(tree, dict):
        for path, below in tree.items():
            _check_tree(below, f"{place}.{path}"[:SHOWN])
        return
    if not isinstance(tree, list) or not 1 <= len(tree) <= 2:
        raise InvalidRequest(
            f'{place} is {_told(tree)}: expected a type such as ["Date"], or an object of them', place
        )
    if not _is_type(tree[0]):
        raise InvalidRequest(f"{place} names the type {_told(tree[0])}: superjson has no such type", place)
    if len(tree) == 2:
        if not isinstance(tree[1], dict):
            raise InvalidRequest(f"{place} holds {_told(tree[1])}: expected an object of types", place)
        _check_tree(tree[1], place)


def _is_type(type_: Any) -> bool:
    if isinstance(type_, list):
        return len(type_) == 2 and all(isinstance(part, str) for part in type_) and type_[0] in COMPOSED
    return isinstance(type_, str) and type_ in SIMPLE


def _apply(tree: Any, holder: Any, key: Any, done: dict[tuple[int, Any], Any]) -> None:
    """Gives the value at `holder[key]` the types of `tree`, those inside of it first.

    done  the places that were given one: many spellings of a path may name the same. It keeps the holders, so that no
          other object gets the id of one
    """
    if isinstance(tree, dict):
        for path, below in tree.items():
            if (place := _find(holder[key], path)) is not None:
                _apply(below, *place, done)
        return
    if len(tree) == 2:
        _apply(tree[1], holder, key, done)
    if (id(holder), key) not in done:
        done[id(holder), key] = holder
        holder[key] = _typed(holder[key], tree[0])


def _find(value: Any, path: str) -> tuple[Any, Any] | None:
    """The container and the key or index that a path ends at.

    The encoder of the SDK leaves dots in the last key of a path unescaped; so what is left of a path that leads nowhere
    is tried as a key as it stands.
    """
    steps = _steps(path)
    way = [value]
    for step, _ in steps:
        if (key := _key(way[-1], step)) is None:
            break
        if len(way) == len(steps):
            return way[-1], key
        way.append(way[-1][key])
    for holder, (_, start) in zip(reversed(way), reversed(steps[: len(way)]), strict=True):
        if isinstance(holder, dict) and path[start:] in holder:
            return holder, path[start:]
    return None


def _steps(path: str) -> list[tuple[str, int]]:
    """The keys of a path, and where in it each begins; not more than lead to the bottom of any JSON."""
    steps: list[tuple[str, int]] = []
    start = 0
    while len(steps) <= MAX_DEPTH:
        step = STEP.match(path, start)
        assert step is not None  # it matches nothing, too
        steps.append((step[0].replace("\\.", "."), start))
        start = step.end() + 1
        if start > len(path):
            break
    return steps


def _key(value: Any, step: str) -> Any:
    """`step` as a key or index of what is there; None where nothing is."""
    if isinstance(value, dict):
        return step if step in value else None
    if isinstance(value, list) and INDEX.fullmatch(step) and int(step) < len(value):
        return int(step)
    return None


def _typed(value: Any, type_: Any) -> Any:
    match type_:
        case "bigint" if isinstance(value, str) and INTEGER.fullmatch(value):
            return int(value)
        case "number" if value == "-0":
            return -0.0
        case "undefined":
            return None
        case "map" if isinstance(value, list) and all(_is_named(pair) for pair in value):
            return dict(value)
        case _:
            return value


def _is_named(pair: Any) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)


def _told(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
