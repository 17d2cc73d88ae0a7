"""Arguments to JSON and back, outputs to JSON and back, and the schema that is published."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel

from holdfast import CurrentRun, OutputInvalid, PayloadInvalid, task
from sdk.world import Session, claimed


class Order(BaseModel):
    id: str
    cents: int


@dataclass
class Point:
    x: float


@dataclass
class Holder:
    one: int
    other: Any


def encoded(made: Any, *args: Any, **kwargs: Any) -> Any:
    text = made.bind(*args, **kwargs).payload
    return None if text is None else json.loads(text)


def called(made: Any, payload: Any, **changes: Any) -> Any:
    """What the function gets, and gives, for a payload."""
    run = CurrentRun(claimed(**changes), "20260101.1", Session())
    args, kwargs = made.decode_payload(payload if payload is None else json.dumps(payload), run)
    return made(*args, **kwargs)


def test_one_parameter_is_the_payload_itself() -> None:
    @task
    def cents(order: Order) -> int:
        return order.cents

    assert encoded(cents, Order(id="a", cents=3)) == {"id": "a", "cents": 3}
    assert called(cents, {"id": "a", "cents": 3}) == 3
    schema = cents.manifest()["payloadSchema"]
    assert schema["required"] == ["id", "cents"]


def test_several_parameters_are_an_object_keyed_by_name() -> None:
    @task
    def work(a: int, /, b: datetime, *, c: list[str] | None = None) -> Any:
        return a, b, c

    at = datetime(2026, 1, 2, tzinfo=UTC)
    assert encoded(work, 1, at) == {"a": 1, "b": "2026-01-02T00:00:00Z"}
    assert called(work, {"a": 1, "b": "2026-01-02T00:00:00Z", "c": ["x"]}) == (1, at, ["x"])
    assert work.manifest()["payloadSchema"]["required"] == ["a", "b"]


def test_no_parameters_are_null() -> None:
    @task
    def work() -> int:
        return 1

    assert encoded(work) is None
    assert called(work, None) == 1
    assert called(work, {}) == 1
    with pytest.raises(PayloadInvalid, match="takes no parameters"):
        called(work, {"a": 1})


def test_a_default_stands_in_for_an_absent_payload() -> None:
    @task
    def one(number: int = 7) -> int:
        return number

    @task
    def two(a: int = 1, b: int = 2) -> int:
        return a + b

    assert encoded(one) is None
    assert [called(one, None), called(one, 3), called(two, None), called(two, {"b": 5})] == [7, 3, 3, 6]
    assert {"type": "null"} in one.manifest()["payloadSchema"]["anyOf"]


def test_the_current_run_is_injected_and_no_part_of_the_payload() -> None:
    @task
    def work(number: int, run: CurrentRun, other: CurrentRun | None = None) -> Any:
        return number, run.attempt, other is run

    assert encoded(work, 5) == 5
    assert called(work, 5, attempt=2) == (5, 2, True)
    assert work.manifest()["payloadSchema"] == {"type": "integer"}


def test_parameters_without_annotation_accept_anything() -> None:
    @task
    def work(anything):  # type: ignore[no-untyped-def]  # that is the point
        return anything

    assert encoded(work, {"a": [1]}) == {"a": [1]}
    assert called(work, ["x"]) == ["x"]
    assert "payloadSchema" not in work.manifest()


@pytest.mark.parametrize(
    ("payload", "place"),
    [
        ({"id": "a", "cents": "many"}, r"order\.cents: .*\(seen: 'many'\)"),
        ({"id": "a"}, r"order\.cents: Field required"),
        (None, "order: "),
    ],
)
def test_a_payload_that_does_not_fit_names_the_place(payload: Any, place: str) -> None:
    @task
    def work(order: Order) -> None: ...

    with pytest.raises(PayloadInvalid, match=place):
        called(work, payload)


def test_arguments_are_checked_before_anything_is_sent() -> None:
    @task
    def work(a: int, b: int = 0) -> None: ...

    with pytest.raises(PayloadInvalid, match="a: "):
        work.bind("x")  # type: ignore[arg-type]  # that is the point
    with pytest.raises(TypeError, match="missing a required argument: 'a'"):
        work.bind()  # type: ignore[call-arg]  # that is the point
    with pytest.raises(PayloadInvalid, match="c: Extra inputs"):
        called(work, {"a": 1, "c": 2})


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), {"a": [float("-inf")]}, Point(float("nan")), Holder(1, float("nan"))],
)
def test_numbers_that_are_none_are_refused_on_both_ways(value: Any) -> None:
    @task
    def anything(value: Any) -> Any:
        return value

    @task
    def point(value: Point) -> Point:
        return value

    @task
    def holder(value: Holder) -> Holder:
        return value

    one = point if isinstance(value, Point) else holder if isinstance(value, Holder) else anything
    with pytest.raises(PayloadInvalid):
        one.bind(value)
    with pytest.raises(OutputInvalid):
        one.encode_output(value)


def test_the_return_type_writes_and_reads_the_output() -> None:
    @task
    def orders() -> list[Order]: ...

    text = orders.encode_output([Order(id="a", cents=1)])
    assert text == '[{"id":"a","cents":1}]'
    assert orders.shape.decode_output(text) == [Order(id="a", cents=1)]
    with pytest.raises(OutputInvalid, match=r"0\.cents"):
        orders.encode_output([{"id": "a"}])


def test_an_output_that_json_can_not_hold_is_named() -> None:
    @task
    def work():  # type: ignore[no-untyped-def]  # any output
        return None

    assert work.encode_output(None) == "null"
    assert work.encode_output({"a": (1, 2)}) == '{"a":[1,2]}'
    assert work.encode_output(n for n in range(2)) == "[0,1]"
    for bad in (object(), {"a": threading_lock()}, "\ud800", "a\x00b"):
        with pytest.raises(OutputInvalid):
            work.encode_output(bad)
    with pytest.raises(OutputInvalid, match="lock"):
        work.encode_output(threading_lock())
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(OutputInvalid):
        work.encode_output(endless)


def threading_lock() -> Any:
    import threading

    return threading.Lock()


def test_types_that_no_json_fits_are_named_when_used_and_hide_the_schema() -> None:
    class Strange:
        pass

    @task
    def work(value: Strange) -> Strange: ...

    assert "payloadSchema" not in work.manifest()
    with pytest.raises(PayloadInvalid, match="value of task work"):
        work.bind(Strange())
    with pytest.raises(OutputInvalid, match="return type of task work"):
        work.encode_output(Strange())


def test_hints_that_can_not_be_read_are_told_at_first_use() -> None:
    @task
    def work(value: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821  # that is the point

    assert "payloadSchema" not in work.manifest()
    with pytest.raises(PayloadInvalid, match="name 'Missing' is not defined"):
        work.bind(1)


def test_names_of_an_enclosing_function_may_be_used_in_hints() -> None:
    class Local(BaseModel):
        n: int

    @task
    def work(value: Local) -> int:
        return value.n

    assert called(work, {"n": 4}) == 4


@pytest.mark.parametrize("isolated", ["*args", "**kwargs"])
def test_parameters_without_names_are_refused_at_decoration(isolated: str) -> None:
    namespace: dict[str, Callable[..., Any]] = {}
    exec(f"def work({isolated}): ...", namespace)
    with pytest.raises(TypeError, match="names each of its parameters"):
        task(namespace["work"])


def test_the_key_is_a_path_into_the_payload() -> None:
    @task(key="order.id")
    def one(order: Order) -> None: ...

    @task(key="order.id")
    def two(order: Order, n: int) -> None: ...

    @task(key="tenant")
    def wrong(order: Order, n: int) -> None: ...

    assert one.manifest()["key"] == "id"
    assert two.manifest()["key"] == "order.id"
    with pytest.raises(ValueError, match="order, n"):
        wrong.manifest()
