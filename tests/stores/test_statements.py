"""Both dialects say the same things under the same names."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from holdfast.stores.base import NEW
from holdfast.stores.link import array, converted
from holdfast.stores.sql import statements

SOURCE = Path(__file__).parents[2] / "src" / "holdfast"
TX_METHODS = {"all", "one", "ids", "runs", "do", "rows", "dicts", "many"}


def used() -> set[str]:
    """The names of statements that the code asks for."""
    found = set()
    for file in [*(SOURCE / "engine").glob("*.py"), *(SOURCE / "stores").glob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Call(func=ast.Attribute(attr=method), args=[ast.Constant(value=str(name)), *_]):
                    if method in TX_METHODS:
                        found.add(name)
    return found


def test_both_dialects_define_the_same_statements_with_the_same_parameters() -> None:
    sqlite, postgres = (
        {name: statement.parameters for name, statement in statements(dialect).items()}
        for dialect in ("sqlite", "postgres")
    )
    assert sqlite == postgres


@pytest.mark.parametrize("dialect", ["sqlite", "postgres"])
def test_every_statement_begins_with_what_it_does(dialect: str) -> None:
    for statement in statements(dialect).values():
        assert statement.comment.partition(".")[0], statement.name


def test_every_statement_that_is_used_exists() -> None:
    assert used() - set(statements("sqlite")) == set()


def test_the_parameters_of_new_runs_are_the_columns_that_are_sent() -> None:
    assert statements("postgres")["add_runs"].parameters == set(NEW)


def test_parameters_are_written_as_the_driver_wants_them() -> None:
    assert converted("select :a::text, '5%', b ->> 0 from t where c = :a_b") == (
        "select %(a)s::text, '5%%', b ->> 0 from t where c = %(a_b)s"
    )


def test_arrays_are_written_as_the_database_reads_them() -> None:
    assert array(["a", None, 'b"c\\', "", "NULL", 5, True]) == '{"a",NULL,"b\\"c\\\\","","NULL",5,1}'
