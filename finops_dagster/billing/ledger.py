"""The data's own word on itself: which version each month of the DuckDB file holds.

It is written in the transaction that writes the data, so the two cannot drift apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import duckdb

from finops_dagster.billing.money import Totals
from finops_dagster.billing.months import BillingMonth

_TABLES = """
CREATE SCHEMA IF NOT EXISTS finops_state;
CREATE TABLE IF NOT EXISTS finops_state.manifests (
    export VARCHAR NOT NULL,
    billing_month DATE NOT NULL,
    manifest_id VARCHAR NOT NULL,
    table_name VARCHAR NOT NULL,
    row_count BIGINT NOT NULL,
    total_cost DECIMAL(38,18) NOT NULL,
    file_count BIGINT NOT NULL,
    byte_count BIGINT NOT NULL,
    loaded_at TIMESTAMP NOT NULL,
    run_id VARCHAR NOT NULL,
    state VARCHAR NOT NULL CHECK (state IN ('loaded', 'superseded')),
    format VARCHAR
);
ALTER TABLE finops_state.manifests ADD COLUMN IF NOT EXISTS format VARCHAR DEFAULT 'cur1';
CREATE TABLE IF NOT EXISTS finops_state.columns (
    table_name VARCHAR NOT NULL,
    header VARCHAR NOT NULL,
    column_name VARCHAR NOT NULL,
    PRIMARY KEY (table_name, header)
);
"""


@dataclass(frozen=True)
class Load:
    """One version of one month in the export's table; `bytes` are those of the vendor's files,
    `format` the one that they are in."""

    export: str
    month: BillingMonth
    manifest_id: str
    table: str
    totals: Totals
    files: int
    bytes: int
    run_id: str
    format: str


def create(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the ledger's tables where they are missing."""
    connection.execute(_TABLES)


def loaded(connection: duckdb.DuckDBPyConnection, export: str, month: BillingMonth) -> Load | None:
    """The version of the month that the table holds, if it holds one."""
    return _newest(connection, export, month, "loaded")


def superseded(
    connection: duckdb.DuckDBPyConnection, export: str, month: BillingMonth
) -> Load | None:
    """The version of the month that was replaced last."""
    return _newest(connection, export, month, "superseded")


def _newest(
    connection: duckdb.DuckDBPyConnection, export: str, month: BillingMonth, state: str
) -> Load | None:
    row = connection.execute(
        "SELECT manifest_id, table_name, row_count, total_cost, file_count, byte_count, run_id, "
        "format FROM finops_state.manifests "
        "WHERE export = ? AND billing_month = ? AND state = ? ORDER BY loaded_at DESC LIMIT 1",
        [export, month.first_day, state],
    ).fetchone()
    if row is None:
        return None
    manifest_id, table, rows, cost, files, size, run_id, vendor_format = row
    totals = Totals(rows, cost)
    return Load(export, month, manifest_id, table, totals, files, size, run_id, vendor_format)


def record(connection: duckdb.DuckDBPyConnection, load: Load) -> None:
    """Say that the table now holds this version, and that the one before is superseded."""
    connection.execute(
        "UPDATE finops_state.manifests SET state = 'superseded' "
        "WHERE export = ? AND billing_month = ? AND state = 'loaded'",
        [load.export, load.month.first_day],
    )
    connection.execute(
        "INSERT INTO finops_state.manifests VALUES "
        "(?, ?, ?, ?, ?, ?, ?, ?, now() AT TIME ZONE 'UTC', ?, 'loaded', ?)",
        [
            load.export,
            load.month.first_day,
            load.manifest_id,
            load.table,
            load.totals.rows,
            load.totals.cost,
            load.files,
            load.bytes,
            load.run_id,
            load.format,
        ],
    )


def other_export_in(connection: duckdb.DuckDBPyConnection, table: str, export: str) -> str | None:
    """The name of another export that keeps months in the same table."""
    row = connection.execute(
        "SELECT export FROM finops_state.manifests "
        "WHERE lower(table_name) = lower(?) AND export <> ? AND state = 'loaded' LIMIT 1",
        [table, export],
    ).fetchone()
    return None if row is None else str(row[0])


def column_names(connection: duckdb.DuckDBPyConnection, table: str) -> dict[str, str]:
    """The column name that each header ever seen in this table was given."""
    rows = connection.execute(
        "SELECT header, column_name FROM finops_state.columns WHERE table_name = ?", [table]
    ).fetchall()
    return dict(rows)


def record_column_names(
    connection: duckdb.DuckDBPyConnection, table: str, names: dict[str, str]
) -> None:
    """Keep the names of headers seen for the first time."""
    if names:
        connection.executemany(
            "INSERT INTO finops_state.columns VALUES (?, ?, ?)",
            [[table, header, name] for header, name in names.items()],
        )
