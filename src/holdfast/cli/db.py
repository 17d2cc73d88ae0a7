"""`holdfast db`: the schema of the database."""

from __future__ import annotations

from pathlib import Path

import click

from holdfast.cli import Family
from holdfast.cli.api import json_option
from holdfast.cli.output import emit, emit_json, say
from holdfast.config import Settings

database_option = click.option(
    "--database", metavar="URL", help="The database.  [env: HOLDFAST_DATABASE_URL]"
)


@click.group(cls=Family)
def db() -> None:
    """Look at the schema of the database, and bring it up to date."""


@db.command()
@database_option
@json_option
def upgrade(database: str | None, as_json: bool) -> None:
    """Apply the migrations that are not applied yet; doing it twice changes nothing."""
    from holdfast.stores import open_store

    store = open_store(Settings.load(database_url=database).database_url)
    try:
        applied, pending = store.migrations()
    finally:
        store.close()
    if as_json:
        emit_json({"applied": applied, "pending": pending})
    else:
        say(f"the schema is up to date: {len(applied)} migrations are applied")


@db.command()
@database_option
@json_option
def status(database: str | None, as_json: bool) -> None:
    """The migrations, applied and pending; exit 1 when one is pending."""
    applied, pending = migrations(Settings.load(database_url=database).database_url)
    if as_json:
        emit_json({"applied": applied, "pending": pending})
    else:
        for name in applied:
            emit(f"applied  {name}")
        for name in pending:
            emit(f"pending  {name}")
    if pending:
        say("`holdfast db upgrade` applies what is pending")
        raise click.exceptions.Exit(1)


def migrations(url: str) -> tuple[list[str], list[str]]:
    """Applied and pending migrations. Only looks: a SQLite file that does not exist is not made."""
    from holdfast.stores import open_store
    from holdfast.stores.sql import migrations as known

    if url.startswith("sqlite:"):
        from holdfast.stores.sqlite import database_path

        if not Path(database_path(url)).exists():
            return [], [name for name, _ in known("sqlite")]
    store = open_store(url, migrate=False)
    try:
        return store.migrations()
    finally:
        store.close()
