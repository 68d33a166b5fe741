"""A month of an export that is FOCUS already, in a lake as the stage `parquet` writes it."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from finops_dagster.billing.columns import Sql, SqlType, quoted
from finops_dagster.billing.money import Totals
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.version import LoadedVersion
from finops_dagster.focus.conformance import find_broken_rules
from finops_dagster.focus.mappings import mapping_of
from finops_dagster.focus.month import ChargesRecord, FocusDerivation
from finops_dagster.lake import (
    FolderLake,
    footer_texts_of_version,
    parquet_relation,
    replacing_lake_file,
)
from finops_dagster.sources.base import Format
from finops_dagster.tables.database import DuckDB
from finops_dagster_tests.project import ROOT

SAMPLE = ROOT.parent / "shared/data/focus_sample/focus_sample.csv"
SEPTEMBER = BillingMonth(2024, 9)
Row = Mapping[str, str | None]
has_sample = pytest.mark.skipif(
    not SAMPLE.exists(), reason="FOCUS's sample data are not in ../shared/data"
)


def sample_rows(provider: str) -> list[Row]:
    """Return the rows of a provider in FOCUS's sample data, which are real ones of 2024-09."""
    with SAMPLE.open(encoding="utf-8", newline="") as lines:
        return [row for row in csv.DictReader(lines) if row["ProviderName"] == provider]


@dataclass(frozen=True)
class NativeMonth:
    """One month of an export; `root` is the lake."""

    root: Path
    bill_format: Format

    def derive(self, *rows: Row) -> list[dict[str, Any]]:
        """Write a bill of these rows to the lake, and return its charges in the same order.

        Cells are texts by header, as in CSV files.
        """
        self._write(rows)
        with self._derivation.replacing_month("run"):
            pass
        result = self._select("*")
        names = [column[0] for column in result.description]
        return [dict(zip(names, row, strict=True)) for row in result.fetchall()]

    def query(self, columns: str) -> list[tuple[Any, ...]]:
        """Return columns of the charges, in the order of the bill's rows."""
        return self._select(columns).fetchall()

    def _select(self, columns: str) -> duckdb.DuckDBPyConnection:
        return duckdb.execute(
            f"SELECT {columns} FROM {self.relation} "
            "ORDER BY CAST(x_source_line_items[1] AS INTEGER)"
        )

    @property
    def record(self) -> ChargesRecord:
        """The record of the month that was derived."""
        record = self._derivation.up_to_date_record()
        assert record is not None
        return record

    @property
    def path(self) -> Path:
        return self._derivation.charges_file.local_path()

    @property
    def relation(self) -> Sql:
        """What follows FROM to read the charges."""
        return parquet_relation(self.path)

    def broken_rules(self) -> dict[str, int]:
        """Return how many charges break a rule of FOCUS, by rule; disputed rules are left out."""
        with duckdb.connect() as connection:
            broken = find_broken_rules(connection, self.relation)
        return {rule.rule.id: rule.rows for rule in broken if not rule.rule.disputed}

    @cached_property
    def _derivation(self) -> FocusDerivation:
        mapping = mapping_of(self.bill_format.vendor, self.bill_format.name)
        assert mapping is not None
        return FocusDerivation(FolderLake(self.root), DuckDB(), mapping, {"": "acme"}, SEPTEMBER)

    def _write(self, rows: Iterable[Row]) -> None:
        headers = [*dict.fromkeys(header for row in rows for header in row)]
        bill = pa.table({header: [row.get(header) for row in rows] for header in headers})
        cells = ", ".join(
            f"{self._cast(header)} AS {quoted(self.bill_format.column(header))}"
            for header in headers
        )
        query = Sql(f"SELECT {cells} FROM bill")
        with duckdb.connect() as connection:
            connection.register("bill", bill)
            totals = connection.execute(f"SELECT count(*), sum(billedcost) FROM ({query})")
            version = LoadedVersion("v1", Totals.from_result_row(totals.fetchone()))
            file = FolderLake(self.root).file("acme", SEPTEMBER)
            with replacing_lake_file(connection, query, file, footer_texts_of_version(version)):
                pass

    def _cast(self, header: str) -> Sql:
        sql_type = self.bill_format.sql_type(header, None) or SqlType.TEXT
        cell = Sql(f"nullif({quoted(header)}, 'NULL')")
        if sql_type is not SqlType.TEXT:
            cell = Sql(f"nullif({cell}, '')")
        if sql_type.startswith("MAP"):
            cell = Sql(f"CAST({cell} AS JSON)")
        return Sql(f"CAST({cell} AS {sql_type})")
