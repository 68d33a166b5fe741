"""The data's own word on itself: which version each month of the DuckDB file holds.

It is written in the transaction that writes the data, so the two cannot drift apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import duckdb

from finops_dagster.billing.columns import Sql, quoted
from finops_dagster.billing.content import Content
from finops_dagster.billing.errors import LedgerDamaged
from finops_dagster.billing.money import RoundedColumn, Totals, record_of_amounts, rounded_columns
from finops_dagster.billing.months import BillingMonth

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
# What rows of an older layout have in a column that came later.
_VALUE_BEFORE = {
    ("manifests", "format"): "'cur1'",
    ("manifests", "files"): "NULL",
    ("manifests", "load_number"): "NULL",
    ("manifests", "decimals_rounded"): "NULL",
    ("manifests", "lake_sha256"): "NULL",
    ("manifests", "money_sums"): "NULL",
    ("manifests", "cost_by_currency"): "NULL",
}

# As two lists; a mapping would be bound as a STRUCT, whose names do not differ in case alone.
_AMOUNTS = "map(?::VARCHAR[], ?::DECIMAL(38,18)[])"
_OF_LOAD = Sql("export = ? AND billing_month = ? AND manifest_id = ? AND state = 'loaded'")


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
    content: Content | None = field(default=None, compare=False)
    """The vendor's files; None of what was loaded before they were kept."""
    rounded: tuple[RoundedColumn, ...] | None = field(default=None, compare=False)
    """The columns with rounded numbers; None of what was loaded before they were counted."""

    def rounded_rows(self) -> list[dict[str, Any]] | None:
        """Return a row a column, as the ledger and the lake's files keep them."""
        return None if self.rounded is None else [column.row() for column in self.rounded]


@dataclass(frozen=True)
class Recorded:
    """A version as the ledger has it; `state` is loaded or superseded, `loaded_at` in UTC, and
    `number` counts the loads of the month; None for the next."""

    load: Load
    loaded_at: datetime
    state: str
    number: int | None = None


