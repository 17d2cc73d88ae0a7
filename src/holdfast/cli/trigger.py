"""`holdfast trigger`: create a run, and wait for it when asked to."""

from __future__ import annotations

import json
import sys
from typing import Any
from urllib.parse import quote

import click

from holdfast.cli.api import Server, json_option, open_server, server_option
from holdfast.cli.output import emit, emit_json, fail, safe, say
from holdfast.errors import InvalidRequest
from holdfast.model.duration import duration_ms, moment_ms

WINDOW = 60  # characters of a payload shown around a mistake


@click.command()
@click.argument("task")
@click.argument("payload", required=False)
@click.option("--wait", is_flag=True, help="Wait for the end; print the output; exit 1 when the run failed.")
@click.option(
    "--timeout", type=click.FloatRange(min=0), help="With --wait: seconds, after which to exit with 124."
)
@click.option("--delay", help='When to start: a duration such as "1h30m", or a date.')
@click.option("--ttl", help="How long the run may wait for its start.")
@click.option("--tag", "tags", multiple=True, help="A tag; may be given up to ten times.")
@click.option("--queue", help="The queue to wait in.")
@click.option("--key", help="The concurrency key.")
@click.option("--priority", type=float, help="Seconds of age to start with: higher goes first.")
@click.option("--idempotency-key", help="A second trigger with this key gives the first run.")
@click.option("--max-attempts", type=click.IntRange(1, 250), help="How often to try.")
@click.option("--test", is_flag=True, help="Mark the run as a test.")
@server_option
@json_option
def trigger(
    task: str,
    payload: str | None,
    wait: bool,
    timeout: float | None,
    server: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Trigger TASK with PAYLOAD, a JSON text; `-` reads it from stdin. Prints the id of the run."""
    body: dict[str, Any] = {"options": wire_options(**options)}
    if payload is not None:
        body["payload"] = payload_of(sys.stdin.read() if payload == "-" else payload)
    with open_server(server) as there:
        answer = there.post(f"/api/v1/tasks/{quote(task, safe='')}/trigger", body)
        if wait:
            wait_for(there, answer["id"], timeout, as_json)
        elif as_json:
            emit_json(answer)
        else:
            emit(answer["id"])
            if answer.get("isCached"):
                say("this run existed already: the idempotency key is in use")


def wait_for(there: Server, run_id: str, timeout: float | None, as_json: bool) -> None:
    """Prints the output of a run once it has ended; exits with 1 when it did not succeed."""
    say(run_id)
    if there.run(run_id)["status"] == "WAITING_FOR_DEPLOY":
        say("no worker has this task yet, or its queue: the run waits for one (are the names right?)")
    try:
        result = there.finished(run_id, timeout)
    except KeyboardInterrupt:
        say(f"\nno longer waiting; the run goes on: holdfast runs watch {run_id}")
        raise
    if as_json:
        emit_json(there.run(run_id))
    elif result["ok"]:
        emit_json(json.loads(result["output"]))
    if not result["ok"]:
        fail(f"run {run_id} ended {result['status']}: {error_text(result['error'])}")
        raise click.exceptions.Exit(1)


def wire_options(
    *,
    delay: str | None,
    ttl: str | None,
    tags: tuple[str, ...],
    queue: str | None,
    key: str | None,
    priority: float | None,
    idempotency_key: str | None,
    max_attempts: int | None,
    test: bool,
) -> dict[str, Any]:
    """The options as the API names them; those not given are left out."""
    check_durations(delay, ttl)
    options = {
        "delay": delay,
        "ttl": ttl,
        "tags": list(tags),
        "queue": {"name": queue} if queue else None,
        "concurrencyKey": key,
        "priority": priority,
        "idempotencyKey": idempotency_key,
        "maxAttempts": max_attempts,
        "test": test,
    }
    return {name: value for name, value in options.items() if value not in (None, [], False)}


def check_durations(delay: str | None, ttl: str | None = None) -> None:
    """Raises UsageError for one that can not be read, before anything is sent."""
    try:
        if delay is not None:
            moment_ms(delay, 0, "--delay")
        if ttl is not None:
            duration_ms(ttl, "--ttl")
    except InvalidRequest as error:
        raise click.UsageError(str(error), click.get_current_context(silent=True)) from None


def payload_of(text: str) -> Any:
    """The value of a JSON text; raises UsageError with a caret below the mistake."""

    def refuse(constant: str) -> Any:
        raise click.UsageError(f"the payload holds {constant}, which JSON does not know")

    try:
        return json.loads(text, parse_constant=refuse)
    except json.JSONDecodeError as error:
        line = (text.splitlines() or [""])[error.lineno - 1] if error.lineno <= len(text.splitlines()) else ""
        start = max(0, error.colno - 1 - WINDOW // 2)
        shown = safe(line[start : start + WINDOW])
        caret = " " * len(safe(line[start : error.colno - 1])) + "^"
        where = f"line {error.lineno}, column {error.colno}"
        raise click.UsageError(
            f"the payload is no JSON: {error.msg} at {where}\n  {shown}\n  {caret}\n"
            "a text needs its quotes: '\"hello\"'"
        ) from None
    except (RecursionError, ValueError) as error:
        raise click.UsageError(f"the payload can not be read: {error}") from None


def error_text(error: dict[str, Any]) -> str:
    """A recorded error in one line."""
    name = error.get("name") or error.get("code")
    message = error.get("message") or error.get("raw") or ""
    return f"{name}: {message}" if name else str(message)
