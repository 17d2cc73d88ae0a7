"""An order that a person may have to approve, which takes days. Nothing waits for it meanwhile.

    charge the card                 a step: never twice, whatever dies
    ask for approval, if it is large    a token: the run is suspended until somebody answers
    pack, in two warehouses at once     child runs
    wait a day, then ask for a review   a sleep

Each step leaves a line in a ledger, so that one can see what really happened, and how often.
"""

import os
import time
from datetime import timedelta
from pathlib import Path

from pydantic import BaseModel

from holdfast import arun_all, current_run, step, task, wait

LEDGER = Path(os.environ.get("LEDGER", "ledger.txt"))
A_DAY = timedelta(seconds=float(os.environ.get("A_DAY_LASTS", "86400")))  # the demo is in a hurry


class Order(BaseModel):
    id: str
    cents: int
    items: list[str]


class Approval(BaseModel):
    ok: bool
    by: str


def happened(order: Order, what: str) -> None:
    with LEDGER.open("a") as ledger:
        ledger.write(f"{order.id} {what}\n")


@step(retry=3)
async def charge(order: Order) -> str:
    happened(order, "charged")
    return f"receipt for {order.cents / 100:.2f}"


@step
async def ask_for_approval(order: Order, url: str) -> None:
    """Who gets this mail needs nothing but the link."""
    happened(order, "approval asked for")


@step
async def refund(order: Order, receipt: str) -> None:
    happened(order, "refunded")


@step
async def ask_for_review(order: Order) -> None:
    happened(order, "review asked for")


@task
def pack(item: str) -> str:
    time.sleep(0.2)
    return f"{item}, packed"


@task
async def fulfil(order: Order) -> str:
    receipt = await charge(order)
    if order.cents > 100_00:
        token = await wait.atoken(Approval, timeout="3d", tags=[f"order:{order.id}"])
        current_run().metadata["approve at"] = token.url
        await ask_for_approval(order, token.url)
        approval = await token.aresult()
        if not approval.ok:
            await refund(order, receipt)
            return f"refused by {approval.by}"
    parcels = await arun_all(pack.bind(item) for item in order.items)
    await wait.asleep(A_DAY)
    await ask_for_review(order)
    return f"{receipt}: {'; '.join(parcels)}"
