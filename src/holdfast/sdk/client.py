"""A server as Python sees it: `Holdfast(url, key).runs` and so on, and the default one of this process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from holdfast.sdk.resources.auth import Auth
from holdfast.sdk.resources.batches import Batches
from holdfast.sdk.resources.bulk import BulkActions
from holdfast.sdk.resources.deployments import Deployments
from holdfast.sdk.resources.queues import Queues
from holdfast.sdk.resources.runs import Runs
from holdfast.sdk.resources.schedules import Schedules
from holdfast.sdk.resources.tokens import Tokens
from holdfast.sdk.resources.variables import Variables
from holdfast.sdk.transport import Connection

VARIABLES = (
    "HOLDFAST_API_URL",
    "HOLDFAST_SECRET_KEY",
    "HOLDFAST_BRANCH",
    "TRIGGER_API_URL",
    "TRIGGER_SECRET_KEY",
    "TRIGGER_PREVIEW_BRANCH",
)

_defaults: dict[tuple[str | None, ...], Holdfast] = {}
_in_place: list[Holdfast] = []  # of the default one, for tests


class Holdfast:
    """A client of one server.

    url, key      default to HOLDFAST_API_URL (else http://localhost:3030) and HOLDFAST_SECRET_KEY
    branch        the preview branch to act in, with a key tr_preview_…; defaults to HOLDFAST_BRANCH
    runs          list, read, cancel, replay, reschedule; their tags, metadata, logs and traces
    batches       many runs in one call, and their results
    bulk_actions  cancel or replay all runs that a filter selects
    queues        pause and resume; override limits
    schedules     make, list, change, pause and delete what triggers again and again
    tokens        make, list and complete what runs wait for
    variables     environment variables
    deployments   list, promote and roll back
    auth          who the key is; public tokens for browsers

    Every method that blocks has a twin for event loops, whose name begins with an `a`. Calls that fail without being
    refused (no answer, 408, 429, 5xx) are made again, up to five times in all, where that can do no harm. Connections
    open at the first call. Safe to share between threads and event loops.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        branch: str | None = None,
        transport: Any = None,
    ) -> None:
        from holdfast.config import Settings

        settings = Settings.load({name: os.environ[name] for name in VARIABLES if name in os.environ})
        self.url = settings.api_url if url is None else url
        own_key = next(iter(settings.keys), "") if key is None else key
        # Calls are fenced by the current run's lease only where that run lives.
        self.connection = Connection(
            self.url,
            own_key,
            branch=settings.branch if branch is None else branch,
            in_run=url is None,
            transport=transport,
        )
        self.runs = Runs(self.connection)
        self.batches = Batches(self.connection)
        self.bulk_actions = BulkActions(self.connection)
        self.queues = Queues(self.connection)
        self.schedules = Schedules(self.connection)
        self.tokens = Tokens(self.connection)
        self.variables = Variables(self.connection)
        self.deployments = Deployments(self.connection)
        self.auth = Auth(self.connection)

    def __repr__(self) -> str:
        return f"Holdfast(url={self.url!r})"

    def close(self) -> None:
        """Close the connections of blocking calls; those of an event loop close together with it."""
        self.connection.close()


def default_client() -> Holdfast:
    """The client that tasks trigger with: of the server and key that the environment names now."""
    if _in_place:
        return _in_place[-1]
    named = tuple(os.environ.get(name) for name in VARIABLES)
    client = _defaults.get(named)
    if client is None:
        client = _defaults.setdefault(named, Holdfast())
    return client


@contextmanager
def in_place_of_default(client: Holdfast) -> Iterator[None]:
    """While this lasts, tasks trigger with `client`, in all threads."""
    _in_place.append(client)
    try:
        yield
    finally:
        _in_place.remove(client)
