"""Reading manifests with care: whatever is in one, the answer is a value or a ManifestInvalid."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from finops_dagster.billing.errors import ManifestInvalid
from finops_dagster.billing.months import BillingMonth

# A version's id becomes the name of a folder; AWS writes a UUID or a timestamp.
_SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SHOWN = 12


@dataclass(frozen=True)
class ManifestJson:
    """The fields of a manifest that lies at `location`, and is expected to be `kind`."""

    fields: dict[str, Any]
    location: str
    kind: str

    @classmethod
    def read(cls, body: bytes, location: str, kind: str) -> ManifestJson:
        """Raises ManifestInvalid for anything but a JSON object."""
        try:
            document = json.loads(body)
        except (ValueError, RecursionError) as error:
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

    def version(self, *names: str) -> str:
        """The version's id. Raises ManifestInvalid where it could not name a folder."""
        version = self.text(*names)
        if not _SAFE_ID.fullmatch(version):
            raise ManifestInvalid(f"{self.location}: {version!r} is no usable name of a version")
        return version

    def key_of(self, listed: Any) -> str:
        """A file's key as the manifest lists it, without `s3://bucket/`. Raises ManifestInvalid."""
        if not isinstance(listed, str) or not listed:
            raise ManifestInvalid(f"{self.location} lists {listed!r}, which is no key of a file")
        if "\0" in listed or ".." in listed.split("/"):
            raise ManifestInvalid(f"{self.location} lists {listed!r}, which leads elsewhere")
        return re.sub(r"^s3[an]?://[^/]+/", "", listed)

    def split(self, key: str, folder: str) -> tuple[str, str]:
        """A key's month folder, which the regular expression `folder` fits, and what comes after.

        A replicated or renamed bucket keeps the original keys in its manifests; what comes before
        the month's folder is theirs and not this bucket's. Raises ManifestInvalid.
        """
        *_, last = [None, *re.finditer(f"(?:^|/)({folder})/", key)]
        if last is None:
            raise ManifestInvalid(
                f"{self.location} lists {key!r}, which is not below the month's folder ({folder})"
            )
        return last[1], key[last.end() :]

    def require_month(self, month: BillingMonth) -> None:
        """Hold `billingPeriod` against the month; AWS writes `20250901T000000.000Z`, which is not
        ISO, `2025-09-01T00:00:00Z` or `2025-09`: the digits count. Raises ManifestInvalid."""
        period = self.fields.get("billingPeriod")
        start = period.get("start") if isinstance(period, dict) else period
        digits = re.sub(r"\D", "", str(start))
        if not re.fullmatch(f"{month.first_day:%Y%m}(01.*)?", digits):
            raise ManifestInvalid(
                f"{self.location}: billingPeriod is {start!r}, expected the first day of {month}"
            )

    def lacks(self, what: str) -> ManifestInvalid:
        """What to say of a manifest without a field."""
        shown = ", ".join(list(self.fields)[:_SHOWN]) or "nothing"
        return ManifestInvalid(
            f"{self.location} has no {what}; is it the manifest of {self.kind}? It has {shown}"
        )
