"""What a month's Parquet file says of itself, read without reading a row and without an engine."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from finops_dagster.billing.content import Content
from finops_dagster.billing.money import RoundedColumn, Totals, amounts_of_record, rounded_columns
from finops_dagster.billing.months import BillingMonth


def month_path(root: Path, export: str, month: BillingMonth) -> Path:
    """Where the month's file lies, or will lie:
    `<root>/<export>/billing_month=2024-01/<export>-2024-01.parquet`."""
    return root / export / f"billing_month={month}" / f"{export}-{month}.parquet"


@dataclass(frozen=True)
class Footer:
    """What a month's file says of itself, read without reading a row."""

    manifest_id: str
    totals: Totals
    format: str = field(default="cur1", compare=False)
    """The format that the vendor's files were in."""
    files: int = field(default=0, compare=False)
    """How many files the vendor delivered."""
    bytes: int = field(default=0, compare=False)
    """The bytes of these files."""
    run_id: str = field(default="", compare=False)
    """The run that loaded them."""
    content: Content | None = field(default=None, compare=False)
    """These files; None of what was written before they were kept."""
    rounded: tuple[RoundedColumn, ...] | None = field(default=None, compare=False)
    """The columns with rounded numbers; None of what was loaded before they were counted."""


def read_footer(path: Path) -> Footer | None:
    """The footer of a whole file that this project wrote; None for anything else."""
    try:
        metadata = pq.read_metadata(path)
    except (OSError, pa.ArrowInvalid):
        return None
    words = metadata.metadata or {}
    if b"manifest_id" not in words or b"total_cost" not in words:
        return None
    said = {key.decode(): value.decode(errors="replace") for key, value in words.items()}
    totals = Totals(
        metadata.num_rows,
        Decimal(said["total_cost"]),
        amounts_of_record(json.loads(said.get("money_sums", "null"))),
        amounts_of_record(json.loads(said.get("cost_by_currency", "null"))),
    )
    return Footer(
        said["manifest_id"],
        totals,
        said.get("format", "cur1"),
        int(said.get("files", 0)),
        int(said.get("bytes", 0)),
        said.get("run_id", ""),
        Content.of_rows(json.loads(said.get("source_files", "null"))),
        rounded_columns(json.loads(said.get("decimals_rounded", "null"))),
    )


def column_names(paths: Iterable[Path]) -> dict[str, str]:
    """The column name that each header was given in any of these files; the first file's word
    counts. So a lost database, or one a month, gives the names that the lake has already."""
    names: dict[str, str] = {}
    for path in paths:
        with suppress(OSError, pa.ArrowInvalid):
            words = pq.read_metadata(path).metadata or {}
            names = {**json.loads(words.get(b"columns", b"{}")), **names}
    return names
