"""Write an example bill as Azure's Cost Management delivers it, with the same bytes everywhere.

../macros.sql   what numbers and names are drawn with
../company.sql  the company's subscriptions and workloads
meters.csv      the meters: what the company buys from Azure
charges.sql     the charges of a bill, one a row
focus.csv       the columns of FocusCost 1.2-preview: names, Azure's types, and SQL over the charges

https://learn.microsoft.com/azure/cost-management-billing/dataset-schema/cost-usage-details-focus
"""

from __future__ import annotations

import csv
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from duckdb import DuckDBPyConnection

from finops_dagster.billing.columns import Sql, literal, quoted
from finops_dagster.billing.months import BillingMonth
from finops_dagster.demo.files import atomic_write
from finops_dagster.tables.database import DuckDB

_FOLDER = Path(__file__).parent
_SUBSCRIPTION = "/subscriptions/6f1b0c5e-2d4a-4a7e-9b57-0c8a54f1d2e3"
_ACCOUNT = "c1b1e7a0-6c3d-4a53-8f0e-2f6f0a3c9d41:7d5b9f26-19c4-4c0b-a3a5-51e0f6b1c7aa_2019-05-31"
_PROFILE = (
    f"/providers/Microsoft.Billing/billingAccounts/{_ACCOUNT}/billingProfiles/EXMP-7K2D-BG7-TGB"
)
# The text of a value in CSV, by Azure's type; others are texts.
_TEXTS = {
    "Decimal": "plain_number({})",
    "DateTime": "iso_time({})",
    "JSON": "CAST(to_json({}) AS VARCHAR)",
}


@dataclass(frozen=True)
class AzureRun:
    """One run of an export over one month.

    `first_day` is that of its month, `submitted_at` the start of the run in UTC without a time
    zone, and `parts` the number of files. `resources` is the number of resources: each has a charge
    a day, but machines for development have none at the weekend. Another `seed` gives another bill.

    `restated` gives the month as it is after its invoice: every row has the invoice's id, there are
    a credit and a refund that came late, about one row of 400 has 5 % more usage, and a rounding
    adjustment makes the total whole cents. The other rows are those of the run before.
    """

    first_day: date
    submitted_at: datetime
    resources: int
    parts: int = 2
    restated: bool = False
    seed: int = 7

    @property
    def id(self) -> str:
        """The GUID of the run; the same for the same seed, month and time."""
        return str(uuid5(NAMESPACE_URL, f"{self.seed}/{self.first_day}/{self.submitted_at}"))

    @property
    def last_day(self) -> date:
        """The last day of the billing period."""
        return BillingMonth.of(self.first_day).next.first_day - timedelta(days=1)

    def folder(self, export_name: str) -> str:
        """Return the folder of the run's files, relative to the directory of the export.

        Each run has its own, so no run overwrites the files of another.
        """
        days = f"{self.first_day:%Y%m%d}-{self.last_day:%Y%m%d}"
        return f"{export_name}/{days}/{self.submitted_at:%Y%m%d%H%M}/{self.id}"


def write_run(container: Path, directory: str, export_name: str, run: AzureRun) -> Path:
    """Write the files of one run of an export, and return the path of its manifest.

    `container` is a folder that is used as the container; `directory` is that of the export's
    setting in Azure, and may be empty. The manifest is written last.
    """
    folder = container / directory / run.folder(export_name)
    paths = [folder / f"part_0_{number:04d}.csv.gz" for number in range(1, run.parts + 1)]
    blobs: list[dict[str, Any]] = [
        {
            "blobName": str(path.relative_to(container)),
            "byteCount": path.stat().st_size,
            "dataRowCount": rows,
        }
        for path, rows in zip(paths, _write_parts(paths, run), strict=True)
    ]
    sums = {name: sum(blob[name] for blob in blobs) for name in ("byteCount", "dataRowCount")}
    manifest = {
        "manifestVersion": "2024-04-01",
        **sums,
        "blobCount": len(blobs),
        **_configuration(run, directory, export_name),
        "blobs": blobs,
    }
    with atomic_write(folder / "manifest.json") as path:
        path.write_text(json.dumps(manifest, indent=2))
    return folder / "manifest.json"


