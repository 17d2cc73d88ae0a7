"""The environment's variables, as a worker knows them: executors find them in their environment.

A worker asks before it starts its first executor, because modules read variables while they are imported, and again
whenever it starts another one. They are never logged; worker/executor.py sets what is not set already.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from pydantic_core import from_json

from holdfast.errors import ServerUnreachable
from holdfast.worker.api import Api
from holdfast.worker.membership import CALL_SECONDS
from holdfast.worker.registration import pause, refusal

PATH = "/api/v1/workers/variables"
ASK_SECONDS = 2.0  # an executor does not wait longer for news
FRESH_SECONDS = 0.2  # so long what is known is new enough: executors are started in groups


class Variables:
    def __init__(self, api: Api) -> None:
        self._api = api
        self._known: Mapping[str, str] = {}
        self._asked_at: float | None = None
        self._loop = asyncio.get_running_loop()

    async def first(self) -> None:
        """Learn of them, however long the server takes to come up.

        Raises NotAuthorised or InvalidRequest when it answers and refuses.
        """
        failures = 0
        while True:
            status, data = await self._ask(CALL_SECONDS)
            if status in (200, 404):  # a server without variables has no such path
                return
            if 400 <= status < 500 and status not in (408, 425, 429):
                raise refusal(status, data)
            failures += 1
            await pause(failures)

    async def current(self) -> Mapping[str, str]:
        """As they are now; as they were when the server does not answer at once."""
        if self._asked_at is None or self._loop.time() - self._asked_at > FRESH_SECONDS:
            await self._ask(ASK_SECONDS)
        return self._known

    def told(self, variables: Mapping[str, str]) -> None:
        """The server told them along with something else."""
        self._known, self._asked_at = variables, self._loop.time()

    async def _ask(self, seconds: float) -> tuple[int, bytes]:
        try:
            status, data = await self._api.post(PATH, b"{}", seconds)
        except ServerUnreachable:
            return 0, b""
        if status == 200:
            try:
                self.told(from_json(data)["variables"])
            except (ValueError, KeyError, TypeError):
                return 0, b""  # something between us and the server answered
        return status, data
