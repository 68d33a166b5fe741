"""The export's table in DuckDB, in which a month is replaced whole or not at all."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cached_property

import duckdb

from finops_dagster.billing.columns import Sql, SqlType, name_columns, quoted
from finops_dagster.billing.errors import BillError, CellInvalid
from finops_dagster.billing.manifest import Column
from finops_dagster.billing.money import MeasuredTotals, Totals, exact_sum, reconcile
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.version import Load
from finops_dagster.sources.base import Format, is_money
from finops_dagster.tables import ledger
from finops_dagster.tables.bill_files import AS_TEXT, BillFiles, ColumnMapping
from finops_dagster.tables.casts import prepare_casts
from finops_dagster.tables.files import header_types, translated_error
from finops_dagster.tables.rounding import count_cells_to_round

# Each of more would copy the list of all columns, which DuckDB keeps until the transaction ends:
# 4,000 at once take 5 GB, outside of its limit.
_ADDED_ONE_BY_ONE = 500


@dataclass(frozen=True)
class MonthLoader:
    """One version of one month on its way into the export's table."""

    connection: duckdb.DuckDBPyConnection
    load: Load
    bill_format: Format
    started: float = field(default_factory=time.monotonic)

    @contextmanager
    def replacing_month(
        self,
        files: Sequence[BillFiles],
        columns: Sequence[Column],
        names_elsewhere: Mapping[str, str] | None = None,
        *,
        round_money: bool = False,
    ) -> Iterator[tuple[Load, list[str]]]:
        """Replace the month in one transaction: its rows, new columns, names, and the ledger's row.

        The block runs before the commit and sees the new month; it is given the load as the ledger
        has it, and the warnings of columns whose type is not what this version gives. What was
        written is measured before, and reconciled with the load's totals, which were counted in the
        files. On any error, also of the block, the month stays as it was. `columns` are the
        manifest's, `names_elsewhere` the column names that headers were given outside of this
        database; with `round_money`, amounts of more than 18 decimals are rounded as quantities
        are.
        """
        self._refuse_other_months()
        prepare_casts(self.connection)
        mappings: list[ColumnMapping] = []
        try:
            mappings = self._mappings(files, columns, names_elsewhere or {})
            with ExitStack() as stack:
                try:
                    written = stack.enter_context(self._writing_files(files, mappings))
                except duckdb.ConversionException:
                    # Whether that was a number of more decimals, only a second look at the files
                    # tells; months without any, which are nearly all, need none.
                    mappings = [
                        replace(
                            t, is_rounded=t.table_type.is_money and (round_money or not t.is_money)
                        )
                        for t in mappings
                    ]
                    written = stack.enter_context(self._writing_files(files, mappings))
                yield written
        except duckdb.Error as error:
            raise self._refusal(error, files, mappings) from error

    def _writing_files(
        self, files: Sequence[BillFiles], mappings: Sequence[ColumnMapping]
    ) -> AbstractContextManager[tuple[Load, list[str]]]:
        rounded = count_cells_to_round(self.connection, files, mappings)
        names = {mapping.header: mapping.name for mapping in mappings}
        month = replace(self, load=replace(self.load, rounded=rounded))
        return month.writing_rows(files, mappings, names)

    @contextmanager
    def writing_rows(
        self,
        files: Sequence[BillFiles],
        mappings: Sequence[ColumnMapping],
        names: Mapping[str, str],
    ) -> Iterator[tuple[Load, list[str]]]:
        """Replace the rows in one transaction, of which the block is the last part; `names` are
        those that the vendor's headers were given."""
        load, connection, sums = self.load, self.connection, self.load.totals.sums
        money = None
        if sums is not None:
            numbers = [mapping for mapping in mappings if mapping.table_type is SqlType.MONEY]
            money = [t.name for t in numbers if t.is_money or t.name in sums]
        with transaction(connection):
            warnings = self._widen(mappings)
            self._write_rows(files, mappings)
            measured = measure_month(
                connection, quoted(load.table), load.month, self.bill_format, money
            )
            reconcile(f"table {load.table}", *self._comparable(measured, mappings))
            load = replace(load, totals=measured.totals)
            ledger.record_export(connection, load, self.bill_format.vendor, names)
            ledger.record_load(connection, load, time.monotonic() - self.started)
            yield load, warnings

    def column_mapping(
        self, header: str, name: str, given: SqlType, counted_as: str
    ) -> ColumnMapping:
        """Return a column whose months may give it different types: text takes anything, amounts
        stay amounts, and what is neither becomes text, for nothing of it is lost there."""
        load, in_table = self.load, self._existing.get(name.lower(), given)
        try:
            of_type = SqlType(in_table)
        except ValueError:
            raise BillError(
                f"column {name} of table {load.table} has become {in_table}; a bill's column is "
                f"{', '.join(SqlType)}: change it back, or give the export another name and table"
            ) from None
        if of_type not in (given, SqlType.TEXT) and not of_type.is_money:
            if given.is_money:
                raise BillError(
                    f"column {name} of table {load.table} is {of_type} since "
                    f"{self._first_month(name)}, but {load.month} gives {given}, and amounts are "
                    "never kept as text; give the export another name and table"
                )
            of_type = SqlType.TEXT
        return ColumnMapping(
            header, name, of_type, given, counted_as, is_money(self.bill_format, counted_as)
        )

    def _refuse_other_months(self) -> None:
        load, table = self.load, f"table {self.load.table}"
        export, other_format = ledger.conflicting_load(self.connection, load) or (None, None)
        if export not in (None, load.export):
            raise BillError(
                f"{table} already holds months of the export {export!r}; give {load.export!r} a "
                "table of its own"
            )
        if export is not None:
            raise BillError(
                f"{table} holds months of {load.export} in the format {other_format}, and "
                f"{load.month} comes in {load.format}, whose columns are others; give the export "
                "that is delivered now another name and table"
            )

    def _mappings(
        self,
        files: Sequence[BillFiles],
        columns: Sequence[Column],
        names_elsewhere: Mapping[str, str],
    ) -> list[ColumnMapping]:
        """The column of the table for every header of the version, by name and by type."""
        bill_format, load = self.bill_format, self.load
        types = header_types(files, bill_format, columns)
        known = {**names_elsewhere, **ledger.names_by_header(self.connection, load.table)}
        names = name_columns(types, known, bill_format)
        for header, name in names.items():
            if bill_format.column(header) == bill_format.cost != name:
                raise BillError(
                    f"{load.export} has the column {name} for what would be {bill_format.cost} "
                    "now: column_names was changed; change it back, or give the export another "
                    "name and table"
                )
        return [
            self.column_mapping(header, name, types[header], bill_format.column(header))
            for header, name in names.items()
        ]

    @cached_property
    def _existing(self) -> dict[str, str]:
        """The type of each column by its name in lower case, as DuckDB tells names apart."""
        types = table_columns(self.connection, self.load.table)
        return {name.lower(): of_type for name, of_type in types.items()}

    def _comparable(
        self, measured: MeasuredTotals, mappings: Sequence[ColumnMapping]
    ) -> tuple[Totals, MeasuredTotals]:
        """Both sides with the sums of the columns that are money in this version and in the table,
        by the names under which they were counted: the table has some under names with a hash."""
        counted, in_table = self.load.totals, measured.totals
        if counted.sums is None or in_table.sums is None:
            return counted, measured
        left_out = {
            mapping.counted_as
            for mapping in mappings
            if mapping.version_type is not mapping.table_type
        }
        of_files = {name: sum_ for name, sum_ in counted.sums.items() if name not in left_out}
        of_table: dict[str, Decimal] = {}
        for name, counted_as in {t.name: t.counted_as for t in mappings}.items():
            if name in in_table.sums and counted_as not in left_out:
                of_table[counted_as] = exact_sum([of_table.get(counted_as), in_table.sums[name]])
        in_table = replace(in_table, sums=of_table)
        return replace(counted, sums=of_files), replace(measured, totals=in_table)

    def _write_rows(self, files: Sequence[BillFiles], mappings: Sequence[ColumnMapping]) -> None:
        table, month = quoted(self.load.table), self.load.month.first_day
        self.connection.execute(f"DELETE FROM {table} WHERE billing_month = ?", [month])
        for group in files:
            present = [mapping for mapping in mappings if mapping.header in group]
            names = ", ".join(quoted(mapping.name) for mapping in present)
            cells = ", ".join(
                group.column_sql(t.header, t.table_type, rounded=t.is_rounded) for t in present
            )
            self.connection.execute(
                f"INSERT INTO {table} (billing_month, manifest_id, {names}) "
                f"SELECT ?, ?, {cells} FROM {group.scan()}",
                [month, self.load.manifest_id],
            )

    def _widen(self, mappings: Sequence[ColumnMapping]) -> list[str]:
        """Make the table, the columns that this version is the first to have, and text of those
        that can no longer be what they were; the warnings of what the types came to."""
        table, existing, month = quoted(self.load.table), self._existing, self.load.month
        new = {t.name: Sql(t.table_type) for t in mappings if t.name.lower() not in existing}
        if not existing:
            defined = "".join(f", {quoted(name)} {of_type}" for name, of_type in new.items())
            self.connection.execute(
                f"CREATE TABLE {table} (billing_month DATE, manifest_id VARCHAR{defined})"
            )
        else:
            add_columns(self.connection, self.load.table, new)
        warnings = []
        for mapping in {mapping.name: mapping for mapping in mappings}.values():
            before = existing.get(mapping.name.lower(), mapping.table_type)
            if before != mapping.table_type:
                as_text = AS_TEXT[SqlType(before)].format(quoted(mapping.name))
                self.connection.execute(
                    f"ALTER TABLE {table} ALTER {quoted(mapping.name)} TYPE VARCHAR USING {as_text}"
                )
                warnings.append(
                    f"{mapping.name} was {before}, {month} gives {mapping.version_type}: "
                    "it is text now"
                )
            elif mapping.version_type != mapping.table_type:
                warnings.append(
                    f"{mapping.name} stays {mapping.table_type}, "
                    f"{month} gives {mapping.version_type}"
                )
        return warnings

    def _refusal(
        self, error: duckdb.Error, files: Sequence[BillFiles], mappings: Sequence[ColumnMapping]
    ) -> Exception:
        """Why DuckDB did not take the files, asked when the transaction is over: which cell, and
        since when its column is of another type than this version's."""
        reason = translated_error(self.connection, error, files, mappings)
        if isinstance(reason, CellInvalid):
            for mapping in mappings:
                if reason.header == mapping.header and mapping.version_type != mapping.table_type:
                    return CellInvalid(
                        reason.header,
                        f"{reason}; column {mapping.name} is {mapping.table_type} since "
                        f"{self._first_month(mapping.name)}, and {self.load.month} gives "
                        f"{mapping.version_type}",
                    )
        return reason

    def _first_month(self, column: str) -> str:
        """The first month in which the column has a value."""
        ((month,),) = self.connection.execute(
            f"SELECT strftime(min(billing_month), '%Y-%m') FROM {quoted(self.load.table)} "
            f"WHERE {quoted(column)} IS NOT NULL"
        ).fetchall()
        return month or "an earlier month"


