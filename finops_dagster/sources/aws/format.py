"""The base of AWS's formats, and the parser of manifests.

Whatever bytes a manifest holds, parsing returns a value or raises ManifestInvalid.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from finops_dagster.billing.columns import Sql
from finops_dagster.billing.errors import ManifestInvalid, excerpt, excerpts
from finops_dagster.billing.manifest import ListedColumn, ListedFile, Manifest, ManifestFile
from finops_dagster.billing.months import BillingMonth
from finops_dagster.sources.base import FixedFormat, every_cost_has_invoice
from finops_dagster.sources.manifest_json import (
    UNREADABLE_ADVICE,
    json_object,
    validated_key,
    validated_vendor_id,
)

_MAX_FIELDS_SHOWN = 12
_T = TypeVar("_T", str, list[Any])


class AwsFormat(FixedFormat, Protocol):
    """A format of AWS: each month has a manifest, which AWS rewrites last in every refresh."""

    vendor: str = "aws"
    title: str  # the format's name in messages
    subfolder: str = ""  # the folder of the export that has the months' folders
    manifest_paths: Sequence[str]  # templates of a manifest's path in the months' folder
    id_fields: Sequence[str]  # the fields of a manifest that can hold the vendor's id
    file_list_fields: Sequence[str]  # the fields of a manifest that can list its files
    has_billing_period: bool = False  # whether every manifest has a billingPeriod
    null_words: tuple[str, ...] = ()
    time_formats: tuple[str, ...] = ()
    expects_one_currency: bool = True

    def months_folder(self, prefix: str, export_name: str) -> str:
        """Return the folder that has a folder with a manifest for each month.

        `prefix` is that of the export's keys, and may be empty. The folder has no slash at its end.
        """
        return "/".join(filter(None, [prefix, export_name, self.subfolder]))

    def manifest_keys(
        self, months_folder: str, export_name: str, month: BillingMonth
    ) -> tuple[str, ...]:
        """Return the possible keys of a month's newest manifest, the likeliest first."""
        names = {"name": export_name, "month": month, "period": period_folder(month)}
        return tuple(f"{months_folder}/{path.format_map(names)}" for path in self.manifest_paths)

    def parse_manifest(self, body: bytes, source: ManifestFile, month: BillingMonth) -> Manifest:
        """Parse a manifest of this format.

        Keys of files are resolved relative to the manifest's key, because a copied bucket may have
        another prefix. Raises ManifestInvalid, also if `billingPeriod` is another month; CUR v1
        alone must have this field.
        """
        document = ManifestJson.read(body, source, month, self.title)
        if self.has_billing_period or document.fields.get("billingPeriod"):
            document.require_month()
        files: dict[str, ListedFile] = {}
        for entry in document.first_field(
            list, f"list of {' or '.join(self.file_list_fields)}", self.file_list_fields
        ):
            file = self.listed_file(document, entry)
            if file.key in files:  # its line items would count twice
                raise document.invalid(f" lists {excerpt(file.key)} twice")
            files[file.key] = file
        return Manifest(
            self.name,
            str(month),
            self.vendor_id(document, list(files), body),
            source,
            tuple(self.columns(document, list(files))),
            tuple(files.values()),
        )

    def vendor_id(self, document: ManifestJson, keys: Sequence[str], body: bytes) -> str:
        """Return the vendor's id of the version. Raises ManifestInvalid.

        `keys` are those of the listed files, `body` is the manifest as the store has it.
        """
        return document.vendor_id(*self.id_fields)

    @abstractmethod
    def columns(self, document: ManifestJson, keys: Sequence[str]) -> list[ListedColumn]:
        """Return the columns with their headers in the files; an empty list if none are listed.

        `keys` are those of the listed files. Raises ManifestInvalid.
        """

    @abstractmethod
    def listed_file(self, document: ManifestJson, entry: Any) -> ListedFile:
        """Return the file that an entry of the manifest's list names. Raises ManifestInvalid.

        Its key is found from the manifest's key, because a copied bucket may have another prefix.
        """

    def finality_sql(self, columns: Collection[str]) -> Sql | None:
        """Return an SQL aggregate that is true if every row with a cost has an invoice id.

        It is false if no row has an id: AWS writes the ids when it closes a month. None if
        `columns`, those of the table, lack the cost or the id.
        https://docs.aws.amazon.com/cur/latest/userguide/table-dictionary-cur2-bill.html
        """
        return every_cost_has_invoice(self.cost, self.invoice, columns)


