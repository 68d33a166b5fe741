"""A CSV file read twice: by the project's count and load, and by Python alone."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal, localcontext
from pathlib import Path

import duckdb

from finops_dagster.billing.errors import BillError
from finops_dagster.billing.money import Totals
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.version import Load
from finops_dagster.sources.aws.source import aws_formats
from finops_dagster.tables import ledger
from finops_dagster.tables.billing_table import table_columns
from finops_dagster.tables.casts import prepare_casts
from finops_dagster.tables.count import count_month
from finops_dagster.tables.database import DuckDB
from finops_dagster.tables.files import read_headers
from finops_dagster.tables.load import MonthLoader

MONTH = BillingMonth(2024, 1)
COST = "lineItem/UnblendedCost"
_FORMAT = aws_formats("flat")["cur1"]


def one_line(error: BaseException) -> str:
    """Return the message of an error; assert that it is one line of at most 2,000 characters."""
    message = str(error)
    assert message.isprintable(), message
    assert len(message) < 2000, message
    return message


@dataclass(frozen=True)
class Reader:
    """Counts and loads files in a DuckDB of its own."""

    folder: Path
    connection: duckdb.DuckDBPyConnection

    @classmethod
    @contextmanager
    def below(cls, folder: Path, memory_limit: str = "1GB") -> Iterator[Reader]:
        """Yield a reader that writes its files to the folder."""
        with DuckDB(memory_limit).open_in_memory(preserve_insertion_order=False) as connection:
            prepare_casts(connection)
            ledger.create_tables(connection)
            yield cls(folder, connection)

    def load(
        self, *bodies: bytes, round_money: bool = False, keep: bool = False
    ) -> Totals | BillError:
        """Load files, and return the totals of the table or the error that refused them.

        With `keep`, the month that was loaded before stays in the table until it is replaced.
        """
        if not keep:
            self.connection.execute("DROP TABLE IF EXISTS bill")
            for table in ("manifests", "exports", "runs"):
                self.connection.execute(f"DELETE FROM finops_state.{table}")
        paths = [self.folder / f"{number}.csv" for number in range(len(bodies))]
        for path, body in zip(paths, bodies, strict=True):
            path.write_bytes(body)
        try:
            files = read_headers(paths, _FORMAT)
            counted, _ = count_month(files, _FORMAT, (), DuckDB(), round_money=round_money)
            load = Load("v1", counted, export="acme", month=MONTH, table="bill")
            month = MonthLoader(self.connection, load, _FORMAT)
            with month.replacing_month(files, (), round_money=round_money):
                pass
        except BillError as error:
            return error
        stored = self.connection.execute("SELECT count(*), sum(lineitem_unblendedcost) FROM bill")
        return Totals.from_result_row(stored.fetchone())

    def refusal(self, *bodies: bytes) -> str:
        """Return the error that refuses the files, in one line."""
        outcome = self.load(*bodies)
        assert isinstance(outcome, BillError), outcome
        return one_line(outcome)

    def columns(self) -> list[str]:
        """Return the names of the table's columns."""
        return list(table_columns(self.connection, "bill"))


def read_by_python(body: bytes) -> Totals:
    """Return rows and cost of a CSV file, as Python reads them. Raises where it cannot."""
    text = body.decode().lstrip("\ufeff")
    header, *rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    position = header.index(COST)
    with localcontext(prec=200):
        costs = [Decimal(row[position]) for row in rows if row[position]]
        return Totals(len(rows), sum(costs, Decimal(0)))
