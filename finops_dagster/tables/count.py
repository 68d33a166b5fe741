"""Counts the totals of the vendor's files with pyarrow.

DuckDB loads the same files, with another parser and other casts. If either reader makes a mistake,
the totals differ, and the month is not loaded.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from itertools import islice
from typing import IO, Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from isal import igzip, isal_zlib
from rich.filesize import decimal

from finops_dagster.billing.columns import SqlType
from finops_dagster.billing.disk import memory_or_disk_problem
from finops_dagster.billing.errors import FileInvalid, excerpts, first_line
from finops_dagster.billing.manifest import ListedColumn
from finops_dagster.billing.money import Totals, exact_sum
from finops_dagster.billing.months import BillingMonth
from finops_dagster.progress import logging_progress
from finops_dagster.sources.base import Format, is_money
from finops_dagster.tables.amounts import LIMIT, MONEY, NotExact, exact_amounts, exact_total
from finops_dagster.tables.bill_files import BillFiles, ColumnMapping, plain_type
from finops_dagster.tables.casts import prepare_casts
from finops_dagster.tables.csv_files import BOM, CsvFiles, open_text
from finops_dagster.tables.database import DuckDB
from finops_dagster.tables.files import header_types, translated_error

# A block of pyarrow's must hold a whole row; DuckDB refuses rows of more than 16 MB. Blocks that
# fit into the processor's cache are parsed fastest, and added up fastest several at once.
_BLOCK_BYTES, _LARGEST_ROW_BYTES = 1 << 20, 32 << 20
_BLOCKS_ADDED_AT_ONCE = 16
_HEADERS_SHOWN = 10

Batch = dict[int, pa.Array]
"""The counted columns of some rows, by their positions in the file."""


_UNREADABLE: Any = (NotExact, pa.ArrowException, OSError, EOFError, isal_zlib.error)


@dataclass
class _Tally:
    """The totals of one file or several, by column name and by currency."""

    rows: int = 0
    sums: dict[str, Decimal] = field(default_factory=dict)
    costs: dict[str, Decimal] = field(default_factory=dict)
    rounded: int = 0
    """The number of headline costs that were rounded to 18 decimals."""
    unknown: set[str] = field(default_factory=set)
    """Columns with a cell that is not an exact number; they have no sum.

    The load decides whether such a column becomes text.
    """

    def add(self, other: _Tally) -> None:
        self.rows += other.rows
        self.rounded += other.rounded
        self.unknown |= other.unknown
        _add(self.sums, other.sums)
        _add(self.costs, other.costs)


def _add(amounts: dict[str, Decimal], more: Mapping[str, Decimal]) -> None:
    for name, amount in more.items():
        amounts[name] = exact_sum([amounts.get(name), amount])


@dataclass
class FileCounter:
    """Counts the totals of one file; `bytes_read` grows meanwhile, to show the progress."""

    file: BillFiles
    bill_format: Format
    money_names: dict[int, str]
    """The names that `Format.column` gives the money columns, by their positions in the file."""
    cost_position: int
    """The position of the headline cost."""
    currency_position: int | None
    """The position of the currency; None where the file has none."""
    round_money: bool
    period_position: int | None = None
    """The position of the billing period; None where all rows are counted."""
    bytes_read: int = 0

    def count(self) -> _Tally:
        """Return the totals of the file's rows that its month filter selects.

        `unknown` of the result has the money columns with a cell that is no exact number. Raises
        NotExact for such a headline cost, and errors of pyarrow, gzip and the disk.
        """
        if not isinstance(self.file, CsvFiles):
            return self._tally(self._parquet_batches())
        # The fast ways first: costs as plain numbers, rows without line ends in quotes. A column
        # that is not all plain numbers is read as text, and each of its cells parsed. Line ends in
        # quotes, and rows longer than a block, take longer to read.
        as_numbers, has_long_rows = True, any("\n" in header for header in self.file.headers)
        while True:
            try:
                return self._tally(self.csv_batches(self.file, as_numbers, has_long_rows))
            except (pa.ArrowInvalid, NotExact) as error:
                if as_numbers and (has_long_rows or "decimal" in str(error).lower()):
                    as_numbers = False
                elif not has_long_rows:
                    has_long_rows = True
                elif _has_rows(self.file):
                    raise
                else:
                    return _Tally()

    @property
    def _positions(self) -> list[int]:
        optional = (self.currency_position, self.period_position)
        return [*self.money_names, *(position for position in optional if position is not None)]

    def csv_batches(self, file: CsvFiles, as_numbers: bool, has_long_rows: bool) -> Iterator[Batch]:
        """Yield the counted columns of a CSV file, with amounts as numbers or as text.

        Amounts as numbers have the type MONEY: raises pyarrow.ArrowInvalid for a cell that is no
        plain number. With `has_long_rows`, rows may be longer than 1 MiB and have line ends in
        quotes. Rows with a comma too many at their end come last, with amounts as text.
        """
        path, rows_with_comma = file.paths[0], list[str]()

        def skip_trailing_comma(row: pyarrow.csv.InvalidRow) -> str:
            # DuckDB accepts a comma at the end of a row, and so must the count.
            if row.actual_columns != row.expected_columns + 1 or not row.text.endswith(","):
                return "error"
            rows_with_comma.append(row.text)
            return "skip"

        types = {
            str(n): MONEY if as_numbers and n in self.money_names else pa.string()
            for n in self._positions
        }
        options = (
            pyarrow.csv.ReadOptions(
                use_threads=False,
                block_size=_LARGEST_ROW_BYTES if has_long_rows else _BLOCK_BYTES,
                column_names=[str(number) for number in range(len(file.headers))],
                skip_rows_after_names=1,
            ),
            pyarrow.csv.ParseOptions(
                newlines_in_values=has_long_rows, invalid_row_handler=skip_trailing_comma
            ),
            pyarrow.csv.ConvertOptions(
                include_columns=list(types),
                column_types=types,
                null_values=["", *file.null_words],
                strings_can_be_null=True,
            ),
        )
        with path.open("rb") as raw, closing(_plain_bytes(raw, file.gzipped)) as stream:
            blocks = pyarrow.csv.open_csv(pa.PythonFile(stream, mode="r"), *options)
            while several := list(islice(blocks, _BLOCKS_ADDED_AT_ONCE)):
                self.bytes_read = raw.tell()
                rows = pa.concat_batches(several)
                yield {n: rows.column(str(n)) for n in self._positions}
        if rows_with_comma:
            cells = list(csv.reader(rows_with_comma))
            yield {n: pa.array([row[n] for row in cells]) for n in self._positions}

    def _parquet_batches(self) -> Iterator[Batch]:
        """Yield the counted columns of a Parquet file, in the types that the file gives them."""
        path, headers = self.file.paths[0], {n: self.file.headers[n] for n in self._positions}
        with pq.ParquetFile(path) as file:
            # One row group after another: iterating over all would keep those already read.
            for group in range(file.num_row_groups):
                for batch in file.iter_batches(row_groups=[group], columns=list(headers.values())):
                    yield {number: batch.column(name) for number, name in headers.items()}
                self.bytes_read = path.stat().st_size * (group + 1) // file.num_row_groups

    def _tally(self, batches: Iterator[Batch]) -> _Tally:
        tally = _Tally()
        for batch in map(self._selected_rows, batches):
            tally.rows += len(batch[self.cost_position])
            for position, name in self.money_names.items():
                try:
                    amounts, rounded = self._amounts(batch[position], position)
                    _add(tally.sums, {name: exact_total(amounts)})
                except (NotExact, pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                    if position == self.cost_position:
                        raise NotExact from error
                    tally.unknown.add(name)
                    continue
                if position == self.cost_position:
                    tally.rounded += rounded
                    _add(tally.costs, self.sums_by_currency(amounts, batch))
        return tally

    def _selected_rows(self, batch: Batch) -> Batch:
        """Return the rows that the file's month filter selects."""
        month_filter = self.file.month_filter
        if month_filter is None or self.period_position is None:
            return batch
        cells = batch[self.period_position]
        # Each distinct period is parsed once: a file has few.
        periods = cells if pa.types.is_dictionary(cells.type) else cells.dictionary_encode()
        months = self._months(periods.dictionary)
        is_selected = pa.array([month == month_filter.month for month in months], pa.bool_())
        mask = is_selected.take(periods.indices)
        return {position: cells.filter(mask) for position, cells in batch.items()}

    def _months(self, periods: pa.Array) -> list[BillingMonth | None]:
        """Return the months of times; None for a text that is no time, which the load refuses."""
        if pa.types.is_temporal(periods.type):
            days = periods.cast(pa.timestamp("us"), safe=False).cast(pa.date32(), safe=False)
            return [day and BillingMonth.of(day) for day in days.to_pylist()]
        assert self.period_position is not None
        texts = self._words_to_nulls(periods.cast(pa.string()), self.period_position)
        time_format = self.file.time_format
        return [text and _month_of_text(text, time_format) for text in texts.to_pylist()]

    def _amounts(self, cells: pa.Array, position: int) -> tuple[pa.Array, int]:
        """Return the cells as amounts, and how many of them were rounded. Raises NotExact."""
        arrow = plain_type(cells.type)
        is_exact = pa.types.is_decimal(arrow) and arrow.scale <= 18
        if is_exact or pa.types.is_null(arrow) or pa.types.is_integer(arrow):
            return cells.cast(MONEY), 0
        # Each distinct value is parsed once: the costs of a bill repeat.
        distinct = cells if pa.types.is_dictionary(cells.type) else cells.dictionary_encode()
        values = distinct.dictionary
        if isinstance(values, pa.ExtensionArray):
            values = values.storage
        is_double = pa.types.is_floating(arrow)
        texts = values.cast(pa.string())
        if not is_double:
            texts = self._words_to_nulls(texts, position)
        amounts, is_rounded = exact_amounts(texts, self.round_money or is_double)
        rounded = pc.sum(is_rounded.take(distinct.indices)).as_py() if is_rounded else 0
        return amounts.take(distinct.indices), rounded or 0

    def sums_by_currency(self, amounts: pa.Array, batch: Batch) -> dict[str, Decimal]:
        """Return the sum of the amounts by currency; the empty text is that of rows without one.

        `batch` has the currencies of the rows. Currencies without an amount are left out.
        """
        if self.currency_position is None:
            return {"": exact_total(amounts)} if len(amounts) > amounts.null_count else {}
        names = batch[self.currency_position]
        if not pa.types.is_dictionary(names.type):
            names = names.dictionary_encode()
        currencies = pc.fill_null(
            self._words_to_nulls(names.dictionary.cast(pa.string()), self.currency_position), ""
        )
        if names.null_count == 0 and len(set(currencies.to_pylist())) == 1:  # as in most batches
            has_amounts = len(amounts) > amounts.null_count
            return {currencies[0].as_py(): exact_total(amounts)} if has_amounts else {}
        names = pc.fill_null(currencies.take(names.indices), "")
        is_amount = pc.is_valid(amounts)
        names, amounts = names.filter(is_amount), amounts.filter(is_amount)
        return {
            name: exact_total(amounts.filter(pc.equal(names, name)))
            for name in names.unique().to_pylist()
        }

    def _words_to_nulls(self, texts: pa.Array, position: int) -> pa.Array:
        if position == 0 and isinstance(self.file, CsvFiles):
            # Some writers put a second byte order mark before the first row.
            texts = pc.utf8_ltrim(texts, BOM)
        nulls = pa.array(["", *self.bill_format.null_words], pa.string())
        return pc.if_else(pc.is_in(texts, nulls), pa.scalar(None, pa.string()), texts)


