"""Writes the tables of a report as sheets, for spreadsheets and other programs."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

from finops_dagster.billing.errors import BillError
from finops_dagster.billing.money import decimal_text
from finops_dagster.reports.document import AMOUNTS, TABLES, Document, exact_amount

Row = Mapping[str, Any]
Cell = str | int | Decimal | None

# A spreadsheet takes a text that begins like this for a formula.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
# The columns of a sheet for a position in one of the document's lists.
_COLUMNS_OF: Mapping[str, Sequence[str]] = {
    "account": "provider account_id account owner environment cost_centre".split(),
    "service": "service_category service".split(),
}
_MONTHS = "month state currency provider billed effective".split()
_RESTATED = "export month restated_at late from to currency".split()
_BUDGETS = "name month currency filter amount spent".split()
_ANOMALIES = "day currency account service kind cost expected".split()
_VERSIONS = (
    "export vendor month version rows charges loaded_at state final currency total equal".split()
)
_MONEY = {*AMOUNTS, "before", "after", "amount", "spent", "cost", "expected"}


@dataclass(frozen=True)
class Sheet:
    """A table with a name. The cells of a column of amounts are exact decimals or None."""

    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    def has_amounts(self, column: str) -> bool:
        """Return whether the column has amounts."""
        return column in _MONEY or column == "total"


def sheets(document: Document) -> Iterator[Sheet]:
    """Yield the sheets of a report's document: its months, each of its TABLES, and its other lists.

    These are restatements, the services in them, budgets, anomalies and versions. The amounts of
    the document must be whole numbers, as `scaled_document` returns them.
    """
    sheet = partial(_sheet, document)
    yield sheet("months", _MONTHS, _months(document))
    for table, columns in TABLES.items():
        yield sheet(table, columns, _rows(document[table]))
    restatements = document["restatements"]
    yield sheet("restatements", [*_RESTATED, "before", "after"], restatements)
    yield sheet(
        "restated_services",
        [*_RESTATED, "account", "service", "before", "after"],
        ({**row, **part} for row in restatements for part in _rows(row["by_service"])),
    )
    yield sheet("budgets", _BUDGETS, document["budgets"])
    yield sheet("anomalies", _ANOMALIES, document["anomalies"])
    yield sheet(
        "versions",
        _VERSIONS,
        (
            {**row, "currency": currency, "total": Decimal(total)}
            for row in document["versions"]
            for currency, total in row["totals"].items()
        ),
    )


def write_csv(document: Document, folder: Path) -> None:
    """Write a file `<sheet>.csv` for each sheet into the folder, with all digits of amounts.

    The folder is created if it is missing. Files of the same names are replaced, and others stay. A
    text that a spreadsheet would take for a formula gets an apostrophe before it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for sheet in sheets(document):
        with (folder / f"{sheet.name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(sheet.columns)
            writer.writerows([_csv_cell(cell) for cell in row] for row in sheet.rows)


def write_xlsx(document: Document, path: Path) -> None:
    """Write a workbook of the sheets; beside each amount is a column with all its digits, as text.

    The heading of this column ends with `_exact`. Raises BillError if xlsxwriter is not installed.
    """
    try:
        from xlsxwriter import Workbook
    except ModuleNotFoundError:
        raise BillError(
            "xlsxwriter, which writes workbooks, is not installed; run pip install "
            "'finops-dagster[report]', or choose --format csv"
        ) from None
    # In this mode rows are written to disk as they come. No text becomes a formula or a link.
    options = {"constant_memory": True, "strings_to_formulas": False, "strings_to_urls": False}
    with Workbook(str(path), options) as workbook:
        bold = workbook.add_format({"bold": True})
        money = workbook.add_format({"num_format": "#,##0.00"})
        for sheet in sheets(document):
            worksheet = workbook.add_worksheet(sheet.name)
            worksheet.freeze_panes(1, 0)
            position = 0
            for column in sheet.columns:
                is_amounts = sheet.has_amounts(column)
                worksheet.set_column(position, position, 16, money if is_amounts else None)
                position += 1 + is_amounts
            for number, cells in enumerate(_xlsx_rows(sheet)):
                worksheet.write_row(number, 0, cells, bold if number == 0 else None)


def _xlsx_rows(sheet: Sheet) -> Iterator[list[Any]]:
    """Yield the cells of a sheet with its headings; each amount as a number, and then as text."""
    amounts = [sheet.has_amounts(column) for column in sheet.columns]
    for row in [[*sheet.columns], *sheet.rows]:
        cells: list[Any] = []
        for cell, is_amount in zip(row, amounts, strict=True):
            if isinstance(cell, Decimal):
                cells += [float(cell), decimal_text(cell)]
            else:
                cells += [cell, cell and f"{cell}_exact"] if is_amount else [cell]
        yield cells


def _csv_cell(cell: Cell) -> str | int | None:
    if isinstance(cell, Decimal):
        return decimal_text(cell)
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA_STARTS) else cell


def _sheet(document: Document, name: str, columns: Sequence[str], rows: Iterable[Row]) -> Sheet:
    """Return a sheet in which positions in the document's lists are replaced by their entries."""
    names = [name for column in columns for name in _COLUMNS_OF.get(column, [column])]
    named = (_named(document, {column: row[column] for column in columns}) for row in rows)
    return Sheet(name, names, [[row[name] for name in names] for row in named])


def _named(document: Document, row: Row) -> dict[str, Cell]:
    """Return the row with texts and decimals in place of positions and scaled amounts."""
    cells: dict[str, Any] = {}
    for column, value in row.items():
        if column in ("month", "currency", "region") and isinstance(value, int):
            values = document[{"month": "months", "currency": "currencies"}.get(column, "regions")]
            cells[column] = values[value] if column != "region" else values[value]["name"]
        elif column == "account":
            cells |= _account(document, value)
        elif column == "service":
            service = {} if value is None else document["services"][value]
            # A service that only a restatement has is of no category.
            category = service.get("category")
            cells |= {
                "service": service.get("name"),
                "service_category": None if category is None else document["categories"][category],
            }
        elif column in _MONEY and value is not None:
            cells[column] = exact_amount(document, value)
        else:
            cells[column] = value
    return cells


def _account(document: Document, position: int | None) -> dict[str, Cell]:
    if position is None:
        return dict.fromkeys(_COLUMNS_OF["account"])
    account = document["accounts"][position]
    owner = account["owner"]
    return {
        "provider": document["providers"][account["provider"]],
        "account_id": account["id"],
        "account": account["name"],
        "owner": None if owner is None else document["owners"][owner],
        "environment": account["environment"],
        "cost_centre": account["cost_centre"],
    }


def _rows(table: Mapping[str, Sequence[Any]]) -> Iterator[Row]:
    """Yield the rows of a table of columns."""
    for values in zip(*table.values(), strict=True):
        yield dict(zip(table, values, strict=True))


def _months(document: Document) -> Iterator[Row]:
    """Yield the costs by month, currency and provider, with the state of the month."""
    sums: dict[tuple[int, int, int], list[int]] = defaultdict(lambda: [0, 0])
    for row in _rows(document["costs"]):
        provider = document["accounts"][row["account"]]["provider"]
        costs = sums[row["month"], row["currency"], provider]
        costs[0] += int(row["billed"])
        costs[1] += int(row["effective"])
    for (month, currency, provider), (billed, effective) in sorted(sums.items()):
        yield {
            "month": month,
            "state": document["month_states"][month],
            "currency": currency,
            "provider": document["providers"][provider],
            "billed": billed,
            "effective": effective,
        }
