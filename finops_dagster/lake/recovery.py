"""What the data proves of itself where the ledger does not speak for it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from finops_dagster.billing.columns import SqlType, quoted
from finops_dagster.billing.errors import FileInvalid, first_line
from finops_dagster.billing.money import reconcile
from finops_dagster.billing.months import BillingMonth
from finops_dagster.lake.footer import column_names, read_footer
from finops_dagster.lake.month import relation
from finops_dagster.sources.base import Format
from finops_dagster.tables import ledger
from finops_dagster.tables.casts import prepare_casts
from finops_dagster.tables.ledger import Load, Recorded
from finops_dagster.tables.load import (
    Target,
    columns,
    measure,
    transaction,
    type_kept,
    types_by_lower_name,
    write_month,
)
from finops_dagster.tables.parquet_files import parquet_files

_OWN_COLUMNS = ("billing_month", "manifest_id")


def holds(connection: duckdb.DuckDBPyConnection, load: Load, vendor: Format) -> bool:
    """Whether the table's rows of the month are all of this version, as many, and cost as much."""
    if "manifest_id" not in columns(connection, load.table):
        return False
    versions = connection.execute(
        f"SELECT DISTINCT manifest_id FROM {quoted(load.table)} WHERE billing_month = ?",
        [load.month.first_day],
    ).fetchall()
    measured = measure(connection, quoted(load.table), load.month, vendor, load.totals.sums)
    holds_all = not measured.foreign_rows and measured.totals.differing(load.totals) is None
    return holds_all and versions in ([], [(load.manifest_id,)])


def load_of(path: Path, export: str, month: BillingMonth, table: str) -> Recorded | None:
    """What the month's Parquet file says of the load that it was written from."""
    footer = read_footer(path)
    if footer is None:
        return None
    load = Load(
        export,
        month,
        footer.manifest_id,
        table,
        footer.totals,
        footer.files,
        footer.bytes,
        footer.run_id,
        footer.format,
        footer.content,
        footer.rounded,
    )
    written = datetime.fromtimestamp(path.stat().st_mtime, UTC).replace(tzinfo=None)
    return Recorded(load, written, "loaded")


def restore(
    connection: duckdb.DuckDBPyConnection, recorded: Recorded, vendor: Format, path: Path
) -> bool:
    """Write into the ledger what was once recorded of the month, with the names of its columns from
    its Parquet file, if the table proves it; whether it does."""
    if not holds(connection, recorded.load, vendor):
        return False
    ledger.restore(connection, [recorded])
    ledger.record_export(connection, recorded.load, vendor.vendor, column_names([path]))
    return True


@contextmanager
def restoring_month(
    connection: duckdb.DuckDBPyConnection, load: Load, vendor: Format, path: Path
) -> Iterator[tuple[Load, list[str]]]:
    """Replace the month by the rows of the lake's file of this load, in one transaction, of which
    the block is the last part. Raises FileInvalid, and ReconciliationError where the file does not
    hold what it says."""
    started = time.monotonic()
    prepare_casts(connection)
    existing = types_by_lower_name(connection, load.table)
    targets = []
    described = connection.execute(f"DESCRIBE FROM {relation(path)}").fetchall()
    for name, of_type in ((row[0], SqlType(row[1])) for row in described[len(_OWN_COLUMNS) :]):
        held = existing.get(name.lower())
        kept = type_kept(connection, load.table, load.month, name, held, of_type)
        targets.append(Target(name, name, kept, of_type))
    try:
        with transaction(connection):
            files = parquet_files([path])
            warnings = write_month(
                connection, load.table, load.month, load.manifest_id, files, targets
            )
            measured = measure(connection, quoted(load.table), load.month, vendor, load.totals.sums)
            reconcile(f"table {load.table}", load.totals, measured)
            ledger.record_export(connection, load, vendor.vendor, column_names([path]))
            ledger.record(connection, load, time.monotonic() - started)
            yield load, warnings
    except duckdb.Error as error:
        raise FileInvalid(
            f"{path} cannot be read: {first_line(error)}; finops state reprocess {load.export} "
            f"{load.month} fetches the vendor's files again"
        ) from error
