"""The first reader: rows and money of the vendor's files, counted by pyarrow.

It shares neither parser nor casts with DuckDB, which loads the files: a fault of either is a
difference of the two, and no month is kept that has one.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation, localcontext
from pathlib import Path
from typing import IO, Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from isal import igzip, isal_zlib
from rich.filesize import decimal

from finops_dagster.billing.columns import SqlType
from finops_dagster.billing.errors import FileInvalid, excerpts, first_line
from finops_dagster.billing.manifest import Column
from finops_dagster.billing.money import Totals, exact_sum
from finops_dagster.progress import logging_progress
from finops_dagster.sources.base import Format, is_money
from finops_dagster.tables.bill_files import BillFiles, ColumnMapping, plain_type
from finops_dagster.tables.casts import prepare_casts
from finops_dagster.tables.csv_files import BOM, CsvFiles, open_text
from finops_dagster.tables.database import DuckDB
from finops_dagster.tables.files import header_types, read_files, translated_error

_MONEY = pa.decimal128(38, 18)
_WIDE = pa.decimal256(76, 18)
_LIMIT = Decimal(10) ** 20  # DECIMAL(38,18) holds what is less
_LAST_DECIMAL = Decimal("1e-18")
_MOST_DIGITS = 1_000_000
# The grammar of tables/casts.py.
_NUMBER = re.compile(
    r"[\t-\r ]*[+-]?(?:(?P<zero>0+\.?0*[eE][+-]?\d+)|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?)"
    r"[\t-\r ]*",
    re.ASCII,
)
_BLOCK, _LARGEST_ROW = 1 << 20, 32 << 20
_HEADERS_SHOWN = 10

Batch = dict[int, pa.Array]
"""Some rows of the columns that are counted, by their positions in the file."""


class NotExact(Exception):
    """A cell is no number, or one that a column of money does not hold."""


_UNREADABLE: Any = (NotExact, pa.ArrowException, OSError, EOFError, isal_zlib.error)


@dataclass
class _Tally:
    """What one file holds, or several. `unknown` are columns with a cell that cannot be counted:
    whether they are refused, or text in the table, the load decides."""

    rows: int = 0
    sums: dict[str, Decimal] = field(default_factory=dict)
    costs: dict[str, Decimal] = field(default_factory=dict)
    rounded: int = 0
    unknown: set[str] = field(default_factory=set)

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
class FileReader:
    """Counts one file: the columns of money by the positions in which they stand, and the currency.
    `names` are those that the headers ask for in the table; `bytes_read` says how far it is."""

    file: BillFiles
    bill_format: Format
    names: dict[int, str]
    cost: int
    currency: int | None
    rounds: bool
    bytes_read: int = 0

    def tally(self) -> _Tally:
        """Count the file. Raises NotExact for a cell of the headline cost, and what pyarrow
        raises."""
        if not isinstance(self.file, CsvFiles):
            return self._of(self.parquet_batches())
        as_numbers, in_quotes = True, any("\n" in header for header in self.file.headers)
        while True:
            try:
                return self._of(self.csv_batches(self.file, as_numbers, in_quotes))
            except (pa.ArrowInvalid, NotExact) as error:
                # Text of a column that is not all plain numbers is looked at cell by cell; line
                # ends within quotes, and rows that are longer than a block, take longer to read.
                if as_numbers and (in_quotes or "decimal" in str(error).lower()):
                    as_numbers = False
                elif not in_quotes:
                    in_quotes = True
                elif _has_rows(self.file):
                    raise
                else:
                    return _Tally()

    @property
    def _positions(self) -> list[int]:
        return [*self.names, *([] if self.currency is None else [self.currency])]

    def csv_batches(self, file: CsvFiles, as_numbers: bool, in_quotes: bool) -> Iterator[Batch]:
        """Yield the rows of a CSV file, the amounts as such or as text."""
        path, with_comma = file.paths[0], list[str]()

        def take(row: pyarrow.csv.InvalidRow) -> str:
            # DuckDB too takes a comma at the end of a row for no column.
            if row.actual_columns != row.expected_columns + 1 or not row.text.endswith(","):
                return "error"
            with_comma.append(row.text)
            return "skip"

        types = {
            str(n): _MONEY if as_numbers and n in self.names else pa.string()
            for n in self._positions
        }
        options = (
            pyarrow.csv.ReadOptions(
                use_threads=False,
                block_size=_LARGEST_ROW if in_quotes else _BLOCK,
                column_names=[str(number) for number in range(len(file.headers))],
                skip_rows_after_names=1,
            ),
            pyarrow.csv.ParseOptions(newlines_in_values=in_quotes, invalid_row_handler=take),
            pyarrow.csv.ConvertOptions(
                include_columns=list(types),
                column_types=types,
                null_values=["", *file.null_words],
                strings_can_be_null=True,
            ),
        )
        with path.open("rb") as raw, closing(_plain_bytes(raw, file.gzipped)) as stream:
            for batch in pyarrow.csv.open_csv(pa.PythonFile(stream, mode="r"), *options):
                self.bytes_read = raw.tell()
                yield {n: batch.column(str(n)) for n in self._positions}
        if with_comma:
            rows = list(csv.reader(with_comma))
            yield {n: pa.array([row[n] for row in rows]) for n in self._positions}

    def parquet_batches(self) -> Iterator[Batch]:
        """Yield the rows of a Parquet file, the columns of its own types."""
        path, headers = self.file.paths[0], {n: self.file.headers[n] for n in self._positions}
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):  # all at once keep what has been read
                for batch in file.iter_batches(row_groups=[group], columns=list(headers.values())):
                    yield {number: batch.column(name) for number, name in headers.items()}
                self.bytes_read = path.stat().st_size * (group + 1) // file.num_row_groups

    def _of(self, batches: Iterator[Batch]) -> _Tally:
        tally = _Tally()
        for batch in batches:
            tally.rows += len(batch[self.cost])
            for position, name in self.names.items():
                try:
                    amounts, rounded = self._amounts(batch[position], position)
                    _add(tally.sums, {name: _sum(amounts)})
                except (NotExact, pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                    if position == self.cost:
                        raise NotExact from error
                    tally.unknown.add(name)
                    continue
                if position == self.cost:
                    tally.rounded += rounded
                    _add(tally.costs, self.sums_by_currency(amounts, batch))
        return tally

    def _amounts(self, cells: pa.Array, position: int) -> tuple[pa.Array, int]:
        """Return the cells as amounts, and how many of them were rounded to 18 decimals."""
        kind = plain_type(cells.type)
        is_exact = pa.types.is_decimal(kind) and kind.scale <= 18
        if is_exact or pa.types.is_null(kind) or pa.types.is_integer(kind):
            return cells.cast(_MONEY), 0
        distinct = cells if pa.types.is_dictionary(cells.type) else cells.dictionary_encode()
        values = distinct.dictionary
        if isinstance(values, pa.ExtensionArray):
            values = values.storage
        is_binary = pa.types.is_floating(kind)
        texts = values.cast(pa.string())
        if not is_binary:
            texts = self._nulls_out(texts, position)
        amounts, is_rounded = exact_amounts(texts, self.rounds or is_binary)
        rounded = pc.sum(is_rounded.take(distinct.indices)).as_py() if is_rounded else 0
        return amounts.take(distinct.indices), rounded or 0

    def sums_by_currency(self, amounts: pa.Array, batch: Batch) -> dict[str, Decimal]:
        """Return the sum of the amounts by the currency that stands beside them."""
        if self.currency is None:
            return {"": _sum(amounts)} if len(amounts) > amounts.null_count else {}
        names = batch[self.currency]
        if pa.types.is_dictionary(names.type):
            names = names.cast(names.type.value_type)
        names = pc.fill_null(self._nulls_out(names.cast(pa.string()), self.currency), "")
        known = pc.is_valid(amounts)
        names, amounts = names.filter(known), amounts.filter(known)
        return {
            name: _sum(amounts.filter(pc.equal(names, name))) for name in names.unique().to_pylist()
        }

    def _nulls_out(self, texts: pa.Array, position: int) -> pa.Array:
        if position == 0 and isinstance(self.file, CsvFiles):
            texts = pc.utf8_ltrim(texts, BOM)  # some writers put a second one before the first row
        words = pa.array(["", *self.bill_format.null_words], pa.string())
        return pc.if_else(pc.is_in(texts, words), pa.scalar(None, pa.string()), texts)


def count_month(
    paths: Sequence[Path],
    bill_format: Format,
    columns: Sequence[Column],
    limits: DuckDB,
    *,
    round_money: bool = False,
) -> tuple[Totals, int]:
    """Count the line items, and sum each column of money, under the name that its header asks for,
    and the headline cost by currency, straight from the files; `columns` are the manifest's.

    Every later stage is held against these totals. The second number is that of headline costs that
    were rounded to 18 decimals: doubles, and with `round_money` text too. Raises FileInvalid and
    CellInvalid, in the words of DuckDB's look at the file.
    """
    readers = list(
        _readers(read_files(paths, bill_format), bill_format, columns, round_money=round_money)
    )
    size = sum(path.stat().st_size for path in paths)

    total = _Tally()
    with (
        logging_progress("counted", size, decimal, lambda: sum(r.bytes_read for r in readers)),
        ThreadPoolExecutor(limits.threads or os.cpu_count()) as pool,
    ):
        tallies = [(reader, pool.submit(reader.tally)) for reader in readers]
        for reader, tally in tallies:
            try:
                total.add(tally.result())
            except _UNREADABLE as error:
                pool.shutdown(wait=False, cancel_futures=True)
                raise _refusal(reader, error, limits) from error
    for name, amount in total.sums.items():
        if not -_LIMIT < amount < _LIMIT:
            raise FileInvalid(
                f"{paths[0].parent}: the sum of {name} is more than {SqlType.MONEY} holds; no "
                "bill is so high"
            )
    sums = {name: amount for name, amount in total.sums.items() if name not in total.unknown}
    cost = total.sums.get(bill_format.cost, Decimal(0))
    return Totals(total.rows, cost, sums, total.costs), total.rounded


def _readers(
    files: Sequence[BillFiles], bill_format: Format, columns: Sequence[Column], *, round_money: bool
) -> Iterator[FileReader]:
    given = header_types(files, bill_format, columns)
    for group in files:
        names = {number: bill_format.column(header) for number, header in enumerate(group.headers)}
        positions = {name: number for number, name in reversed(names.items())}
        cost = positions.get(bill_format.cost)
        if cost is None:
            raise FileInvalid(
                f"{group.paths[0]}: no column becomes {bill_format.cost}, whose sum is the month's "
                f"total; it has {excerpts(group.headers, _HEADERS_SHOWN)}"
            )
        money = {
            number: name
            for number, name in names.items()
            if given[group.headers[number]] is SqlType.MONEY and is_money(bill_format, name)
        }
        money[cost] = bill_format.cost
        currency = positions.get(bill_format.currency)
        for path in group.paths:
            yield FileReader(group.for_file(path), bill_format, money, cost, currency, round_money)


def _refusal(reader: FileReader, error: Exception, limits: DuckDB) -> Exception:
    """Why a file cannot be counted, by DuckDB's look at it: which line, which cell."""
    file, header = reader.file, reader.file.headers[reader.cost]
    name, money = reader.bill_format.cost, SqlType.MONEY
    cost = ColumnMapping(header, name, money, money, name, is_money=True, is_rounded=reader.rounds)
    with limits.scratch() as connection:
        prepare_casts(connection)
        try:
            cell = file.column_sql(header, money, rounded=reader.rounds)
            connection.execute(f"SELECT count(*), sum({cell}) FROM {file.scan()}").fetchall()
        except duckdb.Error as found:
            return translated_error(connection, found, [file], [cost])
    return FileInvalid(f"{file.paths[0]}: {first_line(error) or 'a cost is no exact number'}")


