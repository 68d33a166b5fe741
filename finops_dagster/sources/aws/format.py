"""What all formats of AWS have in common: their columns, and where and how a month's manifest lies.
Whatever is in a manifest, the answer is a value or a ManifestInvalid."""

from __future__ import annotations

import codecs
import re
from abc import abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from pydantic_core import from_json

from finops_dagster.billing.columns import Sql, quoted
from finops_dagster.billing.errors import CONTROL_CHARACTER, ManifestInvalid, excerpt, excerpts
from finops_dagster.billing.manifest import Column, ListedFile, Manifest, ManifestFile
from finops_dagster.billing.months import BillingMonth
from finops_dagster.sources.base import Format

_MAX_ID_LENGTH = 256
_MAX_FIELDS_SHOWN = 12
_T = TypeVar("_T", str, list[Any])


class AwsFormat(Format, Protocol):
    """A format whose months have a manifest each, which every refresh rewrites last."""

    vendor: str = "aws"
    title: str  # its name for messages
    folder: str = ""  # the folder of the export that has those of the months
    manifest_paths: Sequence[str]  # of a month's manifest below that
    id_fields: Sequence[str]  # the fields of a manifest that may name its version
    file_list_fields: Sequence[str]  # the fields of a manifest that may list its files
    has_billing_period: bool = False  # whether each manifest says its month
    null_words: tuple[str, ...] = ()
    time_format: str | None = None
    has_one_currency: bool = True

    def months_folder(self, prefix: str, export_name: str) -> str:
        """Return the folder whose folders are the months, without a slash at its end."""
        return "/".join(filter(None, [prefix, export_name, self.folder]))

    def manifest_keys(self, home: str, export_name: str, month: BillingMonth) -> tuple[str, ...]:
        """Return where the month's current manifest may lie, the likeliest place first."""
        names = {"name": export_name, "month": month, "period": period_folder(month)}
        return tuple(f"{home}/{path.format_map(names)}" for path in self.manifest_paths)

    def parse_manifest(self, body: bytes, source: ManifestFile, month: BillingMonth) -> Manifest:
        """Read a manifest; its files are resolved beside it, wherever the bucket was copied to.
        Raises ManifestInvalid, which names where it lies."""
        document = ManifestJson.read(body, source, month, self.title)
        if self.has_billing_period or document.fields.get("billingPeriod"):
            document.require_month()
        files: dict[str, ListedFile] = {}
        for entry in document.first(
            list, f"list of {' or '.join(self.file_list_fields)}", self.file_list_fields
        ):
            file = self.file(document, entry)
            if file.key in files:  # no file may be paid twice
                raise document.invalid(f" lists {excerpt(file.key)} twice")
            files[file.key] = file
        return Manifest(
            self.name,
            str(month),
            self.version(document, list(files), body),
            source,
            tuple(self.columns(document, list(files))),
            tuple(files.values()),
        )

    def version(self, document: ManifestJson, keys: Sequence[str], body: bytes) -> str:
        """Return the id of the version, whose manifest may list the files of these keys."""
        return document.version(*self.id_fields)

    @abstractmethod
    def columns(self, document: ManifestJson, keys: Sequence[str]) -> list[Column]:
        """Return the columns under the names that they have in the files; none where the manifest
        has none, as the files have their headers."""

    @abstractmethod
    def file(self, document: ManifestJson, excerpts: Any) -> ListedFile:
        """Return a file as the manifest lists it."""

    def is_user_defined(self, header: str) -> bool:
        """AWS chooses the names; tags are keys of a map."""
        return False

    def alias_of(self, header: str, known_headers: Collection[str]) -> str | None:
        """CSV and Parquet have the same names."""
        return None

    def is_final(self, columns: Collection[str]) -> Sql | None:
        """A month is closed when every row that costs has its invoice's id.
        https://docs.aws.amazon.com/cur/latest/userguide/table-dictionary-cur2-bill.html
        """
        if not {self.cost, self.invoice} <= set(columns):
            return None
        cost, invoice = quoted(self.cost), quoted(self.invoice)
        return Sql(
            f"count({invoice}) > 0 AND "
            f"count(*) FILTER ({cost} <> 0 AND coalesce({invoice}, '') = '') = 0"
        )


