"""Whether a month's Parquet file is still what was written from the table."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from finops_dagster.lake.month import relation, sha256_of, table_rows
from finops_dagster.tables import ledger
from finops_dagster.tables.casts import prepare_casts
from finops_dagster.tables.digest import DigestKind, column_type, digest
from finops_dagster.tables.ledger import Load


def is_as_written(connection: duckdb.DuckDBPyConnection, load: Load, path: Path) -> bool | None:
    """Whether the file is, byte by byte, the one that was written from this load; None where the
    ledger does not know its checksum."""
    recorded = ledger.lake_sha256(connection, load)
    return None if recorded is None else sha256_of(path) == recorded


def is_intact(connection: duckdb.DuckDBPyConnection, load: Load, path: Path) -> bool:
    """Whether the file is as it was written. One that was written before checksums were kept is
    compared with the table once, and then has a checksum too."""
    intact = is_as_written(connection, load, path)
    if intact is None:
        checksum = sha256_of(path)
        intact = _holds_what_the_table_holds(connection, load, path)
        if intact:
            ledger.record_lake_sha256(connection, load, checksum)
    return intact


def _holds_what_the_table_holds(
    connection: duckdb.DuckDBPyConnection, load: Load, path: Path
) -> bool:
    prepare_casts(connection)
    types = {field.name: column_type(field.type) for field in pq.read_schema(path)}
    try:
        in_file, in_table = (
            digest(connection, rows, types, DigestKind.HASH)
            for rows in (relation(path), table_rows(load))
        )
    except duckdb.Error:
        return False
    return not in_file.differing(in_table)
