"""The parser of Azure's manifests, of every version that was seen.

Version 2021-01-01 has only the list of files. Later ones say the export, its dataset and scope, and
the run. Customers who fill a container by hand write few fields. So every field but the list of
files is used if present, and none is required.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from hashlib import md5
from typing import Any

from finops_dagster.billing.delivery import Delivery
from finops_dagster.billing.errors import ManifestInvalid, excerpt
from finops_dagster.billing.manifest import ListedFile, Manifest, ManifestFile
from finops_dagster.sources.azure.layout import DateRange, VendorRun
from finops_dagster.sources.manifest_json import (
    UNREADABLE_ADVICE,
    json_object,
    validated_key,
    validated_vendor_id,
)

_SCOPE_END = re.compile(r"/providers/microsoft\.costmanagement/exports/.*", re.I | re.S)


@dataclass(frozen=True)
class ParsedRun:
    """A vendor's run, with what its manifest says; `submitted` has a time zone.

    `dataset` and `scope` are in lower case, and None where the manifest does not say them.
    `manifest` is None if the run is of a dataset that was not passed to `parse_run`; a run whose
    dataset is None has a manifest.
    """

    run: VendorRun
    submitted: datetime
    dataset: str | None
    scope: str | None
    manifest: Manifest | None


def parse_run(
    body: bytes, run: VendorRun, format_name: str, datasets: Collection[str]
) -> ParsedRun:
    """Parse `body`, the manifest of a vendor's run. Raises ManifestInvalid.

    `format_name` becomes the format of the manifest. `datasets` are those of the format, in lower
    case: of a run of any other dataset, the list of files is not parsed. A manifest that does not
    say its dataset is taken to be of the format.
    """
    document = _Document(json_object(body, ManifestFile(**vars(run.file))), run)
    dataset, scope = (
        document.text("exportConfig", "type"),
        document.text("exportConfig", "resourceId"),
    )
    submitted = document.submitted()
    is_wanted = dataset is None or dataset.lower() in datasets
    manifest = document.manifest(format_name, body, submitted) if is_wanted else None
    return ParsedRun(
        run,
        submitted,
        dataset and dataset.lower(),
        scope and _SCOPE_END.sub("", scope).lower(),
        manifest,
    )


def run_without_manifest(run: VendorRun, format_name: str, number: int) -> ParsedRun:
    """Return a run that is a single file without a manifest; its ETag is the vendor's id.

    `number` is how many such files are in the folder: a warning says that this is the newest.
    """
    file = run.file
    manifest = Manifest(
        format_name,
        str(run.days.month),
        file.etag,
        ManifestFile(**vars(file)),
        (),
        (ListedFile(file.key),),
        _delivery(file.last_modified, run.days),
        warnings=(
            f"{file.location} has no manifest: it is the newest of {number} in its folder, and is "
            "taken for the whole month; check that it covers all days",
        ),
    )
    return ParsedRun(run, file.last_modified, None, None, manifest)


def _delivery(submitted: datetime, days: DateRange) -> Delivery:
    """Return the delivery of a run, which has no costs of days after its submission."""
    submitted = submitted.astimezone(UTC).replace(tzinfo=None)
    last = min(days.last, submitted.date())
    return Delivery(submitted, days.first, last if last >= days.first else None)


@dataclass(frozen=True)
class _Document:
    """The fields of a manifest. Methods raise ManifestInvalid for a value that cannot be used."""

    fields: dict[str, Any]
    run: VendorRun

    def field(self, *path: str) -> Any:
        """Return a field of nested objects; None where it, or an object above it, is absent."""
        value: Any = self.fields
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        return value

    def text(self, *path: str) -> str | None:
        """Return a text; None where it is absent or empty."""
        value = self.field(*path)
        if value is not None and not isinstance(value, str):
            raise self.invalid(f": {'.'.join(path)} is {excerpt(value)}, expected a text")
        return value or None

    def submitted(self) -> datetime:
        """Return when the run was submitted, else its folder's time, else the manifest's."""
        text = self.text("runInfo", "submittedTime")
        if text is None:
            return self.run.run_time or self.run.file.last_modified
        try:
            time = datetime.fromisoformat(text)
            return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
        except (ValueError, OverflowError):
            raise self.invalid(f": runInfo.submittedTime is {excerpt(text)}, not a time") from None

    def manifest(self, format_name: str, body: bytes, submitted: datetime) -> Manifest:
        """Return the manifest as the pipeline reads it.

        Its id is that of the run, else the one in the folder's name, else the MD5 of `body`.
        """
        blobs, source = self.blobs(), ManifestFile(**vars(self.run.file))
        run_id = self.text("runInfo", "runId") or self.run.run_id
        return Manifest(
            format_name,
            str(self.run.days.month),
            validated_vendor_id(run_id or md5(body, usedforsecurity=False).hexdigest(), source),
            source,
            (),
            self.files(blobs),
            _delivery(submitted, self.days()),
            self.row_count(blobs),
        )

    def days(self) -> DateRange:
        """Return the days of the run, which begin in the month of its folder."""
        folder = self.run.days
        first = self.day("startDate") or folder.first
        last = self.day("endDate") or max(first, folder.last)
        if first > last:
            raise self.invalid(f": runInfo ends on {last}, before it begins on {first}")
        days = DateRange(first, last)
        if days.month != folder.month:
            raise self.invalid(
                f": runInfo begins on {first}, in {days.month}, but its folder is of {folder}",
                "export the month again in Azure",
            )
        return days

    def day(self, name: str) -> date | None:
        """Return the date in a field of `runInfo`; None where it is absent."""
        text = self.text("runInfo", name)
        try:
            return (text and date.fromisoformat(text[:10])) or None
        except ValueError:
            raise self.invalid(f": runInfo.{name} is {excerpt(text)}, not a date") from None

    def blobs(self) -> Sequence[dict[str, Any]]:
        """Return the entries of the list of files; their number must be the `blobCount`, if any."""
        blobs, count = self.field("blobs"), _count(self.field("blobCount"))
        if blobs is None and count == 0:
            return []
        if not isinstance(blobs, list) or not all(isinstance(blob, dict) for blob in blobs):
            raise self.invalid(" has no list of blobs, which the manifest of an Azure export has")
        if count not in (None, len(blobs)):
            raise self.invalid(f" lists {len(blobs)} blobs, but its blobCount is {count}")
        return blobs

    def files(self, blobs: Sequence[dict[str, Any]]) -> tuple[ListedFile, ...]:
        """Return the files, which lie beside the manifest.

        The folders in their names are those of the container that Azure wrote to: in a copy they
        can be others.
        """
        source = ManifestFile(**vars(self.run.file))
        folder = source.key.rpartition("/")[0]
        files: dict[str, ListedFile] = {}
        for blob in blobs:
            name = validated_key(blob.get("blobName"), source).rpartition("/")[2]
            key = f"{folder}/{name}"
            if not name or key in files:  # its line items would count twice
                problem = " twice" if name else ", which is a folder"
                raise self.invalid(f" lists {excerpt(blob['blobName'])}{problem}")
            size = _count(blob.get("byteCount"))
            if size is None and len(blobs) == 1:
                size = _count(self.field("byteCount"))
            files[key] = ListedFile(key, size)
        return tuple(files.values())

    def row_count(self, blobs: Sequence[dict[str, Any]]) -> int | None:
        """Return how many rows the files have together; None if the manifest does not say it."""
        total = _count(self.field("dataRowCount"))
        counts = [_count(blob.get("dataRowCount")) for blob in blobs]
        if total is None and counts and None not in counts:
            return sum(count for count in counts if count is not None)
        return total

    def invalid(self, problem: str, advice: str = UNREADABLE_ADVICE) -> ManifestInvalid:
        """Return the error to raise. `problem` follows the location: " lists no files"."""
        return ManifestInvalid(f"{self.run.file.location}{problem}; {advice}")


def _count(value: Any) -> int | None:
    """Return a count; None where it is absent or no count."""
    # `true` is an int in Python, and no count.
    return value if type(value) is int and value >= 0 else None
