"""The ledger in a DuckDB file: the tables of the schema `finops_state`, which record its loads.

A load is recorded in the transaction that writes its rows, so the ledger cannot differ from them.
Functions write in the caller's transaction, if there is one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import duckdb

from finops_dagster.billing.columns import Sql, quoted
from finops_dagster.billing.content import Content, FileContent
from finops_dagster.billing.errors import LedgerDamaged
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.version import Load

# `manifests` has every version that was loaded, `exports` every export with the column name of each
# header, `runs` every load that was committed, and `restatements` what loads changed.
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
        "files": 'STRUCT("name" VARCHAR, size BIGINT, sha256 VARCHAR, etag VARCHAR, '
        '"months" VARCHAR[])[]',
        "load_number": "BIGINT",
        "decimals_rounded": 'STRUCT("name" VARCHAR, cells BIGINT, amount VARCHAR)[]',
        "lake_sha256": "VARCHAR",
        "money_sums": "MAP(VARCHAR, DECIMAL(38,18))",
        "cost_by_currency": "MAP(VARCHAR, DECIMAL(38,18))",
        "delivery": "STRUCT(submitted_at TIMESTAMP, first_day DATE, last_day DATE)",
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
    "restatements": {
        "export": "VARCHAR",
        "billing_month": "DATE",
        "restatement_number": "BIGINT",
        "manifest_id": "VARCHAR",
        "replaced_id": "VARCHAR",
        "restated_at": "TIMESTAMP",
        "run_id": "VARCHAR",
        "currency": "VARCHAR",
        "service": "VARCHAR",
        "account": "VARCHAR",
        "cost_before": "DECIMAL(38,18)",
        "cost_after": "DECIMAL(38,18)",
        "rows_before": "BIGINT",
        "rows_after": "BIGINT",
    },
}
# The columns that the first layout of `manifests` did not have, with their values in older rows.
_ADDED_COLUMNS = {"format": "'cur1'"} | dict.fromkeys(
    "files load_number decimals_rounded lake_sha256 money_sums cost_by_currency delivery".split(),
    "NULL",
)
# The type of `files` before files could be shared by months.
_FILES_WITHOUT_MONTHS = 'STRUCT("name" VARCHAR, size BIGINT, sha256 VARCHAR, etag VARCHAR)[]'
_ADD_MONTHS = """
ALTER TABLE finops_state.manifests ALTER files TYPE {} USING list_transform(files, lambda file: {{
'name': file.name, 'size': file.size, 'sha256': file.sha256, 'etag': file.etag, 'months': NULL}})
"""
_BATCH = 500
_IS_MONTH = "export = $export AND billing_month = $billing_month"
_IS_VERSION = f"{_IS_MONTH} AND manifest_id = $manifest_id"


def create_tables(connection: duckdb.DuckDBPyConnection) -> None:
    """Create the missing tables of the ledger, and upgrade tables of an older layout.

    This is a transaction of its own. Raises LedgerDamaged for a table of no known layout, before
    anything is changed.
    """
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
    has_columns_table = bool(_columns(connection, "columns"))
    connection.execute("BEGIN TRANSACTION")
    connection.execute("CREATE SCHEMA IF NOT EXISTS finops_state")
    for table, columns in _LAYOUT.items():
        name = quoted(table)
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS finops_state.{name} ({_definitions(columns)})"
        )
        for column in columns.keys() - existing.get(table, columns).keys():
            definition = _definitions({column: columns[column]})
            connection.execute(
                f"ALTER TABLE finops_state.{name} ADD COLUMN {definition} "
                f"DEFAULT {_ADDED_COLUMNS[column]}"
            )
    if existing.get("manifests", {}).get("files") == _FILES_WITHOUT_MONTHS:
        connection.execute(_ADD_MONTHS.format(_LAYOUT["manifests"]["files"]))
    if has_columns_table:
        # An older layout kept the column names in a table of their own.
        connection.execute(
            "INSERT INTO finops_state.exports "
            "SELECT export, 'aws', any_value(format), table_name, (SELECT map(list(header), "
            "list(column_name)) FROM finops_state.columns c WHERE c.table_name = m.table_name) "
            "FROM finops_state.manifests m WHERE state = 'loaded' GROUP BY export, table_name"
        )
        connection.execute("DROP TABLE finops_state.columns")
    # Loads of an older layout get their numbers by time; the one in the table came last.
    connection.execute(
        "UPDATE finops_state.manifests SET load_number = counted.number FROM "
        "(SELECT rowid AS row, row_number() OVER (PARTITION BY export, billing_month "
        "ORDER BY state = 'loaded', loaded_at) AS number FROM finops_state.manifests) counted "
        "WHERE manifests.rowid = counted.row AND load_number IS NULL"
    )
    connection.execute("COMMIT")


def _definitions(columns: Mapping[str, str]) -> Sql:
    return Sql(", ".join(f"{quoted(name)} {sql_type}" for name, sql_type in columns.items()))


def _layout(connection: duckdb.DuckDBPyConnection) -> dict[str, dict[str, str]]:
    """Return {table: {column: type}} of the ledger's existing tables."""
    # To describe each is ten times faster than duckdb_columns(), which lists the whole database.
    tables = {table: _columns(connection, table) for table in _LAYOUT}
    return {table: columns for table, columns in tables.items() if columns}


