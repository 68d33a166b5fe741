"""The keys of an export's files, and its manifests, as AWS writes them.

https://docs.aws.amazon.com/cur/latest/userguide/understanding-report-versions.html
https://docs.aws.amazon.com/cur/latest/userguide/dataexports-export-delivery.html
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Literal
from uuid import UUID

from finops_dagster.billing.months import BillingMonth
from finops_dagster.demo.columns import DemoColumn, athena_name, cur1_columns, data_export_columns

_ACCOUNT = "210987654321"
_BUCKET = "example-company-billing"
# The ending of the names, and CUR v1's word for the compression, of each kind of files.
_FILES = {
    "gzip": ("csv.gz", "GZIP"),
    "zip": ("csv.zip", "ZIP"),
    "csv": ("csv", "NONE"),
    "parquet": ("snappy.parquet", "Parquet"),
}
# By kind, and whether a version overwrites the last: the folder of the files, then the folders of
# the manifest's copies. Readers use the last.
_FOLDERS = {
    ("cur1", False): ("{days}/{assembly}", "{days}/{assembly}", "{days}"),
    ("cur1", True): ("{days}", "{days}"),
    ("athena", True): ("{name}/year={month.year}/month={month.month}", "{days}"),
    ("data export", False): (
        "data/{partition}/{assembly}-{execution}",
        "metadata/{partition}/{assembly}-{execution}",
        "metadata/{partition}",
    ),
    ("data export", True): ("data/{partition}", "metadata/{partition}"),
}


@dataclass(frozen=True)
class BillVersion:
    """One version of one month's bill.

    `first_day` is that of the month, and `assembly_id` the vendor's id such as "20240203T050312Z".
    `rows` is the exact number of data rows in all files (headers not counted), and `parts` the
    number of files. There may be fewer rows than files, or none: AWS then writes headers alone.
    Another `seed` gives another bill.

    `restated` gives the month as AWS rewrites it after its end. Its last `late_rows` rows are
    refunds and credits that came late, every row has its invoice id, and about one usage row in 400
    has 5 % more usage, up to the most that its charge allows, such as one hour of a machine. Its
    other rows are the first rows of the version before. If 10,000 rows are restated as 10,015, the
    first 9,994 stay, 6 are gone, and 21 late rows follow. As at AWS, line item ids are new in every
    version.
    """

    first_day: date
    assembly_id: str
    rows: int
    parts: int = 2
    restated: bool = False
    seed: int = 7

    @property
    def late_rows(self) -> int:
        """The number of rows that came late: one in 500, rounded up; 0 unless restated."""
        return -(-self.rows // 500) if self.restated else 0

    @property
    def next_first_day(self) -> date:
        """The first day after the billing period."""
        return BillingMonth.of(self.first_day).next.first_day


@dataclass(frozen=True)
class Layout:
    """The options of an export: format, kind of files, and whether a version overwrites the last.

    AWS has only some combinations; no other is refused here, but writing it may raise KeyError. A
    CUR v1 in parquet, which is for Athena, needs `overwrite`. Data Exports (CUR 2.0 and FOCUS) come
    as gzip and parquet only. `csv` is a CUR v1 that was unpacked on its way; AWS itself always
    compresses. `columns` is the number of columns of a CUR v1, 67 to 205; other formats have a
    fixed one.

    The other options are those in which Data Exports have been seen to differ; CUR v1 ignores them.
    `data_files` is how the manifest names a file: as a URI, as an object with the key, or as an
    object with URI and size. `partition` is the spelling in the folder of a month.
    `plain_manifest_name` calls manifests `Manifest.json` instead of `<export>-Manifest.json`.
    """

    format: Literal["cur1", "cur2", "focus-1.0", "focus-1.2"] = "cur1"
    files: Literal["gzip", "zip", "csv", "parquet"] = "gzip"
    overwrite: bool = False
    data_files: Literal["uri", "key", "object"] = "uri"
    partition: Literal["BILLING_PERIOD", "billing_period"] = "BILLING_PERIOD"
    plain_manifest_name: bool = False
    columns: int = 125

    @property
    def kind(self) -> Literal["cur1", "athena", "data export"]:
        """The kind of export: a CUR v1, a CUR v1 for Athena, or a Data Export."""
        if self.format != "cur1":
            return "data export"
        return "athena" if self.files == "parquet" else "cur1"

    @property
    def suffix(self) -> str:
        """The ending of the files' names without the first dot, such as `csv.gz`."""
        return _FILES[self.files][0]


