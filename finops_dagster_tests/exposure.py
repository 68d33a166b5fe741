"""Planted secrets that leak into files or output, and addresses that a process listens at."""

import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from uuid import uuid4

import duckdb
import psutil

# A unique text for every variable that can hold a secret.
SECRETS = {
    name: f"secret{uuid4().hex}"
    for name in (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AZURE_CLIENT_SECRET",
        "AZURE_STORAGE_CONNECTION_STRING",
        "AZURE_STORAGE_KEY",
        "AZURE_STORAGE_SAS_TOKEN",
        "POSTGRESQL_PASSWORD",
        "SNOWFLAKE_PASSWORD",
        "SNOWFLAKE_PRIVATE_KEY_PASSPHRASE",
        "DESTINATION__SQLALCHEMY__CREDENTIALS__PASSWORD",
    )
}


def leaks(folders: Iterable[Path], *outputs: str) -> list[str]:
    """Return which secrets are in which files below the folders, or in the outputs."""
    contents = [
        (str(path), content) for path in paths_below(folders) for content in _contents(path)
    ]
    contents += [("an output", text.encode()) for text in outputs]
    return [
        f"{name} in {location}"
        for location, content in contents
        for name, secret in SECRETS.items()
        if secret.encode() in content
    ]


def paths_below(folders: Iterable[Path]) -> Iterator[Path]:
    for folder in folders:
        yield from (folder, *folder.rglob("*"))


def _contents(path: Path) -> Iterator[bytes]:
    """Yield the file's bytes, and the texts that a database keeps compressed in them."""
    if path.is_file():
        yield path.read_bytes()
    if path.name == "runs.db":
        with closing(sqlite3.connect(path)) as history:
            for (snapshot,) in history.execute("SELECT snapshot_body FROM snapshots"):
                yield zlib.decompress(snapshot)
    if path.suffix == ".duckdb":
        with duckdb.connect(str(path), read_only=True) as connection:
            tables = "SELECT format('{}.{}', schema_name, table_name) FROM duckdb_tables()"
            for (table,) in connection.execute(tables).fetchall():
                yield str(connection.execute(f"FROM {table}").fetchall()).encode()


def listening_addresses(pid: int) -> set[str]:
    """Return the addresses at which a process and its children listen."""
    root = psutil.Process(pid)
    sockets = root.net_connections("inet")
    for child in root.children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # a run of the daemon may end meanwhile
            sockets += child.net_connections("inet")
    return {socket.laddr.ip for socket in sockets if socket.status == psutil.CONN_LISTEN}
