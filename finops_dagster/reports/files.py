"""Writes a report as a file: a page, a workbook, JSON, or a folder of CSV files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from finops_dagster.reports.document import Document
from finops_dagster.reports.page import page_html
from finops_dagster.reports.sheets import write_csv, write_xlsx


def write_report(document: Document, path: Path, output_format: str) -> None:
    """Write the report to `path`, in the format `html`, `json`, `xlsx` or `csv`.

    For `csv`, `path` is a folder, whose files are written one after the other. In any other format,
    the folder of `path` is created, and the file is replaced once the new one is complete. Raises
    BillError as `write_xlsx`, and KeyError for an unknown format.
    """
    if output_format == "csv":
        write_csv(document, path)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        _WRITERS[output_format](document, part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _write_page(document: Document, path: Path) -> None:
    path.write_text(page_html(document), encoding="utf-8")


def _write_json(document: Document, path: Path) -> None:
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False), encoding="utf-8")


_WRITERS: Mapping[str, Callable[[Document, Path], None]] = {
    "html": _write_page,
    "json": _write_json,
    "xlsx": write_xlsx,
}