@dataclass(frozen=True)
class ManifestJson:
    """The JSON fields of a manifest. Methods raise ManifestInvalid for a value that cannot be used.

    `title` is the format that the manifest should have, for messages.
    """

    fields: dict[str, Any]
    source: ManifestFile
    month: BillingMonth
    title: str

    @classmethod
    def read(
        cls, body: bytes, source: ManifestFile, month: BillingMonth, title: str
    ) -> ManifestJson:
        """Parse the bytes of a manifest, which must be a JSON object, for the format `title`."""
        return cls(json_object(body, source), source, month, title)

    def first_field(self, value_type: type[_T], description: str, names: Sequence[str]) -> _T:
        """Return the value of the first named field that has this type and is not an empty text.

        Raises ManifestInvalid if there is none; `description` names the field in its message.
        """
        for value in map(self.fields.get, names):
            if isinstance(value, value_type) and value != "":
                return value
        fields = excerpts(list(self.fields), _MAX_FIELDS_SHOWN) or "nothing"
        raise ManifestInvalid(
            f"{self.source.location} has no {description}, which a manifest of {self.title} has; "
            f"check the export's format and source: the manifest has the fields {fields}"
        )

    def vendor_id(self, *names: str) -> str:
        """Return the vendor's id, which AWS writes as a UUID or a timestamp into one of `names`."""
        return validated_vendor_id(self.first_field(str, " or ".join(names), names), self.source)

    def columns(self) -> list[Any]:
        """Return the entries of the list of columns; an empty list if there is none."""
        is_listed = self.fields.get("columns") is not None
        return self.first_field(list, "list of columns", ["columns"]) if is_listed else []

    def object_key(self, key: Any) -> str:
        """Return a listed key without `s3://bucket/`, if it has that."""
        return re.sub(r"^s3[an]?://[^/]+/", "", validated_key(key, self.source))

    def split_key(self, key: str, month_pattern: str, example: str) -> tuple[str, str]:
        """Return the month's folder in a key, and the path below it.

        `month_pattern` is a regular expression of the folder's name, and `example` such a name for
        the message. The path above the folder is left out: in a copied bucket it can be another.
        Raises ManifestInvalid for a key that is not below such a folder.
        """
        *_, last = [None, *re.finditer(f"(?:^|/)({month_pattern})/", key)]
        if last is None or "" in key[last.end() :].split("/"):
            raise self.invalid(
                f" lists {excerpt(key)}, which is not a file below the month's folder, such as "
                f"{example}"
            )
        return last[1], key[last.end() :]

    def require_month(self) -> None:
        """Raise ManifestInvalid unless `billingPeriod` is the month."""
        # AWS writes `20250901T000000.000Z`, which is not ISO, `2025-09-01T00:00:00Z` or `2025-09`:
        # only the digits are compared.
        period = self.fields.get("billingPeriod")
        start = period.get("start") if isinstance(period, dict) else period
        digits = re.sub(r"\D", "", str(start))
        if not re.fullmatch(f"{self.month.first_day:%Y%m}(01.*)?", digits):
            raise self.invalid(
                f": billingPeriod is {excerpt(start)}, expected the first day of {self.month}"
            )

    def invalid(self, problem: str) -> ManifestInvalid:
        """Return the error to raise. `problem` follows the location: " lists no files"."""
        return ManifestInvalid(f"{self.source.location}{problem}; {UNREADABLE_ADVICE}")


def period_folder(month: BillingMonth) -> str:
    """Return CUR v1's name of a month's folder, `20240101-20240201`."""
    return f"{month.first_day:%Y%m%d}-{month.next.first_day:%Y%m%d}"


def typed_column(header: str, column: dict[str, Any]) -> ListedColumn:
    """Return a column from its entry in the manifest; its type is None if none is declared."""
    declared_type = column.get("type")
    return ListedColumn(header, declared_type if isinstance(declared_type, str) else None)
