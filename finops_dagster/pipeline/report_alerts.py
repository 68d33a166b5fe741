"""Alerts about the report: exceeded budgets and anomalies, which checks of `report` find.

A check puts its alerts into the metadata of its result, and the sensor `alerts` reads them there:
to find them again would take longer than a sensor may.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import dagster as dg

from finops_dagster.alerts.alert import Alert
from finops_dagster.billing.months import BillingMonth

if TYPE_CHECKING:  # They take time to import.
    from finops_dagster.reports.anomalies import Anomaly
    from finops_dagster.reports.budgets import BudgetMonth

REPORT, _KEY = dg.AssetKey("report"), "alerts"


def alerts_metadata(alerts: Iterable[Alert]) -> dict[str, dg.MetadataValue[Any]]:
    """Return alerts as metadata of a check of `report`, in which the sensor finds them."""
    return {_KEY: dg.MetadataValue.json([asdict(alert) for alert in alerts])}


def budget_alert(budget_month: BudgetMonth) -> Alert:
    """Return the alert about a budget that is exceeded in a month."""
    budget, month = budget_month.budget, budget_month.month
    over = budget_month.spent - budget.amount
    return Alert.of(
        f"budget {month} {budget.name}",
        f"Budget {budget.name} exceeded in {month}: {over:+,.2f} {budget.currency} "
        f"({over / budget.amount:+.1%})",
        [budget_month.sentence, f"It counts: {budget.filter_text or 'the whole bill'}"],
        f"finops budgets --month {month}",
    )


def anomaly_alert(anomaly: Anomaly) -> Alert:
    """Return the alert about an anomaly; its key stays the same if its kind changes later."""
    difference = f"{anomaly.difference:+,.2f} {anomaly.currency}"
    subject = anomaly.service or "all services"
    names = [anomaly.provider, anomaly.account, anomaly.service or "", anomaly.currency]
    return Alert.of(
        " ".join(["unusual", str(anomaly.first_day), *names]),
        f"Unusual cost of {subject} in account {anomaly.account_name}: {difference}",
        [f"Reason: {anomaly.sentence}"],
        f"finops anomalies --month {BillingMonth.of(anomaly.first_day)}",
    )


def report_alerts(
    instance: dg.DagsterInstance, checks: Sequence[str]
) -> Iterator[tuple[str, Alert]]:
    """Yield each alert in the newest results of checks of `report`, after its key.

    `checks` are names; a check without a result has no alerts. If the newest report failed before
    its checks, the results before it count.
    """
    for check in checks:
        for fields in _newest_result(instance, dg.AssetCheckKey(REPORT, check)).get(_KEY, ()):
            alert = Alert(**fields)
            yield alert.key, alert


def _newest_result(instance: dg.DagsterInstance, check: dg.AssetCheckKey) -> dict[str, Any]:
    """Return the metadata of the newest result of a check; empty if there is none."""
    cursor = None
    # One at a time: results are large, and those without are only planned.
    while records := instance.event_log_storage.get_asset_check_execution_history(check, 1, cursor):
        (record,) = records
        event = record.event and record.event.dagster_event
        if event and event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            metadata = getattr(event.event_specific_data, "metadata", {})
            return {key: value.value for key, value in metadata.items()}
        cursor = record.id
    return {}
