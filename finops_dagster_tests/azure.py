"""Small Azure cost exports for tests: one bill as FOCUS, actual and amortized, in every layout."""

import csv
import gzip
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq

from finops_dagster.billing.months import BillingMonth
from finops_dagster_tests.cur import Put

Row = dict[str, str]
SUBSCRIPTION = "/subscriptions/00000000-1111-2222-3333-444444444444"
ENROLMENT = "/providers/Microsoft.Billing/billingAccounts/0123456"
PROFILE = "/providers/Microsoft.Billing/billingAccounts/a:b_2019-05-31/billingProfiles/C-D"


@dataclass(frozen=True)
class Layout:
    """The folders of a run; `seen` says where a real listing was, empty if only documented."""

    folder: str
    seen: str = ""
    manifest_name: str = "manifest.json"


LAYOUTS = {
    "run times": Layout("{export}/{dates}/{time}/{run}", "opencost"),
    "run ids": Layout("{export}/{dates}/{run}"),
    "dates first": Layout("{dates}/{export}/{time}/{run}"),
    "dates first, run ids": Layout("{dates}/{export}/{run}"),
    "underscore": Layout("{export}/{dates}/{time}/{run}", "opencost#2451", "_manifest.json"),
    "one file": Layout("{export}/{dates}", "koku, nise", ""),
}


@dataclass(frozen=True)
class Run:
    """A run of an export: what Azure says of it in the manifest and in the names of folders."""

    month: str = "2024-01"
    number: int = 1
    export: str = "contoso-daily"
    dataset: str = "FocusCost"
    scope: str = SUBSCRIPTION
    layout: str = "run times"
    manifest: str = "2024-04-01"
    submitted: str = ""
    days: tuple[str, str] = ("", "")
    """The days of the folder and of the manifest; by default those of the month."""

    @property
    def run_id(self) -> str:
        return str(UUID(int=self.number))

    @property
    def submitted_at(self) -> datetime:
        """When the run was submitted; by default on the day `number` of the next month."""
        if self.submitted:
            return datetime.fromisoformat(self.submitted).replace(tzinfo=UTC)
        first = BillingMonth.parse(self.month).next.first_day
        return datetime(first.year, first.month, first.day, 3, 48, 5, 8480, tzinfo=UTC) + timedelta(
            days=self.number - 1
        )

    @property
    def dates(self) -> tuple[date, date]:
        month = BillingMonth.parse(self.month)
        defaults = month.first_day, month.next.first_day - timedelta(days=1)
        first, last = (
            date.fromisoformat(day) if day else default
            for day, default in zip(self.days, defaults, strict=True)
        )
        return first, last

    @property
    def folder(self) -> str:
        first, last = self.dates
        return LAYOUTS[self.layout].folder.format(
            export=self.export,
            dates=f"{first:%Y%m%d}-{last:%Y%m%d}",
            time=f"{self.submitted_at:%Y%m%d%H%M}",
            run=self.run_id,
        )


