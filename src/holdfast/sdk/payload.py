"""A task's signature as JSON: arguments to payload and back, return value to output and back.

    one parameter       the payload is that value
    several             an object keyed by parameter name
    none                null

A parameter annotated `CurrentRun` is injected and no part of it. Parameters without annotation
accept anything. Type hints are read at first use, so they may name what is defined later.
"""

from __future__ import annotations

import inspect
import math
import types
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn, Union, cast, get_args, get_origin, get_type_hints

from holdfast.errors import HoldfastError
from holdfast.sdk.context import CurrentRun

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

SHOWN = 5  # mistakes named in one message


class PayloadInvalid(HoldfastError):
    """The payload does not fit the type hints of the task; the message names each place."""

    code = "payload_invalid"


class OutputInvalid(HoldfastError):
    """What a task returned does not fit its return type, or can not be written as JSON."""

    code = "output_invalid"


class Shape:
    """How the arguments and the return value of `fn` look as JSON.

    label       names the function in errors
    local_names names of the scope that `fn` was defined in, for its type hints

    Raises TypeError for `*args`, `**kwargs`, generators and methods.
    """

    def __init__(self, fn: Callable[..., Any], label: str, local_names: Mapping[str, Any] | None) -> None:
        self.label = label
        self._fn = fn
        self._local_names = local_names
        self.signature = inspect.signature(fn)
        if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
            raise TypeError(f"{label} is a generator; a task returns one value")
        for name, parameter in self.signature.parameters.items():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise TypeError(
                    f"{label} takes {parameter}: a task names each of its parameters, "
                    "because the payload is keyed by them; take a list or a dict instead"
                )
            if name in ("self", "cls") and "." in fn.__qualname__.rpartition("<locals>.")[2]:
                raise TypeError(f"{label} is a method: a task is a function")

    def encode_arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str | None:
        """The payload as JSON text; None where it is left out. Raises TypeError or PayloadInvalid."""
        given = self._visible_signature.bind(*args, **kwargs).arguments
        if not self._visible:
            return None
        if self._single is None:
            return dumped(self._adapter, dict(given), PayloadInvalid, f"the payload of {self.label}")
        if self._single not in given:
            return None
        place = f"the payload of {self.label}"
        return dumped(self._adapter, given[self._single], PayloadInvalid, place, self._single)

    def decode_arguments(
        self, text: str | None, run: CurrentRun | None
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments out of a payload, `run` injected. Raises PayloadInvalid."""
        values = self._values(text)
        for name in self._injected:
            values[name] = run
        args: list[Any] = []
        for name, parameter in self.signature.parameters.items():
            if parameter.kind is parameter.POSITIONAL_ONLY:
                # One left out takes its default, so that the next one finds its place.
                args.append(values.pop(name, parameter.default))
        return tuple(args), values

    def arguments_for(self, text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What to call a trigger with for this payload: nothing is injected. Raises PayloadInvalid."""
        bound = self._visible_signature.bind_partial()
        bound.arguments.update(self._values(text))
        return bound.args, bound.kwargs

    def encode_output(self, value: Any) -> str:
        """JSON text of what the function returned. Raises OutputInvalid."""
        if value is None and self._returns in (None, Any):
            return "null"
        return dumped(self._output_adapter, value, OutputInvalid, f"the output of {self.label}") or "null"

    def decode_output(self, text: str) -> Any:
        """What `encode_output` wrote, as the return type. Raises OutputInvalid."""
        from pydantic import ValidationError

        try:
            return self._output_adapter.validate_json(text)
        except ValidationError as error:
            raise OutputInvalid(f"the output of {self.label} does not fit: {told(error, '')}") from None

    def schema(self) -> dict[str, Any] | None:
        """The JSON schema of the payload; None when anything fits, or when the types have none."""
        from pydantic.errors import PydanticUserError

        try:
            if not self._visible:
                return {"anyOf": [{"type": "null"}, {"type": "object", "maxProperties": 0}]}
            schema = self._adapter.json_schema()
            if schema and self._all_optional:
                definitions = {"$defs": schema.pop("$defs")} if "$defs" in schema else {}
                schema = {"anyOf": [schema, {"type": "null"}], **definitions}
        except (HoldfastError, PydanticUserError, ValueError, TypeError, RecursionError):
            return None
        return schema or None

    @property
    def takes_nothing(self) -> bool:
        """Whether the function can be called without a payload."""
        try:
            self._values(None)
        except PayloadInvalid:
            return False
        return True

    def key_path(self, key: str) -> str:
        """`key` ("order.tenant") as a path into the payload, which for one parameter is its value.

        Raises ValueError when it begins with no parameter of the function.
        """
        first, _, rest = key.partition(".")
        if self._single is not None:
            return rest if first == self._single else key
        if first not in self._visible:
            raise ValueError(
                f"key={key!r} of {self.label} must begin with one of its parameters: {', '.join(self._visible)}"
            )
        return key

    def _values(self, text: str | None) -> dict[str, Any]:
        from pydantic import ValidationError

        place = f"the payload of {self.label}"
        if not self._visible:
            if text is not None and text.strip() not in ("null", "{}"):
                raise PayloadInvalid(f"{place} must be null: the task takes no parameters")
            return {}
        try:
            if self._single is None:
                values: dict[str, Any] = self._adapter.validate_json("{}" if text is None else text)
                return values
            if text is None and self._all_optional:
                return {}
            return {self._single: self._adapter.validate_json("null" if text is None else text)}
        except ValidationError as error:
            if text == "null" and self._all_optional:
                return {}
            raise PayloadInvalid(f"{place} does not fit: {told(error, self._single or '')}") from None

    @cached_property
    def _hints(self) -> dict[str, Any]:
        try:
            return get_type_hints(self._fn, localns=dict(self._local_names or {}), include_extras=True)
        except Exception as error:
            raise PayloadInvalid(
                f"the type hints of {self.label} can not be read: {error}; "
                "are they imported at run time, outside of `if TYPE_CHECKING`?"
            ) from error

    @cached_property
    def _injected(self) -> list[str]:
        return [name for name in self.signature.parameters if _is_current_run(self._hints.get(name))]

    @cached_property
    def _visible(self) -> dict[str, inspect.Parameter]:
        return {n: p for n, p in self.signature.parameters.items() if n not in self._injected}

    @cached_property
    def _visible_signature(self) -> inspect.Signature:
        return self.signature.replace(parameters=list(self._visible.values()))

    @cached_property
    def _single(self) -> str | None:
        return next(iter(self._visible)) if len(self._visible) == 1 else None

    @cached_property
    def _all_optional(self) -> bool:
        return all(parameter.default is not parameter.empty for parameter in self._visible.values())

    @cached_property
    def _returns(self) -> Any:
        returned = self._hints.get("return", Any)
        # get_type_hints says NoneType for None; a function that never returns may have any output.
        if returned is types.NoneType:
            return None
        return Any if returned is NoReturn or getattr(returned, "__name__", "") == "Never" else returned

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        if self._single is not None:
            return adapter_of(
                self._hints.get(self._single, Any), PayloadInvalid, f"{self._single} of {self.label}"
            )
        from typing import NotRequired, Required

        from pydantic import ConfigDict
        from typing_extensions import TypedDict

        fields = {
            name: (Required if parameter.default is parameter.empty else NotRequired)[
                self._hints.get(name, Any)
            ]
            for name, parameter in self._visible.items()
        }
        # A TypedDict, unlike a model, takes every name that a parameter may have.
        shape = cast(Any, TypedDict)(self._fn.__name__, fields)
        shape.__pydantic_config__ = ConfigDict(extra="forbid")
        return adapter_of(shape, PayloadInvalid, f"the parameters of {self.label}")

    @cached_property
    def _output_adapter(self) -> TypeAdapter[Any]:
        return adapter_of(self._returns, OutputInvalid, f"the return type of {self.label}")


def _is_current_run(hint: Any) -> bool:
    if get_origin(hint) in (Union, types.UnionType):
        return CurrentRun in get_args(hint)
    return hint is CurrentRun


def adapter_of(hint: Any, error: type[HoldfastError], what: str) -> TypeAdapter[Any]:
    from pydantic import ConfigDict, TypeAdapter
    from pydantic.errors import PydanticUserError

    try:
        try:
            return TypeAdapter(hint, config=ConfigDict(ser_json_inf_nan="constants"))
        except PydanticUserError as cause:
            if cause.code != "type-adapter-config-unused":
                raise
            return TypeAdapter(hint)  # a model, which has a configuration of its own
    except (PydanticUserError, TypeError, NameError) as cause:
        reason = str(cause).splitlines()[0]
        raise error(f"{what} can not be read from JSON: {reason}") from cause


def dumped(
    adapter: TypeAdapter[Any], value: Any, error: type[HoldfastError], what: str, root: str = ""
) -> str:
    """`value`, validated, as JSON text. NaN and infinities are refused."""
    from pydantic import ValidationError
    from pydantic_core import PydanticSerializationError, to_json

    from holdfast.errors import InvalidRequest
    from holdfast.wire import codec

    try:
        valid = adapter.validate_python(value)
        # In two steps, because models write NaN as null when they write JSON themselves.
        raw = to_json(adapter.dump_python(valid, mode="json", warnings="error"), inf_nan_mode="constants")
        codec.decode(raw, root or "it")
        # Where a model has a field of any type, NaN is null after the first step already.
        if b"null" in raw and not _is_finite(adapter.dump_python(valid, warnings="error")):
            raise error(f"{what} holds a number that is not finite")
    except ValidationError as cause:
        raise error(f"{what} does not fit: {told(cause, root)}") from None
    except (PydanticSerializationError, InvalidRequest, ValueError, TypeError, RecursionError) as cause:
        raise error(f"{what} can not be written as JSON: {cause}") from cause
    return raw.decode()


def _is_finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, Mapping):
        return all(_is_finite(item) for item in value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return all(_is_finite(item) for item in value)
    return True


def told(error: ValidationError, root: str) -> str:
    """Each mistake with its place and the value seen."""
    told = []
    found = error.errors(include_url=False, include_context=False)
    for one in found[:SHOWN]:
        path = ".".join(str(step) for step in ((root,) if root else ()) + one["loc"])
        seen = repr(one.get("input"))
        shown = seen if len(seen) <= 80 else f"{seen[:77]}..."
        told.append(f"{path or 'the value'}: {one['msg']} (seen: {shown})")
    if len(found) > SHOWN:
        told.append(f"and {len(found) - SHOWN} more")
    return "; ".join(told)
