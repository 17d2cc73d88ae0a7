"""The way in: finds the route of a request, and answers what it raises.

The framework's router tries one expression after another, eighty of them for the last route, and wraps each call three
times: a third of what a trigger costs. Here a route is found segment by segment, on the path as it was sent, so that a
name may hold a slash (`%2F`). Whatever is no route of the API, also a method that a path has not, is left to the framework.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from holdfast.errors import HoldfastError
from holdfast.server.problems import on_holdfast_error, on_unexpected, on_validation_error

Serve = Callable[[Request], Awaitable[Response]]
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")  # that pages of other origins may use


@dataclass(slots=True)
class Segment:
    """What may follow on a part of a path: a fixed word comes before a parameter."""

    fixed: dict[str, Segment] = field(default_factory=dict)
    parameter: tuple[str, Segment] | None = None
    serves: dict[str, Serve] = field(default_factory=dict)  # by method

    def add(self, path: str, method: str, serve: Serve) -> None:
        at = self
        for word in path.split("/"):
            if not word.startswith("{"):
                at = at.fixed.setdefault(word, Segment())
                continue
            if at.parameter is None:
                at.parameter = (word[1:-1], Segment())
            name, at = at.parameter
            if name != word[1:-1]:
                raise ValueError(f"{path}: its place is called {{{name}}} in another route")
        at.serves[method] = serve

    def find(self, words: list[str], method: str) -> tuple[Serve, dict[str, str]] | None:
        """The route of a path that was split at its slashes, and its parameters as they were sent."""
        if not words:
            serve = self.serves.get(method)
            return None if serve is None else (serve, {})
        word, rest = words[0], words[1:]
        if (following := self.fixed.get(word)) is not None and (found := following.find(rest, method)):
            return found
        if self.parameter is None or not word:
            return None
        name, following = self.parameter
        found = following.find(rest, method)
        if found is not None:
            found[1][name] = word
        return found


class Dispatch:
    """The application: routes of the API by the tree, everything else by the framework."""

    def __init__(self, app: Starlette, routes: Segment) -> None:
        self._app = app
        self._routes = routes
        # Browsers call with tokens, from any page; no cookie is ever looked at.
        self._crossing = CORSMiddleware(
            self._serve,
            allow_origins=["*"],
            allow_methods=METHODS,
            allow_headers=["*"],
            expose_headers=["*"],
            max_age=86_400,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if raw := scope.get("raw_path"):
            scope = {**scope, "path": raw.decode("ascii", "replace")}
        crosses = any(name == b"origin" for name, _ in scope["headers"])
        await (self._crossing if crosses else self._serve)(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._routes.find(scope["path"].split("/"), scope["method"])
        if found is None:
            await self._app(scope, receive, send)
            return
        serve, parameters = found
        request = Request({**scope, "app": self._app, "path_params": parameters}, receive, send)
        try:
            response = await serve(request)
        except HoldfastError as error:
            response = await on_holdfast_error(request, error)
        except ValidationError as error:
            response = await on_validation_error(request, error)
        except Exception as error:
            response = await on_unexpected(request, error)
        await response(scope, receive, send)
