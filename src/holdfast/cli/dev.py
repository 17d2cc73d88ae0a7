"""`holdfast dev`: everything in one process, for a developer's machine."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import click

from holdfast.cli.folder import Folder
from holdfast.cli.output import emit_json, say
from holdfast.config import Settings, configured_tasks


@click.command()
@click.argument("tasks", nargs=-1)
@click.option("--host", help="The address to listen on.  [env: HOLDFAST_HOST]")
@click.option("--port", help="The port to listen on; 0 for any free one.  [env: HOLDFAST_PORT]")
@click.option("--database", metavar="URL", help="The database.  [env: HOLDFAST_DATABASE_URL]")
@click.option("--no-reload", is_flag=True, help="Do not load the code anew when a file is saved.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document when ready.")
def dev(
    tasks: tuple[str, ...],
    host: str | None,
    port: str | None,
    database: str | None,
    no_reload: bool,
    as_json: bool,
) -> None:
    """Server and worker with reload on save; runs are kept in .holdfast/.

    TASKS are files, folders or modules; without them, those of [tool.holdfast] in pyproject.toml.
    """
    from holdfast.cli.serving import NoTasks, Ready, listed, run_loop, serve

    here = Path.cwd()
    folder = Folder(here)
    if database is None and not os.environ.get("HOLDFAST_DATABASE_URL"):
        database = folder.database_url()
    settings = Settings.load(host=host, port=port, database_url=database)
    names = list(tasks) or configured_tasks(here)
    if not names:
        raise NoTasks("no tasks are named")
    with folder.held() as dev_file:
        kept = not settings.keys
        keys = settings.keys or {folder.key_made_once(): "dev"}
        if not settings.master_keys:
            settings = replace(settings, master_key=folder.master_key_made_once())

        def ready(now: Ready) -> None:
            dev_file.tell(now.local_url)
            if as_json:
                emit_json({"url": now.url, "keyFile": str(folder.key_file) if kept else None})
                sys.stdout.flush()
                return
            say(f"Holdfast serves {now.url}")
            say(f"  runs    {settings.database_url.partition('@')[2] or settings.database_url}")
            found = now.supervisor.task_ids if now.supervisor is not None else []
            say(f"  tasks   {listed(found)}")
            say(f"          of {listed(names)}" + ("" if no_reload else ", loaded anew when saved"))
            if now.supervisor is not None and now.supervisor.schedules:
                say(f"  cron    {next_of(now.supervisor.schedules, round(time.time() * 1_000))}")
            if kept:
                say(
                    "  key     in .holdfast/secret_key; `holdfast` commands in this folder find it, others need"
                )
                say(
                    f"          export HOLDFAST_API_URL={now.url} HOLDFAST_SECRET_KEY=$(cat .holdfast/secret_key)"
                )
            else:
                say("  key     that of HOLDFAST_SECRET_KEY")
            say("  next    holdfast trigger TASK '\"payload\"' --wait        (Ctrl-C stops)")

        run_loop(serve(settings, keys, tasks=names, watch=not no_reload, echo=True, on_ready=ready))


def next_of(schedules: Mapping[str, Any], now_ms: int) -> str:
    """Which task runs by itself next, and when: `schedules` are as workers tell them, by task."""
    from holdfast.model.schedule import ScheduleSpec, next_tick

    specs = {task: ScheduleSpec(told["expression"], told["timezone"]) for task, told in schedules.items()}
    at, task = min((next_tick(spec, now_ms), task) for task, spec in specs.items())
    zone = specs[task].timezone
    shown = f"{datetime.fromtimestamp(at / 1_000, ZoneInfo(zone)):%Y-%m-%d %H:%M} {zone}"
    return f"{task} at {shown}" + (f", the next of {len(specs)} schedules" if len(specs) > 1 else "")
