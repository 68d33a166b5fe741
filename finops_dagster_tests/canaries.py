"""A text that is nowhere else, in every place where a secret can be set; and where it came to."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import duckdb

CANARIES = {
    name: f"canary{uuid4().hex}"
    for name in (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "POSTGRESQL_PASSWORD",
        "SNOWFLAKE_PASSWORD",
        "SNOWFLAKE_PRIVATE_KEY_PASSPHRASE",
        "DESTINATION__SQLALCHEMY__CREDENTIALS__PASSWORD",
    )
}


def leaks(folders: Iterable[Path], *said: str) -> list[str]:
    """Which of the secrets is in which file below the folders, or in what was said."""
    contents = [(str(path), content) for path in below(folders) for content in _contents(path)]
    contents += [("what was said", text.encode()) for text in said]
    return [
        f"{name} in {where}"
        for where, content in contents
        for name, canary in CANARIES.items()
        if canary.encode() in content
    ]


def below(folders: Iterable[Path]) -> Iterator[Path]:
    """The folders, and all that is in them."""
    for folder in folders:
        yield from (folder, *folder.rglob("*"))


def _contents(path: Path) -> Iterator[bytes]:
    """The file's bytes, and what a database has compressed in them."""
    if path.is_file():
        yield path.read_bytes()
    if path.name == "runs.db":
        with closing(sqlite3.connect(path)) as history:
            for (snapshot,) in history.execute("SELECT snapshot_body FROM snapshots"):
                yield zlib.decompress(snapshot)
    if path.suffix == ".duckdb":
        with duckdb.connect(str(path), read_only=True) as connection:
            for (table,) in connection.execute(
                "SELECT format('{}.{}', schema_name, table_name) FROM duckdb_tables()"
            ).fetchall():
                yield str(connection.execute(f"FROM {table}").fetchall()).encode()
