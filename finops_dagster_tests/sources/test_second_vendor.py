"""A vendor unlike AWS takes one file and no change elsewhere.

Northwind has months found by listing, no manifest, US dates and several currencies. Its runs may
say which days they cover and how many rows they have.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Literal

import pytest

from finops_dagster.billing.columns import Sql, SqlType, flat_name
from finops_dagster.billing.delivery import Delivery
from finops_dagster.billing.errors import ManifestMissing
from finops_dagster.billing.manifest import ListedFile, Manifest, ManifestFile
from finops_dagster.billing.months import BillingMonth
from finops_dagster.object_stores import ObjectInfo, ObjectStores
from finops_dagster.object_stores.settings import StoreSettings
from finops_dagster.sources import VENDORS, Vendor
from finops_dagster.sources.base import AvailableFiles, Format, ManifestOrError, VersionFolder
from finops_dagster.sources.settings import ExportSettings
from finops_dagster_tests.project import MonthRun, Project, requested_months
from finops_dagster_tests.servers.s3 import S3Server


class NorthwindExport(StoreSettings, ExportSettings):
    """Exports are in `<source>/<month>/<run>/`, and a run's name is the hour of its beginning.

    A run is complete when it has `_DONE`, which may hold the first day, the last day and the rows.
    """

    vendor: Literal["northwind"]


class NorthwindFormat:
    """The columns of Northwind; times are `01/31/2024`, and `n/a` is no value."""

    vendor, name = "northwind", "northwind"
    null_words = ("n/a",)
    time_formats = ("%m/%d/%Y",)
    cost, money = "charge", frozenset({"charge", "listprice"})
    billing_period, usage_start = "billingmonth", "usedon"
    service, account = "product", "subscription"
    currency, expects_one_currency, invoice = "currency", False, "invoice"

    def column(self, header: str) -> str:
        return flat_name(header).replace("_", "")

    def is_user_defined(self, header: str) -> bool:
        return False

    def alias_of(self, header: str, known_headers: Collection[str]) -> str | None:
        return None

    def sql_type(self, header: str, declared: str | None) -> SqlType | None:
        column = self.column(header)
        if column in self.money:
            return SqlType.MONEY
        is_time = column in (self.billing_period, self.usage_start)
        return SqlType.TIME if is_time else SqlType.TEXT

    def finality_sql(self, columns: Collection[str]) -> Sql | None:
        return Sql("bool_and(invoice IS NOT NULL)")


FORMATS: Mapping[str, Format] = {"northwind": NorthwindFormat()}


class NorthwindSource:
    """The newest complete run of a month is its version."""

    max_manifest_age = timedelta(days=7)

    def __init__(self, export: NorthwindExport, stores: ObjectStores) -> None:
        self._name = export.name
        self._store, self._prefix = stores.open(export)

    def newest_manifests(
        self, months: Iterable[BillingMonth]
    ) -> dict[BillingMonth, ManifestOrError]:
        existing = self._store.folder_names(self._prefix)
        return {
            month: self._newest(month)
            if str(month) in existing
            else ManifestMissing(f"{self._name} has no month {month}")
            for month in months
        }

    def _newest(self, month: BillingMonth) -> ManifestOrError:
        folder = f"{self._prefix}/{month}".lstrip("/")
        for run in sorted(self._store.folder_names(folder), reverse=True):
            files = {
                file.key.rpartition("/")[2]: file for file in self._store.files(f"{folder}/{run}")
            }
            if done := files.pop("_DONE", None):
                return self._manifest(month, run, done, list(files.values()))
        return ManifestMissing(f"{self._name} {month} has no complete run")

    def _manifest(
        self, month: BillingMonth, run: str, done: ObjectInfo, files: list[ObjectInfo]
    ) -> Manifest:
        """Return a manifest of the run's files."""
        # Every `_DONE` is empty and has the same ETag, so the run's name stands for it.
        source = ManifestFile(**{**vars(done), "etag": run})
        listed = tuple(ListedFile(file.key, file.size) for file in files)
        body, _ = self._store.read(done.key) or (b"", done)
        manifest = Manifest("northwind", str(month), run, source, (), listed)
        if not body:
            return manifest
        first_day, last_day, rows = body.decode().split()
        delivery = Delivery(
            datetime.fromisoformat(run), date.fromisoformat(first_day), date.fromisoformat(last_day)
        )
        return replace(manifest, delivery=delivery, row_count=int(rows))

    def available_files(self, manifest: Manifest) -> AvailableFiles:
        return AvailableFiles([self._store.head(file.key) for file in manifest.files])

    def fetch(
        self, manifest: Manifest, available: AvailableFiles, folder: VersionFolder, *, force: bool
    ) -> int:
        return folder.fetch(self._store, available.files, force=force)


