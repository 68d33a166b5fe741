"""Computes the figures of a report from the charges in the lake: one document for page and files.

The sums of the document's amounts equal those of the charges, to the last digit.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

import duckdb
from duckdb import DuckDBPyConnection

from finops_dagster.billing.columns import Sql
from finops_dagster.billing.errors import BillError
from finops_dagster.billing.months import BillingMonth
from finops_dagster.lake import Lake
from finops_dagster.reports.accounts import AccountsSettings
from finops_dagster.reports.amounts import add_amounts, scaled_document
from finops_dagster.reports.anomalies import Anomaly, find_anomalies
from finops_dagster.reports.budgets import BudgetMonth, BudgetSettings, budget_months
from finops_dagster.reports.budgets_and_anomalies import add_anomalies, add_budgets
from finops_dagster.reports.daily_costs import DailyCosts
from finops_dagster.reports.daily_usage import DAILY_MONTHS, read_daily_costs
from finops_dagster.reports.document import Document, empty_document
from finops_dagster.reports.lines import add_lines
from finops_dagster.reports.relations import create_relations, query_error
from finops_dagster.reports.restated import add_restatements
from finops_dagster.reports.sums import (
    create_cost_and_usage_sums,
    create_resource_sums,
    create_tag_key_sums,
)
from finops_dagster.reports.versions import ReportMonths, add_versions, require_recorded_totals
from finops_dagster.sources.settings import ExportSettings
from finops_dagster.tables.database import DuckDB

_MONTHS_BY_DAY = 3
_SERVICE_USAGE = Sql(
    "SELECT month, export, currency, provider, account, service, usage FROM cost_sums "
    "WHERE usage IS NOT NULL"
)
_CURRENCIES = "SELECT currency FROM usage_sums GROUP BY ALL ORDER BY sum(charges) DESC, currency"


@dataclass(frozen=True)
class Scope:
    """The months of a report, up to `last`, and the month and currency that it shows first.

    The month that it shows first is `last`. Without `last`, the months end with the newest one, and
    the newest complete month is shown first. Without `currency`, the currency of the most charges
    is shown first. `months` is the number of months at most; none is before the first month with
    charges.
    """

    last: BillingMonth | None = None
    months: int = 13
    currency: str | None = None


@dataclass(frozen=True)
class Report:
    """A report: its document, and the budgets and anomalies, also those that it leaves out.

    The document has only those in its months and currencies, and at most 200 anomalies.
    """

    document: Document
    budgets: Sequence[BudgetMonth] = ()
    anomalies: Sequence[Anomaly] = ()


@dataclass(frozen=True)
class ReportBuilder:
    """Computes reports from the charges of exports in a lake; `project` is their title."""

    project: str
    lake: Lake
    duckdb: DuckDB
    exports: Sequence[ExportSettings]
    accounts: AccountsSettings
    budgets: Sequence[BudgetSettings] = ()

    def document(self, scope: Scope) -> Document:
        """Return the document of `report`, which has its amounts as whole numbers.

        Raises BillError as `report`.
        """
        return self.report(scope).document

    def report(self, scope: Scope) -> Report:
        """Return the report of the months in scope; without charges, it has no months.

        Raises BillError if no export has charges of the month or in the currency, if a file cannot
        be read or does not have the totals of its footer, if memory or disk is too small, and if
        the accounts file cannot be used.
        """
        files = ReportMonths.of(self.lake, self.exports, scope.last, scope.months)
        document = empty_document()
        document["project"] = self.project
        document["made_at"] = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        if not files.charges:
            return Report(document)
        document["months"] = list(map(str, files.months))
        document["month"] = files.months.index(scope.last or files.newest_complete_month)
        with self.duckdb.open_in_memory(preserve_insertion_order=False) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute("SET enable_progress_bar = false")
            try:
                create_relations(connection, self.lake, self.exports, self.accounts)
                by_day = files.relation(connection, files.months[-_MONTHS_BY_DAY:])
                create_cost_and_usage_sums(connection, files.relation(connection), by_day)
                require_recorded_totals(connection, files)
                # Found with numpy in a thread, while DuckDB reads the resources.
                with ThreadPoolExecutor(1) as thread:
                    search = thread.submit(find_anomalies, _daily_costs(connection, files))
                    _fill(connection, files, document, scope.currency)
                    budgets = budget_months(connection, self.budgets)
                    add_budgets(files, budgets, document)
                    anomalies = search.result()
                add_anomalies(connection, files, anomalies, document)
            except duckdb.Error as error:
                raise query_error(error) from error
        return Report(scaled_document(document), budgets, anomalies)


def _daily_costs(connection: DuckDBPyConnection, files: ReportMonths) -> DailyCosts | None:
    """Return the daily costs, which need not read again what the sums of all their months have."""
    last = files.months[-1]
    has_all_months = len(files.months) >= DAILY_MONTHS
    return read_daily_costs(connection, last, _SERVICE_USAGE if has_all_months else None)


def _fill(
    connection: DuckDBPyConnection, files: ReportMonths, document: Document, currency: str | None
) -> None:
    """Fill a document, whose months are set, from the files of charges and their sums."""
    document["currencies"] = _currencies(connection, currency)
    add_lines(connection, document)
    shown = files.months[document["month"]]
    create_resource_sums(connection, files.relation(connection, [shown, shown.previous]))
    create_tag_key_sums(connection, files.relation(connection, [shown]))
    add_amounts(connection, files.months[0].first_day, document)
    add_versions(connection, files, document)
    add_restatements(connection, files, document)


def _currencies(connection: DuckDBPyConnection, first: str | None) -> list[str]:
    """Return the currencies of the charges: `first`, or else that of most charges, comes first.

    Raises BillError if no charge has the currency `first`.
    """
    rows = connection.execute(_CURRENCIES).fetchall()
    currencies = [currency for (currency,) in rows]
    if first and first not in currencies:
        advice = f"choose {' or '.join(currencies)}" if currencies else "load a month first"
        raise BillError(f"no charge has the currency {first}; {advice}")
    return sorted(currencies, key=lambda currency: currency != first)
