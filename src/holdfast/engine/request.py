"""Requests that are sent again, because their answer was lost: they get the answer of the first one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from holdfast.stores.base import Tx


def once(
    tx: Tx, environment_id: str, kind: str, key: str | None, make: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """What `make` answers, or has answered to the request with this key. One without a key is not remembered.

    kind  of what is made: keys of different kinds are different
    """
    if key is None:
        return make()
    place = {"environment_id": environment_id, "key": f"{kind}\n{key}"}  # no header holds a line feed
    if (row := tx.one("request", **place)) is not None:
        earlier: dict[str, Any] = json.loads(row["answer"])
        return earlier
    answer = make()
    tx.do("add_request", answer=json.dumps(answer), now=tx.now, **place)
    return answer
