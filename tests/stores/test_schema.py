"""Migrations, and the dump of the schema that reviews read."""

from __future__ import annotations

import importlib.util
import re
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import psycopg
import pytest

from holdfast.errors import BadSetting, StoreTooNew, StoreUnavailable
from holdfast.model.run import Run
from holdfast.stores import open_store
from holdfast.stores.sql import ROOT, migrations


@pytest.fixture(scope="module")
def dumping() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "dump_schema", Path(__file__).parents[2] / "scripts" / "dump_schema.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=["sqlite", "postgres"])
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without a schema."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/new.db"
    url: str = request.getfixturevalue("postgres_url")
    return url


def test_the_dump_of_sqlite_is_current(dumping: ModuleType, tmp_path: Path) -> None:
    assert dumping.sqlite_schema(tmp_path) == (ROOT / "schema.sqlite.sql").read_text(), "run: make schema"


def test_the_dump_of_postgres_is_current(dumping: ModuleType, postgres_url: str) -> None:
    assert dumping.postgres_schema(postgres_url) == (ROOT / "schema.postgres.sql").read_text(), (
        "run: make schema"
    )


def test_the_columns_of_runs_stand_in_the_order_of_the_fields(new_url: str) -> None:
    store = open_store(new_url)
    [names] = store.transact(
        lambda tx, _: [list(tx._connection.dicts("run", {"id": "", "environment_id": ""}))], [None]
    )
    assert names == []
    store.close()
    columns = (ROOT / f"schema.{store.dialect}.sql").read_text()
    table = columns.lower().partition("table runs")[2]
    found = [re.search(rf"[\n,] +{field.name} ", table) for field in fields(Run)]
    places = [one.start() for one in found if one is not None]
    assert len(places) == len(found)
    assert places == sorted(places)


def test_migrating_again_does_nothing(new_url: str) -> None:
    store = open_store(new_url, migrate=False)
    names = [name for name, _ in migrations(store.dialect)]
    assert store.migrations() == ([], names)
    assert store.migrate() == names
    assert store.migrate() == []
    assert store.migrations() == (names, [])
    store.close()


def test_servers_that_start_together_migrate_once(new_url: str) -> None:
    def start() -> list[str]:
        store = open_store(new_url, migrate=False)
        try:
            return store.migrate()
        finally:
            store.close()

    with ThreadPoolExecutor(4) as pool:
        applied = [future.result() for future in [pool.submit(start) for _ in range(4)]]
    # Each migration is applied by one of them; which one may change in between.
    assert sorted(name for names in applied for name in names) == [name for name, _ in migrations("sqlite")]


def test_a_database_of_a_newer_release_is_refused(new_url: str) -> None:
    store = open_store(new_url)
    insert = "insert into migrations (name, applied_at) values ('9999_future', 0)"
    if store.dialect == "sqlite":
        with sqlite3.connect(new_url.removeprefix("sqlite:///")) as file:
            file.execute(insert)
        file.close()
    else:
        with psycopg.connect(new_url, autocommit=True) as connection:
            connection.execute(insert)
    with pytest.raises(StoreTooNew, match="9999_future"):
        store.migrate()
    store.close()


@pytest.mark.parametrize(
    "url", ["mysql://host/x", "sqlite://", "sqlite:///", "postgresql://host/x?nonsense=1", "holdfast.db"]
)
def test_a_url_that_can_not_be_read_is_a_bad_setting(url: str) -> None:
    with pytest.raises(BadSetting):
        open_store(url)


def test_a_password_is_never_repeated(new_url: str) -> None:
    with pytest.raises(BadSetting) as raised:
        open_store("postgresql://user:hunter2@host/x?nonsense=1")
    assert "hunter2" not in str(raised.value)


def test_a_database_that_can_not_be_reached_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable):
        open_store(f"postgresql://nobody@/none?host={tmp_path}")
    with pytest.raises(StoreUnavailable):
        open_store(f"sqlite:///{tmp_path}")
