"""CUR v1: CSV in a folder of its own for every refresh or overwritten, or Parquet for Athena.

https://docs.aws.amazon.com/cur/latest/userguide/understanding-report-versions.html
"""

from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

from finops_dagster.billing.columns import literal, quoted
from finops_dagster.demo.athena_names import athena_name, athena_names
from finops_dagster.demo.catalog import BUCKET, PAYER_ACCOUNT
from finops_dagster.demo.cur1_columns import choose_headers, manifest_type
from finops_dagster.demo.layout import Layout
from finops_dagster.demo.projection import Column, ColumnType
from finops_dagster.demo.version import Version

_PARQUET_TYPES = {
    "BigDecimal": ColumnType.DOUBLE,
    "OptionalBigDecimal": ColumnType.DOUBLE,
    "DateTime": ColumnType.TIMESTAMP,
}
_COMPRESSIONS = {"gzip": "GZIP", "zip": "ZIP", "csv": "NONE", "parquet": "Parquet"}


@dataclass(frozen=True)
class Cur1:
    """One version of a month of a CUR v1; `width` is its number of CUR columns."""

    prefix: str
    report_name: str
    version: Version
    layout: Layout
    width: int

    @property
    def columns(self) -> list[Column]:
        """CSV holds the headers as they are; Parquet has Athena's names, types and partitions."""
        if self.layout.files != "parquet":
            return [Column(h, ColumnType.STRING, quoted(h)) for h in self._headers]
        month = self.version.month
        return [
            *(
                Column(
                    name,
                    _PARQUET_TYPES.get(manifest_type(header), ColumnType.STRING),
                    quoted(header),
                )
                for header, name in athena_names(self._headers).items()
            ),
            Column("year", ColumnType.STRING, literal(str(month.year))),
            Column("month", ColumnType.STRING, literal(str(month.month))),
        ]

    @property
    def keys(self) -> list[str]:
        """The keys of the files; Athena's month has no leading zero."""
        month = self.version.month
        if self.layout.files == "parquet":
            folder = f"{self._home}/{self.report_name}/year={month.year}/month={month.month}"
        elif self.layout.overwrite:
            folder = self._month_folder
        else:
            folder = f"{self._month_folder}/{self.version.assembly_id}"
        return [
            f"{folder}/{self.report_name}-{number:05d}.{self.layout.suffix}"
            for number in range(1, self.version.parts + 1)
        ]

    @property
    def manifest_keys(self) -> list[str]:
        """The keys of the manifest's copies, the one that is read last."""
        name = f"{self.report_name}-Manifest.json"
        top = f"{self._month_folder}/{name}"
        kept = f"{self._month_folder}/{self.version.assembly_id}/{name}"
        return [top] if self.layout.overwrite else [kept, top]

    @property
    def surplus_keys(self) -> list[str]:
        """None: files of an older refresh that had more of them stay as they are."""
        return []

    def manifest(self) -> dict[str, object]:
        """The manifest's fields; AWS writes the period without dashes and with milliseconds."""
        version, parquet = self.version, self.layout.files == "parquet"
        return {
            "assemblyId": version.assembly_id,
            "account": PAYER_ACCOUNT,
            "columns": [self._manifest_column(header) for header in self._headers],
            "charset": "UTF-8",
            "compression": _COMPRESSIONS[self.layout.files],
            "contentType": "Parquet" if parquet else "text/csv",
            "reportId": sha256(self.report_name.encode()).hexdigest(),
            "reportName": self.report_name,
            "billingPeriod": {
                "start": f"{version.month:%Y%m%d}T000000.000Z",
                "end": f"{version.next_month:%Y%m%d}T000000.000Z",
            },
            "bucket": BUCKET,
            "reportKeys": self.keys,
            "additionalArtifactKeys": [],
        }

    def _manifest_column(self, header: str) -> dict[str, str]:
        category, name = header.split("/", 1)
        if self.layout.files == "parquet":
            category, name = athena_name(category), athena_name(name)
        return {"category": category, "name": name, "type": manifest_type(header)}

    @cached_property
    def _headers(self) -> list[str]:
        headers = choose_headers(self.width)
        return list(athena_names(headers)) if self.layout.files == "parquet" else headers

    @property
    def _home(self) -> str:
        return "/".join([*filter(None, [self.prefix]), self.report_name])

    @property
    def _month_folder(self) -> str:
        period = f"{self.version.month:%Y%m%d}-{self.version.next_month:%Y%m%d}"
        return f"{self._home}/{period}"