@pytest.fixture
def project(
    project: Project, s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> Project:
    """Return a project whose only export is Northwind's, in a bucket."""
    vendor = Vendor(
        NorthwindExport,
        lambda export: FORMATS,
        lambda export, stores, _: NorthwindSource(export, stores),
    )
    monkeypatch.setitem(VENDORS, "northwind", vendor)
    client = s3.client()
    project.put = lambda key, body: client.put_object(Bucket=bucket, Key=key, Body=body)
    project.export = {
        "name": "nw",
        "vendor": "northwind",
        "source": f"s3://{bucket}/bills",
        "endpoint_url": s3.url,
        "start_month": "2024-01",
    }
    return project


HEADERS = "Billing Month,Used On,Product,Subscription,Currency,Invoice,Charge,List Price".split(",")


def deliver_run(
    project: Project,
    name: str,
    *charges: tuple[str, str],
    done: bool = True,
    invoice: str = "n/a",
    days: str = "",
) -> None:
    """Deliver a run of January in two files, with these pairs of currency and charge.

    `days` are the first and the last day that it says to cover.
    """
    folder = f"bills/2024-01/{name}"
    for number in (0, 1):
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(HEADERS)
        writer.writerows(
            ["01/01/2024", "01/31/2024", "Disk", "0042", currency, invoice, charge, "n/a"]
            for currency, charge in charges[number::2]
        )
        project.put(f"{folder}/part-{number}.csv", text.getvalue().encode())
    if done:
        body = f"{days} {len(charges)}" if days else ""
        project.put(f"{folder}/_DONE", body.encode())


def load(project: Project) -> MonthRun:
    return project.load("2024-01", export="nw")


def costs(project: Project) -> dict[str, Decimal]:
    return dict(project.query("SELECT currency, sum(charge) FROM nw GROUP BY ALL"))


EUROS, DOLLARS = Decimal("0.100000000000000001"), Decimal("-7.25")


def test_a_month_is_the_newest_complete_run_with_its_cost_by_currency(project: Project) -> None:
    deliver_run(project, "2024-02-01T03", ("USD", "1"))
    deliver_run(project, "2024-02-02T03", ("EUR", str(EUROS)), ("USD", str(DOLLARS)), ("EUR", "1"))
    deliver_run(project, "2024-02-03T03", ("USD", "9"), done=False)
    outcome = load(project)
    assert outcome.data_versions() == {"2024-02-02T03"}
    assert costs(project) == {"EUR": EUROS + 1, "USD": DOLLARS}
    metadata = outcome.metadata("billing_table")
    assert metadata["currency"] == "EUR, USD"
    assert metadata["final"] is False
    assert outcome.checks()["billing_table.one_currency"]
    recorded = project.query("SELECT cost_by_currency FROM finops_state.manifests")
    assert recorded == [({"EUR": EUROS + 1, "USD": DOLLARS},)]
    assert project.query(
        "SELECT DISTINCT billing_month::TEXT, usedon::TEXT, listprice FROM nw"
    ) == [("2024-01-01", "2024-01-31 00:00:00", None)]
    assert set(load(project).outcomes().values()) == {"unchanged"}


def test_a_restated_month_is_requested_and_replaced(project: Project) -> None:
    deliver_run(project, "2024-02-01T03", ("USD", "1"))
    first = project.tick(sensor="nw_manifests")
    assert requested_months(first) == ["2024-01"]
    load(project)
    assert requested_months(project.tick(first.cursor, "nw_manifests")) == []
    deliver_run(project, "2024-02-02T03", ("USD", "2"), ("EUR", "3"), done=False)
    assert requested_months(project.tick(first.cursor, "nw_manifests")) == []
    project.put("bills/2024-01/2024-02-02T03/_DONE", b"")
    assert requested_months(project.tick(first.cursor, "nw_manifests")) == ["2024-01"]
    metadata = load(project).metadata("billing_table")
    assert metadata["replaced_version"] == "2024-02-01T03"
    assert metadata["rows_changed"] == 1
    assert costs(project) == {"USD": 2, "EUR": 3}


def test_an_invalid_date_is_refused_with_line_and_column(project: Project) -> None:
    deliver_run(project, "2024-02-01T03", ("USD", "1"))
    load(project)
    body = ",".join(HEADERS) + "\n01/01/2024,31/01/2024,Disk,0042,USD,n/a,1,n/a\n"
    project.put("bills/2024-01/2024-02-02T03/part.csv", body.encode())
    project.put("bills/2024-01/2024-02-02T03/_DONE", b"")
    error = project.materialize("2024-01", export="nw").error
    assert "line 2, column \"Used On\": '31/01/2024' cannot be kept exactly as TIMESTAMP" in error
    assert costs(project) == {"USD": 1}


def test_a_run_of_fewer_days_than_the_loaded_one_is_refused_until_it_is_reprocessed(
    project: Project,
) -> None:
    deliver_run(project, "2024-02-01T03", ("USD", "1"), days="2024-01-01 2024-01-31")
    metadata = load(project).metadata("manifest")
    assert metadata["covered_days"] == "2024-01-01 to 2024-01-31"
    deliver_run(project, "2024-02-02T03", ("USD", "9"), days="2024-01-02 2024-01-31")
    error = project.materialize("2024-01", export="nw").error
    assert "_DONE covers 2024-01-02 to 2024-01-31, fewer days than the loaded version" in error
    assert "2024-02-01T03, which covers 2024-01-01 to 2024-01-31" in error
    assert "finops state reprocess nw 2024-01 loads the newest run all the same" in error
    assert error.endswith("the lake keeps version 2024-02-01T03")
    assert costs(project) == {"USD": 1}
    project.load("2024-01", export="nw", force=True)
    assert costs(project) == {"USD": 9}
    deliver_run(project, "2024-02-03T03", ("USD", "7"), days="2024-01-01 2024-01-31")
    load(project)
    assert costs(project) == {"USD": 7}


def test_an_older_run_never_replaces_the_loaded_one_by_itself(
    project: Project, s3: S3Server, bucket: str
) -> None:
    days = "2024-01-01 2024-01-31"
    deliver_run(project, "2024-02-01T03", ("USD", "1"), days=days)
    deliver_run(project, "2024-02-02T03", ("USD", "2"), days=days)
    load(project)
    requested = project.tick(sensor="nw_manifests")
    for name in ("part-0.csv", "part-1.csv", "_DONE"):
        s3.client().delete_object(Bucket=bucket, Key=f"bills/2024-01/2024-02-02T03/{name}")
    assert requested_months(project.tick(requested.cursor, "nw_manifests")) == ["2024-01"]
    outcome = load(project)
    assert set(outcome.outcomes().values()) == {"unchanged"}
    assert outcome.data_versions() == {"2024-02-02T03"}
    warning = outcome.metadata("manifest")["warnings"]
    assert "_DONE, was submitted at 2024-02-01 03:00:00 UTC, before the loaded version" in warning
    assert requested_months(project.tick(requested.cursor, "nw_manifests")) == []
    assert costs(project) == {"USD": 2}
    project.load("2024-01", export="nw", force=True)
    assert costs(project) == {"USD": 1}


def test_files_with_another_number_of_rows_than_the_run_says_are_refused(project: Project) -> None:
    deliver_run(project, "2024-02-01T03", ("USD", "1"))
    load(project)
    deliver_run(project, "2024-02-02T03", ("USD", "9"), days="2024-01-01 2024-01-31")
    project.put("bills/2024-01/2024-02-02T03/_DONE", b"2024-01-01 2024-01-31 3")
    error = project.materialize("2024-01", export="nw").error
    assert "_DONE says that its files have 3 rows, but they have 1" in error
    assert costs(project) == {"USD": 1}
