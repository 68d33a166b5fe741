"""The sensor sends what a person should know, once each, and nothing that mended itself."""

import os
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import dagster as dg
import pytest

from finops_dagster.billing.months import BillingMonth
from finops_dagster.pipeline.alerts import Cursor
from finops_dagster.pipeline.report_checks import check_anomalies, check_budgets
from finops_dagster.reports.anomalies import Anomaly
from finops_dagster.reports.budgets import BudgetMonth, BudgetSettings
from finops_dagster.reports.findings import AnomalyKind
from finops_dagster_tests.cur import HEADERS, line_item
from finops_dagster_tests.project import Project
from finops_dagster_tests.servers.webhook import WebhookServer


class Alerts:
    """Ticks of the sensor, each with the cursor of the one before it."""

    def __init__(self, project: Project, webhook: WebhookServer) -> None:
        self.project, self.webhook = project, webhook
        self.cursor: str | None = None
        self.reason = ""

    def tick(self) -> list[str]:
        """Return the texts that were sent in one tick."""
        seen = len(self.webhook.texts)
        result = self.project.tick(self.cursor, "alerts")
        self.cursor = result.cursor
        assert isinstance(result.skip_reason, dg.SkipReason)
        self.reason = result.skip_reason.skip_message or ""
        return self.webhook.texts[seen:]


@pytest.fixture
def alerts(project: Project, webhook: WebhookServer) -> Alerts:
    """Return the sensor of a project whose export has been over for years."""
    project.export |= {"start_month": "2024-01", "end_month": "2024-03"}
    project.alerts = {"webhook_env": "ALERT_WEBHOOK", "failed_minutes": 0}
    return Alerts(project, webhook)


def fail(project: Project, month: str = "2024-01") -> None:
    project.deliver("much", month=month, version="broken")
    assert not project.materialize(month, stages=LOADED).success


def test_a_failed_month_is_told_once_and_again_after_it_succeeded(alerts: Alerts) -> None:
    project = alerts.project
    fail(project)
    (text,) = alerts.tick()
    assert text.startswith("acme 2024-01 failed\n\nReason: ")
    assert "'much'" in text
    assert "1 run failed since" in text
    assert text.endswith("To look further: finops state show acme 2024-01")
    assert alerts.tick() == []
    fail(project)
    assert alerts.tick() == [], "the sensor of the manifests tries a failed month again"
    project.deliver("1")
    project.load(stages=LOADED)
    assert alerts.tick() == []
    fail(project)
    assert len(alerts.tick()) == 1


def test_a_month_that_a_retry_mends_is_not_told(alerts: Alerts) -> None:
    alerts.project.alerts = {"webhook_env": "ALERT_WEBHOOK", "failed_minutes": 20}
    fail(alerts.project)
    assert alerts.tick() == []
    alerts.project.deliver("1")
    alerts.project.load(stages=LOADED)
    assert alerts.tick() == []
    assert alerts.reason == "no new alerts"


def test_while_a_run_is_in_progress_nothing_is_told_and_nothing_is_forgotten(
    alerts: Alerts,
) -> None:
    project = alerts.project
    fail(project)
    alerts.tick()
    run = dg.DagsterRun(
        "acme_month",
        status=dg.DagsterRunStatus.STARTED,
        tags={"finops/export": "acme", "dagster/partition": "2024-01"},
    )
    project.instance.add_run(run)
    assert alerts.tick() == []
    project.instance.report_run_failed(run)
    assert alerts.tick() == []


def test_a_canceled_run_makes_no_second_alert(alerts: Alerts) -> None:
    project = alerts.project
    fail(project)
    assert len(alerts.tick()) == 1
    run = dg.DagsterRun(
        "acme_month", tags={"finops/export": "acme", "dagster/partition": "2024-01"}
    )
    project.instance.add_run(run)
    project.instance.report_run_canceled(run)
    assert alerts.tick() == []
    fail(project)
    assert alerts.tick() == []


LOADED = ["manifest", "staged_files", "billing_table"]


def restate(alerts: Alerts, cost: str, version: str) -> list[str]:
    """Load a month's new version that has this cost, and return what a tick sends."""
    rows = [line_item("2024-01", lineItem__UnblendedCost=cost, lineItem__CurrencyCode="USD")]
    headers = (*HEADERS, "lineItem/CurrencyCode")
    alerts.project.deliver(rows, version=version, headers=headers)
    alerts.project.load(stages=LOADED)
    return alerts.tick()


def test_a_restatement_above_the_threshold_is_told_once(alerts: Alerts) -> None:
    alerts.project.deliver("50")
    alerts.project.load(stages=LOADED)
    assert restate(alerts, "100", "v2") == [], "what was before the first tick is no news"
    assert restate(alerts, "100.9", "v3") == []
    (text,) = restate(alerts, "1099", "v4")
    assert text.splitlines() == [
        "acme 2024-01 restated: +998.10 USD (+989.2%)",
        "",
        "Cost: 100.90 before, 1,099.00 USD now",
        "Reason: the vendor changed AmazonEC2 in account (none) +998.10 USD",
        "Version v4 replaced v3: +0 rows",
        "",
        "To look further: finops state show acme 2024-01",
    ]
    alerts.project.load(stages=LOADED, force=True)
    assert alerts.tick() == [], "the same version loaded again changes nothing"


def test_a_month_that_still_grows_is_not_restated(alerts: Alerts) -> None:
    project, month = alerts.project, str(BillingMonth.current())
    del project.export["end_month"]
    alerts.tick()
    for version, cost in {"v1": "100", "v2": "150"}.items():
        project.deliver(cost, month=month, version=version)
        project.load(month, stages=LOADED)
    assert alerts.tick() == []


