"""Writes the database schema, as the migrations leave it, to files that a review can read.

One file for each database, beside the migrations. A test fails while they differ from what is written here.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import psycopg

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "src" / "holdfast" / "stores" / "sql"


def sqlite_schema(folder: Path) -> str:
    """The schema of a new SQLite database, made in `folder`."""
    from holdfast.stores.sqlite import SqliteStore

    store = SqliteStore(f"sqlite:///{folder}/schema.db", threads=False)
    try:
        store.migrate()
        rows = store.transact(
            lambda tx, _: [
                tx._connection.select(
                    "select type, name, sql from sqlite_master where sql is not null order by name, type", {}
                )
            ],
            [None],
        )[0]
    finally:
        store.close()
    return "\n".join(f"{sql};\n" for _, _, sql in rows)


def postgres_schema(url: str) -> str:
    """The schema at `url`, an empty schema of a PostgreSQL database."""
    from holdfast.stores.postgres import PostgresStore

    store = PostgresStore(url)
    try:
        store.migrate()
    finally:
        store.close()
    lines: list[str] = []
    with psycopg.connect(url, autocommit=True) as connection:
        [[schema]] = connection.execute("select current_schema()").fetchall()
        tables = connection.execute(
            "select oid, relname, array_to_string(reloptions, ', ') from pg_class"
            " where relkind = 'r' and relnamespace = current_schema()::regnamespace order by relname"
        ).fetchall()
        for oid, table, options in tables:
            lines.append(f"table {table}" + (f" with ({options})" if options else ""))
            columns = connection.execute(
                "select attname, format_type(atttypid, atttypmod),"
                " case when attcollation <> 0 and attcollation <> 'pg_catalog.\"default\"'::regcollation"
                " then ' collate ' || attcollation::regcollation else '' end,"
                " case when attnotnull then ' not null' else '' end,"
                " case when attidentity <> '' then ' identity' else '' end,"
                " coalesce(' default ' || pg_get_expr(adbin, adrelid), '')"
                " from pg_attribute left join pg_attrdef on adrelid = attrelid and adnum = attnum"
                " where attrelid = %s and attnum > 0 and not attisdropped order by attnum",
                (oid,),
            )
            lines += [f"    {name} {''.join(rest)}" for name, *rest in columns]
            constraints = connection.execute(
                "select conname, pg_get_constraintdef(oid) from pg_constraint"
                " where conrelid = %s and contype <> 'n' order by conname",
                (oid,),
            )
            lines += [f"  constraint {name} {text}" for name, text in constraints]
            indexes = connection.execute(
                "select pg_get_indexdef(indexrelid) from pg_index where indrelid = %s order by 1", (oid,)
            )
            lines += [f"  {text}" for (text,) in indexes]
            lines.append("")
    return "\n".join(lines).replace(f"{schema}.", "")


def main() -> None:
    sys.path.insert(0, str(ROOT / "tests"))
    import databases

    with tempfile.TemporaryDirectory() as folder:
        (FOLDER / "schema.sqlite.sql").write_text(sqlite_schema(Path(folder)))
    with databases.server() as server, databases.empty_schema(server) as url:
        (FOLDER / "schema.postgres.sql").write_text(postgres_schema(url))


if __name__ == "__main__":
    main()