def create(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the ledger's tables where they are missing, and bring forward those of an older layout.
    Raises LedgerDamaged for what is neither."""
    there = _layout(connection)
    if _LAYOUT.items() <= there.items() and "columns" not in there:
        return
    for table, columns in _LAYOUT.items():
        problem = _damage(table, there.get(table, columns))
        if problem is not None:
            raise LedgerDamaged(
                f"finops_state.{table} is damaged: {problem}; finops state verify --mend makes it "
                "again from the data"
            )
    connection.execute("BEGIN TRANSACTION")
    connection.execute("CREATE SCHEMA IF NOT EXISTS finops_state")
    for table, columns in _LAYOUT.items():
        if table not in there:
            defined = ", ".join(_definition(table, name) for name in columns)
            connection.execute(f"CREATE TABLE finops_state.{quoted(table)} ({defined})")
        for name in columns.keys() - there.get(table, columns).keys():
            connection.execute(
                f"ALTER TABLE finops_state.{quoted(table)} ADD COLUMN {_definition(table, name)} "
                f"DEFAULT {_VALUE_BEFORE[table, name]}"
            )
    if "columns" in there:
        _take_over_columns(connection)
    _number_loads(connection)
    connection.execute("COMMIT")


def _definition(table: str, column: str) -> Sql:
    return Sql(f"{quoted(column)} {_LAYOUT[table][column]}")


def _layout(connection: duckdb.DuckDBPyConnection) -> dict[str, dict[str, str]]:
    layout: dict[str, dict[str, str]] = {}
    for table, column, of_type in connection.execute(
        "SELECT table_name, column_name, data_type FROM duckdb_columns() "
        "WHERE schema_name = 'finops_state' AND database_name = current_database()"
    ).fetchall():
        layout.setdefault(table, {})[column] = of_type
    return layout


def _damage(table: str, there: Mapping[str, str]) -> str | None:
    """What is wrong with a table beyond being old."""
    for name, of_type in _LAYOUT[table].items():
        if name not in there and (table, name) not in _VALUE_BEFORE:
            return f"it has no column {name}"
        if there.get(name, of_type) != of_type:
            return f"its column {name} is {there[name]} and not {of_type}"
    return None


def _take_over_columns(connection: duckdb.DuckDBPyConnection) -> None:
    """Bring the names that an older layout kept in a table of their own."""
    connection.execute(
        "INSERT INTO finops_state.exports "
        "SELECT export, 'aws', any_value(format), table_name, (SELECT map(list(header), "
        "list(column_name)) FROM finops_state.columns c WHERE c.table_name = m.table_name) "
        "FROM finops_state.manifests m WHERE state = 'loaded' GROUP BY export, table_name"
    )
    connection.execute("DROP TABLE finops_state.columns")


def _number_loads(connection: duckdb.DuckDBPyConnection) -> None:
    """Number the loads of an older layout by their times; the one that is loaded came last."""
    connection.execute(
        "UPDATE finops_state.manifests SET load_number = counted.number FROM "
        "(SELECT rowid AS row, row_number() OVER (PARTITION BY export, billing_month "
        "ORDER BY state = 'loaded', loaded_at) AS number FROM finops_state.manifests) counted "
        "WHERE manifests.rowid = counted.row AND load_number IS NULL"
    )


def set_aside_damaged(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Rename the tables that are damaged, so that `create` makes them anew; their new names."""
    aside = []
    for table, columns in _layout(connection).items():
        if table in _LAYOUT and _damage(table, columns) is not None:
            name = f"{table}_damaged_{datetime.now(UTC):%Y%m%d_%H%M%S}"
            connection.execute(f"ALTER TABLE finops_state.{quoted(table)} RENAME TO {quoted(name)}")
            aside.append(f"finops_state.{name}")
    return aside


def loaded(connection: duckdb.DuckDBPyConnection, export: str, month: BillingMonth) -> Load | None:
    """Return the version that the ledger says the table holds. Whether the table does hold it,
    `table.held_version` measures."""
    return next((one.load for one in _versions(connection, export, month, "loaded")), None)


def superseded(
    connection: duckdb.DuckDBPyConnection, export: str, month: BillingMonth
) -> Load | None:
    """Return the version of the month that was replaced last, in the order of the loads."""
    return next((one.load for one in _versions(connection, export, month, "superseded")), None)


def versions(connection: duckdb.DuckDBPyConnection, export: str) -> list[Recorded]:
    """Return every version of every month of the export, the one that was loaded last first."""
    return _versions(connection, export, None, None)


def versions_of_month(
    connection: duckdb.DuckDBPyConnection, export: str, month: BillingMonth
) -> list[Recorded]:
    """Return every version of one month, the one that was loaded last first."""
    return _versions(connection, export, month, None)


def _versions(
    connection: duckdb.DuckDBPyConnection,
    export: str,
    month: BillingMonth | None,
    state: str | None,
) -> list[Recorded]:
    rows = connection.execute(
        "SELECT billing_month, manifest_id, table_name, row_count, total_cost, money_sums, "
        "cost_by_currency, file_count, byte_count, run_id, format, files, decimals_rounded, "
        "loaded_at, state, load_number "
        "FROM finops_state.manifests "
        "WHERE export = ? AND billing_month = coalesce(?, billing_month) "
        "AND state = coalesce(?, state) ORDER BY billing_month DESC, load_number DESC",
        [export, month and month.first_day, state],
    ).fetchall()
    return [
        Recorded(
            Load(
                export,
                BillingMonth.of(row[0]),
                row[1],
                row[2],
                Totals(*row[3:7]),
                row[7],
                row[8],
                row[9],
                row[10],
                Content.of_rows(row[11]),
                rounded_columns(row[12]),
            ),
            *row[13:],
        )
        for row in rows
    ]


def record(connection: duckdb.DuckDBPyConnection, load: Load, seconds: float) -> None:
    """Say that the table now holds this version, that the one before is superseded, and which run
    brought it in how many seconds."""
    now = datetime.now(UTC).replace(tzinfo=None)
    restore(connection, [Recorded(load, now, "loaded")])
    connection.execute(
        "INSERT INTO finops_state.runs VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            load.run_id,
            load.export,
            load.month.first_day,
            load.manifest_id,
            now,
            seconds,
            load.totals.rows,
            load.bytes,
        ],
    )


def restore(connection: duckdb.DuckDBPyConnection, recorded: Iterable[Recorded]) -> None:
    """Write versions as they once were recorded, in the place of what the ledger has of them. One
    that is loaded supersedes the one that was. One without a number is the month's next."""
    for one in recorded:
        load, month = one.load, one.load.month.first_day
        if one.state == "loaded":
            connection.execute(
                "UPDATE finops_state.manifests SET state = 'superseded' "
                "WHERE export = ? AND billing_month = ? AND state = 'loaded'",
                [load.export, month],
            )
        connection.execute(
            "DELETE FROM finops_state.manifests "
            "WHERE export = ? AND billing_month = ? AND manifest_id = ?",
            [load.export, month, load.manifest_id],
        )
        connection.execute(
            "INSERT INTO finops_state.manifests BY NAME SELECT ? AS export, ? AS billing_month, "
            "? AS manifest_id, ? AS table_name, ? AS row_count, ? AS total_cost, ? AS file_count, "
            "? AS byte_count, ? AS loaded_at, ? AS run_id, ? AS state, ? AS format, ? AS files, "
            "coalesce(?, (SELECT coalesce(max(load_number), 0) + 1 FROM finops_state.manifests "
            "WHERE export = ? AND billing_month = ?)) AS load_number, ? AS decimals_rounded, "
            f"{_AMOUNTS} AS money_sums, {_AMOUNTS} AS cost_by_currency",
            [
                load.export,
                month,
                load.manifest_id,
                load.table,
                load.totals.rows,
                load.totals.cost,
                load.files,
                load.bytes,
                one.loaded_at,
                load.run_id,
                one.state,
                load.format,
                load.content and load.content.rows(),
                one.number,
                load.export,
                month,
                load.rounded_rows(),
                *_amounts(load.totals.sums),
                *_amounts(load.totals.costs),
            ],
        )


