"""A month of CUR v1 or CUR 2.0 in a lake, as the stage `parquet` writes it, and its charges."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from finops_dagster.billing.columns import Sql, SqlType, literal, name_columns, quoted
from finops_dagster.billing.money import Totals
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.version import LoadedVersion
from finops_dagster.focus.aws_cur import AWS_CUR
from finops_dagster.focus.conformance import find_broken_rules
from finops_dagster.focus.month import ChargesRecord, FocusDerivation
from finops_dagster.lake import FolderLake, footer_texts_of_version, replacing_lake_file
from finops_dagster.sources.aws.cur1 import AwsCur1
from finops_dagster.sources.aws.data_exports import AwsCur2
from finops_dagster.tables.database import DuckDB

JANUARY = BillingMonth(2024, 1)
Row = Mapping[str, Any]
Format = AwsCur1 | AwsCur2


def line(line_type: str, cost: str, **cells: str) -> Row:
    """Return a line item of one day, with the cells that every bill has; `__` stands for `/`."""
    return {
        "identity/LineItemId": "i",
        "bill/PayerAccountId": "1",
        "bill/BillingPeriodStartDate": "2024-01-01 00:00:00",
        "bill/BillingPeriodEndDate": "2024-02-01 00:00:00",
        "bill/InvoicingEntity": "Amazon Web Services, Inc.",
        "lineItem/UsageAccountId": "2",
        "lineItem/LineItemType": line_type,
        "lineItem/UsageStartDate": "2024-01-03 00:00:00",
        "lineItem/UsageEndDate": "2024-01-04 00:00:00",
        "lineItem/ProductCode": "AmazonEC2",
        "lineItem/UsageAmount": "4",
        "lineItem/CurrencyCode": "USD",
        "lineItem/UnblendedCost": cost,
        **{name.replace("__", "/"): cell for name, cell in cells.items()},
    }


@dataclass(frozen=True)
class CurMonth:
    """One month of an export; `root` is the lake."""

    root: Path
    bill_format: Format = field(default_factory=AwsCur1)

    def derive(self, rows: Iterable[Row]) -> ChargesRecord:
        """Write a bill to the lake, and derive its charges.

        Cells are by header; one that is empty or missing is NULL, a map is a dictionary.
        """
        self._write([*rows])
        with self.derivation.replacing_month("run") as month:
            return month

    def charges(self, columns: str = "*", order: str = "ALL") -> list[dict[str, Any]]:
        """Return columns of the charges."""
        result = duckdb.execute(f"SELECT {columns} FROM {self.relation} ORDER BY {order}")
        names = [column[0] for column in result.description]
        return [dict(zip(names, row, strict=True)) for row in result.fetchall()]

    def broken_rules(self) -> set[str]:
        """Return the ids of FOCUS's rules that the charges break."""
        with duckdb.connect() as connection:
            return {broken.rule.id for broken in find_broken_rules(connection, self.relation)}

    @property
    def relation(self) -> Sql:
        """What follows FROM to read the charges."""
        path = literal(str(self.derivation.charges_file.local_path()))
        return Sql(f"read_parquet({path}, hive_partitioning = false)")

    @property
    def derivation(self) -> FocusDerivation:
        """The derivation of the month's charges."""
        return FocusDerivation(FolderLake(self.root), DuckDB(), AWS_CUR, {"": "acme"}, JANUARY)

    def _write(self, rows: list[Row]) -> None:
        headers = [*dict.fromkeys(header for row in rows for header in row)]
        names = name_columns(headers, {}, self.bill_format)
        table = pa.table(
            {name: [_text(row.get(header)) for row in rows] for header, name in names.items()}
        )
        cells = ", ".join(
            f"{self._cast(header, name)} AS {quoted(name)}" for header, name in names.items()
        )
        with duckdb.connect() as connection:
            connection.register("bill", table)
            query = Sql(f"SELECT DATE '2024-01-01' AS billing_month, '1' AS manifest_id, {cells}")
            query = Sql(f"{query} FROM bill")
            cost = names[_cost_header(self.bill_format, headers)]
            row = connection.execute(f"SELECT count(*), sum({cost}) FROM ({query})").fetchone()
            version = LoadedVersion("1", Totals.from_result_row(row))
            file = FolderLake(self.root).file("acme", JANUARY)
            with replacing_lake_file(connection, query, file, footer_texts_of_version(version)):
                pass

    def _cast(self, header: str, name: str) -> Sql:
        sql_type = self.bill_format.sql_type(header, None) or SqlType.TEXT
        cell = Sql(f"nullif({quoted(name)}, '')")
        if sql_type.startswith("MAP"):
            cell = Sql(f"CAST({cell} AS JSON)")
        return Sql(f"CAST({cell} AS {sql_type})")


def _cost_header(bill_format: Format, headers: Iterable[str]) -> str:
    return next(h for h in headers if bill_format.column(h) == bill_format.cost)


def _text(cell: Any) -> str | None:
    if isinstance(cell, dict):
        return json.dumps({key: str(value) for key, value in cell.items()})
    return None if cell is None else str(cell)
