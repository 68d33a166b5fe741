"""Which refresh of which month an example bill is, and how AWS delivers it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Literal

from finops_dagster.billing.months import BillingMonth

Format = Literal["cur1", "cur2", "focus-1.0", "focus-1.2"]
Files = Literal["gzip", "zip", "csv", "parquet"]


@dataclass(frozen=True)
class Version:
    """One refresh of one billing month.

    `month` is its first day, `assembly_id` the refresh's name such as "20240203T050312Z", `rows`
    the exact number of data rows over all `parts` (headers not counted). Rows fewer than parts
    are legal, and no rows at all: AWS then writes headers alone.

    `restated` is the month as AWS rewrites it after its end. Its last `late_rows` rows are
    refunds and credits that came late, every row has its invoice id, and about one usage row in
    400 has 5 % more usage (unless a machine cannot run longer than its hour). Its other rows are
    the first rows of the version before: restate 10,000 rows as 10,015, and 21 are late and 6 of
    the former rows are gone. As at AWS, line item ids are new in every version.
    """

    month: date
    assembly_id: str
    rows: int
    parts: int = 2
    restated: bool = False

    def __post_init__(self) -> None:
        """Refuse what no bill can be."""
        if self.month.day != 1:
            raise ValueError(f"month must be the first day of a month, not {self.month}")
        if self.rows < 0 or self.parts < 1:
            raise ValueError(f"need rows >= 0 and parts >= 1, not {self.rows} and {self.parts}")

    @property
    def late_rows(self) -> int:
        """One row in 500, at the end: what AWS added after the month's end."""
        return -(-self.rows // 500) if self.restated else 0

    @property
    def next_month(self) -> date:
        """The first day after the billing period."""
        return BillingMonth.of(self.month).next.first_day


@dataclass(frozen=True)
class Layout:
    """What AWS was asked for: format, kind of files, and whether a refresh overwrites the last.

    `csv` is a CUR v1 that somebody unpacked on its way; AWS itself always compresses.

    The rest is where Data Exports (CUR 2.0 and FOCUS) have been seen to differ; CUR v1 ignores
    it. `data_files` is how the manifest names a file: its URI as plain text, an object with the
    key, or an object with URI and size. `partition` is the spelling in the folder of a month.
    `plain_manifest_name` calls manifests `Manifest.json` instead of `<export>-Manifest.json`.
    """

    format: Format = "cur1"
    files: Files = "gzip"
    overwrite: bool = False
    data_files: Literal["uri", "key", "object"] = "uri"
    partition: Literal["BILLING_PERIOD", "billing_period"] = "BILLING_PERIOD"
    plain_manifest_name: bool = False

    def __post_init__(self) -> None:
        """Refuse what AWS cannot be asked for."""
        if self.is_data_export and self.files not in ("gzip", "parquet"):
            raise ValueError(f"there is no {self.format} export in {self.files} files")
        if (self.format, self.files, self.overwrite) == ("cur1", "parquet", False):
            raise ValueError("a cur1 export in parquet files always overwrites: overwrite=True")

    @property
    def is_data_export(self) -> bool:
        """Whether it is delivered as Data Exports are."""
        return self.format != "cur1"

    @property
    def suffix(self) -> str:
        """What names of files end in."""
        suffixes = {"gzip": "csv.gz", "zip": "csv.zip", "csv": "csv", "parquet": "snappy.parquet"}
        return suffixes[self.files]
