"""The tasks that the conformance suite of the wire contract triggers; its README says what each does."""

from __future__ import annotations

import asyncio
from typing import Any

from holdfast import CurrentRun, Retry, Token, task


@task
async def echo(value: Any = None) -> Any:
    return value


@task(retry=Retry(1))
async def fail(value: Any = None) -> None:
    raise ValueError("this is an intentional failure")


@task(retry=Retry(3, min_delay=0.2, max_delay=1))
async def flaky(run: CurrentRun, value: Any = None) -> Any:
    if run.attempt == 1:
        raise ValueError("the first attempt fails")
    return value


@task
async def sleep(payload: dict[str, Any]) -> dict[str, Any]:
    await asyncio.sleep(payload["seconds"])
    return {"slept": payload["seconds"]}


@task
async def wait_for_token(payload: dict[str, Any]) -> Any:
    return await Token.by_id(payload["tokenId"]).aresult()


@task
async def parent(payload: dict[str, Any]) -> list[Any]:
    return [await echo.arun(payload["first"]), await echo.arun(payload["second"])]


@task
async def progress(run: CurrentRun, value: Any = None) -> None:
    for percent in (0, 25, 50, 75, 100):
        run.metadata["progress"] = percent
        await asyncio.sleep(0.3)


@task
async def big_output(payload: dict[str, Any]) -> str:
    return "x" * int(payload["bytes"])


@task
async def scheduled_echo(value: Any = None) -> Any:
    return value