def _write_parts(paths: list[Path], run: AzureRun) -> list[int]:
    """Write the rows in parts as equal as possible, and return the number of rows in each."""
    with DuckDB(threads=1).open_in_memory() as connection:  # one thread keeps the order of the rows
        connection.execute("SET disabled_optimizers = 'join_order,build_side_probe_side'")
        rows = _create_charges(connection, run)
        columns: Sql = _columns()

        def write(path: Path, first: int, end: int) -> int:
            with connection.cursor() as cursor, atomic_write(path) as unfinished:
                cursor.execute(
                    f"COPY (SELECT {columns} FROM charges($first, $end)) TO $path "
                    "(FORMAT csv, HEADER, COMPRESSION gzip)",
                    {"path": str(unfinished), "first": first, "end": end},
                )
            return end - first

        edges = [rows * part // run.parts for part in range(run.parts + 1)]
        with ThreadPoolExecutor(max_workers=min(run.parts, os.cpu_count() or 1)) as pool:
            return list(pool.map(write, paths, edges, edges[1:]))


def _create_charges(connection: DuckDBPyConnection, run: AzureRun) -> int:
    """Create the macro `charges` of a run by charges.sql, and return the number of charges."""
    parameters = {
        "month": run.first_day,
        "resources": run.resources,
        "restated": run.restated,
        "seed": run.seed,
        "billing_account": _ACCOUNT,
        "billing_profile": _PROFILE,
        "salt": int(sha256(f"azure {run.seed}".encode()).hexdigest()[:7], 16),
    }
    named = ", ".join(f"${name} AS {name}" for name in parameters)
    for script in (_FOLDER.parent / "macros.sql", _FOLDER.parent / "company.sql"):
        connection.execute(script.read_text())
    meters = literal(str(_FOLDER / "meters.csv"))
    connection.execute(f"CREATE TABLE meter_line AS FROM read_csv({meters}, all_varchar = true)")
    connection.execute(f"CREATE TABLE parameters AS SELECT {named}", parameters)
    connection.execute((_FOLDER / "charges.sql").read_text())
    (rows,) = connection.execute("SELECT count(*) FROM charge").fetchone() or (0,)
    return int(rows)


def _columns() -> Sql:
    """Return the SQL of all columns in Azure's order; the first has the file's byte order mark."""
    cells = {}
    with (_FOLDER / "focus.csv").open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            text = _TEXTS.get(row["type"], "{}").format(row["value"] or "NULL")
            cells.update(dict.fromkeys(row["names"].split("|"), text))
    first = min(cells)
    headers = {name: f"\ufeff{name}" if name == first else name for name in sorted(cells)}
    return Sql(", ".join(f"{cells[name]} AS {quoted(text)}" for name, text in headers.items()))


def _configuration(run: AzureRun, directory: str, export_name: str) -> dict[str, object]:
    """Return the manifest's fields about the export and the run."""
    exports = f"{_PROFILE}/providers/Microsoft.CostManagement/exports"
    return {
        "exportConfig": {
            "exportName": export_name,
            "resourceId": f"{exports}/{export_name}",
            "dataVersion": "1.2-preview",
            "apiVersion": "2023-07-01-preview",
            "type": "FocusCost",
            "timeFrame": "Custom" if run.restated else "TheLastMonth",
            "granularity": "Daily",
        },
        "deliveryConfig": {
            "partitionData": True,
            "dataOverwriteBehavior": "CreateNewReport",
            "fileFormat": "Csv",
            "compressionMode": "gzip",
            "containerUri": f"{_SUBSCRIPTION}/resourceGroups/rg-billing/providers"
            "/Microsoft.Storage/storageAccounts/examplecosts",
            "rootFolderPath": directory,
        },
        "runInfo": {
            "executionType": "OnDemand" if run.restated else "Scheduled",
            "submittedTime": f"{run.submitted_at:%Y-%m-%dT%H:%M:%S.%f}0Z",  # seven digits
            "runId": run.id,
            "startDate": f"{run.first_day:%Y-%m-%dT00:00:00}",
            "endDate": f"{run.last_day:%Y-%m-%dT00:00:00Z}",
        },
    }
