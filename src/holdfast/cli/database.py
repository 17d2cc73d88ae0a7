"""The database as commands see it that need no server: the first key can not come from the API."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from holdfast.cli.folder import Folder
from holdfast.config import Settings
from holdfast.errors import HoldfastError, NotFound

if TYPE_CHECKING:
    from holdfast.server.vault import Vault
    from holdfast.stores import Store

T = TypeVar("T")
database_option = click.option(
    "--database", metavar="URL", help="The database.  [env: HOLDFAST_DATABASE_URL]"
)
project_option = click.option("--project", metavar="REF", help="The project; needed where there are several.")


class Database:
    """An open store, and the vault that belongs to it."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store = store
        self._settings = settings

    def do(self, use_case: Callable[..., Any], item: Any) -> Any:
        """A use case for one item; an error in its place is raised."""
        [answer] = self.store.transact(use_case, [item])
        if isinstance(answer, HoldfastError):
            raise answer
        return answer

    def read(self, query: Callable[..., T]) -> T:
        return self.store.transact(lambda tx, _: [query(tx)], [None])[0]

    def vault(self) -> Vault:
        """The master key of the setting; for the database of `holdfast dev` the one that is kept beside it."""
        from holdfast.server.vault import Vault

        keys = self._settings.master_keys
        folder = Folder(Path.cwd())
        if not keys and _path(self._settings.database_url) == _path(folder.database_url()):
            kept = folder.master_key()
            keys = () if kept is None else (kept,)
        return Vault(keys)


@contextmanager
def open_database(url: str | None, *, create: bool = False) -> Iterator[Database]:
    """The database of the settings, its schema up to date.

    create  whether a SQLite file is made where there is none; else NotFound is raised
    """
    from holdfast.stores import open_store

    settings = Settings.load(database_url=url)
    path = _path(settings.database_url)
    if path is not None and not create and not path.exists():
        raise NotFound(
            f"there is no database at {path}: name it by --database or HOLDFAST_DATABASE_URL, "
            "or make it by `holdfast db upgrade`"
        )
    store = open_store(settings.database_url)
    try:
        yield Database(store, settings)
    finally:
        store.close()


def _path(url: str) -> Path | None:
    """The file of a SQLite database."""
    if not url.startswith("sqlite:"):
        return None
    from holdfast.stores.sqlite import database_path

    return Path(database_path(url)).resolve()
