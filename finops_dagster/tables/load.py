"""Loads a month into the billing table, in one DuckDB transaction."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cached_property

import duckdb

from finops_dagster.billing.columns import Sql, SqlType, name_columns, quoted
from finops_dagster.billing.errors import (
    BillError,
    CellInvalid,
    count_text,
    excerpts,
    reprocess_advice,
)
from finops_dagster.billing.manifest import ListedColumn
from finops_dagster.billing.money import MeasuredTotals, Totals, exact_sum, reconcile
from finops_dagster.billing.version import Load
from finops_dagster.sources.base import Format, is_money
from finops_dagster.tables import ledger
from finops_dagster.tables.bill_files import AS_TEXT, BillFiles, ColumnMapping
from finops_dagster.tables.billing_table import add_columns, measure_month, table_columns
from finops_dagster.tables.casts import prepare_casts
from finops_dagster.tables.files import header_types, translated_error
from finops_dagster.tables.rounding import rounded_columns


@dataclass(frozen=True)
class MonthLoader:
    """Loads one version of one month into the billing table.

    `load` names the table, and has the totals that were counted in the vendor's files.
    """

    connection: duckdb.DuckDBPyConnection
    load: Load
    bill_format: Format
    started: float = field(default_factory=time.monotonic)

    @contextmanager
    def replacing_month(
        self,
        files: Sequence[BillFiles],
        columns: Sequence[ListedColumn],
        lake_names: Mapping[str, str] | None = None,
        *,
        round_money: bool = False,
    ) -> Iterator[tuple[Load, list[str]]]:
        """Replace the month's rows by those of the files, in one transaction with the ledger.

        The block runs before the commit: the rows are written, reconciled with the load's totals
        and visible to `connection`. It gets the recorded load, and warnings: for each column whose
        type differs from this version's, and for rows without a billing period. On any error, also
        in the block, nothing is changed. Raises BillError, or duckdb.Error if no file explains it.

        `columns` are the manifest's. `lake_names` are column names by header, for headers that the
        ledger lacks. With `round_money`, amounts of more than 18 decimals are rounded, as
        quantities always are.
        """
        self._require_own_table()
        prepare_casts(self.connection)
        mappings: list[ColumnMapping] = []
        try:
            mappings = self._mappings(files, columns, lake_names or {})
            with ExitStack() as stack:
                try:
                    written = stack.enter_context(self._writing_files(files, mappings))
                except duckdb.ConversionException:
                    # A number may have more than 18 decimals. To find those takes a second scan of
                    # the files, which nearly every month can do without.
                    mappings = [
                        replace(
                            m,
                            is_rounded=m.table_type.is_numeric and (round_money or not m.is_money),
                        )
                        for m in mappings
                    ]
                    written = stack.enter_context(self._writing_files(files, mappings))
                yield written
        except duckdb.Error as error:
            raise self._translated_error(error, files, mappings) from error

    def _writing_files(
        self, files: Sequence[BillFiles], mappings: Sequence[ColumnMapping]
    ) -> AbstractContextManager[tuple[Load, list[str]]]:
        rounded = rounded_columns(self.connection, files, mappings)
        names = {mapping.header: mapping.name for mapping in mappings}
        month = replace(self, load=replace(self.load, rounded=rounded))
        return month.replacing_rows(files, mappings, names)

    @contextmanager
    def replacing_rows(
        self,
        files: Sequence[BillFiles],
        mappings: Sequence[ColumnMapping],
        names: Mapping[str, str],
    ) -> Iterator[tuple[Load, list[str]]]:
        """Replace the month's rows, reconcile them and record the load, in one transaction.

        The table is created, or gets the columns that it lacks. The block runs before the commit,
        and gets the recorded load, with the totals measured in the table, and the warnings about
        columns and rows without a billing period. `names` are the column names by the vendor's
        headers, for the ledger. Raises ReconciliationError, and duckdb.Error as it is. The
        connection needs the macros of `prepare_casts`.
        """
        load, connection, sums = self.load, self.connection, self.load.totals.sums
        sum_columns = None
        if sums is not None:
            numbers = [mapping for mapping in mappings if mapping.table_type is SqlType.MONEY]
            sum_columns = [m.name for m in numbers if m.is_money or m.name in sums]
        with _transaction(connection):
            warnings = self._change_columns(mappings)
            self._write_rows(files, mappings)
            measured = measure_month(
                connection, quoted(load.table), load.month, self.bill_format, sum_columns
            )
            counted_and_measured = self._comparable_totals(measured, mappings)
            advice = reprocess_advice(load.export, load.month)
            reconcile(f"table {load.table}", *counted_and_measured, advice)
            if measured.undated_rows:
                rows = count_text(measured.undated_rows, "row")
                warnings.append(
                    f"{rows} without {self.bill_format.billing_period} count as {load.month}, as "
                    "the manifest and its folder say; nothing needs to be done"
                )
            load = replace(load, totals=measured.totals)
            ledger.record_export(connection, load, self.bill_format.vendor, names)
            ledger.record_load(connection, load, time.monotonic() - self.started)
            yield load, warnings

    def column_mapping(
        self, header: str, name: str, version_type: SqlType, counted_as: str
    ) -> ColumnMapping:
        """Return the mapping of a header to a column, with the type that the table's column gets.

        The table is not changed yet. A new column gets `version_type`. A column of text or of
        numbers keeps its type. One of times or text maps becomes text if `version_type` is another
        type, which loses nothing; raises BillError if that is numeric, or if the table's type is
        not a SqlType. `counted_as` is that of ColumnMapping.
        """
        load, stored_type = self.load, self._stored_types.get(name.lower(), version_type)
        try:
            table_type = SqlType(stored_type)
        except ValueError:
            raise BillError(
                f"column {name} of table {load.table} has the type {stored_type}, which no column "
                f"of a bill has ({', '.join(SqlType)}); change it back, or give the export another "
                "name and table"
            ) from None
        if table_type not in (version_type, SqlType.TEXT) and not table_type.is_numeric:
            if version_type.is_numeric:
                raise BillError(
                    f"column {name} of table {load.table} has the type {table_type} since "
                    f"{self._first_month(name)}, but {load.month} has amounts there "
                    f"({version_type}), which are never stored as text; to load the month, give "
                    "the export another name and table"
                )
            table_type = SqlType.TEXT
        has_money = is_money(self.bill_format, counted_as)
        return ColumnMapping(header, name, table_type, version_type, counted_as, has_money)

    def _require_own_table(self) -> None:
        load, table = self.load, f"table {self.load.table}"
        export, other_format = ledger.conflicting_load(self.connection, load) or (None, None)
        if export not in (None, load.export):
            raise BillError(
                f"{table} already has months of the export {export!r}; give {load.export!r} "
                "another table"
            )
        if export is not None:
            raise BillError(
                f"{table} holds months of {load.export} in the format {other_format}, and "
                f"{load.month} is in the format {load.format}, which has other columns; load the "
                "new export under another name and table"
            )

    def _mappings(
        self,
        files: Sequence[BillFiles],
        columns: Sequence[ListedColumn],
        lake_names: Mapping[str, str],
    ) -> list[ColumnMapping]:
        """Return a mapping for every header of the version. Raises BillError."""
        bill_format, load = self.bill_format, self.load
        types = header_types(files, bill_format, columns)
        recorded_names = {**lake_names, **ledger.names_by_header(self.connection, load.table)}
        names = name_columns(types, recorded_names, bill_format)
        costs = [header for header in names if bill_format.column(header) == bill_format.cost]
        if len(costs) > 1:
            raise BillError(
                f"{load.export} {load.month} has several columns for the headline cost, "
                f"{excerpts(costs, 3)}; the vendor must deliver the files again with one"
            )
        for header, name in names.items():
            if bill_format.column(header) == bill_format.cost != name:
                raise BillError(
                    f"column_names of {load.export} was changed after months were loaded: the cost "
                    f"is in column {name} of table {load.table}, and the setting now asks for "
                    f"{bill_format.cost}; change it back, or give the export another name and table"
                )
        return [
            self.column_mapping(header, name, types[header], bill_format.column(header))
            for header, name in names.items()
        ]

    @cached_property
    def _stored_types(self) -> dict[str, str]:
        # DuckDB treats names that differ in case alone as one.
        types = table_columns(self.connection, self.load.table)
        return {name.lower(): sql_type for name, sql_type in types.items()}

    def _comparable_totals(
        self, measured: MeasuredTotals, mappings: Sequence[ColumnMapping]
    ) -> tuple[Totals, MeasuredTotals]:
        """Return the counted and the measured totals, with the sums of the same columns.

        The sums are under the names that the count uses, which have no hash: the table adds a hash
        where two headers prefer one name. A column is left out where the table has another type
        than this version.
        """
        counted, stored = self.load.totals, measured.totals
        if counted.sums is None or stored.sums is None:
            return counted, measured
        left_out = {m.counted_as for m in mappings if m.version_type is not m.table_type}
        counted_sums = {name: sum_ for name, sum_ in counted.sums.items() if name not in left_out}
        stored_sums: dict[str, Decimal] = {}
        for name, counted_as in {m.name: m.counted_as for m in mappings}.items():
            if name in stored.sums and counted_as not in left_out:
                amounts = [stored_sums.get(counted_as), stored.sums[name]]
                stored_sums[counted_as] = exact_sum(amounts)
        stored = replace(stored, sums=stored_sums)
        return replace(counted, sums=counted_sums), replace(measured, totals=stored)

    def _write_rows(self, files: Sequence[BillFiles], mappings: Sequence[ColumnMapping]) -> None:
        table, month = quoted(self.load.table), self.load.month.first_day
        self.connection.execute(f"DELETE FROM {table} WHERE billing_month = ?", [month])
        for group in files:
            present = [mapping for mapping in mappings if mapping.header in group]
            names = ", ".join(quoted(mapping.name) for mapping in present)
            cells = ", ".join(
                group.column_sql(m.header, m.table_type, rounded=m.is_rounded) for m in present
            )
            self.connection.execute(
                f"INSERT INTO {table} (billing_month, manifest_id, {names}) "
                f"SELECT ?, ?, {cells} FROM {group.rows_sql()}",
                [month, self.load.manifest_id],
            )

    def _change_columns(self, mappings: Sequence[ColumnMapping]) -> list[str]:
        """Create the table or add new columns, cast columns to text, and return the warnings."""
        table, stored_types, month = quoted(self.load.table), self._stored_types, self.load.month
        new_types = {
            m.name: Sql(m.table_type) for m in mappings if m.name.lower() not in stored_types
        }
        if not stored_types:
            columns = "".join(f", {quoted(name)} {type_}" for name, type_ in new_types.items())
            self.connection.execute(
                f"CREATE TABLE {table} (billing_month DATE, manifest_id VARCHAR{columns})"
            )
        else:
            add_columns(self.connection, self.load.table, new_types)
        warnings = []
        for mapping in {mapping.name: mapping for mapping in mappings}.values():
            name, version_type = mapping.name, mapping.version_type
            stored_type = stored_types.get(name.lower(), mapping.table_type)
            if stored_type != mapping.table_type:
                as_text = AS_TEXT[SqlType(stored_type)].format(quoted(name))
                self.connection.execute(
                    f"ALTER TABLE {table} ALTER {quoted(name)} TYPE VARCHAR USING {as_text}"
                )
                reason = f"because {month} has {version_type}; cast it in queries"
                warnings.append(f"{name} changed from {stored_type} to text, {reason}")
            elif version_type != stored_type:
                reason = f"although {month} has {version_type}; nothing needs to be done"
                warnings.append(f"{name} stays {stored_type}, {reason}")
        return warnings

    def _translated_error(
        self, error: duckdb.Error, files: Sequence[BillFiles], mappings: Sequence[ColumnMapping]
    ) -> Exception:
        """Return the error to raise: of the bad cell, with the month that set its column's type.

        It is `error` itself where no cell or file explains it.
        """
        # Called when the transaction is over, as it scans the files and reads the table.
        reason = translated_error(self.connection, error, files, mappings)
        if isinstance(reason, CellInvalid):
            for mapping in mappings:
                if reason.header == mapping.header and mapping.version_type != mapping.table_type:
                    return CellInvalid(
                        reason.header,
                        f"{reason}; column {mapping.name} has the type {mapping.table_type} since "
                        f"{self._first_month(mapping.name)}, but {self.load.month} has "
                        f"{mapping.version_type}; to load the month, give the export another name "
                        "and table",
                    )
        return reason

    def _first_month(self, column: str) -> str:
        """Return the first month with a value in the column, as text."""
        ((month,),) = self.connection.execute(
            f"SELECT strftime(min(billing_month), '%Y-%m') FROM {quoted(self.load.table)} "
            f"WHERE {quoted(column)} IS NOT NULL"
        ).fetchall()
        return month or "an earlier month"


@contextmanager
def _transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Run the block in a transaction: commit after it, or roll back if it raises."""
    connection.execute("BEGIN TRANSACTION")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
