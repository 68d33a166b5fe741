"""The data's own word on itself: which version each month of the DuckDB file holds.

It is written in the transaction that writes the data, so the two cannot drift apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
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
# What came after the first layout, of which older rows have NULL, or the word that was meant.
_LATER = {"format": "'cur1'"} | dict.fromkeys(
    "files load_number decimals_rounded lake_sha256 money_sums cost_by_currency".split(), "NULL"
)
# As two lists; a mapping would be bound as a STRUCT, whose names do not differ in case alone.
_AMOUNTS = "map(${0}_names::VARCHAR[], ${0}::DECIMAL(38,18)[])"
_NEXT_NUMBER = (
    "coalesce($load_number, (SELECT coalesce(max(load_number), 0) + 1 FROM finops_state.manifests "
    "WHERE export = $export AND billing_month = $billing_month))"
)
_OF_VERSION = "export = $export AND billing_month = $billing_month AND manifest_id = $manifest_id"


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
    """Create the ledger's tables where they are missing, and bring forward those of an older
    layout. Raises LedgerDamaged for what is neither."""
    existing = _layout(connection)
    if _LAYOUT.items() <= existing.items() and "columns" not in existing:
        return
    for table, columns in _LAYOUT.items():
        problem = _damage(table, existing.get(table, columns))
        if problem is not None:
            raise LedgerDamaged(
                f"finops_state.{table} is damaged: {problem}; finops state verify --mend makes it "
                "again from the data"
            )
    connection.execute("BEGIN TRANSACTION")
    connection.execute("CREATE SCHEMA IF NOT EXISTS finops_state")
    for table, columns in _LAYOUT.items():
        if table not in existing:
            defined = ", ".join(_definition(table, name) for name in columns)
            connection.execute(f"CREATE TABLE finops_state.{quoted(table)} ({defined})")
        for name in columns.keys() - existing.get(table, columns).keys():
            connection.execute(
                f"ALTER TABLE finops_state.{quoted(table)} ADD COLUMN {_definition(table, name)} "
                f"DEFAULT {_LATER[name]}"
            )
    if "columns" in existing:
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


def _damage(table: str, existing: Mapping[str, str]) -> str | None:
    """What is wrong with a table beyond being old."""
    for name, of_type in _LAYOUT[table].items():
        if name not in existing and not (table == "manifests" and name in _LATER):
            return f"it has no column {name}"
        if existing.get(name, of_type) != of_type:
            return f"its column {name} is {existing[name]} and not {of_type}"
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
    `held_version` of tables/load.py measures."""
    recorded = versions(connection, export, month)
    return next((one.load for one in recorded if one.state == "loaded"), None)


def superseded(
    connection: duckdb.DuckDBPyConnection, export: str, month: BillingMonth
) -> Load | None:
    """Return the version of the month that was replaced last, in the order of the loads."""
    recorded = versions(connection, export, month)
    return next((one.load for one in recorded if one.state == "superseded"), None)


def versions(
    connection: duckdb.DuckDBPyConnection, export: str, month: BillingMonth | None = None
) -> list[Recorded]:
    """Return every version of every month of the export, or of one, the one that was loaded last
    first."""
    found = connection.execute(
        "FROM finops_state.manifests "
        "WHERE export = ? AND billing_month = coalesce(?, billing_month) "
        "ORDER BY billing_month DESC, load_number DESC",
        [export, month and month.first_day],
    )
    names = [column[0] for column in found.description or ()]
    return [_recorded(dict(zip(names, row, strict=True))) for row in found.fetchall()]


def _recorded(row: dict[str, Any]) -> Recorded:
    sums, costs = row["money_sums"], row["cost_by_currency"]
    load = Load(
        row["export"],
        BillingMonth.of(row["billing_month"]),
        row["manifest_id"],
        row["table_name"],
        Totals(row["row_count"], row["total_cost"], sums, costs),
        row["file_count"],
        row["byte_count"],
        row["run_id"],
        row["format"],
        Content.of_rows(row["files"]),
        rounded_columns(row["decimals_rounded"]),
    )
    return Recorded(load, row["loaded_at"], row["state"], row["load_number"])


