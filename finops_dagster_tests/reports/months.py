"""Months of charges in a lake, written by hand for reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from finops_dagster.billing.columns import Sql
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.version import LoadedVersion
from finops_dagster.focus.entries import month_totals, totals_by_rule
from finops_dagster.focus.month import ChargesRecord, focus_lake
from finops_dagster.lake import FolderLake, replacing_lake_file
from finops_dagster.reports.builder import ReportBuilder, Scope
from finops_dagster.reports.document import AMOUNTS, Document
from finops_dagster.settings import Settings
from finops_dagster.tables.database import DuckDB
from finops_dagster_tests.focus.charges import SCHEMA

Charge = dict[str, Any]
_SCHEMA = pa.schema(
    [
        *SCHEMA,
        pa.field("x_export", pa.string()),
        pa.field("x_rule", pa.string()),
        pa.field("x_billing_month", pa.date32()),
        pa.field("x_commitmentdiscountend", pa.string()),
    ]
)
_EXPORT = {
    "vendor": "focus-files",
    "layout": "replaced",
    "source": "file:///nowhere",
    "start_month": "2025-01",
}


def charge(billed: str, effective: str | None = None, **columns: Any) -> Charge:
    """Return a charge of usage, without what a report does not read."""
    return {
        "BilledCost": Decimal(billed),
        "EffectiveCost": Decimal(billed if effective is None else effective),
        "ListCost": Decimal(billed),
        "ContractedCost": Decimal(billed),
        "BillingCurrency": "USD",
        "ProviderName": "Cloud",
        "PublisherName": "Cloud",
        "BillingAccountId": "001",
        "SubAccountId": "002",
        "SubAccountName": "web",
        "ServiceName": "Machines",
        "ServiceCategory": "Compute",
        "RegionId": "eu-west-1",
        "ChargeCategory": "Usage",
        "ResourceId": "vm-1",
        **columns,
    }


@dataclass(frozen=True)
class Months:
    """A lake below `root`, which has no month yet."""

    root: Path

    @property
    def lake(self) -> FolderLake:
        return FolderLake(self.root)

    def write(self, month: str, charges: Sequence[Charge], export: str = "acme") -> Path:
        """Write a month of charges, and return the path of its file."""
        key, first_day = BillingMonth.parse(month), BillingMonth.parse(month).first_day
        start = datetime.combine(first_day, time())
        added = {
            "ChargePeriodStart": start,
            "x_export": export,
            "x_rule": "usage",
            "x_billing_month": first_day,
        }
        file = focus_lake(self.lake).file(export, key)
        with duckdb.connect() as connection:
            rows = [{**added, **charge} for charge in charges]
            connection.register("rows", pa.Table.from_pylist(rows, schema=_SCHEMA))
            totals = month_totals(totals_by_rule(connection, Sql("rows")))
            record = ChargesRecord(LoadedVersion("v1", totals), "mapping", {export: "v1"})
            with replacing_lake_file(
                connection, Sql("FROM rows"), file, record.footer_texts(export)
            ):
                pass
        return file.local_path()

    def builder(self, *exports: str) -> ReportBuilder:
        settings = Settings.model_validate(
            {"exports": [{"name": name, **_EXPORT} for name in exports or ["acme"]]}
        )
        return ReportBuilder("Acme", self.lake, DuckDB(), settings.exports, settings.accounts)

    def document(self, scope: Scope | None = None) -> Document:
        return self.builder().document(scope or Scope())


def rows(document: Document, table: str) -> list[dict[str, Any]]:
    """Return the rows of a table of a document, with exact amounts as decimals."""
    columns: Mapping[str, list[Any]] = document[table]
    return [
        {
            name: _decimal(document, value) if name in AMOUNTS else value
            for name, value in zip(columns, row, strict=True)
        }
        for row in zip(*columns.values(), strict=True)
    ]


def total(document: Document, table: str, column: str, **where: Any) -> Decimal:
    """Return the exact sum of a column, over the rows that have these values."""
    return sum(
        (
            row[column]
            for row in rows(document, table)
            if all(row[name] == value for name, value in where.items())
        ),
        Decimal(0),
    )


def _decimal(document: Document, units: int | str) -> Decimal:
    return Decimal(units).scaleb(-document["scale"])
