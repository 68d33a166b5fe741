"""The two bills of `finops demo`: their versions, and the functions that write and find them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial
from pathlib import Path

from finops_dagster.demo.azure.export import AzureRun, write_run
from finops_dagster.demo.export import BillVersion, write_version

AWS_FOLDER = Path("data/demo/source")
AZURE_FOLDER = Path("data/demo/azure")
AWS_EXPORT = "demo-cur"
_AZURE_EXPORT = "demo-focus"
AWS_VERSIONS = [
    BillVersion(date(2024, 1, 1), "20240203T050312Z", rows=48_211),
    BillVersion(date(2024, 2, 1), "20240302T044907Z", rows=50_334),
    BillVersion(date(2024, 3, 1), "20240403T051544Z", rows=52_067),
    BillVersion(date(2024, 2, 1), "20240408T050158Z", rows=50_371, restated=True),
]
_AZURE_RUNS = [
    AzureRun(date(2024, 1, 1), datetime(2024, 2, 5, 3, 12, 44, 518204), resources=570),
    AzureRun(date(2024, 2, 1), datetime(2024, 3, 5, 3, 40, 9, 77310), resources=584),
    AzureRun(date(2024, 3, 1), datetime(2024, 4, 5, 3, 26, 31, 940082), resources=597),
    AzureRun(date(2024, 2, 1), datetime(2024, 4, 9, 14, 5, 2, 266718), 584, restated=True),
]


@dataclass(frozen=True)
class DemoVersion:
    """A version of the month that begins on `first_day`.

    `name` is AWS's assembly id, or the time at which Azure's run was submitted. `write` writes its
    files and its manifest.
    """

    first_day: date
    name: str
    write: Callable[[], object]


@dataclass(frozen=True)
class DemoBill:
    """The bill of one cloud, with its `versions` in the order in which the demo delivers them.

    `cost_column` is that of its table, `cost_header` its header in the files. `newest`
    returns the name and the files of a month's newest version on disk; the name is empty if there
    is none. The name of a later version is greater as text.
    """

    cloud: str
    currency: str
    cost_column: str
    cost_header: str
    versions: Sequence[DemoVersion]
    newest: Callable[[date], tuple[str, list[Path]]]


def _newest_of_aws(month: date) -> tuple[str, list[Path]]:
    for path in AWS_FOLDER.glob(f"{AWS_EXPORT}/{month:%Y%m%d}-*/*-Manifest.json"):
        manifest = json.loads(path.read_text())
        return manifest["assemblyId"], [AWS_FOLDER / key for key in manifest["reportKeys"]]
    return "", []


def _newest_of_azure(month: date) -> tuple[str, list[Path]]:
    runs = AZURE_FOLDER.glob(f"{_AZURE_EXPORT}/{month:%Y%m%d}-*/*/*/manifest.json")
    newest = max(runs, key=_submitted, default=None)
    if newest is None:
        return "", []
    blobs = json.loads(newest.read_text())["blobs"]
    return newest.parts[-3], [AZURE_FOLDER / blob["blobName"] for blob in blobs]


def _submitted(manifest: Path) -> str:
    return str(json.loads(manifest.read_text())["runInfo"]["submittedTime"])


# In the order of the exports in demo.toml.
BILLS = [
    DemoBill(
        "AWS", "USD", "lineitem_unblendedcost", "lineItem/UnblendedCost",
        [
            DemoVersion(
                version.first_day,
                version.assembly_id,
                partial(write_version, AWS_FOLDER, "", AWS_EXPORT, version),
            )
            for version in AWS_VERSIONS
        ],
        _newest_of_aws,
    ),
    DemoBill(
        "Azure", "EUR", "billedcost", "BilledCost",
        [
            DemoVersion(
                run.first_day,
                f"{run.submitted_at:%Y%m%d%H%M}",
                partial(write_run, AZURE_FOLDER, "", _AZURE_EXPORT, run),
            )
            for run in _AZURE_RUNS
        ],
        _newest_of_azure,
    ),
]  # fmt: skip
