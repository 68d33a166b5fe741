"""What AWS Data Exports deliver alike, whichever table they export: layout and manifest.

The layout is documented; of manifests there is no public specimen, so every form that public
readers of them know is taken, and what fits none is shown as it was found.
https://docs.aws.amazon.com/cur/latest/userguide/dataexports-export-delivery.html
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import md5
from typing import Any, ClassVar

from finops_dagster.billing.columns import SqlType, flat_name
from finops_dagster.billing.errors import shown
from finops_dagster.billing.manifest import Column, ListedFile, Manifest, ManifestFile
from finops_dagster.billing.months import BillingMonth
from finops_dagster.sources.aws.format import AwsFormat
from finops_dagster.sources.aws.manifest_json import ManifestJson, typed_column

_TYPES = {
    **dict.fromkeys(("string", "varchar", "boolean"), SqlType.TEXT),
    **dict.fromkeys(("double", "float", "decimal", "bigint", "int"), SqlType.MONEY),
    **dict.fromkeys(("timestamp", "date"), SqlType.TIME),
}
# What public readers look for in a file that is listed as an object, the whole address first.
_FILE_FIELDS = "s3Uri uri url key s3Key fileKey filePath path relativePath".split()
_IDS = ("executionId", "assemblyId")
_VERSION_FOLDER = re.compile(r"\d{4}-?\d\d-?\d\dT")


class DataExport(AwsFormat):
    """An export whose `<prefix>/<export>/metadata/BILLING_PERIOD=2024-01/<export>-Manifest.json`
    every refresh rewrites last; the files lie below `<prefix>/<export>/data/`. `title` is its name
    for messages, `types` what is known of its columns."""

    title: str
    types: ClassVar[dict[str, SqlType]]

    def home(self, prefix: str, export_name: str) -> str:
        return f"{prefix}/{export_name}/metadata" if prefix else f"{export_name}/metadata"

    def manifest_keys(self, home: str, export_name: str, month: BillingMonth) -> tuple[str, ...]:
        """AWS's page writes the month in capitals, its customers have it in small letters too; the
        same page names the manifest in two ways."""
        return tuple(
            f"{home}/{period}={month}/{manifest}"
            for period in ("BILLING_PERIOD", "billing_period")
            for manifest in (f"{export_name}-Manifest.json", "Manifest.json")
        )

    def parse_manifest(self, body: bytes, source: ManifestFile, month: BillingMonth) -> Manifest:
        manifest = ManifestJson.read(body, source.location, self.title)
        if manifest.fields.get("billingPeriod"):
            manifest.require_month(month)
        files = manifest.each_once(
            _file(manifest, one, source, month)
            for one in manifest.objects("dataFiles", "reportKeys")
        )
        has_id = any(manifest.fields.get(name) is not None for name in _IDS)
        return Manifest(
            format=self.name,
            month=str(month),
            id=manifest.version(*_IDS) if has_id else _unnamed_version(files, body),
            source=source,
            columns=tuple(_column(manifest, one) for one in manifest.columns()),
            files=files,
        )

    def column(self, header: str) -> str:
        """AWS's own name in lower case."""
        return flat_name(header)

    def sql_type(self, header: str, declared: str | None) -> SqlType | None:
        """What is known of the column, or else what the manifest says."""
        word = (declared or "").lower()
        if self.column(header) in self.types:
            return self.types[self.column(header)]
        if word.startswith("map"):
            return SqlType.MONEY_MAP if "double" in word else SqlType.TEXT_MAP
        return _TYPES.get(word.partition("(")[0])


def _unnamed_version(files: Sequence[ListedFile], body: bytes) -> str:
    """Return an id for a version that its manifest does not name: the folder that AWS makes for
    each version, or else the MD5 of the manifest, which is the ETag that S3 gives it and stays when
    it is copied."""
    folders = {file.key.split("/")[-2] for file in files}
    if len(folders) == 1 and _VERSION_FOLDER.match(folder := folders.pop()):
        return folder
    return md5(body, usedforsecurity=False).hexdigest()


def _column(manifest: ManifestJson, column: Any) -> Column:
    """A column, listed as a text or as an object that says more."""
    if isinstance(column, str):
        return Column(column)
    if not isinstance(column, dict) or not isinstance(column.get("name"), str):
        raise manifest.invalid(f": {shown(column)} in columns has no name")
    return typed_column(column["name"], column)


def _file(
    manifest: ManifestJson, listed: Any, source: ManifestFile, month: BillingMonth
) -> ListedFile:
    """A file, listed as a text or as an object that says more. A name alone lies in the month's
    folder of data, which is spelled as that of the manifest."""
    size = None
    if isinstance(listed, dict):
        size = listed.get("size")
        listed = next((listed[field] for field in _FILE_FIELDS if listed.get(field)), listed)
    key = manifest.key_of(listed)
    root, _, found_in, _ = source.key.rsplit("/", 3)
    if "/" not in listed:
        key = f"{found_in}/{key}"
    folder, rest = manifest.split(key, f"(?i:billing_period)={month}")
    return ListedFile(f"{root}/data/{folder}/{rest}", size if type(size) is int else None)
