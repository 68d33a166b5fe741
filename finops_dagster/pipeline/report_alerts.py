"""Alerts about the report: crossed budgets and unusual days, which checks of `report` find.

A check puts its alerts into the metadata of its result, and the sensor `alerts` reads them there:
to find them again would take longer than a sensor may.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import dagster as dg

from finops_dagster.alerts.alert import Alert
from finops_dagster.billing.months import BillingMonth

if TYPE_CHECKING:  # They take time to import.
    from finops_dagster.reports.anomalies import Anomaly
    from finops_dagster.reports.budgets import BudgetMonth

_REPORT, _KEY = dg.AssetKey("report"), "alerts"
_REPORTS_READ = 5


def alerts_metadata(alerts: Iterable[Alert]) -> dict[str, dg.MetadataValue[Any]]:
    """Return the metadata by which a check of `report` hands alerts to the sensor."""
    return {_KEY: dg.MetadataValue.json([asdict(alert) for alert in alerts])}


def budget_alert(of_month: BudgetMonth) -> Alert:
    """Return the alert of a crossed budget."""
    budget, month = of_month.budget, of_month.month
    over = of_month.spent - budget.amount
    return Alert.of(
        f"budget {month} {budget.name}",
        f"Budget {budget.name} crossed in {month}: {over:+,.2f} {budget.currency} "
        f"({over / budget.amount:+.1%})",
        [of_month.sentence, f"It counts: {budget.filter_text or 'the whole bill'}"],
        f"finops budgets --month {month}",
    )


def anomaly_alert(anomaly: Anomaly) -> Alert:
    """Return the alert of unusual days; one whose kind becomes clearer later has the same key."""
    difference = f"{anomaly.difference:+,.2f} {anomaly.currency}"
    subject = anomaly.service or "all services"
    names = [anomaly.provider, anomaly.account, anomaly.service or "", anomaly.currency]
    return Alert.of(
        " ".join(["unusual", str(anomaly.first_day), *names]),
        f"Unusual cost of {subject} in account {anomaly.account_name}: {difference}",
        [f"Reason: {anomaly.sentence}"],
        f"finops anomalies --month {BillingMonth.of(anomaly.first_day)}",
    )


def report_alerts(instance: dg.DagsterInstance) -> Iterator[tuple[str, Alert]]:
    """Yield what the checks of the newest report found, each with its key.

    A report whose run has not succeeded yet does not count: its checks may be missing.
    """
    for report in instance.fetch_materializations(_REPORT, _REPORTS_READ).records:
        run = instance.get_run_by_id(report.run_id)
        if run is not None and run.is_success:
            yield from _alerts_of_checks(instance, run.run_id)
            return


def _alerts_of_checks(instance: dg.DagsterInstance, run_id: str) -> Iterator[tuple[str, Alert]]:
    evaluation = dg.DagsterEventType.ASSET_CHECK_EVALUATION
    for record in instance.get_records_for_run(run_id, of_type=evaluation).records:
        event = record.event_log_entry.dagster_event
        metadata = getattr(event and event.event_specific_data, "metadata", {})
        for fields in metadata[_KEY].value if _KEY in metadata else ():
            alert = Alert(**fields)
            yield alert.key, alert
