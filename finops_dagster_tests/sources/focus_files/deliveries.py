"""FOCUS files as providers deliver them: Oracle's columns and daily files, folders of months."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from finops_dagster.billing.months import BillingMonth
from finops_dagster_tests.project import MonthRun, Project
from finops_dagster_tests.servers.s3 import S3Server

Row = dict[str, str]


def charge(month: str, cost: str, **cells: str) -> Row:
    """Return a row with some of Oracle's columns, which keep the spelling of FOCUS 1.0-preview."""
    period = BillingMonth.parse(month)
    return {
        "AvailabilityZone": "",
        "BilledCost": cost,
        "BillingAccountId": "1234567890",
        "BillingCurrency": "USD",
        "BillingPeriodEnd": f"{period.next}-01T00:00Z",
        "BillingPeriodStart": f"{month}-01T00:00Z",
        "ChargePeriodEnd": f"{month}-03T01:00Z",
        "ChargePeriodStart": f"{month}-03T00:00Z",
        "ContractedCost": "NULL",
        "EffectiveCost": cost,
        "Provider": "Oracle",
        "Region": "us-phoenix-1",
        "ServiceName": "COMPUTE",
        "ServiceSubCategory": "Virtual Machines",
        "SubAccountId": "ocid1.tenancy.oc1..aaaa",
        "Tags": '{"team": "web"}',
        "UsageQuantity": "8.000000000000000",
        "oci_ReferenceNumber": "V2.abc",
        "oci_AttributedCost": cost,
        "oci_BackReferenceNumber": "",
        **cells,
    }


def charges(month: str, *costs: str, **cells: str) -> list[Row]:
    return [charge(month, cost, **cells) for cost in costs]


def csv_bytes(rows: Sequence[Row], headers: Sequence[str] = ()) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, headers or list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def daily_key(day: str, number: int = 1) -> str:
    """Return the key of one of Oracle's files of a day, such as `2026-01-31`."""
    return f"oracle/FOCUS Reports/{day.replace('-', '/')}/0001000000{number:06}-00001.csv.gz"


def deliver_day(project: Project, day: str, rows: Sequence[Row], number: int = 1) -> str:
    """Deliver one of Oracle's daily files, and return its key."""
    key = daily_key(day, number)
    project.put(key, gzip.compress(csv_bytes(rows)))
    return key


def use_focus_files(project: Project, layout: str, **settings: Any) -> Project:
    """Make the project's only export the FOCUS files below `oracle` in its folder."""
    project.export = {
        "name": "oracle",
        "vendor": "focus-files",
        "layout": layout,
        "source": f"{project.export['source']}/oracle",
        "start_month": "2026-01",
        "end_month": "2026-04",
        "table": "oracle_focus",
        **settings,
    }
    return project


def use_bucket(project: Project, s3: S3Server, bucket: str) -> None:
    """Make a bucket the place of the project's files."""
    project.use_bucket(s3, bucket)
    project.export["source"] += "/oracle"


def load(project: Project, month: str, **options: Any) -> MonthRun:
    return project.load(month, export="oracle", **options)


def costs(project: Project, month: str) -> list[Decimal]:
    """Return the billed costs of a month in the table, sorted."""
    sql = f"SELECT billedcost FROM oracle_focus WHERE billing_month = '{month}-01' ORDER BY 1"
    return [cost for (cost,) in project.query(sql)]