def _row(recorded: Recorded) -> dict[str, Any]:
    """Return what `_recorded` reads; without a number it is the month's next."""
    load = recorded.load
    return {
        **_key(load),
        "table_name": load.table,
        "row_count": load.totals.rows,
        "total_cost": load.totals.cost,
        "file_count": load.files,
        "byte_count": load.bytes,
        "run_id": load.run_id,
        "format": load.format,
        "files": load.content and load.content.rows(),
        "decimals_rounded": load.rounded_rows(),
        "money_sums": record_of_amounts(load.totals.sums),
        "cost_by_currency": record_of_amounts(load.totals.costs),
        "loaded_at": recorded.loaded_at,
        "state": recorded.state,
        "load_number": recorded.number,
    }


def _key(load: Load) -> dict[str, Any]:
    month = load.month.first_day
    return {"export": load.export, "billing_month": month, "manifest_id": load.manifest_id}


def record(connection: duckdb.DuckDBPyConnection, load: Load, seconds: float) -> None:
    """Say that the table now holds this version, that the one before is superseded, and which run
    brought it in how many seconds."""
    now = datetime.now(UTC).replace(tzinfo=None)
    restore(connection, [Recorded(load, now, "loaded")])
    connection.execute(
        "INSERT INTO finops_state.runs VALUES ($run_id, $export, $billing_month, $manifest_id, "
        "$now, $seconds, $rows, $bytes)",
        {
            **_key(load),
            "run_id": load.run_id,
            "now": now,
            "seconds": seconds,
            "rows": load.totals.rows,
            "bytes": load.bytes,
        },
    )


def restore(connection: duckdb.DuckDBPyConnection, recorded: Iterable[Recorded]) -> None:
    """Write versions as they once were recorded, in the place of what the ledger has of them. One
    that is loaded supersedes the one that was. One without a number is the month's next."""
    for one in recorded:
        row = _row(one)
        if one.state == "loaded":
            connection.execute(
                "UPDATE finops_state.manifests SET state = 'superseded' "
                "WHERE export = ? AND billing_month = ? AND state = 'loaded'",
                [row["export"], row["billing_month"]],
            )
        connection.execute(
            f"DELETE FROM finops_state.manifests WHERE {_OF_VERSION}", _key(one.load)
        )
        expressions = {name: f"${name}" for name in row} | {"load_number": _NEXT_NUMBER}
        for name in ("money_sums", "cost_by_currency"):
            amounts: dict[str, str] | None = row[name]
            names, texts = (None, None) if amounts is None else (list(amounts), [*amounts.values()])
            row |= {f"{name}_names": names, name: texts}
            expressions[name] = _AMOUNTS.format(name)
        cells = ", ".join(f"{cell} AS {quoted(name)}" for name, cell in expressions.items())
        connection.execute(f"INSERT INTO finops_state.manifests BY NAME SELECT {cells}", row)


def record_content(connection: duckdb.DuckDBPyConnection, load: Load, content: Content) -> None:
    """Complete a version that is known to have this content: with the files where it was loaded
    before they were kept, or with the ETags that they have in another bucket."""
    connection.execute(
        f"UPDATE finops_state.manifests SET files = $files WHERE {_OF_VERSION}",
        {**_key(load), "files": content.rows()},
    )


def lake_sha256(connection: duckdb.DuckDBPyConnection, load: Load) -> str | None:
    """Return the checksum of the Parquet file that was written from this load, where it is known:
    files that were written before checksums were kept have none, nor has a new load."""
    row = connection.execute(
        f"SELECT lake_sha256 FROM finops_state.manifests WHERE {_OF_VERSION} AND state = 'loaded'",
        _key(load),
    ).fetchone()
    return row[0] if row else None


def record_lake_sha256(connection: duckdb.DuckDBPyConnection, load: Load, checksum: str) -> None:
    """Keep the checksum of the Parquet file that is written from this load."""
    connection.execute(
        "UPDATE finops_state.manifests SET lake_sha256 = $checksum "
        f"WHERE {_OF_VERSION} AND state = 'loaded'",
        {**_key(load), "checksum": checksum},
    )


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


def other_load_in(connection: duckdb.DuckDBPyConnection, load: Load) -> tuple[str, str] | None:
    """Return export and format of another export, or else another format, of which months lie in
    the same table."""
    row: tuple[str, str] | None = connection.execute(
        "SELECT export, format FROM finops_state.manifests WHERE lower(table_name) = lower($table) "
        "AND (export, format) <> ($export, $format) AND state = 'loaded' "
        "ORDER BY export = $export LIMIT 1",
        {"table": load.table, "export": load.export, "format": load.format},
    ).fetchone()
    return row


def column_names(connection: duckdb.DuckDBPyConnection, table: str) -> dict[str, str]:
    """Return the column name that each header ever seen in this table was given."""
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