def verified_load(
    connection: duckdb.DuckDBPyConnection,
    export: str,
    month: BillingMonth,
    formats: Mapping[str, Format],
) -> Load | None:
    """Return the version that the ledger says is loaded, if the table really holds its rows and
    cost."""
    load = ledger.newest_load(connection, export, month)
    totals = load and verified_totals(connection, load, formats[load.format])
    return replace(load, totals=totals) if load and totals else None


def verified_totals(
    connection: duckdb.DuckDBPyConnection, load: Load, bill_format: Format
) -> Totals | None:
    """Return what the table holds of the month, if that is what the load says; an older ledger has
    no cost by currency."""
    if "manifest_id" not in table_columns(connection, load.table):
        return None
    measured = measure_month(
        connection, quoted(load.table), load.month, bill_format, load.totals.sums
    )
    differs = measured.rows_outside_month or measured.totals.difference(load.totals)
    return None if differs else measured.totals


def measure_month(
    connection: duckdb.DuckDBPyConnection,
    relation: Sql,
    month: BillingMonth,
    by: Format,
    money: Iterable[str] | None,
) -> MeasuredTotals:
    """Count the month in a relation that has the table's columns, a table or its Parquet file:
    rows, headline cost in all and by currency, and the sum of each column of `money`."""
    present = {row[0] for row in connection.execute(f"DESCRIBE FROM {relation}").fetchall()}

    def column(name: str | None, absent: str) -> Sql:
        return quoted(name) if name in present and name is not None else Sql(absent)

    names = [name for name in money or () if name in present]
    sums = "".join(f", sum({quoted(name)})" for name in names)
    period = column(by.billing_period, "NULL::DATE")
    groups = connection.execute(
        f"SELECT coalesce({column(by.currency, 'NULL')}, ''), count(*), "
        f"count(*) FILTER (date_trunc('month', {period}) <> billing_month), "
        f"sum({column(by.cost, 'NULL::DECIMAL(38,18)')}){sums} "
        f"FROM {relation} WHERE billing_month = ? GROUP BY 1",
        [month.first_day],
    ).fetchall()
    by_column = zip(*groups, strict=True) if groups else [()] * (4 + len(names))
    currencies, rows, rows_outside_month, *amounts = by_column
    costs, *of_columns = amounts
    totals = Totals(
        sum(rows),
        exact_sum(costs),
        None if money is None else dict(zip(names, map(exact_sum, of_columns), strict=True)),
        {name: cost for name, cost in zip(currencies, costs, strict=True) if cost is not None},
    )
    return MeasuredTotals(totals, sum(rows_outside_month))


