"""What the data proves of itself where the ledger does not speak for it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import duckdb

from finops_dagster.billing.columns import quoted
from finops_dagster.billing.months import BillingMonth
from finops_dagster.lake.footer import column_names, read_footer
from finops_dagster.sources.base import Format
from finops_dagster.tables import ledger
from finops_dagster.tables.ledger import Load, Recorded
from finops_dagster.tables.load import columns, measure


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
