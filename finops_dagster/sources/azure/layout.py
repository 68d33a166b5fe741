"""The layout of Azure's exports in a container: how runs are found by the names of folders.

A run is `<export>/20260101-20260131/202601160348/<run id>/manifest.json` with its files beside it.
The folder of the dates may also be above that of the export, and the folder of the run's time is
absent in some exports. Old exports write one CSV a run, without a manifest, next to those of other
runs: `<export>/20260101-20260131/<export>_<id>.csv`.
https://learn.microsoft.com/azure/cost-management-billing/costs/tutorial-improved-exports
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from finops_dagster.billing.months import BillingMonth
from finops_dagster.object_stores import ObjectInfo, ObjectStore, StoreError

_DATE_RANGE = re.compile(r"([0-9]{8})-([0-9]{8})")
_RUN_TIME = re.compile(r"[0-9]{12}")
_GUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.I)
_MANIFEST_NAME = re.compile(r"_?manifest\.json", re.I)
_DATA_NAME = re.compile(r".*\.(csv(\.gz)?|parquet)", re.I)
# A run's folder has the minute in which it was submitted, in UTC. A day more costs few requests.
_RUN_TIME_TOLERANCE = timedelta(days=1)
# The folder of an export seldom lies deeper, and a container may have any number of other folders.
_MAX_LEVELS = 6
_MAX_FOLDERS = 1000
_MAX_PARALLEL_REQUESTS = 16


@dataclass(frozen=True)
class DateRange:
    """The first and the last day that a run covers, both inclusive."""

    first: date
    last: date

    @classmethod
    def of_folder(cls, name: str) -> DateRange | None:
        """Return the range of a folder `20260101-20260131`; None for any other name."""
        match = _DATE_RANGE.fullmatch(name)
        with suppress(ValueError):
            if match is not None:
                first, last = (datetime.strptime(day, "%Y%m%d").date() for day in match.groups())
                return cls(first, last) if first <= last else None
        return None

    @property
    def month(self) -> BillingMonth:
        """The month in which the range begins."""
        return BillingMonth.of(self.first)

    def __str__(self) -> str:
        return f"{self.first} to {self.last}"


@dataclass(frozen=True)
class VendorRun:
    """One run of an export by Azure, which writes the whole month so far; known from its folders.

    `file` is its manifest or, without `has_manifest`, its only file. `export_path` is the key of
    the export's folder, without the folder of the dates. `days` are those in the folder's name,
    `run_time` and `run_id` those of the folders below it; None and empty where there are none.
    """

    file: ObjectInfo
    export_path: str
    days: DateRange
    has_manifest: bool
    run_time: datetime | None = None
    run_id: str = ""

    @property
    def latest_submission(self) -> datetime:
        """The latest time at which the run can have been submitted, in UTC."""
        # A run is written after it was submitted, and copied after it was written.
        written = self.file.last_modified
        return (
            written if self.run_time is None else min(written, self.run_time + _RUN_TIME_TOLERANCE)
        )


def date_folders(
    store: ObjectStore, source: str, *, is_search: bool = False
) -> Iterator[tuple[str, DateRange]]:
    """Yield key and days of each folder such as `20260101-20260131` below the folder `source`.

    Sends parallel LISTs, level by level, six levels deep. Raises StoreError above 1,000 folders
    without dates in their names, as `source` then holds more than exports. With `is_search` it ends
    there instead, and leaves out other vendors' folders such as `billing_period=2026-01`.
    """
    level, listed = [source], 0
    with ThreadPoolExecutor(_MAX_PARALLEL_REQUESTS) as pool:
        for _ in range(_MAX_LEVELS):
            listed += len(level)
            if listed > _MAX_FOLDERS and is_search:
                return
            if listed > _MAX_FOLDERS:
                raise StoreError(
                    f"{store.location(source)} has more than {_MAX_FOLDERS:,} folders without "
                    "dates in their names; set source to the folder that has the exports' folders"
                )
            next_level = []
            for folder, names in zip(level, pool.map(store.folder_names, level), strict=True):
                for name in sorted(names):
                    path, days = f"{folder}/{name}".lstrip("/"), DateRange.of_folder(name)
                    if days is not None:
                        yield path, days
                    elif not (is_search and "=" in name):
                        next_level.append(path)
            level = next_level


def runs_below(folder: str, files: Sequence[ObjectInfo]) -> Iterator[VendorRun]:
    """Yield the vendor's runs below a folder of dates, such as `20260101-20260131`.

    Only `files`, which are below the folder, are searched. Each manifest among them is that of a
    run. Old exports write no manifest: if none of `files` directly in the folder is one, each data
    file there is a run.
    """
    above, _, name = folder.rpartition("/")
    days = DateRange.of_folder(name)
    assert days is not None
    manifests = [file for file in files if _MANIFEST_NAME.fullmatch(_name(file))]
    for manifest in manifests:
        levels = manifest.key.removeprefix(f"{folder}/").split("/")[:-1]
        run_time, run_id = None, ""
        while levels and is_run_folder(levels[-1]):
            level = levels.pop()
            run_time = _run_time(level) or run_time
            run_id = run_id or (level if _GUID.fullmatch(level) else "")
        export = "/".join([above, *levels]).strip("/")
        yield VendorRun(manifest, export, days, True, run_time, run_id)
    # AWS has folders of dates too, with a manifest `<export>-Manifest.json`.
    beside = [file for file in files if file.key.rpartition("/")[0] == folder]
    if not any(file.key.lower().endswith("manifest.json") for file in beside):
        for file in beside:
            if _DATA_NAME.fullmatch(_name(file)):
                yield VendorRun(file, above, days, has_manifest=False)


def is_run_folder(name: str) -> bool:
    """Return whether a folder's name is the time or the GUID of a vendor's run."""
    return bool(_RUN_TIME.fullmatch(name) or _GUID.fullmatch(name))


def _name(file: ObjectInfo) -> str:
    return file.key.rpartition("/")[2]


def _run_time(name: str) -> datetime | None:
    """Return the time of a folder `202601160348`; None for any other name."""
    if _RUN_TIME.fullmatch(name):
        with suppress(ValueError):
            return datetime.strptime(name, "%Y%m%d%H%M").replace(tzinfo=UTC)
    return None
