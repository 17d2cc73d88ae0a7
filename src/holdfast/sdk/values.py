"""Values that are kept between processes: results of steps, payloads of tokens, exceptions, digests of arguments."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
import traceback
import types
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, get_type_hints

from holdfast.errors import PayloadTooLarge, StepFailed
from holdfast.model.error import MAX_MESSAGE, MAX_NAME, MAX_STACK, clean
from holdfast.model.limits import MAX_STEP_RESULT
from holdfast.sdk.payload import OutputInvalid, adapter_of, dumped, told

STARS = "**********"  # what pydantic writes in the place of a secret
MAX_LOOKED_AT = 1_000  # values within arguments
MAX_STATE = 64 * 1024
MAX_MEMBERS = 100  # of an exception group


class Kept:
    """Values of one type, as JSON text and back.

    what  names the value in errors, such as "the result of step charge"
    hint  the type; called when it is first needed, so that it may name what is defined later
    """

    def __init__(self, what: str, hint: Callable[[], Any]) -> None:
        self._what = what
        self._find_hint = hint

    def encode(self, value: Any) -> str:
        """Raises OutputInvalid for a value that does not fit, PayloadTooLarge for one over 3 MiB."""
        if value is None and self._hint in (None, Any):
            return "null"
        text = dumped(self._adapter, value, OutputInvalid, self._what)
        if STARS in text:
            text = self._with_secrets(value)
        if len(text) > MAX_STEP_RESULT // 4 and (size := len(text.encode())) > MAX_STEP_RESULT:
            raise PayloadTooLarge(
                f"{self._what} is {size} bytes: at most {MAX_STEP_RESULT} are kept; store it elsewhere and "
                "give back where"
            )
        return text

    def decode(self, text: str) -> Any:
        """What `encode` wrote. Raises OutputInvalid."""
        from pydantic import ValidationError

        if self._hint in (None, Any):
            from pydantic_core import from_json

            return from_json(text)
        try:
            return self._adapter.validate_json(text)
        except ValidationError as error:
            raise OutputInvalid(f"{self._what} does not fit: {told(error, '')}") from None

    def schema(self) -> dict[str, Any] | None:
        """The JSON schema of the type; None when anything fits or it has none."""
        from pydantic.errors import PydanticUserError

        try:
            return self._adapter.json_schema() or None
        except (PydanticUserError, ValueError, TypeError, RecursionError):
            return None

    def _with_secrets(self, value: Any) -> str:
        """Secrets as they are: a masked one would be lost."""
        from pydantic_core import to_json

        return to_json(_revealed(self._adapter.dump_python(self._adapter.validate_python(value)))).decode()

    @cached_property
    def _hint(self) -> Any:
        hint = self._find_hint()
        return None if hint is types.NoneType else hint

    @cached_property
    def _adapter(self) -> Any:
        return adapter_of(self._hint, OutputInvalid, self._what)


def return_hint(fn: Callable[..., Any], what: str, local_names: Mapping[str, Any] | None) -> Any:
    """The return type of a function; Any when it says none. Raises OutputInvalid when it can not be read."""
    annotated = getattr(fn, "__annotations__", None)
    if not isinstance(annotated, dict) or "return" not in annotated:
        return Any
    holder = types.SimpleNamespace(__annotations__={"return": annotated["return"]})
    scope = getattr(sys.modules.get(fn.__module__), "__dict__", {})
    try:
        return get_type_hints(holder, scope, dict(local_names or {}), include_extras=True)["return"]
    except Exception as error:
        raise OutputInvalid(
            f"the return type of {what} can not be read: {error}; name it: step(returns=…)"
        ) from error


def digest(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    """Equal for equal arguments, in every process; None for what is no value, such as a client or a set."""
    from pydantic_core import to_json

    if _can_not_be_told([*args, *kwargs.values()]):
        return None
    try:
        raw = to_json([args, kwargs], inf_nan_mode="constants")
    except (ValueError, TypeError, RecursionError):
        return None
    return hashlib.blake2b(raw, digest_size=8).hexdigest()


def error_told(error: BaseException) -> dict[str, Any]:
    """An exception as it is recorded: its class by name, its arguments and attributes as far as they are JSON."""
    kind = type(error)
    try:
        message = str(error)
    except Exception as broken:
        message = f"(its text can not be had: {type(broken).__name__})"
    recorded: dict[str, Any] = {
        "type": "BUILT_IN_ERROR",
        "name": clean(kind.__name__, MAX_NAME),
        "message": clean(message, MAX_MESSAGE),
        "stackTrace": clean("".join(traceback.format_exception(error))[-MAX_STACK:], MAX_STACK),
        "class": clean(f"{kind.__module__}:{kind.__qualname__}", MAX_MESSAGE),
    }
    if isinstance(error, BaseExceptionGroup):
        recorded["text"] = clean(error.message, MAX_MESSAGE)
        recorded["exceptions"] = [error_told(one) for one in error.exceptions[:MAX_MEMBERS]]
    args = list(error.args)
    if isinstance(error, OSError) and error.filename is not None and len(args) == 2:
        args.append(error.filename)  # which it keeps apart
    for name, value in (("args", args), ("state", vars(error))):
        if (plain := _plain(value)) is not None:
            recorded[name] = plain
    return recorded


def error_again(step: str, recorded: Mapping[str, Any]) -> BaseException:
    """The exception that was recorded; of a class that this process does not know a StepFailed.

    Nothing is imported and no code of the class runs: it must be there, and be an exception.
    """
    module, _, path = str(recorded.get("class", "")).partition(":")
    found: Any = sys.modules.get(module)
    for name in path.split("."):
        found = getattr(found, name, None)
    if not (isinstance(found, type) and issubclass(found, BaseException)):
        return StepFailed(step, dict(recorded))
    error = _made_again(step, found, recorded)
    state = recorded.get("state")
    if isinstance(state, dict):
        error.__dict__.update(state)
    return error


def _made_again(step: str, kind: type[BaseException], recorded: Mapping[str, Any]) -> BaseException:
    """By Python's own class that `kind` inherits from, which knows its attributes, such as `errno`."""
    args = tuple(recorded.get("args", [recorded.get("message", "")]))
    if issubclass(kind, BaseExceptionGroup):
        members = [error_again(step, one) for one in recorded.get("exceptions", ())]
        args = (recorded.get("text", ""), members)
    base: Any = next(one for one in kind.__mro__ if one.__module__ == "builtins")
    try:
        error: BaseException = base.__new__(kind, *args)
        base.__init__(error, *args)
    except Exception:  # arguments that are no JSON came back as something else
        if issubclass(kind, BaseExceptionGroup):
            return StepFailed(step, dict(recorded))
        error = base.__new__(kind)
        error.args = args
    return error


