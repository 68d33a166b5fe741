"""Reading of a delivered version by its manifest, with the standard library and Arrow alone."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from finops_dagster.demo.export import Layout


def cost_column(layout: Layout) -> str:
    """Return the column of the headline cost."""
    if layout.format == "cur1" and layout.files != "parquet":
        return "lineItem/UnblendedCost"
    return "BilledCost" if layout.format.startswith("focus") else "line_item_unblended_cost"


def keys_of(manifest: Path) -> list[str]:
    """Return the keys of the files that a manifest lists, in any of its forms."""
    document = json.loads(manifest.read_text("utf-8"))
    listed = document.get("reportKeys") or document["dataFiles"]
    texts = (file if isinstance(file, str) else file.get("key") or file["s3Uri"] for file in listed)
    return [text.removeprefix("s3://example-company-billing/") for text in texts]


def csv_text(path: Path) -> str:
    """Return the text of a CSV file, unpacked from gzip or ZIP."""
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes()).decode()
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            (member,) = archive.namelist()
            return archive.read(member).decode()
    return path.read_text("utf-8")


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file: texts of CSV, or values of Parquet with maps as dictionaries."""
    if path.suffix != ".parquet":
        return list(csv.DictReader(io.StringIO(csv_text(path), newline="")))
    table = pq.read_table(path, partitioning=None)
    return [
        {name: dict(value) if isinstance(value, list) else value for name, value in row.items()}
        for row in table.to_pylist()
    ]


def all_rows(folder: Path, manifest: Path) -> list[dict[str, Any]]:
    """Return the rows of all files that a manifest lists."""
    return [row for key in keys_of(manifest) for row in rows_of(folder / key)]


def costs(rows: list[dict[str, Any]], layout: Layout) -> list[Decimal]:
    """Return the exact costs; a double is read as its shortest text."""
    return [Decimal(str(row[cost_column(layout)])) for row in rows]