def count_month(
    files: Sequence[BillFiles],
    bill_format: Format,
    columns: Sequence[ListedColumn],
    limits: DuckDB,
    *,
    round_money: bool = False,
) -> tuple[Totals, int]:
    """Return the totals of the files, and the number of headline costs that were rounded.

    The sums are of money columns, by the name that `Format.column` gives a header; headers with
    the same name are added up. A column with a cell that is not an exact number has no sum; for the
    headline cost that is an error. `columns` are the manifest's. Doubles are rounded, and with
    `round_money` every amount of more than 18 decimals. `limits` gives the number of threads.
    Raises FileInvalid or CellInvalid, with file, line and column if a cell is the cause, for which
    DuckDB scans the file once more. Errors of the disk are raised unchanged.
    """
    readers = list(_readers(files, bill_format, columns, round_money=round_money))
    paths = [path for group in files for path in group.paths]
    size = sum(path.stat().st_size for path in paths)

    total = _Tally()
    with (
        logging_progress("counted", size, decimal, lambda: sum(r.bytes_read for r in readers)),
        ThreadPoolExecutor(limits.threads or os.cpu_count()) as pool,
    ):
        tallies = [(reader, pool.submit(reader.count)) for reader in readers]
        for reader, future in tallies:
            try:
                total.add(future.result())
            except _UNREADABLE as error:
                pool.shutdown(wait=False, cancel_futures=True)
                raise _translated_error(reader, error, limits) from error
    for name, amount in total.sums.items():
        if not -LIMIT < amount < LIMIT:
            raise FileInvalid(
                f"{paths[0].parent}: the sum of {name} is more than {SqlType.MONEY} holds; "
                "check the amounts in the files; if they are wrong, the vendor must deliver the "
                "files again"
            )
    sums = {name: amount for name, amount in total.sums.items() if name not in total.unknown}
    cost = total.sums.get(bill_format.cost, Decimal(0))
    return Totals(total.rows, cost, sums, total.costs), total.rounded