def write_at(project: Project, at: datetime) -> None:
    """Give all files of the vendor this time."""
    for path in project.source.rglob("*"):
        os.utime(path, (at.timestamp(), at.timestamp()))


@pytest.mark.parametrize(
    ("replaced", "new", "count"),
    [
        (datetime(2024, 2, 2), datetime(2024, 2, 12), 0),
        (datetime(2024, 1, 20), datetime(2024, 2, 20), 0),
        (datetime(2024, 2, 2), datetime(2024, 2, 20), 1),
    ],
)
def test_the_vendor_s_times_tell_a_restatement_and_not_those_of_the_loads(
    alerts: Alerts, replaced: datetime, new: datetime, count: int
) -> None:
    alerts.tick()
    for version, cost, at in (("v1", "50", replaced), ("v2", "100", new)):
        alerts.project.deliver(cost, version=version)
        write_at(alerts.project, at.replace(tzinfo=UTC))
        alerts.project.load(stages=LOADED)
    assert len(alerts.tick()) == count


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function that sets the sensor's clock four days ahead."""
    time = datetime.now(UTC) + timedelta(days=4, hours=1)

    class Later(datetime):
        @classmethod
        def now(cls, tz=None):
            return time

    return lambda: monkeypatch.setattr("finops_dagster.pipeline.alerts.datetime", Later)


def test_an_export_without_any_version_is_silent_too(
    alerts: Alerts, later: Callable[[], None]
) -> None:
    del alerts.project.export["end_month"]
    assert alerts.tick() == []
    later()
    (text,) = alerts.tick()
    assert text.startswith("acme has been silent for 4 days\n\nNo version was found; ")
    assert alerts.tick() == []


def test_a_silent_export_is_told_once_for_each_silence(
    alerts: Alerts, later: Callable[[], None]
) -> None:
    project, month = alerts.project, str(BillingMonth.current())
    del project.export["end_month"]
    project.alerts = {"webhook_env": "ALERT_WEBHOOK", "silent_days": 2}
    project.deliver("1", month=month)
    project.load(month, stages=["manifest"])
    assert alerts.tick() == []
    later()
    (text,) = alerts.tick()
    assert text.startswith("acme has been silent for 4 days\n")
    assert alerts.tick() == []
    project.export["silent_days"] = 30
    assert alerts.tick() == []


def report(project: Project, *results: dg.AssetCheckResult, fails: bool = False) -> None:
    """Make a report with these results of checks, or one that fails before its checks."""
    specs = [dg.AssetCheckSpec(str(result.check_name), asset="report") for result in results]

    @dg.asset(check_specs=specs)
    def report():
        yield dg.MaterializeResult()
        if fails:
            raise ValueError
        yield from results

    result = dg.materialize([report], instance=project.instance, raise_on_error=False)
    assert result.success is not fails


def test_what_the_checks_of_the_report_find_is_told_once_each(alerts: Alerts) -> None:
    team = {"name": "team", "amount": "100", "currency": "USD", "owner": "cloud"}
    month = BillingMonth.parse("2024-01")
    budget = BudgetMonth(
        BudgetSettings.model_validate(team), month, Decimal(120), None, Decimal(120)
    )
    who = ("USD", "AWS", "1234", "shop", "AmazonEC2")
    days = date(2024, 1, 9), date(2024, 1, 10)
    unusual = Anomaly(AnomalyKind.SPIKE, *days, *who, Decimal(50), Decimal(10))
    report(alerts.project, check_budgets([budget]), check_anomalies([], month))
    (text,) = alerts.tick()
    assert text.splitlines() == [
        "Budget team exceeded in 2024-01: +20.00 USD (+20.0%)",
        "",
        "Budget team: 120.00 of 100.00 USD was spent in 2024-01.",
        "It counts: owner = cloud",
        "",
        "To look further: finops budgets --month 2024-01",
    ]
    report(alerts.project, check_budgets([budget]), check_anomalies([unusual], month))
    (text,) = alerts.tick()
    assert text.splitlines()[::2] == [
        "Unusual cost of AmazonEC2 in account shop: +40.00 USD",
        f"Reason: {unusual.sentence}",
        "To look further: finops anomalies --month 2024-01",
    ]
    assert alerts.tick() == []
    report(alerts.project, check_budgets([budget]), fails=True)
    assert alerts.tick() == [], "a report without its checks tells nothing new"
    report(alerts.project)
    assert alerts.tick() == []
    report(alerts.project, check_budgets([budget]))
    assert alerts.tick() == [], "and nothing is forgotten after it"
    report(alerts.project, check_budgets([]))
    assert alerts.tick() == []
    report(alerts.project, check_budgets([budget]))
    assert len(alerts.tick()) == 1, "the budget was kept in between"


def test_an_alert_that_is_not_taken_waits_for_the_next_tick(alerts: Alerts) -> None:
    fail(alerts.project, "2024-01")
    fail(alerts.project, "2024-02")
    alerts.webhook.statuses = [500]
    assert alerts.tick() == []
    assert alerts.reason.startswith("0 alerts sent; 2 to send at the next tick; webhook: ")
    assert "hunter2" not in alerts.reason + (alerts.cursor or "")
    assert len(alerts.tick()) == 2
    assert alerts.tick() == []
    assert Cursor.from_json(alerts.cursor).unsent == []


def test_the_sensor_exists_where_alerts_are_set(alerts: Alerts) -> None:
    sensor = alerts.project.definitions().get_sensor_def("alerts")
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    alerts.project.alerts = None
    names = {sensor.name for sensor in alerts.project.definitions().sensors or ()}
    assert names == {"acme_manifests", "lost_runs"}
