"""Metrics of the months that are loaded, from the lake, the ledger and the settings' budgets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time

import duckdb
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from finops_dagster.billing.disk import memory_or_disk_problem
from finops_dagster.billing.errors import BillError, first_line
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.restatement import Restatement, restatements_of_footer
from finops_dagster.billing.version import Load
from finops_dagster.lake import load_from_footer, map_months
from finops_dagster.reports.budgets import BudgetMonth, budget_months
from finops_dagster.reports.relations import open_relations
from finops_dagster.settings import Settings
from finops_dagster.sources.settings import ExportSettings
from finops_dagster.tables import ledger
from finops_dagster.tables.database import BillingDatabase, DuckDB

Months = Mapping[str, list[BillingMonth]]
"""The months of which metrics are made, the oldest first, by export."""
_MONTH = ("export", "month")


@dataclass(frozen=True)
class LakeMonth:
    """A month in the lake: its load, and its restatements, the newest first."""

    load: Load
    restatements: list[Restatement]

    @property
    def labels(self) -> tuple[str, str]:
        """The values of the labels `export` and `month` of Prometheus' metrics."""
        return self.load.export, str(self.load.month)


def read_lake_months(settings: Settings, months: Months) -> list[LakeMonth]:
    """Return those of the months that are in the lake, from the footers of their files alone.

    `months` must have every export of the settings. A damaged file counts as missing. Raises
    StoreError or StoreUnavailable for a lake in a store.
    """
    lake = settings.storage.open_lake()

    def read(export: ExportSettings, month: BillingMonth) -> LakeMonth | None:
        file = lake.file(export.name, month)
        load = load_from_footer(file, export.name, month, export.table_name)
        return LakeMonth(load, restatements_of_footer(file.footer_texts() or {})) if load else None

    pairs = [(export, month) for export in settings.exports for month in months[export.name]]
    return [month for month in map_months(lake, lambda pair: read(*pair), pairs) if month]


def month_metrics(months: list[LakeMonth]) -> Iterator[Metric]:
    """Yield rows, cost, bytes and times of each month, and what its last restatement changed."""
    rows = gauge("month_rows", "Rows of the loaded version.", *_MONTH)
    cost = gauge("month_cost", "Headline cost of the loaded version.", *_MONTH, "currency")
    size = gauge("month_source_bytes", "Bytes of the vendor's files.", *_MONTH)
    loaded = gauge("month_loaded_timestamp_seconds", "When the version was loaded.", *_MONTH)
    end = gauge("month_end_timestamp_seconds", "When the billing month ends.", *_MONTH)
    for month in months:
        load, totals = month.load, month.load.totals
        rows.add_metric(month.labels, totals.rows)
        for currency, amount in (totals.costs or {"": totals.cost}).items():
            cost.add_metric((*month.labels, _currency(currency)), float(amount))
        size.add_metric(month.labels, load.byte_count)
        if load.loaded_at is not None:
            loaded.add_metric(month.labels, load.loaded_at.replace(tzinfo=UTC).timestamp())
        end.add_metric(month.labels, _midnight(load.month.next.first_day))
    yield from (rows, cost, size, loaded, end, *_restatement_metrics(months))


def _restatement_metrics(months: list[LakeMonth]) -> Iterator[Metric]:
    count = CounterMetricFamily(
        "finops_month_restatements", "Restatements of the month.", labels=_MONTH
    )
    restated = gauge(
        "month_restated_timestamp_seconds", "When the last restatement was loaded.", *_MONTH
    )
    added = gauge(
        "month_restated_cost", "Cost that the last restatement added.", *_MONTH, "currency"
    )
    for month in months:
        newest = next(iter(month.restatements), None)
        count.add_metric(month.labels, newest.number if newest else 0)
        if newest is not None:
            restated.add_metric(month.labels, newest.restated_at.replace(tzinfo=UTC).timestamp())
            for total in newest.changes_by_currency:
                labels = (*month.labels, _currency(total.currency))
                added.add_metric(labels, float(total.added_cost))
    yield from (count, restated, added)


def load_duration_metrics(settings: Settings, months: Months) -> Iterator[Metric]:
    """Yield how long the last load of each month took, from the ledgers in DuckDB.

    Months without a DuckDB file, a ledger or a recorded load are left out. Raises BillError while
    another process writes a DuckDB file, and if a ledger is damaged.
    """
    seconds = gauge("month_load_duration_seconds", "Seconds of the last load.", *_MONTH)
    # A load holds the file for minutes, and metrics must not wait for it.
    connections = replace(DuckDB.with_limits(settings.database.duckdb), lock_wait_seconds=0)
    database = BillingDatabase(settings.database.duckdb.database_path)
    for export, export_months in months.items():
        for file in {database.path(export, month): None for month in export_months}:
            if not file.exists():
                continue
            try:
                with connections.open(file, read_only=True) as connection:
                    durations = ledger.seconds_of_last_loads(connection, export)
            except duckdb.CatalogException:
                continue  # The file has no ledger yet.
            except duckdb.Error as error:
                raise BillError(
                    memory_or_disk_problem(error)
                    or f"the ledger of {file} is damaged: {first_line(error)}; run finops state "
                    "verify --repair to rebuild it from the data"
                ) from error
            for month in durations.keys() & {*export_months}:
                seconds.add_metric((export, str(month)), durations[month])
    yield seconds


def read_budgets(settings: Settings, months: Months) -> list[BudgetMonth]:
    """Return each budget with what was spent of it, in the months that any export has in `months`.

    A month without charges is left out. The newest month is first. A budget counts the charges of
    all exports. Empty without budgets. The charges of all months are read, which takes as long as a
    query over them. Raises BillError, and for a lake in a store StoreError or StoreUnavailable.
    """
    if not settings.budgets:
        return []
    selected = {month for export_months in months.values() for month in export_months}
    with open_relations(
        DuckDB.with_limits(settings.database.duckdb),
        settings.storage.open_lake(),
        settings.exports,
        settings.accounts,
    ) as (bill, relations):
        all_months = budget_months(bill, settings.budgets) if "focus" in relations else []
    return [budget_month for budget_month in all_months if budget_month.month in selected]


def budget_metrics(budgets: list[BudgetMonth]) -> Iterator[Metric]:
    """Yield the amount of each budget, and what was spent of it, by month."""
    labels = ("budget", "month", "currency")
    amount = gauge("budget_amount", "Amount of the budget in a month.", *labels)
    spent = gauge("budget_spent", "Cost that was spent of the budget.", *labels)
    for budget_month in budgets:
        budget = budget_month.budget
        values = (budget.name, str(budget_month.month), budget.currency)
        amount.add_metric(values, float(budget.amount))
        spent.add_metric(values, float(budget_month.spent))
    yield from (amount, spent)


def gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    """Return a gauge `finops_<name>` with these labels and no values yet; `text` is its help."""
    return GaugeMetricFamily(f"finops_{name}", text, labels=labels)


def _currency(currency: str | None) -> str:
    # To Prometheus, an empty label is none.
    return currency or "(none)"


def _midnight(day: date) -> float:
    return datetime.combine(day, time(), UTC).timestamp()
