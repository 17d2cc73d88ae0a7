"""`holdfast start`, `server` and `worker`: production, in one process or in several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from holdfast.cli.folder import client_settings
from holdfast.cli.output import emit_json, say
from holdfast.config import Settings, configured_tasks
from holdfast.errors import BadSetting, NotFound

host_option = click.option("--host", help="The address to listen on.  [env: HOLDFAST_HOST]")
port_option = click.option("--port", help="The port to listen on.  [env: HOLDFAST_PORT]")
database_option = click.option(
    "--database", metavar="URL", help="The database.  [env: HOLDFAST_DATABASE_URL]"
)
concurrency_option = click.option("--concurrency", help="Runs at the same time.  [env: HOLDFAST_CONCURRENCY]")
executors_option = click.option("--executors", help="Processes that run tasks.  [env: HOLDFAST_EXECUTORS]")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document when ready.")


class NoKey(BadSetting):
    """A server or worker has no secret key."""

    hint = "a key is tr_prod_ (or tr_stg_, tr_dev_) and a secret: export HOLDFAST_SECRET_KEY=tr_prod_$(openssl rand -hex 24)"


class NoKeys(NoKey):
    """A server has no secret key, neither in the setting nor in its database."""

    hint = "make one: `holdfast keys create --environment prod --root`"


@click.command()
@click.argument("tasks", nargs=-1)
@host_option
@port_option
@database_option
@concurrency_option
@executors_option
@json_option
def start(
    tasks: tuple[str, ...],
    host: str | None,
    port: str | None,
    database: str | None,
    concurrency: str | None,
    executors: str | None,
    as_json: bool,
) -> None:
    """Server and worker in one process, for production. Needs HOLDFAST_SECRET_KEY."""
    from holdfast.cli.serving import run_loop, serve

    settings = Settings.load(
        host=host, port=port, database_url=database, concurrency=concurrency, executors=executors
    )
    keys = needed_keys(settings)
    run_loop(
        serve(
            settings, keys, tasks=named(tasks), on_ready=lambda now: tell("server and worker", now, as_json)
        )
    )


@click.command()
@host_option
@port_option
@database_option
@json_option
def server(host: str | None, port: str | None, database: str | None, as_json: bool) -> None:
    """The API and the upkeep, without a worker. Needs HOLDFAST_SECRET_KEY, or keys in the database."""
    from holdfast.cli.serving import run_loop, serve

    settings = Settings.load(host=host, port=port, database_url=database)
    if not settings.keys:
        require_kept_keys(settings.database_url)
    run_loop(serve(settings, settings.keys, tasks=None, on_ready=lambda now: tell("server", now, as_json)))


@click.command()
@click.argument("tasks", nargs=-1)
@click.option("--server", "url", metavar="URL", help="The server.  [env: HOLDFAST_API_URL]")
@concurrency_option
@executors_option
@json_option
def worker(
    tasks: tuple[str, ...], url: str | None, concurrency: str | None, executors: str | None, as_json: bool
) -> None:
    """A worker: claims runs from a server and runs them here. Needs HOLDFAST_SECRET_KEY."""
    from holdfast.cli.serving import run_loop

    there = client_settings(Path.cwd(), url)
    settings = Settings.load(
        api_url=there.api_url,
        secret_key=there.secret_key or None,
        concurrency=concurrency,
        executors=executors,
    )
    run_loop(_work(settings, next(iter(needed_keys(settings))), named(tasks), as_json))


async def _work(settings: Settings, key: str, tasks: list[str], as_json: bool) -> None:
    import asyncio

    from holdfast.cli.serving import Ready, Signals, joined, make_supervisor, work
    from holdfast.worker.api import HttpApi

    api = HttpApi(settings.api_url, key, settings.branch)
    try:
        with Signals().taken() as signals:
            supervisor = make_supervisor(settings, api, tasks, settings.api_url, key)
            async with asyncio.TaskGroup() as group:
                working = group.create_task(work(supervisor, signals))
                await joined(supervisor, working)
                if supervisor.joined.is_set():
                    tell("worker of", Ready(settings.api_url, settings.api_url, supervisor), as_json)
    finally:
        await api.close()


def tell(what: str, now: Any, as_json: bool) -> None:
    if as_json:
        emit_json({"url": now.url})
    else:
        say(f"ready: {what} {now.url}")


def named(tasks: tuple[str, ...]) -> list[str]:
    """The tasks of the command line, else those of pyproject.toml; raises NoTasks."""
    from holdfast.cli.serving import NoTasks

    names = list(tasks) or configured_tasks(Path.cwd())
    if not names:
        raise NoTasks("no tasks are named")
    return names


def needed_keys(settings: Settings) -> dict[str, str]:
    if not settings.keys:
        raise NoKey("HOLDFAST_SECRET_KEY is not set")
    return settings.keys


def require_kept_keys(database_url: str) -> None:
    """Raises NoKeys unless the database holds a key that is in force."""
    from holdfast.cli.database import open_database
    from holdfast.engine.keys import all_keys

    try:
        with open_database(database_url) as there:
            if there.read(lambda tx: any(key.is_valid(tx.now) for key, _ in all_keys(tx))):
                return
    except NotFound:
        pass
    raise NoKeys("HOLDFAST_SECRET_KEY is not set, and the database holds no keys")