@dataclass(frozen=True)
class DemoDelivery:
    """One version of a month in a layout: where its files are, and what its manifest says.

    `bucket` is the folder that is used as the bucket, and may have files of older versions. Keys
    are relative to it, and begin with `prefix`, if any, and the export's `name`.
    """

    bucket: Path
    prefix: str
    name: str
    version: BillVersion
    layout: Layout

    @cached_property
    def columns(self) -> dict[str, DemoColumn]:
        """The columns of every file by header, in order; for Athena, `year` and `month` last."""
        layout, month = self.layout, self.version.first_day
        if layout.kind == "data export":
            return {column.name: column for column in data_export_columns(layout.format)}
        columns = cur1_columns(layout.columns)
        if layout.kind == "cur1":
            return {column.name: column for column in columns}
        return {athena_name(column.name): column for column in columns} | {
            "year": DemoColumn("year", "String", f"'{month.year}'"),
            "month": DemoColumn("month", "String", f"'{month.month}'"),
        }

    @property
    def keys(self) -> list[str]:
        """The keys of the files, in the order of their rows."""
        return [
            f"{self._folders[0]}/{self.name}-{number:05d}.{self.layout.suffix}"
            for number in range(1, self.version.parts + 1)
        ]

    @property
    def manifest_keys(self) -> list[str]:
        """The keys of the copies of the manifest; readers use the last.

        The last key is the same for every version of the month.
        """
        plain = self.layout.kind == "data export" and self.layout.plain_manifest_name
        name = "Manifest.json" if plain else f"{self.name}-Manifest.json"
        return [f"{folder}/{name}" for folder in self._folders[1:]]

    def manifest(self) -> dict[str, object]:
        """Return the fields of the manifest's JSON.

        The files at `keys` must exist already for a Data Export, whose manifest may have their
        sizes.
        """
        if self.layout.kind == "data export":
            return self._data_export_manifest()
        return self._cur1_manifest(is_for_athena=self.layout.kind == "athena")

    def _cur1_manifest(self, *, is_for_athena: bool) -> dict[str, object]:
        name_of = athena_name if is_for_athena else str
        return {
            "assemblyId": self.version.assembly_id,
            "account": _ACCOUNT,
            "columns": [
                {"category": name_of(family), "name": name_of(name), "type": column.type}
                for column in self.columns.values()
                for family, slash, name in [column.name.partition("/")]
                if slash
            ],
            "charset": "UTF-8",
            "compression": _FILES[self.layout.files][1],
            "contentType": "Parquet" if is_for_athena else "text/csv",
            "reportId": sha256(self.name.encode()).hexdigest(),
            "reportName": self.name,
            "billingPeriod": self._billing_period("%Y%m%dT000000.000Z"),
            "bucket": _BUCKET,
            "reportKeys": self.keys,
            "additionalArtifactKeys": [],
        }

    def _data_export_manifest(self) -> dict[str, object]:
        # AWS documents the contents of this manifest, but not its fields: these were seen.
        arn = f"arn:aws:bcm-data-exports:us-east-1:{_ACCOUNT}:export/{self.name}-{_uuid(self.name)}"
        return {
            "executionId": self._execution_id,
            "exportArn": arn,
            "exportName": self.name,
            "columns": [
                {"name": column.name, "type": column.type.removeprefix("double ")}
                for column in self.columns.values()
            ],
            "billingPeriod": self._billing_period("%Y-%m-%dT00:00:00.000Z"),
            "dataFiles": [self._data_file(key) for key in self.keys],
            "additionalOutputFiles": [],
        }

    def _billing_period(self, time_format: str) -> dict[str, str]:
        version = self.version
        return {
            "start": f"{version.first_day:{time_format}}",
            "end": f"{version.next_first_day:{time_format}}",
        }

    def _data_file(self, key: str) -> str | dict[str, object]:
        uri = f"s3://{_BUCKET}/{key}"
        forms: dict[str, str | dict[str, object]] = {
            "uri": uri,
            "key": {"key": key},
            "object": {"s3Uri": uri, "size": (self.bucket / key).stat().st_size},
        }
        return forms[self.layout.data_files]

    @property
    def _execution_id(self) -> str:
        return _uuid(f"{self.version.seed}/{self.version.assembly_id}")

    @cached_property
    def _folders(self) -> list[str]:
        layout, month = self.layout, self.version.first_day
        names = {
            "name": self.name,
            "assembly": self.version.assembly_id,
            "execution": self._execution_id,
            "days": f"{month:%Y%m%d}-{self.version.next_first_day:%Y%m%d}",
            "partition": f"{layout.partition}={month:%Y-%m}",
            "month": month,
        }
        root = f"{self.prefix}/{self.name}".removeprefix("/")
        folders = _FOLDERS[layout.kind, layout.overwrite]
        return [f"{root}/{folder.format(**names)}" for folder in folders]


def _uuid(text: str) -> str:
    return str(UUID(bytes=sha256(text.encode()).digest()[:16], version=4))