def table_columns(connection: duckdb.DuckDBPyConnection, table: str) -> dict[str, str]:
    """Return name and type of each column, in the table's order; empty where there is no table."""
    return dict(
        connection.execute(
            "SELECT column_name, data_type FROM duckdb_columns() "
            "WHERE schema_name = 'main' AND lower(table_name) = lower(?) ORDER BY column_index",
            [table],
        ).fetchall()
    )


def add_columns(connection: duckdb.DuckDBPyConnection, table: str, new: Mapping[str, Sql]) -> None:
    """Give a table columns of these types that it does not have; many by copying it."""
    old, wider = quoted(table), quoted(f"{table}__wider")
    if len(new) <= _ADDED_ONE_BY_ONE:
        for name, of_type in new.items():
            connection.execute(f"ALTER TABLE {old} ADD COLUMN {quoted(name)} {of_type}")
        return
    nothing = ", ".join(f"NULL::{of_type} AS {quoted(name)}" for name, of_type in new.items())
    connection.execute(f"CREATE TABLE {wider} AS SELECT *, {nothing} FROM {old}")
    connection.execute(f"DROP TABLE {old}")
    connection.execute(f"ALTER TABLE {wider} RENAME TO {old}")


@contextmanager
def transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Commit all of the block, or nothing of it."""
    connection.execute("BEGIN TRANSACTION")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
