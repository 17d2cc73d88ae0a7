"""The server as commands see it: JSON in, JSON out, and errors with an exit code."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

import click
import httpx2

from holdfast.cli.folder import client_settings
from holdfast.errors import HoldfastError, ResultTimeout, ServerUnreachable
from holdfast.model.limits import MAX_PAGE
from holdfast.model.packet import JSON as JSON_TYPE
from holdfast.model.packet import STORE
from holdfast.model.status import FINAL
from holdfast.wire.packets import text_of

EXIT_CODES = {400: 2, 401: 3, 403: 3, 404: 4, 409: 5, 422: 2}
HINTS = {
    401: "set HOLDFAST_SECRET_KEY to a key of this server; `holdfast dev` keeps one in .holdfast/secret_key",
    403: "this key may not do that",
}
WAIT_MS = 25_000  # how long the server is asked to hold back one answer
JSON = dict[str, Any]

server_option = click.option("--server", metavar="URL", help="The server.  [env: HOLDFAST_API_URL]")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class Refused(HoldfastError):
    """The server answered with an error."""

    code = "refused"

    def __init__(self, status: int, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.exit_code = EXIT_CODES.get(status, 1)
        self.hint = hint or HINTS.get(status, "")


class Unreachable(ServerUnreachable):
    """There is no Holdfast server at the address."""

    hint = "is it running? `holdfast dev` starts one; --server or HOLDFAST_API_URL names another"


class Server:
    """One server and one key. Use it as a context manager."""

    def __init__(self, url: str, key: str, branch: str | None = None) -> None:
        self.url = url
        headers = {"authorization": f"Bearer {key}"} if key else {}
        if branch is not None:
            headers["x-trigger-branch"] = branch
        self._client = httpx2.Client(base_url=url, headers=headers, timeout=httpx2.Timeout(35, connect=5))

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        return self._ask("GET", path, params=dict(query or {}))

    def post(self, path: str, body: Any) -> Any:
        return self._ask("POST", path, json=body)

    def delete(self, path: str) -> Any:
        return self._ask("DELETE", path)

    def run(self, run_id: str) -> JSON:
        answer: JSON = self.get(f"/api/v3/runs/{quote(run_id, safe='')}")
        return answer

    def runs(self, filters: Mapping[str, str], limit: int) -> Iterator[JSON]:
        """At most `limit` runs, newest first; a page is fetched when it is reached."""
        query = dict(filters)
        while limit > 0:
            query["page[size]"] = str(min(limit, MAX_PAGE))
            page = self.get("/api/v1/runs", query)
            yield from page["data"][:limit]
            limit -= len(page["data"])
            following = page["pagination"].get("next")
            if not following or not page["data"]:
                return
            query["page[after]"] = following

    def logs(self, run_id: str) -> Iterator[JSON]:
        """The log lines of a run, oldest first."""
        return self._pages(f"/api/v1/runs/{quote(run_id, safe='')}/logs", {})

    def journal(self, run_id: str) -> Iterator[JSON]:
        """What a run has recorded, in order."""
        return self._pages(f"/api/v1/runs/{quote(run_id, safe='')}/journal", {"page[size]": "1000"})

    def _pages(self, path: str, query: dict[str, str]) -> Iterator[JSON]:
        while True:
            page = self.get(path, query)
            yield from page["data"]
            following = page["pagination"].get("next")
            if not following:
                return
            query["page[after]"] = following

    def results(self, runs: list[str], tokens: list[str]) -> JSON:
        """The results of runs and tokens that have ended, by id."""
        answer = self.post("/api/v1/runs/results", {"runs": runs, "tokens": tokens})
        results = [self._with_output(result) for result in answer["results"]]
        return {one["id"]: one for one in (*results, *answer["tokens"])}

    def content(self, run_id: str, field: str) -> str:
        """The "payload" or "output" of a run that has it in the object store, as JSON text."""
        response = self._answered("GET", f"/api/v1/runs/{quote(run_id, safe='')}/packets/{field}/content")
        if not response.is_success:
            raise Refused(
                response.status_code, f"the {field} of {run_id} can not be read: {response.text[:200]}"
            )
        return text_of(response.content, response.headers.get("content-type", JSON_TYPE), field)

    def _with_output(self, result: JSON) -> JSON:
        if result.get("outputType") != STORE:
            return result
        return {**result, "output": self.content(result["id"], "output"), "outputType": JSON_TYPE}

    def finished(self, run_id: str, timeout: float | None) -> JSON:
        """The result of a run, once it has ended; raises ResultTimeout after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left_ms = WAIT_MS if deadline is None else int((deadline - time.monotonic()) * 1_000)
            query = {"waitMs": str(max(0, min(WAIT_MS, left_ms)))}
            try:
                answer: JSON = self.get(f"/api/v1/runs/{quote(run_id, safe='')}/result", query)
                return self._with_output(answer)
            except Refused as error:
                if error.status != 404:
                    raise
            self.run(run_id)  # a 404 of its own where there is no such run
            if left_ms <= 0:
                raise ResultTimeout(f"run {run_id} did not end within {timeout:g} seconds; it goes on")

    def watched(self, run_id: str, on_change: Callable[[JSON], None], timeout: float | None) -> JSON:
        """Reads a run until it has ended, telling `on_change` of every reading."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            run = self.run(run_id)
            on_change(run)
            if run["status"] in FINAL:
                return run
            if deadline is not None and time.monotonic() > deadline:
                raise ResultTimeout(f"run {run_id} did not end within {timeout:g} seconds; it goes on")
            time.sleep(0.25)

    def _answered(self, method: str, path: str, **content: Any) -> httpx2.Response:
        try:
            return self._client.request(method, path, **content)
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise Unreachable(f"no answer from {self.url}: {str(error) or type(error).__name__}") from error

    def _ask(self, method: str, path: str, **content: Any) -> Any:
        response = self._answered(method, path, **content)
        try:
            answer = response.json()
        except ValueError:
            raise Unreachable(
                f"{self.url} answered {response.status_code} and no JSON: is it a Holdfast server?"
            ) from None
        if response.is_success:
            return answer
        message = answer.get("error") if isinstance(answer, dict) else None
        raise Refused(response.status_code, str(message or f"the server answered {response.status_code}"))


def open_server(server: str | None, branch: str | None = None) -> Server:
    """The server that options, environment and folder name; in a preview branch where one is named."""
    settings = client_settings(Path.cwd(), server)
    return Server(settings.api_url, next(iter(settings.keys), ""), branch or settings.branch or None)
