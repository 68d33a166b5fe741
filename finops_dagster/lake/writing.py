"""Writes a month's file, and reconciles it before it replaces the old one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from finops_dagster.billing.columns import Sql, literal, quoted
from finops_dagster.billing.disk import memory_or_disk_problem
from finops_dagster.billing.errors import BillError, first_line, reprocess_advice
from finops_dagster.billing.money import reconcile
from finops_dagster.billing.restatement import footer_of_restatements
from finops_dagster.billing.version import Load
from finops_dagster.lake.footer import LOADED_AT, footer_texts_of_loaded_at, footer_texts_of_version
from finops_dagster.lake.lake import REPLACES, LakeFile, NewFile
from finops_dagster.lake.records import restore_newer_restatements
from finops_dagster.lake.relations import month_relation, parquet_relation
from finops_dagster.sources.base import Format
from finops_dagster.tables import ledger
from finops_dagster.tables.billing_table import measure_month
from finops_dagster.tables.restatements import restatements

# In DuckDB's default groups of 122,880, wide rows spill to disk under a small memory_limit and take
# four times as long; groups of 40,960 do not, and make the file 8 % larger.
_ROW_GROUP_ROWS = 40_960
# DuckDB prepares room for a dictionary of this many values for each column and row group. Its
# default, a fifth of the rows, takes a tenth more time. No file grows: dictionaries are smaller.
_DICTIONARY_VALUES = 2_000
# Level 1 of zstd takes a fourteenth less time than the default, for files 3 % larger. Queries read
# whole months, for which bloom filters are of no use.
_COMPRESSION = "COMPRESSION zstd, COMPRESSION_LEVEL 1, WRITE_BLOOM_FILTER false"


@contextmanager
def writing_month_to_lake(
    connection: duckdb.DuckDBPyConnection, load: Load, file: LakeFile, bill_format: Format
) -> Iterator[int]:
    """Write the month's rows to a new file, and reconcile it before it replaces the old one.

    `load` is the ledger's load of the month, with the totals that were measured in the table. First
    the ledger gets restatements that only the old file has. The block gets the new file's size in
    bytes. After the block, the ledger gets the new file's checksum, and the new file replaces the
    old one. On any error, also in the block, the old file stays; if only the replacing fails, the
    ledger has the new checksum. Raises ReconciliationError if the totals differ, duckdb.Error, and
    as `LakeFile.replacing`.
    """
    restore_newer_restatements(connection, load, file)
    footer = _footer(connection, load)
    with replacing_lake_file(connection, Sql(f"FROM {month_relation(load)}"), file, footer) as new:
        measured = measure_month(
            connection, parquet_relation(new.path), load.month, bill_format, load.totals.sums
        )
        advice = reprocess_advice(load.export, load.month)
        reconcile(file.location, load.totals, measured, advice)
        yield new.path.stat().st_size
        # Before the rename: a file whose checksum is not in the ledger would count as damaged.
        ledger.update_load(connection, load, lake_sha256=new.sha256)


@contextmanager
def replacing_lake_file(
    connection: duckdb.DuckDBPyConnection, query: Sql, file: LakeFile, footer: Mapping[str, str]
) -> Iterator[NewFile]:
    """Write the rows of a query to a new Parquet file, which replaces a month's file in the lake.

    `footer` are the texts of its footer, which also gets the name of the replaced file, and the
    present time as LOADED_AT, unless `footer` has one. The block gets the written file, which
    replaces the old one after the block. On any error, also in the block, the old file stays.
    Raises duckdb.Error if the query fails, and as `LakeFile.replacing`.
    """
    with file.replacing() as new:
        now = datetime.now(UTC).replace(tzinfo=None).isoformat()
        texts = {LOADED_AT: now, **footer, REPLACES: file.keep_version()}
        metadata = ", ".join(f"{quoted(name)}: {literal(text)}" for name, text in texts.items())
        _copy(connection, query, new.path, Sql(f", KV_METADATA {{{metadata}}}"))
        yield new


def write_parquet(
    connection: duckdb.DuckDBPyConnection, query: Sql, path: Path, original: str
) -> None:
    """Write the rows of a query to a Parquet file at `path`, without texts in its footer.

    A file at `path` is replaced. `original` is the address of the month's file that the query
    reads, for the message. Raises BillError if the query fails, and duckdb.Error if memory or disk
    is the cause.
    """
    try:
        _copy(connection, query, path)
    except duckdb.Error as error:
        if memory_or_disk_problem(error):
            raise
        raise BillError(
            f"{original} cannot be read: {first_line(error)}; "
            "run finops state verify --deep --repair"
        ) from error


def _footer(connection: duckdb.DuckDBPyConnection, load: Load) -> dict[str, str]:
    """Return the footer texts of a load, with the restatements that the ledger has of its month."""
    return {
        "export": load.export,
        "columns": json.dumps(ledger.names_by_header(connection, load.table)),
        **footer_texts_of_loaded_at(load),
        **footer_texts_of_version(load),
        **footer_of_restatements(restatements(connection, load.export, load.month)),
    }


def _copy(
    connection: duckdb.DuckDBPyConnection, query: Sql, path: Path, options: Sql | None = None
) -> None:
    # DuckDB writes a column without NULLs in its statistics as REQUIRED. The files of two months
    # would differ in their schema, and BigQuery refuses such a file for a NULLABLE column.
    connection.execute("SET disabled_optimizers = 'statistics_propagation'")
    try:
        connection.execute(
            f"COPY ({query}) TO {literal(str(path))} (FORMAT parquet, {_COMPRESSION}, "
            f"ROW_GROUP_SIZE {_ROW_GROUP_ROWS}, "
            f"DICTIONARY_SIZE_LIMIT {_DICTIONARY_VALUES}{options or Sql('')})"
        )
    finally:
        connection.execute("RESET disabled_optimizers")
