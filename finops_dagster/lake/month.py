"""One month as one Parquet file, which carries its own totals and version in its footer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from finops_dagster.billing.columns import Sql, SqlType, file_literal, literal, quoted
from finops_dagster.billing.errors import BillError, first_line
from finops_dagster.billing.money import reconcile, record_of_amounts
from finops_dagster.sources.base import Format
from finops_dagster.tables import ledger
from finops_dagster.tables.ledger import Load
from finops_dagster.tables.load import measure
from finops_dagster.tables.parquet_files import parquet_files

# Wide rows in DuckDB's default groups of 122,880 spill under a small memory_limit, at four times
# the time; groups of 40,960 do not, for a file that is 8 % larger.
_ROW_GROUP_ROWS = 40_960


def relation(path: Path) -> Sql:
    """The file as a table expression, its `billing_month` its own and not the folder's."""
    return Sql(f"read_parquet({file_literal(path)}, hive_partitioning = false)")


def table_rows(load: Load) -> Sql:
    """The month's rows in the billing table, as what follows FROM."""
    first_day = Sql(f"DATE {literal(str(load.month.first_day))}")
    return Sql(f"{quoted(load.table)} WHERE billing_month = {first_day}")


def sha256_of(path: Path) -> str:
    """The checksum of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def exporting_month(
    connection: duckdb.DuckDBPyConnection, load: Load, path: Path, vendor: Format
) -> Iterator[int]:
    """Write the month's rows beside `path`, reconcile them with the ledger, and put them in place.

    The block runs before the file is put in place, and is given its size in bytes. On any error,
    also of the block, the old file stays. A reader sees the whole old file or the whole new one.
    Raises ReconciliationError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        _write(
            connection,
            Sql(f"FROM {table_rows(load)}"),
            part,
            Sql(
                ", KV_METADATA {"
                f"manifest_id: {literal(load.manifest_id)}, export: {literal(load.export)}, "
                f"format: {literal(load.format)}, files: {literal(str(load.files))}, "
                f"bytes: {literal(str(load.bytes))}, run_id: {literal(load.run_id)}, "
                f"source_files: {literal(json.dumps(load.content and load.content.rows()))}, "
                f"decimals_rounded: {literal(json.dumps(load.rounded_rows()))}, "
                f"total_cost: {literal(str(load.totals.cost))}, "
                f"money_sums: {literal(json.dumps(record_of_amounts(load.totals.sums)))}, "
                f"cost_by_currency: {literal(json.dumps(record_of_amounts(load.totals.costs)))}, "
                f"columns: {literal(json.dumps(ledger.column_names(connection, load.table)))}"
                "}"
            ),
        )
        totals = load.totals
        measured = measure(connection, relation(part), load.month, vendor, totals.sums)
        reconcile(str(path), totals, measured)
        yield part.stat().st_size
        # Before the rename: a file in place without its own checksum would pass for a damaged one.
        ledger.record_lake_sha256(connection, load, sha256_of(part))
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_with_text(
    connection: duckdb.DuckDBPyConnection, source: Path, columns: Collection[str], path: Path
) -> None:
    """Write a month's file once more to `path`, its `columns` as the text that DuckDB's table would
    hold; for a warehouse in which they are text. Raises BillError."""
    (file,) = parquet_files([source])
    selected = ", ".join(
        f"{file.cell(name, SqlType.TEXT)} AS {quoted(name)}"
        if name in columns
        else f"c{int(position)} AS {quoted(name)}"
        for position, name in enumerate(file.headers)
    )
    try:
        _write(connection, Sql(f"SELECT {selected} FROM {file.scan()}"), path)
    except duckdb.Error as error:
        raise BillError(f"{source} cannot be read: {first_line(error)}") from error


def _write(
    connection: duckdb.DuckDBPyConnection, rows: Sql, path: Path, options: Sql | None = None
) -> None:
    # Where its statistics show no NULL, DuckDB writes a column as REQUIRED, and months would
    # differ in their schema: BigQuery refuses such a file for a table with NULLABLE columns.
    connection.execute("SET disabled_optimizers = 'statistics_propagation'")
    try:
        connection.execute(
            f"COPY ({rows}) TO {literal(str(path))} (FORMAT parquet, COMPRESSION zstd, "
            f"ROW_GROUP_SIZE {_ROW_GROUP_ROWS}{options or Sql('')})"
        )
    finally:
        connection.execute("RESET disabled_optimizers")