def _readers(
    files: Sequence[BillFiles],
    bill_format: Format,
    columns: Sequence[ListedColumn],
    *,
    round_money: bool,
) -> Iterator[FileCounter]:
    types = header_types(files, bill_format, columns)
    for group in files:
        names = {number: bill_format.column(header) for number, header in enumerate(group.headers)}
        # Of several headers that prefer one name, the first has its position.
        positions = {name: number for number, name in reversed(names.items())}
        cost = positions.get(bill_format.cost)
        if cost is None:
            raise FileInvalid(
                f"{group.paths[0]}: no column gives {bill_format.cost}, the cost of the month; "
                "check the format of the export: the file has the columns "
                f"{excerpts(group.headers, _HEADERS_SHOWN)}"
            )
        money = {
            number: name
            for number, name in names.items()
            if types[group.headers[number]] is SqlType.MONEY and is_money(bill_format, name)
        }
        money[cost] = bill_format.cost
        currency = positions.get(bill_format.currency)
        selected = group.month_filter
        period = None if selected is None else group.positions[selected.header]
        for path in group.paths:
            file = group.for_file(path)
            yield FileCounter(file, bill_format, money, cost, currency, round_money, period)


def _translated_error(reader: FileCounter, error: Exception, limits: DuckDB) -> Exception:
    """Return the error to raise, which names line and cell: DuckDB scans the file for them."""
    file, header = reader.file, reader.file.headers[reader.cost_position]
    name, money = reader.bill_format.cost, SqlType.MONEY
    is_rounded = reader.round_money
    cost = ColumnMapping(header, name, money, money, name, is_money=True, is_rounded=is_rounded)
    with limits.open_in_memory() as connection:
        prepare_casts(connection)
        try:
            cell = file.column_sql(header, money, rounded=reader.round_money)
            connection.execute(f"SELECT count(*), sum({cell}) FROM {file.rows_sql()}").fetchall()
        except duckdb.Error as scan_error:
            return translated_error(connection, scan_error, [file], [cost])
    if memory_or_disk_problem(error):
        return error
    problem = first_line(error) or f'column "{excerpts([header], 1)}" has a cost that is no number'
    return FileInvalid(f"{file.paths[0]}: {problem}; the vendor must deliver the file again")


def _month_of_text(text: str, time_format: str | None) -> BillingMonth | None:
    try:
        time = (
            datetime.strptime(text, time_format)
            if time_format
            else datetime.fromisoformat(text.strip().removesuffix(" UTC"))
        )
    except ValueError:
        return None
    return BillingMonth.of(time.astimezone(UTC) if time.tzinfo else time)


def _plain_bytes(raw: IO[bytes], gzipped: bool) -> Any:
    return igzip.IGzipFile(fileobj=raw, mode="rb") if gzipped else raw  # type: ignore[no-untyped-call]


def _has_rows(file: CsvFiles) -> bool:
    """Return whether a row follows the header, whose line may have no end."""
    with open_text(file.paths[0], file.gzipped) as text:
        rows = csv.reader(text)
        next(rows, None)
        try:
            return next(rows, None) is not None
        except csv.Error:  # a row that is too long for `csv`
            return True