def _plain_bytes(raw: IO[bytes], gzipped: bool) -> Any:
    return igzip.IGzipFile(fileobj=raw, mode="rb") if gzipped else raw  # type: ignore[no-untyped-call]


def _has_rows(file: CsvFiles) -> bool:
    """Whether anything follows the header, whose line may have no end."""
    with open_text(file.paths[0], file.gzipped) as text:
        rows = csv.reader(text)
        next(rows, None)
        return next(rows, None) is not None


def _sum(amounts: pa.Array) -> Decimal:
    """Add amounts exactly: a sum of 128 bits overflows in silence. Raises NotExact for one that has
    more than 38 digits, which pyarrow's CSV reader takes."""
    ends = pc.min_max(amounts).as_py()
    if ends["min"] is None:
        return Decimal(0)
    largest = max(ends["min"].copy_negate(), ends["max"])
    if largest >= _LIMIT:
        raise NotExact
    if largest * len(amounts) >= _LIMIT // 2:
        amounts = amounts.cast(_WIDE)
    total: Decimal = pc.sum(amounts).as_py()
    return total


def exact_amounts(texts: pa.Array, rounds: bool) -> tuple[pa.Array, pa.Array | None]:
    """Return texts as amounts, and which of them were rounded, if any. Raises NotExact."""
    try:
        return texts.cast(_MONEY), None
    except pa.ArrowInvalid:
        pairs = [_amount(text, rounds) for text in texts.to_pylist()]
    amounts, is_rounded = zip(*pairs, strict=True)
    return pa.array(amounts, _MONEY), pa.array(is_rounded)


def _amount(text: str | None, rounds: bool) -> tuple[Decimal | None, bool]:
    """Return the amount that a text says, and whether it was rounded, half to even."""
    if text is None:
        return None, False
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise NotExact
    if match["zero"]:
        return Decimal(0), False
    with localcontext(prec=_MOST_DIGITS):
        try:
            number = Decimal(text.strip("\t\n\v\f\r "))
            amount = number.quantize(_LAST_DECIMAL, ROUND_HALF_EVEN)
        except InvalidOperation as error:
            raise NotExact from error
        if not -_LIMIT < amount < _LIMIT or (amount != number and not rounds):
            raise NotExact
        return amount, amount != number
