"""Small CUR v1 exports for tests, delivered as AWS does: files first, the manifest last."""

import csv
import gzip
import io
import json
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from finops_dagster.billing.months import BillingMonth
from finops_dagster_tests.servers.s3 import S3Server

Put = Callable[[str, bytes], None]
Part = bytes | Sequence[dict[str, str]]

_TYPES = {
    "bill/BillingPeriodStartDate": "DateTime",
    "lineItem/UsageStartDate": "DateTime",
    "lineItem/UnblendedCost": "BigDecimal",
}


def line_item(month: str, **cells: str) -> dict[str, str]:
    """Return a row with the cells that every bill has, and others by name, `__` for `/`."""
    return {
        "identity/LineItemId": "abc",
        "bill/PayerAccountId": "001234567890",
        "bill/BillingPeriodStartDate": f"{month}-01T00:00:00Z",
        "lineItem/UsageStartDate": f"{month}-03T04:00:00Z",
        "lineItem/ProductCode": "AmazonEC2",
        "lineItem/LineItemDescription": "",
        "lineItem/UnblendedCost": "1",
        **{name.replace("__", "/"): cell for name, cell in cells.items()},
    }


HEADERS = tuple(line_item("2024-01"))


def line_items(month: str, *costs: str) -> list[dict[str, str]]:
    return [line_item(month, lineItem__UnblendedCost=cost) for cost in costs]


def csv_bytes(rows: Iterable[dict[str, str]], headers: Sequence[str] = HEADERS) -> bytes:
    """Return a CSV file as AWS writes it: quotes where needed, lines that end in LF."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(headers)
    writer.writerows([row.get(header, "") for header in headers] for row in rows)
    return text.getvalue().encode()


def zip_bytes(body: bytes) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("report.csv", body)
    return archive.getvalue()


def folder_put(folder: Path) -> Put:
    def put(key: str, body: bytes) -> None:
        path = folder / key.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)

    return put


def bucket_put(s3: S3Server, bucket: str) -> Put:
    client = s3.client()
    return lambda key, body: client.put_object(Bucket=bucket, Key=key, Body=body)


def upload(folder: Path, put: Put) -> None:
    """Upload all files of a folder, the manifests last, as AWS does."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in sorted(files, key=lambda path: (path.suffix == ".json", path)):
        put(str(path.relative_to(folder)), path.read_bytes())


def deliver(
    put: Put,
    month: str,
    parts: Sequence[Part],
    *,
    version: str = "20240301T000000Z",
    export_name: str = "acme-cur",
    prefix: str = "",
    headers: Sequence[str] = HEADERS,
    columns: Sequence[str] | None = None,
    types: dict[str, str] | None = None,
    with_types: bool = True,
    bucket: str = "acme-billing",
    manifest_prefix: str | None = None,
    changes: dict[str, object] | None = None,
    suffix: str = "gz",
) -> list[str]:
    """Deliver one version of a month, and return the keys of its files.

    A part is the bytes of a file, or rows, which become a CSV file in gzip. `suffix` is only the
    end of the files' names. `columns` are those that the manifest lists, where they are not the
    headers. `manifest_prefix` is the prefix of the manifest's keys, where it is not that of the
    files: a bucket that is replicated keeps the keys of the original. `changes` replaces fields of
    the manifest.
    """
    billing_month = BillingMonth.parse(month)
    start, end = (f"{m.first_day:%Y%m%d}" for m in (billing_month, billing_month.next))
    file_prefix = f"{prefix}/" if prefix else ""
    folder = f"{file_prefix}{export_name}/{start}-{end}"
    keys = []
    for number, part in enumerate(parts, 1):
        body = part if isinstance(part, bytes) else gzip.compress(csv_bytes(part, headers))
        keys.append(f"{folder}/{version}/{export_name}-{number:05}.csv.{suffix}")
        put(keys[-1], body)
    listed_prefix = file_prefix if manifest_prefix is None else manifest_prefix
    all_types = {**_TYPES, **(types or {})}
    manifest: dict[str, object] = {
        "assemblyId": version,
        "account": "001234567890",
        "columns": [
            {
                "category": header.partition("/")[0],
                "name": header.partition("/")[2],
                **({"type": all_types.get(header, "String")} if with_types else {}),
            }
            for header in (headers if columns is None else columns)
        ],
        "charset": "UTF-8",
        "compression": "GZIP",
        "contentType": "text/csv",
        "reportId": "0" * 64,
        "reportName": export_name,
        "billingPeriod": {"start": f"{start}T000000.000Z", "end": f"{end}T000000.000Z"},
        "bucket": bucket,
        "reportKeys": [listed_prefix + key.removeprefix(file_prefix) for key in keys],
        "additionalArtifactKeys": [],
        **(changes or {}),
    }
    body = json.dumps(manifest).encode()
    put(f"{folder}/{version}/{export_name}-Manifest.json", body)
    put(f"{folder}/{export_name}-Manifest.json", body)
    return keys
