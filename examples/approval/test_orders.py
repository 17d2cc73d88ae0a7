"""Days of waiting in milliseconds: `pytest examples/approval`. The fixture `holdfast` comes with the package."""

from typing import Any

import orders
import pytest
from orders import Approval, Order, ask_for_review, charge, fulfil, refund

LARGE = Order(id="1", cents=500_00, items=["a desk", "a lamp"])
SMALL = Order(id="2", cents=20_00, items=["a pen"])


@pytest.fixture(autouse=True)
def own_ledger(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "LEDGER", tmp_path / "ledger.txt")


def test_a_large_order_waits_for_its_approval(holdfast: Any) -> None:
    run = holdfast.start(fulfil, LARGE)
    assert run.status == "WAITING_TO_RESUME"
    holdfast.clock.advance("2d")
    run.token.complete(Approval(ok=True, by="Ann"))
    assert (run.status, holdfast.calls(ask_for_review)) == ("WAITING_TO_RESUME", 0)
    holdfast.clock.advance("1d")
    assert run.result() == "receipt for 500.00: a desk, packed; a lamp, packed"
    assert holdfast.calls(charge) == 1
    holdfast.assert_crash_safe(fulfil, run.payload)


def test_a_refused_order_is_refunded(holdfast: Any) -> None:
    run = holdfast.start(fulfil, LARGE)
    run.token.complete(Approval(ok=False, by="Bob"))
    assert run.result() == "refused by Bob"
    assert holdfast.calls(refund) == 1


def test_nobody_answers(holdfast: Any) -> None:
    run = holdfast.start(fulfil.options(max_attempts=1), LARGE)
    holdfast.clock.advance("4d")
    assert run.status == "COMPLETED_WITH_ERRORS"


def test_a_small_order_needs_nobody(holdfast: Any) -> None:
    run = holdfast.start(fulfil, SMALL)
    holdfast.clock.advance("1d")
    assert run.result() == "receipt for 20.00: a pen, packed"
