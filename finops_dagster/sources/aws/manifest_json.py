"""Reading manifests with care: whatever is in one, the answer is a value or a ManifestInvalid."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic_core import from_json

from finops_dagster.billing.errors import CONTROL_CHARACTER, ManifestInvalid, listed, shown
from finops_dagster.billing.manifest import Column, ListedFile
from finops_dagster.billing.months import BillingMonth

_ID_LENGTH = 256
_FIELDS_SHOWN = 12
_T = TypeVar("_T", str, list[Any])


@dataclass(frozen=True)
class ManifestJson:
    """The fields of a manifest that lies at `location`, and is expected to be `kind`. Every method
    raises ManifestInvalid."""

    fields: dict[str, Any]
    location: str
    kind: str

    @classmethod
    def read(cls, body: bytes, location: str, kind: str) -> ManifestJson:
        """Read a JSON object, of which every text is Unicode."""
        try:
            document = from_json(body.removeprefix(codecs.BOM_UTF8))
        except ValueError as error:
            raise ManifestInvalid(f"{location} is not JSON: {error}") from error
        if not isinstance(document, dict):
            raise ManifestInvalid(
                f"{location} is not a JSON object but a {type(document).__name__}"
            )
        return cls(document, location, kind)

    def objects(self, *names: str) -> list[Any]:
        """Return the first of the fields that is a list."""
        return self._first(list, f"list of {' or '.join(names)}", names)

    def version(self, *names: str) -> str:
        """Return the version's id, which AWS writes as a UUID or a timestamp, if it is something
        that a person can read in a list."""
        version = self._first(str, " or ".join(names), names)
        if len(version) > _ID_LENGTH or not version.isprintable() or version.isspace():
            raise self.invalid(f": {shown(version)} is no usable name of a version")
        return version

    def columns(self) -> list[Any]:
        """Return the list of columns, or none: the files have their headers."""
        return [] if self.fields.get("columns") is None else self.objects("columns")

    def key_of(self, key: Any) -> str:
        """Return a file's key without `s3://bucket/`."""
        if not isinstance(key, str) or not key:
            raise self.invalid(f" lists {shown(key)}, which is no key of a file")
        # No vendor writes control characters, and S3 itself cannot list them.
        if CONTROL_CHARACTER.search(key) or {".", ".."} & set(key.split("/")):
            raise self.invalid(f" lists {shown(key)}, which leads elsewhere")
        return re.sub(r"^s3[an]?://[^/]+/", "", key)

    def split(self, key: str, folder: str) -> tuple[str, str]:
        """Return a key's month folder, which the regular expression `folder` fits, and what comes
        after. What comes before is of the bucket that this one may be a copy of."""
        *_, last = [None, *re.finditer(f"(?:^|/)({folder})/", key)]
        if last is None or "" in key[last.end() :].split("/"):
            raise self.invalid(
                f" lists {shown(key)}, which is no file below the month's folder ({folder})"
            )
        return last[1], key[last.end() :]

    def each_once(self, files: Iterable[ListedFile]) -> tuple[ListedFile, ...]:
        """Return the files, of which none may be paid twice."""
        by_key: dict[str, ListedFile] = {}
        for file in files:
            if file.key in by_key:
                raise self.invalid(f" lists {shown(file.key)} twice")
            by_key[file.key] = file
        return tuple(by_key.values())

    def require_month(self, month: BillingMonth) -> None:
        """Hold `billingPeriod` against the month; AWS writes `20250901T000000.000Z`, which is not
        ISO, `2025-09-01T00:00:00Z` or `2025-09`: the digits count."""
        period = self.fields.get("billingPeriod")
        start = period.get("start") if isinstance(period, dict) else period
        digits = re.sub(r"\D", "", str(start))
        if not re.fullmatch(f"{month.first_day:%Y%m}(01.*)?", digits):
            raise self.invalid(
                f": billingPeriod is {shown(start)}, expected the first day of {month}"
            )

    def invalid(self, problem: str) -> ManifestInvalid:
        """Return the error that names the manifest and says what is wrong with it."""
        return ManifestInvalid(f"{self.location}{problem}")

    def _first(self, kind: type[_T], what: str, names: Iterable[str]) -> _T:
        for name in names:
            value = self.fields.get(name)
            if isinstance(value, kind) and value != "":
                return value
        fields = listed(list(self.fields), _FIELDS_SHOWN) or "nothing"
        raise self.invalid(f" has no {what}; is it the manifest of {self.kind}? It has {fields}")


def typed_column(header: str, column: dict[str, Any]) -> Column:
    """Return a column with the vendor's word for its type, where there is any."""
    word = column.get("type")
    return Column(header, word if isinstance(word, str) else None)
