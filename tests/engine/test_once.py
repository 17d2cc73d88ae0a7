"""A one-time token makes one run: whoever is first, whatever happens at the same moment."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from engine.world import World
from holdfast.engine.once import OneTime
from holdfast.engine.trigger import NewRun, Triggered, trigger
from holdfast.engine.upkeep import Retention, retain
from holdfast.errors import HoldfastError, Unprocessable

USED = r"it has already been used\.$"


def token(world: World, digest: str = "d1", seconds: float = 900) -> OneTime:
    return OneTime(digest, world.clock() + round(seconds * 1_000))


def new(world: World, **options: Any) -> NewRun:
    options.setdefault("once", token(world))
    return NewRun(environment_id="dev", task="send", **options)


def test_the_second_use_is_refused_and_makes_nothing(world: World) -> None:
    first = world.do(trigger, new(world))
    with pytest.raises(Unprocessable, match=USED):
        world.do(trigger, new(world))
    assert [run.id for run in world.page().runs] == [first.id]


def test_two_uses_in_one_transaction_make_one_run(world: World) -> None:
    answers = world.store.transact(trigger, [new(world), new(world), new(world, once=token(world, "d2"))])
    assert [isinstance(answer, Triggered) for answer in answers] == [True, False, True]


def test_ten_simultaneous_uses_make_one_run(world: World) -> None:
    def one(_: int) -> Triggered | HoldfastError:
        [answer] = world.store.transact(trigger, [new(world)])
        return answer

    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(one, range(10)))
    assert sum(isinstance(answer, Triggered) for answer in answers) == 1
    assert sum(isinstance(answer, Unprocessable) for answer in answers) == 9


def test_a_refused_trigger_does_not_use_the_token_up(world: World) -> None:
    with pytest.raises(HoldfastError, match="at most 10"):
        world.do(trigger, new(world, tags=[str(number) for number in range(11)]))
    with pytest.raises(HoldfastError, match="no such version"):
        world.do(trigger, new(world, version_lock="20270101.1"))
    world.do(trigger, new(world))


def test_a_cached_answer_uses_up_nothing(world: World) -> None:
    first = world.do(trigger, new(world, idempotency_key="k"))
    again = world.do(trigger, new(world, idempotency_key="k"))
    assert (again.id, again.is_cached) == (first.id, True)
    other = world.do(trigger, new(world, idempotency_key="k", once=token(world, "d2")))
    assert other.id == first.id
    world.do(trigger, new(world, once=token(world, "d2")))


def test_the_repeated_request_gets_the_first_answer(world: World) -> None:
    first = world.do(trigger, new(world, request_key="r"))
    assert world.do(trigger, new(world, request_key="r")) == first
    with pytest.raises(Unprocessable, match=USED):
        world.do(trigger, new(world, request_key="another"))


def test_what_is_kept_of_a_token_goes_when_the_token_expires(world: World) -> None:
    short, long = token(world, "short", 10), token(world, "long", 100)
    for each in (short, long):
        world.do(trigger, new(world, once=each))
    world.clock.advance(11_000)
    world.do(retain, Retention("dev", None))
    world.do(trigger, new(world, once=short))  # nothing is known of it; the server refuses it as expired
    with pytest.raises(Unprocessable, match=USED):
        world.do(trigger, new(world, once=long))