def _manifest_2021(run: Run, blobs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a manifest as in a test of koku: without runInfo and exportConfig."""
    return {
        "manifestVersion": "2021-01-01",
        "dataFormat": "csv",
        **_counts(blobs),
        "blobs": [{**blob, "headerRowCount": 1} for blob in blobs],
    }


def _manifest_2023(run: Run, blobs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a manifest as quoted in finops-toolkit#527, of January 2024."""
    first, last = run.dates
    submitted = run.submitted_at
    return {
        "exportConfig": {
            "exportName": run.export,
            "resourceId": f"{run.scope}/providers/Microsoft.CostManagement/exports/{run.export}",
            "dataVersion": "1.0-preview (v1)",
            "apiVersion": "2023-07-01-preview",
            "type": run.dataset,
            "timeFrame": "OneTime",
            "granularity": "Daily",
        },
        "deliveryConfig": {
            "partitionData": True,
            "dataOverwriteBehavior": "CreateNewReport",
            "fileFormat": "Csv",
            "compressionMode": "gzip",
            "containerUri": "/subscriptions/x/resourceGroups/y/providers/Microsoft.Storage",
            "rootFolderPath": "exports",
        },
        "runInfo": {
            "executionType": "Scheduled",
            "submittedTime": f"{submitted:%Y-%m-%dT%H:%M:%S}.{submitted.microsecond:06}6Z",
            "runId": run.run_id,
            "startDate": f"{first}T00:00:00",
            "endDate": f"{last}T00:00:00Z",
        },
        "blobs": [{"blobName": blob["blobName"]} for blob in blobs],
    }


def _manifest_2024(run: Run, blobs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a manifest as the newest that were seen, with fields that no reader knows."""
    older = _manifest_2023(run, blobs)
    older["exportConfig"]["dataVersion"] = "1.2-preview"
    newer = {"manifestVersion": "2024-04-01", "somethingNew": {"x": [None]}}
    return newer | _counts(blobs) | older | {"blobs": blobs}


def _manifest_by_hand(run: Run, blobs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a manifest of the fields in the template of FinOps hubs."""
    older, counts = _manifest_2023(run, blobs), _counts(blobs)
    config = older["exportConfig"]
    return {
        "blobCount": counts["blobCount"],
        "dataRowCount": counts["dataRowCount"],
        "exportConfig": {
            name: config[name] for name in ("exportName", "type", "dataVersion", "resourceId")
        },
        "runInfo": {name: older["runInfo"][name] for name in ("runId", "startDate")},
        "blobs": older["blobs"],
    }


def _counts(blobs: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "blobCount": len(blobs),
        "byteCount": sum(blob["byteCount"] for blob in blobs),
        "dataRowCount": sum(blob["dataRowCount"] for blob in blobs),
    }


MANIFESTS = {
    "2021-01-01": _manifest_2021,
    "2023": _manifest_2023,
    "2024-04-01": _manifest_2024,
    "by hand": _manifest_by_hand,
}


def deliver(
    put: Put,
    run: Run,
    *parts: bytes | Sequence[Row],
    root: str = "exports/",
    suffix: str = "csv.gz",
    changes: Mapping[str, Any] | None = None,
) -> str:
    """Deliver a run: its files first, its manifest last; return the key of the manifest.

    Parts are rows or the bytes of a file. Without a manifest, return the key of the only file.
    """
    folder, blobs = f"{root}{run.folder}", []
    layout = LAYOUTS[run.layout]
    for number, part in enumerate(parts, 1):
        body = part if isinstance(part, bytes) else file_bytes(part, suffix)
        name = f"part_0_{number:04}.{suffix}"
        if not layout.manifest_name:
            name = f"{run.export}_{run.run_id}.{suffix}"
        key = f"{folder}/{name}"
        put(key, body)
        rows = 0 if isinstance(part, bytes) else len(part)
        blobs.append({"blobName": key, "byteCount": len(body), "dataRowCount": rows})
    if not layout.manifest_name:
        return key
    manifest = MANIFESTS[run.manifest](run, blobs) | dict(changes or {})
    key = f"{folder}/{layout.manifest_name}"
    put(key, json.dumps(manifest).encode())
    return key


def file_bytes(rows: Sequence[Row], suffix: str = "csv.gz") -> bytes:
    """Return a file of a kind that Azure writes: CSV with a BOM, plain or gzipped, or Parquet."""
    if suffix.endswith("parquet"):
        return parquet_bytes(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["BilledCost"], restval="")
    writer.writeheader()
    writer.writerows(rows)
    body = b"\xef\xbb\xbf" + text.getvalue().encode()
    return gzip.compress(body, mtime=0) if suffix.endswith("gz") else body


def parquet_bytes(rows: Sequence[Row]) -> bytes:
    """Return a Parquet file of rows, with decimals for costs and times for periods as Azure's."""
    columns = {name: [row.get(name) or None for row in rows] for name in rows[0]}
    arrays: dict[str, pa.Array] = {}
    for name, cells in columns.items():
        if name.endswith("Cost"):
            values = [cell and Decimal(cell) for cell in cells]
            arrays[name] = pa.array(values, pa.decimal128(38, 18))
        elif name.endswith(("PeriodStart", "PeriodEnd")):
            times = [cell and datetime.fromisoformat(cell) for cell in cells]
            arrays[name] = pa.array(times, pa.timestamp("ms", "UTC"))
        else:
            arrays[name] = pa.array(cells, pa.string())
    buffer = io.BytesIO()
    pq.write_table(pa.table(arrays), buffer)
    return buffer.getvalue()


@dataclass(frozen=True)
class Charge:
    """A charge as the three datasets show it, each in its own way."""

    billed: str
    effective: str
    kind: str = "Usage"
    service: str = "Virtual Machines"
    currency: str = "USD"
    invoice: str = ""
    tags: str = '{"env": "prod"}'
    day: int = 3
    pricing: str = "OnDemand"


BILL = (
    Charge("12.500000000000000001", "12.500000000000000001"),
    Charge("120", "0", "Purchase", "Reservations", pricing="Reservation"),
    Charge("0", "70.25", pricing="Reservation"),
    Charge("0", "49.75", "UnusedReservation", pricing="Reservation"),
    Charge("-3.5", "-3.5", "Refund", "Storage"),
    Charge("0.01", "0.01", "RoundingAdjustment", ""),
)
"""A month's bill whose reservation of a month is bought, used and partly left unused."""
BILLED = EFFECTIVE = Decimal("129.010000000000000001")


def focus_rows(*charges: Charge, month: str = "2024-01") -> list[Row]:
    """Return the rows of FOCUS: the billed cost is the actual one, the effective the amortized."""
    period = BillingMonth.parse(month)
    return [
        {
            "BilledCost": charge.billed,
            "BillingAccountId": PROFILE,
            "BillingCurrency": charge.currency,
            "BillingPeriodEnd": f"{period.next.first_day}T00:00:00Z",
            "BillingPeriodStart": f"{period.first_day}T00:00:00Z",
            "ChargeCategory": charge.kind if charge.kind in ("Usage", "Purchase") else "Adjustment",
            "ChargePeriodEnd": f"{month}-{charge.day + 1:02}T00:00:00Z",
            "ChargePeriodStart": f"{month}-{charge.day:02}T00:00:00Z",
            "EffectiveCost": charge.effective,
            "InvoiceId": charge.invoice,
            "ProviderName": "Microsoft",
            "ServiceName": charge.service,
            "SubAccountId": SUBSCRIPTION,
            "Tags": charge.tags,
            "x_BilledCostInUsd": charge.billed,
            "x_SkuTerm": "12",
        }
        for charge in charges
    ]


def costs(*amounts: str, month: str = "2024-01") -> list[Row]:
    """Return rows of FOCUS with these costs."""
    return focus_rows(*(Charge(amount, amount) for amount in amounts), month=month)


@dataclass(frozen=True)
class Agreement:
    """The headers that usage details have under an agreement, and how they write dates and tags.

    `seen` says where a real file was, empty if the headers are only documented. Headers that are
    absent are empty.
    """

    seen: str
    cost: str
    currency: str
    account: str = "SubscriptionId"
    date: str = "Date"
    period: tuple[str, str] = ("BillingPeriodStartDate", "BillingPeriodEndDate")
    service: str = "MeterCategory"
    quantity: str = "Quantity"
    tags: str = "Tags"
    kind: str = "ChargeType"
    pricing: str = "PricingModel"
    invoice: str = ""
    billing_account: str = "BillingAccountId"
    date_format: str = "{0:%Y-%m-%d}"
    has_braces: bool = True
    has_period: bool = True


_MCA = Agreement(
    "",
    cost="costInBillingCurrency",
    currency="billingCurrency",
    date="date",
    period=("billingPeriodStartDate", "billingPeriodEndDate"),
    service="meterCategory",
    quantity="quantity",
    tags="tags",
    kind="chargeType",
    pricing="pricingModel",
    invoice="invoiceId",
    billing_account="billingAccountId",
    date_format="{0:%m/%d/%Y}",
)
_OLD = Agreement(
    "a test of opencost, PayAsYouGo.csv",
    cost="PreTaxCost",
    currency="Currency",
    account="SubscriptionGuid",
    date="UsageDateTime",
    period=("", ""),
    quantity="UsageQuantity",
    kind="",
    pricing="",
    billing_account="",
    has_braces=False,
)
AGREEMENTS = {
    "EA": Agreement(
        "focus_converters, azure-ea-export.csv",
        cost="CostInBillingCurrency",
        currency="BillingCurrencyCode",
        date_format="{0.month}/{0.day}/{0.year}",
        has_braces=False,
    ),
    "EA, older": Agreement(
        "finops-toolkit's sample",
        cost="Cost",
        currency="BillingCurrency",
        date_format="{0:%m/%d/%Y}",
        has_braces=False,
    ),
    "MCA": _MCA,
    "CSP": replace(_MCA, has_period=False),
    "pay as you go": _OLD,
    "pay as you go, German": replace(
        _OLD,
        seen="a test of opencost, German.csv",
        account="Abonnement-GUID (SubscriptionGuid)",
        date="UsageDateTime (UsageDateTime)",
        cost="PreTaxCost (PreTaxCost)",
        service="Kategorie der Verbrauchseinheit (MeterCategory)",
        quantity="UsageQuantity (UsageQuantity)",
        tags="Tags (Tags)",
    ),
}


def usage_rows(
    *charges: Charge, agreement: str = "EA", month: str = "2024-01", amortized: bool = False
) -> list[Row]:
    """Return the rows of usage details: actual or amortized costs under an agreement."""
    style, period = AGREEMENTS[agreement], BillingMonth.parse(month)
    first, last = period.first_day, period.next.first_day - timedelta(days=1)
    rows = []
    for charge in charges:
        day = style.date_format.format(first + timedelta(days=charge.day - 1))
        start, end = (
            style.date_format.format(d) if style.has_period else "" for d in (first, last)
        )
        row = {
            style.account: SUBSCRIPTION.rpartition("/")[2],
            style.date: day,
            style.service: charge.service,
            style.quantity: "1.5E-3",
            style.cost: charge.effective if amortized else charge.billed,
            style.currency: charge.currency,
            style.period[0]: start,
            style.period[1]: end,
            style.tags: charge.tags if style.has_braces else charge.tags.strip("{}"),
            style.kind: charge.kind,
            style.pricing: charge.pricing,
            style.invoice: charge.invoice,
            style.billing_account: "0123456",
        }
        row.pop("", None)
        is_of_commitment = charge.pricing in ("Reservation", "SavingsPlan")
        is_purchase = charge.kind in ("Purchase", "Refund") and is_of_commitment
        if not (is_purchase if amortized else charge.kind.startswith("Unused")):
            rows.append(row)
    return rows
