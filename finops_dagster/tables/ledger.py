"""The data's own record: which version each month of the DuckDB file holds.

It is written in the transaction that writes the data, so the two cannot drift apart.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import duckdb

from finops_dagster.billing.columns import Sql, quoted
from finops_dagster.billing.content import Content
from finops_dagster.billing.errors import LedgerDamaged
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.version import Load

# Every version ever loaded; every export with the column that each header was given; every load
# that was committed.
_LAYOUT = {
    "manifests": {
        "export": "VARCHAR",
        "billing_month": "DATE",
        "manifest_id": "VARCHAR",
        "table_name": "VARCHAR",
        "row_count": "BIGINT",
        "total_cost": "DECIMAL(38,18)",
        "file_count": "BIGINT",
        "byte_count": "BIGINT",
        "loaded_at": "TIMESTAMP",
        "run_id": "VARCHAR",
        "state": "VARCHAR",
        "format": "VARCHAR",
        "files": 'STRUCT("name" VARCHAR, size BIGINT, sha256 VARCHAR, etag VARCHAR)[]',
        "load_number": "BIGINT",
        "decimals_rounded": 'STRUCT("name" VARCHAR, cells BIGINT, amount VARCHAR)[]',
        "lake_sha256": "VARCHAR",
        "money_sums": "MAP(VARCHAR, DECIMAL(38,18))",
        "cost_by_currency": "MAP(VARCHAR, DECIMAL(38,18))",
    },
    "exports": {
        "export": "VARCHAR",
        "vendor": "VARCHAR",
        "format": "VARCHAR",
        "table_name": "VARCHAR",
        "columns": "MAP(VARCHAR, VARCHAR)",
    },
    "runs": {
        "run_id": "VARCHAR",
        "export": "VARCHAR",
        "billing_month": "DATE",
        "manifest_id": "VARCHAR",
        "committed_at": "TIMESTAMP",
        "seconds": "DOUBLE",
        "row_count": "BIGINT",
        "byte_count": "BIGINT",
    },
}
# What came after the first layout, of which older rows have NULL, or the word that was meant.
_LATER = {"format": "'cur1'"} | dict.fromkeys(
    "files load_number decimals_rounded lake_sha256 money_sums cost_by_currency".split(), "NULL"
)
_OF_MONTH = "export = $export AND billing_month = $billing_month"
_OF_VERSION = f"{_OF_MONTH} AND manifest_id = $manifest_id"


def create_tables(connection: duckdb.DuckDBPyConnection) -> None:
    """Create the ledger's tables where they are missing, and bring forward those of an older
    layout. Raises LedgerDamaged for what is neither."""
    existing = _layout(connection)
    if existing == _LAYOUT:
        return
    for table, columns in _LAYOUT.items():
        problem = _damage(table, existing.get(table, columns))
        if problem is not None:
            raise LedgerDamaged(
                f"finops_state.{table} is damaged: {problem}; run finops state verify --repair to "
                "rebuild it from the data"
            )
    has_names_apart = bool(_columns(connection, "columns"))
    connection.execute("BEGIN TRANSACTION")
    connection.execute("CREATE SCHEMA IF NOT EXISTS finops_state")
    for table, columns in _LAYOUT.items():
        name = quoted(table)
        connection.execute(f"CREATE TABLE IF NOT EXISTS finops_state.{name} ({_defined(columns)})")
        for column in columns.keys() - existing.get(table, columns).keys():
            defined = _defined({column: columns[column]})
            connection.execute(
                f"ALTER TABLE finops_state.{name} ADD COLUMN {defined} DEFAULT {_LATER[column]}"
            )
    if has_names_apart:  # an older layout kept the names of columns in a table of their own
        connection.execute(
            "INSERT INTO finops_state.exports "
            "SELECT export, 'aws', any_value(format), table_name, (SELECT map(list(header), "
            "list(column_name)) FROM finops_state.columns c WHERE c.table_name = m.table_name) "
            "FROM finops_state.manifests m WHERE state = 'loaded' GROUP BY export, table_name"
        )
        connection.execute("DROP TABLE finops_state.columns")
    # Loads of an older layout are numbered by their times; the one that is loaded came last.
    connection.execute(
        "UPDATE finops_state.manifests SET load_number = counted.number FROM "
        "(SELECT rowid AS row, row_number() OVER (PARTITION BY export, billing_month "
        "ORDER BY state = 'loaded', loaded_at) AS number FROM finops_state.manifests) counted "
        "WHERE manifests.rowid = counted.row AND load_number IS NULL"
    )
    connection.execute("COMMIT")


def _defined(columns: Mapping[str, str]) -> Sql:
    return Sql(", ".join(f"{quoted(name)} {of_type}" for name, of_type in columns.items()))


def _layout(connection: duckdb.DuckDBPyConnection) -> dict[str, dict[str, str]]:
    """Return the columns and types of the ledger's tables that there are. To ask each is ten times
    faster than `duckdb_columns()`, which looks at all tables of the database."""
    found = {table: _columns(connection, table) for table in _LAYOUT}
    return {table: columns for table, columns in found.items() if columns}


def _columns(connection: duckdb.DuckDBPyConnection, table: str) -> dict[str, str]:
    try:
        rows = connection.execute(f"DESCRIBE finops_state.{quoted(table)}").fetchall()
    except duckdb.CatalogException:
        return {}
    return {name: of_type for name, of_type, *_ in rows}


def _damage(table: str, existing: Mapping[str, str]) -> str | None:
    """What is wrong with a table beyond being old."""
    for name, of_type in _LAYOUT[table].items():
        if name not in existing and not (table == "manifests" and name in _LATER):
            return f"it has no column {name}"
        if existing.get(name, of_type) != of_type:
            return f"its column {name} is {existing[name]} and not {of_type}"
    return None


def rename_damaged_tables(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Rename damaged tables, so that `create_tables` makes new ones; return their new names."""
    aside = []
    for table, columns in _layout(connection).items():
        if _damage(table, columns) is not None:
            name = f"{table}_damaged_{datetime.now(UTC):%Y%m%d_%H%M%S}"
            connection.execute(f"ALTER TABLE finops_state.{quoted(table)} RENAME TO {quoted(name)}")
            aside.append(f"finops_state.{name}")
    return aside


