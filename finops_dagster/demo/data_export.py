"""Data Exports, which deliver CUR 2.0 and FOCUS: files under data/, manifests under metadata/.

https://docs.aws.amazon.com/cur/latest/userguide/dataexports-export-delivery.html
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from uuid import UUID

from finops_dagster.demo.catalog import BUCKET, PAYER_ACCOUNT
from finops_dagster.demo.cur2 import CUR2_COLUMNS
from finops_dagster.demo.focus import FOCUS_1_0_COLUMNS, FOCUS_1_2_COLUMNS
from finops_dagster.demo.layout import Layout
from finops_dagster.demo.projection import Column
from finops_dagster.demo.version import Version

_COLUMNS: dict[str, Sequence[Column]] = {
    "cur2": CUR2_COLUMNS,
    "focus-1.0": FOCUS_1_0_COLUMNS,
    "focus-1.2": FOCUS_1_2_COLUMNS,
}


@dataclass(frozen=True)
class DataExport:
    """One execution of an export for one month; its id depends on seed and assembly id alone.

    `bucket` is the folder that stands for it, where files of older executions may lie.
    """

    bucket: Path
    prefix: str
    export_name: str
    version: Version
    layout: Layout
    seed: int

    @property
    def columns(self) -> Sequence[Column]:
        """The columns of the format, the same in every month."""
        return _COLUMNS[self.layout.format]

    @property
    def execution_id(self) -> str:
        """The version key of the manifest, a UUID."""
        return _uuid(f"{self.seed}/{self.version.assembly_id}")

    @property
    def keys(self) -> list[str]:
        """The keys of the files."""
        return [
            f"{self._folder('data')}/{self.export_name}-{number:05d}.{self.layout.suffix}"
            for number in range(1, self.version.parts + 1)
        ]

    @property
    def manifest_keys(self) -> list[str]:
        """The keys of the manifest's copies, the one that is read last."""
        plain = self.layout.plain_manifest_name
        name = "Manifest.json" if plain else f"{self.export_name}-Manifest.json"
        folders = dict.fromkeys([self._folder("metadata"), self._month_folder("metadata")])
        return [f"{folder}/{name}" for folder in folders]

    @property
    def surplus_keys(self) -> list[str]:
        """The files of an older refresh that had more of them: AWS empties what it overwrites."""
        data = self._folder("data")
        own = {key.rpartition("/")[2] for key in self.keys}
        there = sorted(path.name for path in (self.bucket / data).iterdir())
        return [
            f"{data}/{name}"
            for name in there
            if name not in own and name.endswith(f".{self.layout.suffix}")
        ]

    def manifest(self) -> dict[str, object]:
        """The manifest's fields. AWS documents what it tells, not how: this is what is seen."""
        version = self.version
        arn = f"arn:aws:bcm-data-exports:us-east-1:{PAYER_ACCOUNT}:export/"
        return {
            "executionId": self.execution_id,
            "exportArn": f"{arn}{self.export_name}-{_uuid(self.export_name)}",
            "exportName": self.export_name,
            "columns": [
                {"name": column.name, "type": column.type.manifest_name} for column in self.columns
            ],
            "billingPeriod": {
                "start": f"{version.month}T00:00:00.000Z",
                "end": f"{version.next_month}T00:00:00.000Z",
            },
            "dataFiles": [self._data_file(key) for key in self.keys],
            "additionalOutputFiles": [],
        }

    def _data_file(self, key: str) -> str | dict[str, object]:
        uri = f"s3://{BUCKET}/{key}"
        if self.layout.data_files == "key":
            return {"key": key}
        if self.layout.data_files == "object":
            return {"s3Uri": uri, "size": (self.bucket / key).stat().st_size}
        return uri

    def _folder(self, kind: str) -> str:
        """Where this execution's files of a kind lie: `data` or `metadata`."""
        if self.layout.overwrite:
            return self._month_folder(kind)
        return f"{self._month_folder(kind)}/{self.version.assembly_id}-{self.execution_id}"

    def _month_folder(self, kind: str) -> str:
        home = "/".join([*filter(None, [self.prefix]), self.export_name])
        return f"{home}/{kind}/{self.layout.partition}={self.version.month:%Y-%m}"


def _uuid(text: str) -> str:
    return str(UUID(bytes=sha256(text.encode()).digest()[:16], version=4))
