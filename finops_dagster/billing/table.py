"""The export's table in DuckDB, in which a month is replaced whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal

import duckdb

from finops_dagster.billing import ledger
from finops_dagster.billing.columns import SqlType, column_names, flat_name, quoted
from finops_dagster.billing.csv_files import CsvFiles, explained
from finops_dagster.billing.errors import BillError
from finops_dagster.billing.ledger import Load
from finops_dagster.billing.manifest import Manifest
from finops_dagster.billing.money import CELL_MACROS, Measured, Totals, reconcile
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.vendors import VendorFormat


@dataclass(frozen=True)
class Target:
    """A column of the table and the header it comes from."""

    header: str
    name: str
    type: SqlType


def prepare(connection: duckdb.DuckDBPyConnection) -> None:
    """Give a connection the ledger and the exact casts."""
    ledger.create(connection)
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(CELL_MACROS)


def replace_month(
    connection: duckdb.DuckDBPyConnection,
    load: Load,
    manifest: Manifest,
    files: Sequence[CsvFiles],
    vendor: VendorFormat,
    names_elsewhere: Mapping[str, str] | None = None,
) -> None:
    """Replace the month in one transaction: its rows, new columns, names, and the ledger's word.

    What was written is measured before the commit and held against `load.totals`, which were
    counted in the text of the files. On any error the month stays as it was. `names_elsewhere` are
    column names that headers were given outside of this database.
    """
    other = ledger.other_export_in(connection, load.table, load.export)
    if other is not None:
        raise BillError(
            f"table {load.table} already holds months of the export {other!r}; "
            f"give {load.export!r} a table of its own"
        )
    types: dict[str, SqlType] = {}
    try:
        with _transaction(connection):
            targets = _widen(connection, load.table, manifest, files, vendor, names_elsewhere or {})
            types = {target.header: target.type for target in targets}
            connection.execute(
                f"DELETE FROM {quoted(load.table)} WHERE billing_month = ?", [load.month.first_day]
            )
            for group in files:
                _insert(connection, load, group, targets)
            reconcile(
                f"table {load.table}",
                load.totals,
                measure(connection, quoted(load.table), load.month, vendor),
            )
            ledger.record(connection, load)
    except duckdb.Error as error:
        raise explained(connection, error, files, types) from error


def _widen(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    manifest: Manifest,
    files: Sequence[CsvFiles],
    vendor: VendorFormat,
    names_elsewhere: Mapping[str, str],
) -> list[Target]:
    """Make the table, and add the columns that this version is the first to have."""
    declared = {column.header: column.type for column in manifest.columns}
    headers = dict.fromkeys([*(h for group in files for h in group.header), *declared])
    known = ledger.column_names(connection, table)
    names = column_names(headers, {**names_elsewhere, **known}, vendor.is_free_text)
    existing = columns(connection, table)
    targets = [
        Target(header, name, _type_kept(table, name, existing.get(name), wanted))
        for header, name in names.items()
        for wanted in [vendor.sql_type(header, declared.get(header))]
    ]
    new = {t.name: f"{quoted(t.name)} {t.type}" for t in targets if t.name not in existing}
    if existing:
        for definition in new.values():
            connection.execute(f"ALTER TABLE {quoted(table)} ADD COLUMN {definition}")
    else:
        definitions = ", ".join(["billing_month DATE", "manifest_id VARCHAR", *new.values()])
        connection.execute(f"CREATE TABLE {quoted(table)} ({definitions})")
    first_seen = {header: name for header, name in names.items() if header not in known}
    ledger.record_column_names(connection, table, first_seen)
    return targets


def _type_kept(table: str, name: str, existing: str | None, wanted: SqlType) -> SqlType:
    """A column keeps the type of its first month; a cell that does not fit is an error."""
    if existing is None:
        return wanted
    try:
        return SqlType(existing)
    except ValueError:
        raise BillError(
            f"column {name} of table {table} has become {existing}; a bill's column is "
            f"{', '.join(SqlType)}: change it back, or give the export another table"
        ) from None


def _insert(
    connection: duckdb.DuckDBPyConnection, load: Load, group: CsvFiles, targets: Sequence[Target]
) -> None:
    present = [target for target in targets if target.header in group]
    names = ", ".join(quoted(target.name) for target in present)
    cells = ", ".join(group.cell(target.header, target.type) for target in present)
    connection.execute(
        f"INSERT INTO {quoted(load.table)} (billing_month, manifest_id, {names}) "
        f"SELECT ?, ?, {cells} FROM {group.scan()}",
        [load.month.first_day, load.manifest_id],
    )


def held_version(
    connection: duckdb.DuckDBPyConnection, export: str, month: BillingMonth, vendor: VendorFormat
) -> Load | None:
    """The version that the ledger says is loaded, if the table really holds its rows and cost."""
    load = ledger.loaded(connection, export, month)
    if load is None or not columns(connection, load.table):
        return None
    measured = measure(connection, quoted(load.table), month, vendor)
    return load if measured == Measured(load.totals, 0) else None


def measure(
    connection: duckdb.DuckDBPyConnection, relation: str, month: BillingMonth, vendor: VendorFormat
) -> Measured:
    """Count the month in a relation that has the table's columns: a table, or its Parquet file."""
    present = {row[0] for row in connection.execute(f"DESCRIBE FROM {relation}").fetchall()}
    cost, period = flat_name(vendor.cost), flat_name(vendor.billing_period)
    row = connection.execute(
        f"SELECT count(*), {f'sum({cost})' if cost in present else 'NULL'}, "
        f"count(*) FILTER (date_trunc('month', {period if period in present else 'NULL::DATE'}) "
        f"<> billing_month) FROM {relation} WHERE billing_month = ?",
        [month.first_day],
    ).fetchone()
    assert row is not None
    return Measured(Totals.of(row[:2]), row[2])


def columns(connection: duckdb.DuckDBPyConnection, table: str) -> dict[str, str]:
    """Name and type of each column, in the table's order; empty where there is no table."""
    return dict(
        connection.execute(
            "SELECT column_name, data_type FROM duckdb_columns() "
            "WHERE schema_name = 'main' AND lower(table_name) = lower(?) ORDER BY column_index",
            [table],
        ).fetchall()
    )


def cost_by_service(
    connection: duckdb.DuckDBPyConnection, table: str, month: BillingMonth, vendor: VendorFormat
) -> list[tuple[str, Decimal]]:
    """The month's unblended cost by service, the largest first."""
    service, cost = flat_name(vendor.service), flat_name(vendor.cost)
    if not {service, cost} <= columns(connection, table).keys():
        return []
    return connection.execute(
        f"SELECT coalesce({service}, '(none)') AS service, sum({cost}) AS cost "
        f"FROM {quoted(table)} WHERE billing_month = ? GROUP BY ALL ORDER BY cost DESC, service",
        [month.first_day],
    ).fetchall()


@contextmanager
def _transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    connection.execute("BEGIN TRANSACTION")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