def loads(
    connection: duckdb.DuckDBPyConnection, export: str, month: BillingMonth | None = None
) -> list[Load]:
    """Return every version of every month of the export, or of one, the one that was loaded last
    first."""
    rows = connection.execute(
        "SELECT manifests FROM finops_state.manifests "
        "WHERE export = ? AND billing_month = coalesce(?, billing_month) "
        "ORDER BY billing_month DESC, load_number DESC",
        [export, month and month.first_day],
    ).fetchall()
    return [
        Load.of_row(
            row,
            export=export,
            month=BillingMonth.of(row["billing_month"]),
            table=row["table_name"],
            state=row["state"],
            loaded_at=row["loaded_at"],
            number=row["load_number"],
            lake_sha256=row["lake_sha256"],
        )
        for (row,) in rows
    ]


def newest_load(
    connection: duckdb.DuckDBPyConnection, export: str, month: BillingMonth, state: str = "loaded"
) -> Load | None:
    """Return the version of the month that was loaded last, of those that the ledger says are
    loaded or superseded. Whether the table holds it, `verified_load` of tables/load.py measures."""
    found = loads(connection, export, month)
    return next((load for load in found if load.state == state), None)


def _key(load: Load) -> dict[str, Any]:
    month = load.month.first_day
    return {"export": load.export, "billing_month": month, "manifest_id": load.manifest_id}


def _insert(connection: duckdb.DuckDBPyConnection, table: str, row: Mapping[str, Any]) -> None:
    """Insert a row as JSON: a mapping would be bound as a STRUCT, whose names do not differ in case
    alone."""
    columns = _defined({name: _LAYOUT[table][name] for name in row})
    connection.execute(
        f"INSERT INTO finops_state.{quoted(table)} BY NAME "
        f"SELECT unnest(CAST(?::JSON AS STRUCT({columns})))",
        [json.dumps(row, default=str)],
    )


def record_load(connection: duckdb.DuckDBPyConnection, load: Load, seconds: float) -> None:
    """Say that the table now holds this version, that the one before is superseded, and which run
    brought it in how many seconds."""
    now = datetime.now(UTC).replace(tzinfo=None)
    restore_loads(connection, [replace(load, state="loaded", loaded_at=now, number=None)])
    row = {**load.row(), **_key(load), "committed_at": now, "seconds": seconds}
    _insert(connection, "runs", {name: row[name] for name in _LAYOUT["runs"]})