def _columns(connection: duckdb.DuckDBPyConnection, table: str) -> dict[str, str]:
    try:
        rows = connection.execute(f"DESCRIBE finops_state.{quoted(table)}").fetchall()
    except duckdb.CatalogException:
        return {}
    return {name: sql_type for name, sql_type, *_ in rows}


def _damage(table: str, existing: Mapping[str, str]) -> str | None:
    """Return how a table differs from every known layout; None if it has one of them."""
    for name, sql_type in _LAYOUT[table].items():
        if name not in existing and not (table == "manifests" and name in _ADDED_COLUMNS):
            return f"it has no column {name}"
        is_older = name == "files" and existing.get(name) == _FILES_WITHOUT_MONTHS
        if existing.get(name, sql_type) != sql_type and not is_older:
            return f"its column {name} has the type {existing[name]} instead of {sql_type}"
    return None


def rename_damaged_tables(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Rename damaged tables, so that `create_tables` creates empty ones; return the new names.

    Such a name is `finops_state.runs_damaged_20260131_235959`. Empty if no table is damaged.
    """
    new_names = []
    for table, columns in _layout(connection).items():
        if _damage(table, columns) is not None:
            name = f"{table}_damaged_{datetime.now(UTC):%Y%m%d_%H%M%S}"
            connection.execute(f"ALTER TABLE finops_state.{quoted(table)} RENAME TO {quoted(name)}")
            new_names.append(f"finops_state.{name}")
    return new_names


def loads(
    connection: duckdb.DuckDBPyConnection, export: str, month: BillingMonth | None = None
) -> list[Load]:
    """Return the recorded loads of an export, or of one month: newest month and load first.

    Superseded ones are among them. Each version of a month has one record, that of its newest load.
    """
    rows = connection.execute(
        "SELECT manifests FROM finops_state.manifests "
        "WHERE export = ? AND billing_month = coalesce(?, billing_month) "
        "ORDER BY billing_month DESC, load_number DESC",
        [export, month and month.first_day],
    ).fetchall()
    return [
        Load.from_row(
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


def loaded_content(
    connection: duckdb.DuckDBPyConnection, export: str
) -> dict[BillingMonth, Content]:
    """Return the files of each month's loaded version; without months whose load recorded none."""
    rows = connection.execute(
        "SELECT billing_month, files FROM finops_state.manifests "
        "WHERE export = ? AND state = 'loaded' AND files IS NOT NULL",
        [export],
    ).fetchall()
    return {
        BillingMonth.of(first_day): Content.of(map(FileContent.from_row, files))
        for first_day, files in rows
    }


def month_costs(
    connection: duckdb.DuckDBPyConnection, export: str, last: BillingMonth, count: int
) -> list[tuple[BillingMonth, dict[str, Decimal]]]:
    """Return the headline costs by currency of the last `count` loaded months up to `last`.

    The oldest month is first. The currency "" is that of rows without one, and of all rows in
    records of releases without currencies.
    """
    rows = connection.execute(
        "SELECT billing_month, coalesce(cost_by_currency, MAP {'': total_cost}) "
        "FROM finops_state.manifests "
        "WHERE export = ? AND state = 'loaded' AND billing_month <= ? "
        "ORDER BY billing_month DESC LIMIT ?",
        [export, last.first_day, count],
    ).fetchall()
    return [(BillingMonth.of(first_day), dict(costs)) for first_day, costs in reversed(rows)]


def seconds_of_last_loads(
    connection: duckdb.DuckDBPyConnection, export: str
) -> dict[BillingMonth, float]:
    """Return the seconds that the last load of each month of an export took."""
    rows = connection.execute(
        "SELECT billing_month, arg_max(seconds, committed_at) FROM finops_state.runs "
        "WHERE export = ? GROUP BY billing_month",
        [export],
    ).fetchall()
    return {BillingMonth.of(first_day): seconds for first_day, seconds in rows}


def newest_load(
    connection: duckdb.DuckDBPyConnection, export: str, month: BillingMonth, state: str = "loaded"
) -> Load | None:
    """Return the month's newest load in this state, `loaded` or `superseded`; None if none is.

    Only the ledger is read; `verified_load` of tables/billing_table.py also measures the table.
    """
    month_loads = loads(connection, export, month)
    return next((load for load in month_loads if load.state == state), None)


def _key(load: Load) -> dict[str, Any]:
    first_day = load.month.first_day
    return {"export": load.export, "billing_month": first_day, "manifest_id": load.manifest_id}


def insert_rows(
    connection: duckdb.DuckDBPyConnection, table: str, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Insert one or more rows into a table of the ledger.

    The rows have the same columns; the table's other columns become NULL. `table` is without its
    schema.
    """
    # As JSON: DuckDB binds a mapping as a STRUCT, whose names must not differ in case alone.
    columns = _definitions({name: _LAYOUT[table][name] for name in rows[0]})
    for start in range(0, len(rows), _BATCH):
        connection.execute(
            f"INSERT INTO finops_state.{quoted(table)} BY NAME SELECT unnest(inserted) "
            f"FROM (SELECT unnest(CAST(?::JSON AS STRUCT({columns})[])) AS inserted)",
            [json.dumps(rows[start : start + _BATCH], default=str)],
        )


def record_load(connection: duckdb.DuckDBPyConnection, load: Load, seconds: float) -> None:
    """Record a load that took `seconds`, and mark the load that it replaces as superseded.

    Whatever the fields of `load` say, its recorded state is `loaded`, its `loaded_at` is now, and
    it gets the month's next number. An earlier record of the same version is replaced.
    `lake_sha256` is not recorded: see `update_load`. The load is also recorded in `runs`.
    """
    loaded_at = datetime.now(UTC).replace(tzinfo=None)
    restore_loads(connection, [replace(load, state="loaded", loaded_at=loaded_at, number=None)])
    row = {**load.to_row(), **_key(load), "committed_at": loaded_at, "seconds": seconds}
    insert_rows(connection, "runs", [{name: row[name] for name in _LAYOUT["runs"]}])


def restore_loads(connection: duckdb.DuckDBPyConnection, loads: Iterable[Load]) -> None:
    """Write loads to the ledger with their state and time; each replaces its version's record.

    A load in the state `loaded` first marks the month's other loads as superseded. A load without a
    number gets the month's next. `lake_sha256` is not written, and one that is recorded for the
    version is lost: see `update_load`. Nothing is recorded in `runs`.
    """
    for load in loads:
        key = _key(load)
        month = {name: key[name] for name in ("export", "billing_month")}
        if load.state == "loaded":
            connection.execute(
                "UPDATE finops_state.manifests SET state = 'superseded' "
                f"WHERE {_IS_MONTH} AND state = 'loaded'",
                month,
            )
        # A version that is loaded again has one row, with the number of its newest load.
        connection.execute(f"DELETE FROM finops_state.manifests WHERE {_IS_VERSION}", key)
        last_number = connection.execute(
            f"SELECT coalesce(max(load_number), 0) FROM finops_state.manifests WHERE {_IS_MONTH}",
            month,
        ).fetchall()
        number = load.number or last_number[0][0] + 1
        insert_rows(connection, "manifests", [_row(load, number)])


def restore_superseded_loads(connection: duckdb.DuckDBPyConnection, loads: Sequence[Load]) -> None:
    """Write superseded loads of one month; each replaces the record of its version.

    Each must have a number. Many are written faster than by `restore_loads`. As there,
    `lake_sha256` is not written, and a recorded one is lost.
    """
    if not loads:
        return
    connection.execute(
        f"DELETE FROM finops_state.manifests WHERE {_IS_MONTH} "
        "AND list_contains($manifest_id, manifest_id)",
        _key(loads[0]) | {"manifest_id": [load.manifest_id for load in loads]},
    )
    insert_rows(connection, "manifests", [_row(load, load.number) for load in loads])


def _row(load: Load, number: int | None) -> dict[str, Any]:
    return {
        **load.to_row(),
        **_key(load),
        "table_name": load.table,
        "state": load.state,
        "loaded_at": load.loaded_at,
        "load_number": number,
    }


def update_load(
    connection: duckdb.DuckDBPyConnection,
    load: Load,
    *,
    content: Content | None = None,
    lake_sha256: str | None = None,
) -> None:
    """Set the content of a recorded load, or the checksum of its Parquet file.

    What is None stays as it is recorded. A load that is not recorded is ignored. The content may be
    set later: earlier releases recorded none, and a copied bucket has other ETags for the same
    files.
    """
    connection.execute(
        "UPDATE finops_state.manifests SET files = coalesce($files, files), "
        f"lake_sha256 = coalesce($lake_sha256, lake_sha256) WHERE {_IS_VERSION}",
        {**_key(load), "files": content and content.to_rows(), "lake_sha256": lake_sha256},
    )


def delete_superseded_loads(
    connection: duckdb.DuckDBPyConnection, export: str, before: datetime
) -> list[tuple[BillingMonth, str]]:
    """Delete the records of superseded loads whose `loaded_at` is before a time.

    Returns the month and the version id of each. Their records in `runs` are deleted too. `before`
    is in UTC, and has no zone.
    """
    deleted = connection.execute(
        "DELETE FROM finops_state.manifests WHERE export = ? AND state = 'superseded' "
        "AND loaded_at < ? RETURNING billing_month, manifest_id",
        [export, before],
    ).fetchall()
    for first_day, manifest_id in deleted:
        key = {"export": export, "billing_month": first_day, "manifest_id": manifest_id}
        connection.execute(f"DELETE FROM finops_state.runs WHERE {_IS_VERSION}", key)
    return [(BillingMonth.of(first_day), manifest_id) for first_day, manifest_id in deleted]


def conflicting_load(connection: duckdb.DuckDBPyConnection, load: Load) -> tuple[str, str] | None:
    """Return the export and format of a load in the same table that prevents this one.

    It is a load in the state `loaded` of another export, or else of another format of the same
    export. None if there is no such load.
    """
    row: tuple[str, str] | None = connection.execute(
        "SELECT export, format FROM finops_state.manifests WHERE lower(table_name) = lower($table) "
        "AND (export, format) <> ($export, $format) AND state = 'loaded' "
        "ORDER BY export = $export LIMIT 1",
        {"table": load.table, "export": load.export, "format": load.format},
    ).fetchone()
    return row


def names_by_header(connection: duckdb.DuckDBPyConnection, table: str) -> dict[str, str]:
    """Return {header: column name} for every header that the table ever had; empty if unknown."""
    rows = connection.execute(
        "SELECT columns FROM finops_state.exports WHERE table_name = ?", [table]
    ).fetchall()
    return dict(rows[0][0]) if rows else {}


def record_export(
    connection: duckdb.DuckDBPyConnection, load: Load, vendor: str, names: Mapping[str, str]
) -> None:
    """Record the export's vendor, format and table, and the column names of new headers.

    `names` are by header. A header that has a column name in the ledger keeps it.
    """
    row = {
        "export": load.export,
        "vendor": vendor,
        "format": load.format,
        "table_name": load.table,
        "columns": {**names, **names_by_header(connection, load.table)},
    }
    connection.execute("DELETE FROM finops_state.exports WHERE table_name = ?", [load.table])
    insert_rows(connection, "exports", [row])
