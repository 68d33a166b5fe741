"""Reading manifests with care: whatever is in one, the answer is a value or a ManifestInvalid."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from finops_dagster.billing.errors import CONTROL_CHARACTER, ManifestInvalid, listed, shown
from finops_dagster.billing.manifest import ListedFile
from finops_dagster.billing.months import BillingMonth

_ID_LENGTH = 256
_FIELDS_SHOWN = 12


@dataclass(frozen=True)
class ManifestJson:
    """The fields of a manifest that lies at `location`, and is expected to be `kind`."""

    fields: dict[str, Any]
    location: str
    kind: str

    @classmethod
    def read(cls, body: bytes, location: str, kind: str) -> ManifestJson:
        """Raises ManifestInvalid for anything but a JSON object, of which every text is Unicode."""
        try:
            document = from_json(body.removeprefix(codecs.BOM_UTF8))
        except ValueError as error:
            raise ManifestInvalid(f"{location} is not JSON: {error}") from error
        if not isinstance(document, dict):
            raise ManifestInvalid(
                f"{location} is not a JSON object but a {type(document).__name__}"
            )
        return cls(document, location, kind)

    def text(self, *names: str) -> str:
        """The first of the fields that is a text. Raises ManifestInvalid."""
        for name in names:
            value = self.fields.get(name)
            if isinstance(value, str) and value:
                return value
        raise self.lacks(" or ".join(names))

    def objects(self, *names: str) -> list[Any]:
        """The first of the fields that is a list. Raises ManifestInvalid."""
        for name in names:
            value = self.fields.get(name)
            if isinstance(value, list):
                return value
        raise self.lacks(f"list of {' or '.join(names)}")

    def columns(self) -> list[Any]:
        """The list of columns; none where there is no such field: the files have their headers.
        Raises ManifestInvalid."""
        return [] if self.fields.get("columns") is None else self.objects("columns")

    def version(self, *names: str) -> str:
        """The version's id; AWS writes a UUID or a timestamp. Raises ManifestInvalid where it is
        nothing that a person could read in a list."""
        version = self.text(*names)
        if len(version) > _ID_LENGTH or not version.isprintable() or version.isspace():
            raise ManifestInvalid(
                f"{self.location}: {shown(version)} is no usable name of a version"
            )
        return version

    def key_of(self, key: Any) -> str:
        """A file's key as the manifest lists it, without `s3://bucket/`. Raises ManifestInvalid."""
        if not isinstance(key, str) or not key:
            raise ManifestInvalid(f"{self.location} lists {shown(key)}, which is no key of a file")
        # No vendor writes control characters, and S3 itself cannot list them.
        if CONTROL_CHARACTER.search(key) or {".", ".."} & set(key.split("/")):
            raise ManifestInvalid(f"{self.location} lists {shown(key)}, which leads elsewhere")
        return re.sub(r"^s3[an]?://[^/]+/", "", key)

    def split(self, key: str, folder: str) -> tuple[str, str]:
        """A key's month folder, which the regular expression `folder` fits, and what comes after.

        A replicated or renamed bucket keeps the original keys in its manifests; what comes before
        the month's folder is theirs and not this bucket's. Raises ManifestInvalid.
        """
        *_, last = [None, *re.finditer(f"(?:^|/)({folder})/", key)]
        if last is None or "" in key[last.end() :].split("/"):
            raise ManifestInvalid(
                f"{self.location} lists {shown(key)}, which is no file below the month's folder "
                f"({folder})"
            )
        return last[1], key[last.end() :]

    def each_once(self, files: Iterable[ListedFile]) -> tuple[ListedFile, ...]:
        """The files, of which none may be paid twice. Raises ManifestInvalid."""
        by_key: dict[str, ListedFile] = {}
        for file in files:
            if file.key in by_key:
                raise ManifestInvalid(f"{self.location} lists {shown(file.key)} twice")
            by_key[file.key] = file
        return tuple(by_key.values())

    def require_month(self, month: BillingMonth) -> None:
        """Hold `billingPeriod` against the month; AWS writes `20250901T000000.000Z`, which is not
        ISO, `2025-09-01T00:00:00Z` or `2025-09`: the digits count. Raises ManifestInvalid."""
        period = self.fields.get("billingPeriod")
        start = period.get("start") if isinstance(period, dict) else period
        digits = re.sub(r"\D", "", str(start))
        if not re.fullmatch(f"{month.first_day:%Y%m}(01.*)?", digits):
            raise ManifestInvalid(
                f"{self.location}: billingPeriod is {shown(start)}, expected the first day of "
                f"{month}"
            )

    def declared_type(self, column: dict[str, Any]) -> str | None:
        """The vendor's word for a column's type, where it has any."""
        kind = column.get("type")
        return kind if isinstance(kind, str) else None

    def lacks(self, what: str) -> ManifestInvalid:
        """What to say of a manifest without a field."""
        fields = listed(list(self.fields), _FIELDS_SHOWN)
        return ManifestInvalid(
            f"{self.location} has no {what}; is it the manifest of {self.kind}? It has "
            f"{fields or 'nothing'}"
        )
