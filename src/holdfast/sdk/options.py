"""Options of a trigger: their names and types, and how they go over the wire."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from holdfast.errors import InvalidRequest
from holdfast.model.duration import duration_ms, duration_text
from holdfast.model.limits import MAX_ATTEMPTS
from holdfast.sdk.context import CurrentRun
from holdfast.sdk.metadata import checked_tags
from holdfast.sdk.queue import Queue

if TYPE_CHECKING:
    from typing import TypeAlias

    Duration: TypeAlias = timedelta | float | str
else:
    Duration = Any

HASHED = 64  # a key of this length is taken as hashed already
SCOPES = ("run", "attempt", "global")


class Options(TypedDict, total=False):
    """What `.options(…)` takes. Durations are a `timedelta`, seconds, or text such as "1h30m".

    delay                start only after this time, or at this date; whole seconds, rounded up
    ttl                  expire when not started by then
    tags                 up to ten texts of at most 128 characters
    queue, key           the queue to wait in, and the concurrency key
    priority             seconds of age to start with: higher goes first
    idempotency_key      a second trigger of the task with this key gives the first run; text, or parts
    idempotency_scope    "run" (the key counts within the current run; the default), "attempt", "global"
    idempotency_key_ttl  how long the key is kept
    max_attempts         1 to 250
    timeout              how long one attempt may take, at least 5 s
    machine              such as "small-1x"
    metadata             what the run's metadata begins with
    version              the only version of the code that may run it, such as "20261124.1"
    is_test              marks the run as a test
    """

    delay: Duration | datetime
    ttl: Duration
    tags: str | Sequence[str]
    queue: str | Queue
    key: str | int
    priority: float
    idempotency_key: str | Sequence[str]
    idempotency_scope: Literal["run", "attempt", "global"]
    idempotency_key_ttl: Duration
    max_attempts: int
    timeout: Duration
    machine: str
    metadata: Mapping[str, Any]
    version: str
    is_test: bool


def checked(options: Mapping[str, Any]) -> None:
    """Raises TypeError for an unknown option, and what `on_wire` raises for a value that can not be."""
    for name in options:
        if name not in Options.__annotations__:
            raise TypeError(f"there is no option {name!r}; there are {', '.join(Options.__annotations__)}")
    on_wire(options, None)


def on_wire(options: Mapping[str, Any], run: CurrentRun | None) -> dict[str, Any]:
    """`options` as the wire names them; `run` is the run that triggers, which becomes the parent.

    An option that is None counts as absent. Raises InvalidRequest or Unprocessable naming it.
    """
    wire: dict[str, Any] = {}
    for name, value in options.items():
        if value is not None and name in _WRITERS:
            field, write = _WRITERS[name]
            wire[field] = write(value)
    scope = options.get("idempotency_scope")
    if scope is not None and scope not in SCOPES:
        raise InvalidRequest(
            f"idempotency_scope is {scope!r}: expected one of {', '.join(SCOPES)}", "idempotency_scope"
        )
    key = options.get("idempotency_key")
    if key is not None:
        wire["idempotencyKey"] = hashed_key(key, scope or "run", run)
    if run is not None:
        wire["parentRunId"] = run.id
    return wire


def hashed_key(key: str | Sequence[str], scope: str, run: CurrentRun | None) -> str:
    """The SHA-256 of the parts and the scope, joined by "-"; outside of a run every scope is global.

    A text of 64 characters is taken as hashed already. Raises InvalidRequest for anything but texts.
    """
    if isinstance(key, str):
        if len(key) == HASHED:
            return key
        parts = [key]
    else:
        parts = list(key) if isinstance(key, Sequence) and not isinstance(key, bytes) else []
    if not parts or not all(isinstance(part, str) and part for part in parts):
        raise InvalidRequest(
            f"idempotency_key is {key!r}: expected a text that is not empty, or several", "idempotency_key"
        )
    if run is not None and scope != "global":
        parts.append(run.id)
        if scope == "attempt":
            parts.append(str(run.attempt))
    return hashlib.sha256("-".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def duration_on_wire(value: Duration, param: str) -> str:
    """A duration as text: text as it is, anything else in whole seconds, rounded up."""
    ms = duration_ms(value, param)
    if isinstance(value, str):
        return value
    return duration_text(math.ceil(max(0, ms) / 1_000) * 1_000)


def on_same_version(items: Iterable[dict[str, Any]], run: CurrentRun) -> None:
    """Lock items to the version of the run that waits for them, unless they name one.

    This is rule R10 of the reference engine. A child goes elsewhere when no worker has its task in that version.
    """
    if run.version:
        for item in items:
            item["options"].setdefault("lockToVersion", run.version)


def whole_seconds(value: Duration, param: str) -> int:
    """A duration in seconds, rounded up. Raises InvalidRequest when it is not above zero."""
    ms = duration_ms(value, param)
    if ms <= 0:
        raise InvalidRequest(f"{param} is {value!r}: expected more than nothing", param)
    return math.ceil(ms / 1_000)


def _delay(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    # A text may be a date as well: the server has the last word.
    return value if isinstance(value, str) else duration_on_wire(value, "delay")


def _key_lifetime(value: Any) -> str:
    return f"{whole_seconds(value, 'idempotency_key_ttl')}s"


def _tags(value: Any) -> list[str]:
    if not isinstance(value, str | list | tuple | set | frozenset):
        raise InvalidRequest(f"tags is {value!r}: expected a text or several", "tags")
    return checked_tags([value] if isinstance(value, str) else list(value), [])


def _queue(value: Any) -> dict[str, str]:
    name = value.name if isinstance(value, Queue) else value
    return {"name": _text("queue")(name)}


def _key(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InvalidRequest(f"key is {value!r}: expected a text or a number", "key")
    return str(value)


def _text(param: str) -> Any:
    def write(value: Any) -> str:
        if not isinstance(value, str) or not value:
            raise InvalidRequest(f"{param} is {value!r}: expected a text that is not empty", param)
        return value

    return write


def _attempts(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_ATTEMPTS:
        raise InvalidRequest(f"max_attempts is {value!r}: expected 1 to {MAX_ATTEMPTS}", "max_attempts")
    return value


def _priority(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidRequest(f"priority is {value!r}: expected a number of seconds", "priority")
    return value


def _metadata(value: Any) -> dict[str, Any]:
    from holdfast.wire import codec

    if not isinstance(value, Mapping):
        raise InvalidRequest(f"metadata is {value!r}: expected a mapping", "metadata")
    plain: dict[str, Any] = codec.decode(codec.encode(dict(value)), "metadata")
    return plain


_WRITERS: dict[str, tuple[str, Any]] = {
    "delay": ("delay", _delay),
    "ttl": ("ttl", lambda value: duration_on_wire(value, "ttl")),
    "tags": ("tags", _tags),
    "queue": ("queue", _queue),
    "key": ("concurrencyKey", _key),
    "priority": ("priority", _priority),
    "idempotency_key_ttl": ("idempotencyKeyTTL", _key_lifetime),
    "max_attempts": ("maxAttempts", _attempts),
    "timeout": ("maxDuration", lambda value: whole_seconds(value, "timeout")),
    "machine": ("machine", _text("machine")),
    "metadata": ("metadata", _metadata),
    "version": ("lockToVersion", _text("version")),
    "is_test": ("test", bool),
}