def _amounts(amounts: Mapping[str, Decimal] | None) -> list[list[str] | None]:
    record = record_of_amounts(amounts)
    return [None, None] if record is None else [list(record), list(record.values())]


def record_content(connection: duckdb.DuckDBPyConnection, load: Load, content: Content) -> None:
    """Complete a version that is known to have this content: with the files where it was loaded
    before they were kept, or with the ETags that they have in another bucket."""
    connection.execute(
        "UPDATE finops_state.manifests SET files = ? "
        "WHERE export = ? AND billing_month = ? AND manifest_id = ?",
        [content.rows(), load.export, load.month.first_day, load.manifest_id],
    )


def lake_sha256(connection: duckdb.DuckDBPyConnection, load: Load) -> str | None:
    """Return the checksum of the Parquet file that was written from this load, where it is known:
    files that were written before checksums were kept have none, nor has a new load."""
    row = connection.execute(
        f"SELECT lake_sha256 FROM finops_state.manifests WHERE {_OF_LOAD}", _of_load(load)
    ).fetchone()
    return row[0] if row else None


def record_lake_sha256(connection: duckdb.DuckDBPyConnection, load: Load, checksum: str) -> None:
    """Keep the checksum of the Parquet file that is written from this load."""
    connection.execute(
        f"UPDATE finops_state.manifests SET lake_sha256 = ? WHERE {_OF_LOAD}",
        [checksum, *_of_load(load)],
    )


def _of_load(load: Load) -> list[object]:
    return [load.export, load.month.first_day, load.manifest_id]


def forget_superseded(
    connection: duckdb.DuckDBPyConnection, export: str, before: datetime
) -> list[tuple[BillingMonth, str]]:
    """Delete the versions that were superseded and loaded before a time in UTC, with their loads;
    the month and version of each."""
    condition = "export = ? AND state = 'superseded' AND loaded_at < ?"
    gone = connection.execute(
        f"SELECT billing_month, manifest_id FROM finops_state.manifests WHERE {condition}",
        [export, before],
    ).fetchall()
    connection.execute(
        f"DELETE FROM finops_state.runs WHERE (export, billing_month, manifest_id) IN (SELECT "
        f"(export, billing_month, manifest_id) FROM finops_state.manifests WHERE {condition})",
        [export, before],
    )
    connection.execute(f"DELETE FROM finops_state.manifests WHERE {condition}", [export, before])
    return [(BillingMonth.of(first_day), manifest_id) for first_day, manifest_id in gone]


def other_export_in(connection: duckdb.DuckDBPyConnection, table: str, export: str) -> str | None:
    """The name of another export that keeps months in the same table."""
    row = connection.execute(
        "SELECT export FROM finops_state.manifests "
        "WHERE lower(table_name) = lower(?) AND export <> ? AND state = 'loaded' LIMIT 1",
        [table, export],
    ).fetchone()
    return None if row is None else str(row[0])


def other_format_in(connection: duckdb.DuckDBPyConnection, table: str, form: str) -> str | None:
    """The name of another format in which months of the same table came."""
    row = connection.execute(
        "SELECT format FROM finops_state.manifests "
        "WHERE lower(table_name) = lower(?) AND format <> ? AND state = 'loaded' LIMIT 1",
        [table, form],
    ).fetchone()
    return None if row is None else str(row[0])


def column_names(connection: duckdb.DuckDBPyConnection, table: str) -> dict[str, str]:
    """The column name that each header ever seen in this table was given."""
    rows = connection.execute(
        "SELECT columns FROM finops_state.exports WHERE table_name = ?", [table]
    ).fetchall()
    return dict(rows[0][0]) if rows else {}


def record_export(
    connection: duckdb.DuckDBPyConnection, load: Load, vendor: str, names: Mapping[str, str]
) -> None:
    """Keep what the export is, and the column name of every header it ever had."""
    names = {**names, **column_names(connection, load.table)}
    connection.execute("DELETE FROM finops_state.exports WHERE table_name = ?", [load.table])
    connection.execute(
        "INSERT INTO finops_state.exports VALUES (?, ?, ?, ?, map(?, ?))",
        [load.export, vendor, load.format, load.table, list(names), list(names.values())],
    )
