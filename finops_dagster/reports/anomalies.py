"""Anomalies: days whose cost of a service or an account is far from its estimate."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np

from finops_dagster.billing.months import BillingMonth
from finops_dagster.reports import changes, rises
from finops_dagster.reports.daily_costs import DailyCosts, Series
from finops_dagster.reports.daily_usage import read_daily_costs
from finops_dagster.reports.estimated_costs import MONTH, WEEK
from finops_dagster.reports.findings import AnomalyKind, CostHistory, Finding, anomaly_thresholds
from finops_dagster.reports.rolling import rolling_mean

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# Series that are looked at together: windows over all of a large bill would fill the memory.
_CHUNK = 256
# The most specific kinds first: a finding hides later ones of its series that may be its effects.
_FINDERS = (
    changes.find_new_services,
    changes.find_vanished_services,
    changes.find_ended_credits,
    changes.find_price_changes,
    rises.find_rises,
    changes.find_moved_regions,
    rises.find_slow_leaks,
)


@dataclass(frozen=True)
class Anomaly:
    """An anomaly of a service of an account; if `service` is None, of the whole account.

    `cost` is the effective cost of the usage on its days, and `expected` the estimate of it from
    earlier days, both rounded to two decimals. A lasting change has its first seven days at most,
    but a RAMP has all of its days, and a SLOW_LEAK the week after eight weeks of growth. If costs
    moved to another region, `detail` is this region, and both amounts are of it alone.
    """

    kind: AnomalyKind
    first_day: date
    last_day: date
    currency: str
    provider: str
    account: str
    account_name: str
    service: str | None
    cost: Decimal
    expected: Decimal
    detail: str = ""

    @property
    def month(self) -> BillingMonth:
        """The month in which the anomaly begins."""
        return BillingMonth.of(self.first_day)

    @property
    def difference(self) -> Decimal:
        """By how much the cost of the days is above its estimate; negative if it is below."""
        return self.cost - self.expected

    @property
    def sentence(self) -> str:
        """The anomaly in one sentence."""
        days = f"on {self.first_day}"
        if self.last_day > self.first_day:
            days = f"from {self.first_day} to {self.last_day}"
        subject = f"{self.service} of account" if self.service else "Account"
        cost, expected = f"{self.cost:,.2f}", f"{self.expected:,.2f} {self.currency}"
        instead = f"{cost} instead of about {expected}"
        return f"{subject} {self.account_name} {_PREDICATES[self.kind]}".format(
            day=self.first_day,
            days=days,
            cost=f"{cost} {self.currency}",
            instead=instead,
            region=self.detail,
        )


_PREDICATES = {
    AnomalyKind.SPIKE: "cost {instead} {days}.",
    AnomalyKind.WEEKEND_WORK: "cost {instead} at the weekend, {days}.",
    AnomalyKind.STEP: "costs more since {day}: {instead} {days}.",
    AnomalyKind.RAMP: "costs more each day since {day}: {instead} {days}.",
    AnomalyKind.SLOW_LEAK: "has grown for eight weeks: {instead} {days}.",
    AnomalyKind.NEW_SERVICE: "is new since {day}: {cost} {days}.",
    AnomalyKind.NEW_ACCOUNT: "is new since {day}: {cost} {days}.",
    AnomalyKind.VANISHED_SERVICE: "is gone since {day}: {instead} {days}.",
    AnomalyKind.REGION_MOVED: "has moved to {region} since {day}: {instead} there {days}.",
    AnomalyKind.PRICE_CHANGE: "has higher prices since {day}: {instead} {days}.",
    AnomalyKind.COMMITMENT_ENDED: (
        "is no longer covered by a commitment since {day}: {instead} {days}."
    ),
    AnomalyKind.CREDIT_ENDED: "gets no credits any longer since {day}: {instead} {days}.",
}


def read_anomalies(
    connection: DuckDBPyConnection, last: BillingMonth | None = None
) -> list[Anomaly]:
    """Return the anomalies of the thirteen months up to `last`, in the order of `find_anomalies`.

    `last` is the newest month by default. Needs the relations `focus` and `focus_named`.
    """
    return find_anomalies(read_daily_costs(connection, last))


def find_anomalies(costs: DailyCosts | None) -> list[Anomaly]:
    """Return the anomalies in daily costs, the newest first; none if `costs` is None.

    Anomalies that begin on the same day are sorted by the size of their difference, up or down, the
    largest first. An anomaly that may be an effect of another one of the same service is left out.
    """
    if costs is None or not costs.series:
        return []
    # A day that is not known is neither above nor below anything.
    with np.errstate(divide="ignore", invalid="ignore"):
        findings = list(_independent(_findings(costs)))
    anomalies = [_anomaly(costs, finding) for finding in findings]
    return sorted(anomalies, key=lambda a: (a.first_day, abs(a.difference)), reverse=True)


def _findings(costs: DailyCosts) -> Iterator[tuple[tuple[Series, ...], Finding]]:
    """Yield each finding with its series."""
    least = anomaly_thresholds(costs)
    for finding in changes.find_new_accounts(costs, least):
        yield tuple(costs.series[row] for row in finding.rows), finding
    large_weeks = rolling_mean(costs.cost, WEEK) * WEEK >= least
    rows = np.flatnonzero(large_weeks.any(axis=1))
    for start in range(0, len(rows), _CHUNK):
        chosen = rows[start : start + _CHUNK]
        history = CostHistory.of(costs.select_series(chosen.tolist()), least[chosen])
        for finder in _FINDERS:
            for finding in finder(history):
                yield tuple(history.costs.series[row] for row in finding.rows), finding


def _independent(
    findings: Iterable[tuple[tuple[Series, ...], Finding]],
) -> Iterator[tuple[tuple[Series, ...], Finding]]:
    """Yield the findings that do not follow from one before, of the same series."""
    earlier: dict[Series, list[Finding]] = defaultdict(list)
    for series, finding in findings:
        if not any(_follows(finding, cause) for row in series for cause in earlier[row]):
            for row in series:
                earlier[row].append(finding)
            yield series, finding


def _follows(finding: Finding, cause: Finding) -> bool:
    """Return whether a finding may be an effect of another one of its series."""
    effect = 3 * MONTH if finding.kind is AnomalyKind.SLOW_LEAK else MONTH
    return cause.first - WEEK <= finding.last and finding.first <= cause.last + effect


def _anomaly(costs: DailyCosts, pair: tuple[tuple[Series, ...], Finding]) -> Anomaly:
    (series, *_), finding = pair
    return Anomaly(
        finding.kind,
        costs.day(finding.first),
        costs.day(finding.last),
        series.currency,
        series.provider,
        series.account,
        series.account_name,
        None if finding.kind is AnomalyKind.NEW_ACCOUNT else series.service,
        Decimal(f"{finding.cost:.2f}"),
        Decimal(f"{finding.expected:.2f}"),
        finding.detail,
    )
