"""Tokens: made once for a key, completed once, waited for by any number of runs (engine rules R52 to R57)."""

from __future__ import annotations

import json

import pytest

from engine.world import World, end_of
from holdfast.engine import inspect
from holdfast.engine.token import TIMEOUT, Completion, NewToken, complete, create_tokens
from holdfast.engine.upkeep import Due, Retention, retain, upkeep
from holdfast.errors import InvalidRequest, Unprocessable, WaitpointNotFound
from holdfast.stores.listing import TokenFilters

DAY = 86_400_000
SCHEMA = json.dumps({"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]})


def test_a_completed_token_resumes_who_waits_for_it(world: World) -> None:
    worker = world.worker()
    token = world.token().id
    for _ in range(3):
        world.trigger()
    runs = world.claim(worker)
    for run in runs:
        world.suspend(worker, run, end_of(token, "failure"))
    world.clock.advance(5)
    world.complete(token, '{"ok":true}')
    found = world.read_token(token)
    assert (found.status, found.output, found.output_is_error, found.completed_at) == (
        "COMPLETED",
        '{"ok":true}',
        0,
        world.clock.now,
    )
    assert [world.status(run.id) for run in runs] == ["QUEUED"] * 3
    assert f"token:{token}" in world.wakes


def test_a_token_that_is_complete_already_resumes_at_once(world: World) -> None:
    worker = world.worker()
    token = world.token().id
    world.complete(token)
    world.trigger()
    run = world.claim_one(worker)
    world.suspend(worker, run, end_of(token, "last"))
    assert world.status(run.id) == "QUEUED"


def test_the_first_completion_stays(world: World) -> None:
    """Engine semantics, seed 20: the second one succeeds and changes nothing."""
    token = world.token().id
    world.complete(token, '"first"')
    before = world.read_token(token)
    world.clock.advance(1_000)
    world.complete(token, '"second"')
    assert world.read_token(token) == before


def test_two_completions_in_one_call_leave_the_first(world: World) -> None:
    token = world.token().id
    items = [Completion("dev", token, "1"), Completion("dev", token, "2")]
    assert world.store.transact(complete, items) == [None, None]
    assert world.read_token(token).output == "1"


def test_a_timeout_ends_a_token_with_an_error(world: World) -> None:
    worker = world.worker()
    token, other = world.token(timeout="30s").id, world.token().id
    world.trigger()
    run = world.claim_one(worker)
    world.suspend(worker, run, end_of(token, "failure"), end_of(other, "failure"))
    world.after(29_999, worker)
    assert world.read_token(token).status == "WAITING"
    world.after(1, worker)
    found = world.read_token(token)
    assert (found.status, found.output, found.output_is_error) == ("TIMED_OUT", TIMEOUT, 1)
    assert json.loads(TIMEOUT)["code"] == "TRIGGER_WAITPOINT_TIMEOUT"
    assert world.status(run.id) == "QUEUED"
    world.complete(token, '"late"')
    assert world.read_token(token) == found
    world.after(365 * DAY)
    assert world.read_token(other).status == "WAITING"


def test_a_completion_before_the_timeout_stays(world: World) -> None:
    token = world.token(timeout="30s").id
    world.complete(token, "1")
    world.after(60_000)
    assert world.read_token(token).status == "COMPLETED"


def test_upkeep_comes_when_a_token_is_due(world: World) -> None:
    world.token(timeout="30s")
    assert "upkeep" in world.wakes
    assert world.do(upkeep, Due()).next_due_at == world.clock.now + 30_000


def test_a_schema_refuses_what_does_not_fit_and_the_token_waits_on(world: World) -> None:
    token = world.token(schema=SCHEMA).id
    for output, param in (('{"ok":"yes"}', "data.ok"), ("null", "data"), ("{}", "data")):
        with pytest.raises(Unprocessable) as raised:
            world.complete(token, output)
        assert raised.value.param == param
    assert world.read_token(token).status == "WAITING"
    world.complete(token, '{"ok":true}')
    world.complete(token, '"anything"')
    assert world.read_token(token).output == '{"ok":true}'


def test_a_token_belongs_to_its_environment(world: World) -> None:
    token = world.token("prod").id
    for unknown in (token, "waitpoint_unknown"):
        with pytest.raises(WaitpointNotFound):
            world.complete(unknown)
        with pytest.raises(WaitpointNotFound):
            world.read_token(unknown)
    world.complete(token, environment="prod")


def test_one_token_for_a_key_also_when_it_is_complete(world: World) -> None:
    first = world.token(idempotency_key="k")
    assert world.token(idempotency_key="k", tags=["other"]) == type(first)(first.id, is_cached=True)
    world.complete(first.id)
    world.clock.advance(400 * DAY)
    assert world.token(idempotency_key="k").id == first.id
    assert world.token("prod", idempotency_key="k").id != first.id
    assert world.token(idempotency_key="other").id != first.id


def test_a_key_whose_lifetime_is_over_makes_a_new_token(world: World) -> None:
    first = world.token(idempotency_key="k", idempotency_key_ttl="1h")
    world.clock.advance(3_599_999)
    assert world.token(idempotency_key="k").id == first.id
    world.clock.advance(1)
    second = world.token(idempotency_key="k")
    assert (second.id != first.id, second.is_cached) == (True, False)
    assert world.read_token(first.id).idempotency_key is None
    assert world.token(idempotency_key="k").id == second.id


def test_two_for_one_key_in_one_call_are_one(world: World) -> None:
    items = [NewToken(environment_id="dev", idempotency_key="k") for _ in range(2)]
    first, second = world.store.transact(create_tokens, items)
    assert (first.id, second.is_cached) == (second.id, True)  # type: ignore[union-attr]  # none is refused


@pytest.mark.parametrize(
    ("asked", "error", "param"),
    [
        ({"tags": [f"t{number}" for number in range(11)]}, Unprocessable, "tags"),
        ({"tags": ["t" * 129]}, InvalidRequest, "tags"),
        ({"timeout": "soon"}, InvalidRequest, "timeout"),
        ({"idempotency_key": ""}, InvalidRequest, "idempotencyKey"),
        ({"idempotency_key": "x" * 2_049}, InvalidRequest, "idempotencyKey"),
        ({"idempotency_key": "k", "idempotency_key_ttl": "soon"}, Unprocessable, "idempotencyKeyTTL"),
    ],
)
def test_a_token_that_can_not_be_made_is_refused(
    world: World, asked: dict[str, object], error: type[Exception], param: str
) -> None:
    with pytest.raises(error) as raised:
        world.token(**asked)
    assert raised.value.param == param  # type: ignore[attr-defined]  # both have one
    worker = world.worker()
    world.trigger()
    run = world.claim_one(worker)
    answer = world.make_token(worker, run, **asked)
    assert (answer.status, answer.code) == ("refused", error.code)  # type: ignore[attr-defined]
    assert world.run(run.id).entries == 0
    assert world.page_of_tokens() == []


def test_a_run_makes_a_token_and_its_entry_together(world: World) -> None:
    worker = world.worker()
    world.trigger()
    run = world.claim_one(worker)
    answer = world.make_token(worker, run, timeout="1h", tags=["a"], idempotency_key="k")
    told = json.loads(answer.value or "")
    [entry] = world.journal(run.id)
    assert (entry["kind"], entry["ref"], entry["value"], entry["ok"]) == (
        "token",
        told["id"],
        answer.value,
        1,
    )
    assert told == {"id": told["id"], "isCached": False, "url": f"/{told['id']}"}
    token = world.read_token(told["id"])
    assert (token.run_id, token.timeout_at, token.tags) == (run.id, world.clock.now + 3_600_000, '[\n"a"\n]')
    again = json.loads(world.make_token(worker, run, idempotency_key="k").value or "")
    assert (again["id"], again["isCached"]) == (told["id"], True)
    assert world.run(run.id).entries == 2


def test_tokens_are_listed_page_by_page_newest_first(world: World) -> None:
    made = [world.token(tags=[f"t{number % 3}", "all"]).id for number in range(7)]
    world.token("prod")
    assert world.page_of_tokens() == made[::-1]
    page = world.read(lambda tx: inspect.tokens_page(tx, "dev", TokenFilters(), 3))
    assert [token.id for token in page.tokens] == made[:3:-1]
    page = world.read(lambda tx: inspect.tokens_page(tx, "dev", TokenFilters(), 3, after=page.next))
    assert [token.id for token in page.tokens] == made[3:0:-1]
    page = world.read(lambda tx: inspect.tokens_page(tx, "dev", TokenFilters(), 3, before=page.previous))
    assert [token.id for token in page.tokens] == made[:3:-1]
    with pytest.raises(InvalidRequest):
        world.read(lambda tx: inspect.tokens_page(tx, "prod", TokenFilters(), 3, after=made[0]))


def test_filters_of_tokens_compare_whole_values(world: World) -> None:
    odd = ["a", ",", '"', 'a"', "\\", "ä", '","', "a,b", " x "]
    made = {tag: world.token(tags=[tag, "z"]).id for tag in odd}
    for tag, token in made.items():
        assert world.page_of_tokens(tag=[tag]) == [token], tag
    assert world.page_of_tokens(tag=["A"]) == world.page_of_tokens(tag=["x"]) == []
    assert world.page_of_tokens(tag=["a", "ä"]) == [made["ä"], made["a"]]
    keyed = world.token(idempotency_key="k").id
    assert world.page_of_tokens(idempotency_key="k") == [keyed]
    world.complete(keyed)
    assert world.page_of_tokens(status=["COMPLETED"]) == [keyed]
    assert world.page_of_tokens(created_to=world.clock.now - 1) == []


def test_retention_deletes_old_tokens_but_none_that_a_run_may_ask_for(world: World) -> None:
    worker = world.worker()
    world.trigger()
    run = world.claim_one(worker)
    own = json.loads(world.make_token(worker, run).value or "")["id"]
    done, waiting = world.token().id, world.token().id
    world.complete(own)
    world.complete(done)
    world.clock.advance(40 * DAY)
    recent = world.token().id
    world.complete(recent)
    world.do(retain, Retention("dev", None))
    assert len(world.page_of_tokens()) == 4
    world.do(retain, Retention("dev", 30 * DAY))
    assert world.page_of_tokens() == [recent, waiting, own]
    world.renew(worker)
    world.succeed(worker, run)
    world.do(retain, Retention("dev", 30 * DAY))
    assert world.page_of_tokens() == [recent, waiting]
