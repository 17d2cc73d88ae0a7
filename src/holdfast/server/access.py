"""Who may do what: scopes such as "read:runs:run_1", and what each route asks of them (the wire contract, 5.3)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.errors import Forbidden, NotAuthorised
from holdfast.model.scope import Thing, covers
from holdfast.server.auth import Kind

if TYPE_CHECKING:
    from holdfast.server.routing import Call

__all__ = ["Access", "Thing", "covers", "lacking"]

Find = Callable[["Call"], Awaitable[Sequence[Thing]]]


@dataclass(frozen=True, slots=True)
class Access:
    """What a route does to which things. Whoever is limited to scopes needs one that covers any of the things.

    action       "read", "write", "trigger", "batchTrigger" or "work"
    kinds        of the things, such as ("runs", "tasks"); the OpenAPI document tells them. None at all for what every
                 secret key may do, whatever it is limited to, such as asking where it belongs
    things       finds them; without it they are all things of the kinds
    tokens       whether public tokens are taken at all
    public_keys  whether public keys (`pk_…`) are taken: they read runs, without payload and output
    inside       the handler asks itself, by `Call.require`: the things stand in the body
    """

    action: str
    kinds: tuple[str, ...]
    things: Find | None = None
    tokens: bool = False
    public_keys: bool = False
    inside: bool = False

    async def check(self, call: Call) -> None:
        """Raises NotAuthorised or Forbidden; what `things` raises comes first, such as RunNotFound."""
        credential = call.credential
        if credential.kind is Kind.PUBLIC_TOKEN and not self.tokens:
            raise NotAuthorised("Invalid API key: public tokens are not taken here")
        if credential.kind is Kind.PUBLIC_KEY and not self.public_keys:
            raise Forbidden("Unauthorized: a public key reads runs and nothing else")
        if credential.scopes is None or self.inside or not self.kinds:
            return
        things = [(kind, None) for kind in self.kinds] if self.things is None else await self.things(call)
        call.require(self.action, things)


def lacking(action: str, things: Sequence[Thing]) -> Forbidden:
    """The refusal that names what was missing."""
    wanted = " or ".join(f"{action}:{kind}" + ("" if id is None else f":{id}") for kind, id in things[:4])
    return Forbidden(f"Unauthorized: none of the scopes in use grants {wanted}")