def restore_loads(connection: duckdb.DuckDBPyConnection, loads: Iterable[Load]) -> None:
    """Write versions as they once were recorded, in the place of what the ledger has of them. One
    that is loaded supersedes the one that was. One without a number is the month's next."""
    for load in loads:
        key = _key(load)
        month = {name: key[name] for name in ("export", "billing_month")}
        if load.state == "loaded":
            connection.execute(
                "UPDATE finops_state.manifests SET state = 'superseded' "
                f"WHERE {_OF_MONTH} AND state = 'loaded'",
                month,
            )
        connection.execute(f"DELETE FROM finops_state.manifests WHERE {_OF_VERSION}", key)
        last = connection.execute(
            f"SELECT coalesce(max(load_number), 0) FROM finops_state.manifests WHERE {_OF_MONTH}",
            month,
        ).fetchall()
        row = {
            **load.row(),
            **key,
            "table_name": load.table,
            "state": load.state,
            "loaded_at": load.loaded_at,
            "load_number": load.number or last[0][0] + 1,
        }
        _insert(connection, "manifests", row)


def complete_load(
    connection: duckdb.DuckDBPyConnection,
    load: Load,
    *,
    content: Content | None = None,
    lake_sha256: str | None = None,
) -> None:
    """Add to a load what is known of it by now: its files, where it is older than their record or
    they have other ETags in another bucket; or the checksum of the Parquet file that is written
    from it."""
    connection.execute(
        "UPDATE finops_state.manifests SET files = coalesce($files, files), "
        f"lake_sha256 = coalesce($lake_sha256, lake_sha256) WHERE {_OF_VERSION}",
        {**_key(load), "files": content and content.rows(), "lake_sha256": lake_sha256},
    )


def delete_superseded_loads(
    connection: duckdb.DuckDBPyConnection, export: str, before: datetime
) -> list[tuple[BillingMonth, str]]:
    """Delete the versions that were superseded and loaded before a time in UTC, with their loads;
    the month and version of each."""
    gone = connection.execute(
        "DELETE FROM finops_state.manifests WHERE export = ? AND state = 'superseded' "
        "AND loaded_at < ? RETURNING billing_month, manifest_id",
        [export, before],
    ).fetchall()
    for first_day, manifest_id in gone:
        key = {"export": export, "billing_month": first_day, "manifest_id": manifest_id}
        connection.execute(f"DELETE FROM finops_state.runs WHERE {_OF_VERSION}", key)
    return [(BillingMonth.of(first_day), manifest_id) for first_day, manifest_id in gone]


def conflicting_load(connection: duckdb.DuckDBPyConnection, load: Load) -> tuple[str, str] | None:
    """Return export and format of another export, or else another format, of which months lie in
    the same table."""
    row: tuple[str, str] | None = connection.execute(
        "SELECT export, format FROM finops_state.manifests WHERE lower(table_name) = lower($table) "
        "AND (export, format) <> ($export, $format) AND state = 'loaded' "
        "ORDER BY export = $export LIMIT 1",
        {"table": load.table, "export": load.export, "format": load.format},
    ).fetchone()
    return row


def names_by_header(connection: duckdb.DuckDBPyConnection, table: str) -> dict[str, str]:
    """Return the column name that each header ever seen in this table was given."""
    rows = connection.execute(
        "SELECT columns FROM finops_state.exports WHERE table_name = ?", [table]
    ).fetchall()
    return dict(rows[0][0]) if rows else {}


def record_export(
    connection: duckdb.DuckDBPyConnection, load: Load, vendor: str, names: Mapping[str, str]
) -> None:
    """Keep what the export is, and the column name of every header it ever had."""
    row = {
        "export": load.export,
        "vendor": vendor,
        "format": load.format,
        "table_name": load.table,
        "columns": {**names, **names_by_header(connection, load.table)},
    }
    connection.execute("DELETE FROM finops_state.exports WHERE table_name = ?", [load.table])
    _insert(connection, "exports", row)
