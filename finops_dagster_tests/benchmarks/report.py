"""Benchmarks of the report over thirteen months of charges."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import duckdb

from finops_dagster.billing.columns import Sql, literal
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.version import LoadedVersion
from finops_dagster.focus.entries import month_totals, totals_by_rule
from finops_dagster.focus.month import ChargesRecord
from finops_dagster.lake import FolderLake, replacing_lake_file
from finops_dagster_tests.benchmarks.project import BenchmarkProject, Figure, Run, made_once
from finops_dagster_tests.focus.test_rules import GOOD, write
from finops_dagster_tests.reports.browser import chromium

_MONTHS, _FIRST = 13, BillingMonth(2023, 1)
# Notes when the page has drawn all of its panels, in milliseconds since it was opened.
_NOTE_READY = """
new MutationObserver((_, observer) => {
  if (!document.documentElement?.dataset.ready) return;
  window.readyAt = performance.now();
  observer.disconnect();
}).observe(document, { attributes: true, subtree: true });
"""
# Accounts, services and resources are chosen as in most bills: the second of them has half the
# charges of the first, the third a third. A series has one or two regions and a few SKUs, whose
# prices do not change: random ones would look like anomalies.
_CHARGES = """
WITH draws AS (
    SELECT CAST(exp(random() * ln({accounts} + 0.5)) AS INTEGER) AS account,
           CAST(exp(random() * ln({services} + 0.5)) AS INTEGER) AS service,
           CAST(exp(random() * ln(2000)) AS INTEGER) AS resource,
           CAST(floor(random() * {hours}) AS INTEGER) AS hour,
           random() AS kind, random() AS commitment, random() AS tag
    FROM range({rows})
), priced AS (
    SELECT *, (account * 7 + CAST(resource % 4 = 0 AS INTEGER)) % 20 AS region,
           format('SKU-{{}}-{{}}', service, resource % 5) AS sku,
           CAST(exp(hash(sku) % 1000 * 0.009 - 7) AS DECIMAL(38,10)) AS price,
           CASE WHEN kind < 0.96 THEN 'Usage' WHEN kind < 0.97 THEN 'Purchase'
                   WHEN kind < 0.98 THEN 'Tax' WHEN kind < 0.99 THEN 'Credit' ELSE 'Adjustment'
              END AS category,
           kind < 0.96 AND service % 5 = 1 AND commitment < 0.3 AS is_committed,
           if(category = 'Credit', -price, price) AS cost
    FROM draws
)
SELECT template.* REPLACE (
    CAST(if(is_committed, 0, cost) AS DECIMAL(38,18)) AS BilledCost,
    CAST(if(is_committed, cost * 0.7, cost) AS DECIMAL(38,18)) AS EffectiveCost,
    CAST(if(is_committed AND commitment < 0.02, 0, cost) AS DECIMAL(38,18)) AS ContractedCost,
    CAST(if(is_committed AND commitment < 0.02, 0, cost) AS DECIMAL(38,18)) AS ListCost,
    category AS ChargeCategory, NULL AS ChargeClass,
    format('{{:012}}', 100000000000 + account) AS SubAccountId,
    'account ' || account AS SubAccountName,
    'Service ' || service AS ServiceName, 'Category ' || service % 17 AS ServiceCategory,
    'region-' || region AS RegionId, 'Region ' || region AS RegionName,
    if(category = 'Usage', 'arn:aws:service-' || service || ':region-' || region || ':' || account
        || ':resource/' || format('{{:017x}}', resource * 7919), NULL) AS ResourceId,
    NULL AS ResourceName, sku AS SkuId,
    if(is_committed, 'arn:aws:savingsplans::' || account % 40 || ':savingsplan/' || account % 40,
        NULL) AS CommitmentDiscountId,
    if(is_committed, 'Savings Plan', NULL) AS CommitmentDiscountType,
    if(is_committed, if(commitment < 0.02, 'Unused', 'Used'), NULL) AS CommitmentDiscountStatus,
    CASE WHEN category = 'Usage' AND tag < 0.7 THEN MAP {{'team': 'team ' || account % 12,
        'application': 'application ' || resource % 50, 'aws:createdBy': 'role ' || account}}
        WHEN tag < 0.8 THEN MAP {{'aws:createdBy': 'role ' || account}} END AS Tags,
    TIMESTAMP {first_day} + INTERVAL (hour) HOUR AS ChargePeriodStart,
    TIMESTAMP {first_day} + INTERVAL (hour + 1) HOUR AS ChargePeriodEnd,
    TIMESTAMP {first_day} AS BillingPeriodStart,
    TIMESTAMP {first_day} + INTERVAL 1 MONTH AS BillingPeriodEnd,
    [CAST(uuid() AS VARCHAR)] AS x_source_line_items
), 'bench' AS x_export, '1' AS x_manifest_id, 'usage' AS x_rule, DATE {first_day} AS x_billing_month
FROM priced, (FROM {template} LIMIT 1) AS template
"""


def report(rows: int, runs: int) -> Iterator[Figure]:
    """Measure the page of thirteen months: the time to write it, its size, the time to open it."""
    charges = made_once(f"steady-{rows}-{_MONTHS}", _write_months, rows)
    project = BenchmarkProject.create(charges, memory_limit="1GB")
    focus = project.work / "parquet/focus"
    focus.parent.mkdir(parents=True)
    focus.symlink_to(charges, target_is_directory=True)
    page = project.work / "report.html"
    made = Run.median(project.finops("report", "--out", str(page)) for _ in range(runs))
    notes = f"peak {made.megabytes:,.0f} MB at memory_limit = 1GB"
    yield made.figure(f"the page of {_MONTHS} months of {rows:,} charges", 15, notes)
    yield Figure("size of the page", page.stat().st_size / 1e3, "kB", 1500)
    if shutil.which("chromium"):
        yield Figure(
            "the page opened in Chromium, all panels drawn", _seconds_to_open(page), "s", 1
        )


def _seconds_to_open(page: Path) -> float:
    """Return the median of five openings, each in a context of its own."""
    with chromium() as browser:
        seconds = []
        for _ in range(5):
            with browser.new_context(offline=True) as context:
                tab = context.new_page()
                tab.add_init_script(_NOTE_READY)
                tab.goto(page.as_uri())
                tab.wait_for_selector("html[data-ready]")
                seconds.append(tab.evaluate("window.readyAt") / 1000)
        return median(seconds)


def _write_months(folder: Path, rows: int) -> None:
    """Write the charges of 300 accounts and 60 services into `folder`, as the lake has them."""
    month = _FIRST
    with duckdb.connect() as connection:
        template = write(connection, *GOOD[:1])
        for _ in range(_MONTHS):
            first_day = literal(str(month.first_day))
            hours = 24 * (month.next.first_day - month.first_day).days
            sizes = {"accounts": 300, "services": 60, "rows": rows, "hours": hours}
            query = _CHARGES.format(**sizes, template=template, first_day=first_day)
            connection.execute(f"CREATE OR REPLACE TABLE month AS {query}")
            totals = month_totals(totals_by_rule(connection, Sql("month")))
            record = ChargesRecord(LoadedVersion("1", totals), "bench", {"bench": "1"})
            file, footer = FolderLake(folder).file("bench", month), record.footer_texts("bench")
            with replacing_lake_file(connection, Sql("FROM month"), file, footer):
                pass
            month = month.next
