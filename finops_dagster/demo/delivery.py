"""Where AWS puts the files of an export, and what its manifests say of them.

https://docs.aws.amazon.com/cur/latest/userguide/understanding-report-versions.html
https://docs.aws.amazon.com/cur/latest/userguide/dataexports-export-delivery.html
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from uuid import UUID

from finops_dagster.demo.columns import (
    Column,
    athena_name,
    cur1_columns,
    cur2_columns,
    focus_columns,
    in_athena,
)
from finops_dagster.demo.layout import Layout, Version

_ACCOUNT = "210987654321"
_BUCKET = "example-company-billing"
_COMPRESSIONS = {"gzip": "GZIP", "zip": "ZIP", "csv": "NONE", "parquet": "Parquet"}
# The folder of the files, then those of the manifest's copies: the one that is read comes last.
_CUR1 = ("{home}/{days}/{assembly}", "{home}/{days}/{assembly}", "{home}/{days}")
_CUR1_OVERWRITTEN = ("{home}/{days}", "{home}/{days}")
_CUR1_FOR_ATHENA = ("{home}/{name}/year={year}/month={month}", "{home}/{days}")
_DATA_EXPORT = (
    "{home}/data/{partition}/{assembly}-{execution}",
    "{home}/metadata/{partition}/{assembly}-{execution}",
    "{home}/metadata/{partition}",
)
_DATA_EXPORT_OVERWRITTEN = ("{home}/data/{partition}", "{home}/metadata/{partition}")


@dataclass(frozen=True)
class Delivery:
    """One version of a month in a layout; keys are relative to the bucket's root.

    `bucket` is the folder that stands for it, where files of older versions may lie. `width` is
    the number of columns of a CUR v1.
    """

    bucket: Path
    prefix: str
    name: str
    version: Version
    layout: Layout
    width: int
    seed: int

    @cached_property
    def columns(self) -> Sequence[Column]:
        """The columns of every file, in order; for Athena, with the partitions."""
        if self.layout.format == "cur2":
            return cur2_columns()
        if self.layout.is_data_export:
            return focus_columns(self.layout.format)
        if not self._is_for_athena:
            return cur1_columns(self.width)
        month = self.version.month
        partitions = {"year": month.year, "month": month.month}
        return [
            *(Column(name, c.type, c.value) for name, c in self._athena_columns.items()),
            *(Column(name, "String", f"'{value}'") for name, value in partitions.items()),
        ]

    @property
    def keys(self) -> list[str]:
        """The files, in the order of their rows."""
        return [
            f"{self._folders[0]}/{self.name}-{number:05d}.{self.layout.suffix}"
            for number in range(1, self.version.parts + 1)
        ]

    @property
    def manifest_keys(self) -> list[str]:
        """The manifest's copies, the one that tells readers of the version last."""
        plain = self.layout.is_data_export and self.layout.plain_manifest_name
        name = "Manifest.json" if plain else f"{self.name}-Manifest.json"
        return [f"{folder}/{name}" for folder in self._folders[1:]]

    @property
    def surplus_keys(self) -> list[str]:
        """The files of an older refresh that had more of them, which a Data Export overwrites with
        empty ones; CUR v1 leaves them as they are."""
        if not self.layout.is_data_export:
            return []
        folder, own = self._folders[0], set(self.keys)
        found = (self.bucket / folder).glob(f"*.{self.layout.suffix}")
        keys = sorted(f"{folder}/{path.name}" for path in found)
        return [key for key in keys if key not in own]

    def manifest(self) -> dict[str, object]:
        """Return the manifest's fields, when the files are there."""
        if self.layout.is_data_export:
            return self._data_export_manifest()
        version, is_for_athena = self.version, self._is_for_athena
        return {
            "assemblyId": version.assembly_id,
            "account": _ACCOUNT,
            "columns": self._cur1_manifest_columns(),
            "charset": "UTF-8",
            "compression": _COMPRESSIONS[self.layout.files],
            "contentType": "Parquet" if is_for_athena else "text/csv",
            "reportId": sha256(self.name.encode()).hexdigest(),
            "reportName": self.name,
            "billingPeriod": {
                "start": f"{version.month:%Y%m%d}T000000.000Z",
                "end": f"{version.next_month:%Y%m%d}T000000.000Z",
            },
            "bucket": _BUCKET,
            "reportKeys": self.keys,
            "additionalArtifactKeys": [],
        }

    def _cur1_manifest_columns(self) -> list[dict[str, str]]:
        columns = self._athena_columns.values() if self._is_for_athena else self.columns
        written = athena_name if self._is_for_athena else str
        return [
            {"category": written(family), "name": written(name), "type": column.type}
            for column in columns
            for family, name in [column.name.split("/", 1)]
        ]

    def _data_export_manifest(self) -> dict[str, object]:
        # AWS documents what it tells, not how: this is what is seen.
        arn = f"arn:aws:bcm-data-exports:us-east-1:{_ACCOUNT}:export/{self.name}-{_uuid(self.name)}"
        return {
            "executionId": self._execution_id,
            "exportArn": arn,
            "exportName": self.name,
            "columns": [
                {"name": column.name, "type": column.type.removeprefix("double ")}
                for column in self.columns
            ],
            "billingPeriod": {
                "start": f"{self.version.month}T00:00:00.000Z",
                "end": f"{self.version.next_month}T00:00:00.000Z",
            },
            "dataFiles": [self._data_file(key) for key in self.keys],
            "additionalOutputFiles": [],
        }

    def _data_file(self, key: str) -> str | dict[str, object]:
        uri = f"s3://{_BUCKET}/{key}"
        size = (self.bucket / key).stat().st_size
        forms: dict[str, str | dict[str, object]] = {
            "uri": uri,
            "key": {"key": key},
            "object": {"s3Uri": uri, "size": size},
        }
        return forms[self.layout.data_files]

    @property
    def _is_for_athena(self) -> bool:
        return (self.layout.format, self.layout.files) == ("cur1", "parquet")

    @cached_property
    def _athena_columns(self) -> dict[str, Column]:
        return in_athena(cur1_columns(self.width))

    @property
    def _execution_id(self) -> str:
        return _uuid(f"{self.seed}/{self.version.assembly_id}")

    @cached_property
    def _folders(self) -> list[str]:
        overwrite, month = self.layout.overwrite, self.version.month
        folders = _CUR1_OVERWRITTEN if overwrite else _CUR1
        if self._is_for_athena:
            folders = _CUR1_FOR_ATHENA
        elif self.layout.is_data_export:
            folders = _DATA_EXPORT_OVERWRITTEN if overwrite else _DATA_EXPORT
        facts = {
            "home": f"{self.prefix}/{self.name}".removeprefix("/"),
            "name": self.name,
            "assembly": self.version.assembly_id,
            "execution": self._execution_id,
            "days": f"{month:%Y%m%d}-{self.version.next_month:%Y%m%d}",
            "partition": f"{self.layout.partition}={month:%Y-%m}",
            "year": month.year,
            "month": month.month,  # of Athena, without a zero
        }
        return [folder.format(**facts) for folder in folders]


def _uuid(text: str) -> str:
    return str(UUID(bytes=sha256(text.encode()).digest()[:16], version=4))