def _plain(value: Any) -> Any:
    from pydantic_core import from_json, to_json

    try:
        raw = to_json(value, inf_nan_mode="constants")
        return from_json(raw, allow_inf_nan=False) if len(raw) <= MAX_STATE else None
    except (ValueError, TypeError, RecursionError):
        return None


def _revealed(value: Any) -> Any:
    """A dumped value, whose models are dictionaries by now, with what its secrets hold."""
    if isinstance(value, dict):
        return {_revealed(key): _revealed(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_revealed(item) for item in value]
    reveal = getattr(value, "get_secret_value", None)
    return value if reveal is None else reveal()


def _can_not_be_told(values: list[Any]) -> bool:
    """Whether a set is in it, whose order differs from process to process, an iterator, which looking at it
    would use up, or more than is worth looking at.
    """
    looked_at = 0
    while values:
        value = values.pop()
        looked_at += 1
        if isinstance(value, set | frozenset | Iterator) or looked_at > MAX_LOOKED_AT:
            return True
        if isinstance(value, dict):
            values += value.values()
        elif isinstance(value, list | tuple | deque):
            values += value
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            values += [getattr(value, field.name, None) for field in dataclasses.fields(value)]
        elif hasattr(type(value), "__pydantic_core_schema__"):
            values += getattr(value, "__dict__", {}).values()
    return False