@dataclass(frozen=True)
class ManifestJson:
    """The fields of a month's manifest that lies at `source`, and is expected to be the `title`'s.
    Every method raises ManifestInvalid."""

    fields: dict[str, Any]
    source: ManifestFile
    month: BillingMonth
    title: str

    @classmethod
    def read(
        cls, body: bytes, source: ManifestFile, month: BillingMonth, title: str
    ) -> ManifestJson:
        """Read a JSON object, of which every text is Unicode."""
        try:
            document = from_json(body.removeprefix(codecs.BOM_UTF8))
        except ValueError as error:
            raise ManifestInvalid(f"{source.location} is not JSON: {error}") from error
        if not isinstance(document, dict):
            raise ManifestInvalid(
                f"{source.location} is not a JSON object but a {type(document).__name__}"
            )
        return cls(document, source, month, title)

    def first(self, kind: type[_T], what: str, names: Sequence[str]) -> _T:
        """Return the first of the fields that is a text, or a list."""
        for value in map(self.fields.get, names):
            if isinstance(value, kind) and value != "":
                return value
        fields = excerpts(list(self.fields), _MAX_FIELDS_SHOWN) or "nothing"
        raise self.invalid(f" has no {what}; is it the manifest of {self.title}? It has {fields}")

    def version(self, *names: str) -> str:
        """Return the version's id, which AWS writes as a UUID or a timestamp, if it is something
        that a person can read in a list."""
        version = self.first(str, " or ".join(names), names)
        if len(version) > _MAX_ID_LENGTH or not version.isprintable() or version.isspace():
            raise self.invalid(f": {excerpt(version)} is no usable name of a version")
        return version

    def columns(self) -> list[Any]:
        """Return the list of columns, or none."""
        is_listed = self.fields.get("columns") is not None
        return self.first(list, "list of columns", ["columns"]) if is_listed else []

    def key_of(self, key: Any) -> str:
        """Return a file's key without `s3://bucket/`."""
        if not isinstance(key, str) or not key:
            raise self.invalid(f" lists {excerpt(key)}, which is no key of a file")
        # No vendor writes control characters, and S3 itself cannot list them.
        if CONTROL_CHARACTER.search(key) or {".", ".."} & set(key.split("/")):
            raise self.invalid(f" lists {excerpt(key)}, which leads elsewhere")
        return re.sub(r"^s3[an]?://[^/]+/", "", key)

    def split(self, key: str, folder: str) -> tuple[str, str]:
        """Return a key's month folder, which the regular expression `folder` fits, and what comes
        after. What comes before is of the bucket that this one may be a copy of."""
        *_, last = [None, *re.finditer(f"(?:^|/)({folder})/", key)]
        if last is None or "" in key[last.end() :].split("/"):
            raise self.invalid(
                f" lists {excerpt(key)}, which is no file below the month's folder ({folder})"
            )
        return last[1], key[last.end() :]

    def require_month(self) -> None:
        """Hold `billingPeriod` against the month; AWS writes `20250901T000000.000Z`, which is not
        ISO, `2025-09-01T00:00:00Z` or `2025-09`: the digits count."""
        period = self.fields.get("billingPeriod")
        start = period.get("start") if isinstance(period, dict) else period
        digits = re.sub(r"\D", "", str(start))
        if not re.fullmatch(f"{self.month.first_day:%Y%m}(01.*)?", digits):
            raise self.invalid(
                f": billingPeriod is {excerpt(start)}, expected the first day of {self.month}"
            )

    def invalid(self, problem: str) -> ManifestInvalid:
        """Return the error that names the manifest and says what is wrong with it."""
        return ManifestInvalid(f"{self.source.location}{problem}")


def period_folder(month: BillingMonth) -> str:
    """Return `20240101-20240201`."""
    return f"{month.first_day:%Y%m%d}-{month.next.first_day:%Y%m%d}"


def typed_column(header: str, column: dict[str, Any]) -> Column:
    """Return a column with the vendor's word for its type, where there is any."""
    declared_type = column.get("type")
    return Column(header, declared_type if isinstance(declared_type, str) else None)
