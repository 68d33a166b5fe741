"""What a stage's page in Dagster says of a month: plain numbers, and tables for people."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import dagster as dg

from finops_dagster.billing.errors import escaped, excerpts, shortened
from finops_dagster.billing.manifest import Manifest
from finops_dagster.billing.money import decimal_text
from finops_dagster.billing.version import Load, Version
from finops_dagster.staging.folder import VersionRecord
from finops_dagster.tables.month_report import MonthReport, Restatement

Metadata = dict[str, dg.MetadataValue[Any] | dg.TableSchema | str | int | float | bool]

# What is known only while the month is replaced, and stays on its page until the next version.
KEPT = (
    "replaced_version",
    "rows_changed",
    "cost_changed",
    "cost_changed_exact",
    "restatement",
    "warnings",
)
_SERVICES_SHOWN, _MOVES_SHOWN, _HEADERS_SHOWN = 20, 5, 50
_PLAIN_WORDS = re.compile(r"(?:[A-Za-z0-9 -]|(?<=[A-Za-z0-9])_(?=[A-Za-z0-9]))*")


@dataclass(frozen=True)
class MonthOutcome:
    """The month as the table holds it, and what was done for it. `warnings` are of columns whose
    type is not what this version gives."""

    month: MonthReport
    outcome: str = "unchanged"
    warnings: Sequence[str] = ()
    restatement: Restatement | None = None


def version_metadata(version: Version) -> Metadata:
    """Return what every stage that holds the month says of it; the UI plots the numbers."""
    return {
        "manifest_id": version.manifest_id,
        "dagster/partition_row_count": version.totals.rows,
        **_cost(version),
    }


def _cost(version: Version) -> Metadata:
    cost = version.totals.cost
    return {"total_cost": float(cost), "total_cost_exact": decimal_text(cost)}


def manifest_metadata(manifest: Manifest, before: Manifest | None) -> Metadata:
    """Return what the manifest's page says."""
    added, removed = manifest.columns_added_and_removed(before)
    return {
        "format": manifest.format,
        "manifest_id": manifest.id,
        "manifest": manifest.source.location,
        "files": len(manifest.files),
        "columns": len(manifest.columns),
        "columns_added": excerpts(added, _HEADERS_SHOWN),
        "columns_removed": excerpts(removed, _HEADERS_SHOWN),
        "bytes": manifest.source.size,
        "last_modified": dg.MetadataValue.timestamp(manifest.source.last_modified),
    }


def staged_metadata(version: VersionRecord) -> Metadata:
    """Return what the staged files' page says of the version."""
    return {
        "manifest_id": version.manifest_id,
        "files": version.files,
        "bytes": version.bytes,
        "rows": version.totals.rows,
        **_cost(version),
        "costs_rounded": version.rounded,
    }


def table_metadata(loaded: MonthOutcome, kept: Mapping[str, dg.MetadataValue[Any]]) -> Metadata:
    """Return what the billing table's page says. What changed comes first, as it is what people ask
    about first; `kept` is what was said of this version before."""
    month, change = loaded.month, loaded.restatement
    changed: Metadata = {} if month.is_final is None else {"final": month.is_final}
    if change is not None:
        changed |= {
            "replaced_version": change.previous.load.manifest_id,
            "rows_changed": change.rows,
            "cost_changed": float(change.cost),
            "cost_changed_exact": decimal_text(change.cost),
            "restatement": _restatement(change),
        }
    return {
        **version_metadata(month.load),
        **changed,
        **kept,
        **warnings(loaded.warnings),
        **_rounded(month.load),
        "currency": ", ".join(currency for currency, _ in month.currencies),
        "services": len(month.services),
        "cost_by_service": _costs_by_service(month),
        "dagster/table_name": month.load.table,
        "dagster/column_schema": dg.TableSchema(
            [dg.TableColumn(name, sql_type) for name, sql_type in month.columns.items()]
        ),
    }


def warnings(messages: Sequence[str]) -> dict[str, dg.MetadataValue[Any]]:
    """Return the warnings as a list, where there are any."""
    lines = "\n".join(f"- {escaped(message)}" for message in messages)
    return {"warnings": dg.MetadataValue.text(lines)} if messages else {}


def markdown(text: str) -> str:
    """Return text from outside such that Markdown shows it as it is, also in a cell of a table:
    what is more than plain words becomes code, in which nothing but a backtick has a meaning."""
    code = shortened(text).replace("|", r"\x7c")
    if _PLAIN_WORDS.fullmatch(text):
        return code
    fence = "`" * (1 + max(map(len, re.findall("`+", code)), default=0))
    pad = " " if {code[0], code[-1]} & {" ", "`"} else ""
    return f"{fence}{pad}{code}{pad}{fence}"


def _table(header: str, rows: Iterable[Sequence[str]]) -> dg.MetadataValue[Any]:
    """Return a table whose columns after the first are numbers."""
    rule = f"|---|{'---:|' * (header.count('|') - 2)}"
    return dg.MetadataValue.md("\n".join([header, rule, *(f"| {' | '.join(r)} |" for r in rows)]))


def _rounded(load: Load) -> Metadata:
    rows = [
        (
            markdown(column.name),
            f"{column.cells:,}",
            "" if column.amount is None else decimal_text(column.amount),
        )
        for column in load.rounded or ()
    ]
    header = "| column | rounded to 18 decimals | changed by |"
    return {"decimals_rounded": _table(header, rows)} if rows else {}


def _costs_by_service(month: MonthReport) -> dg.MetadataValue[Any]:
    rows = [(markdown(name), f"{cost:,.2f}") for name, cost in month.services[:_SERVICES_SHOWN]]
    rest = month.services[_SERVICES_SHOWN:]
    if rest:
        rows.append((f"{len(rest)} more", f"{sum(cost for _, cost in rest):,.2f}"))
    return _table(f"| service | {month.cost} |", rows)


def _restatement(change: Restatement) -> dg.MetadataValue[Any]:
    before, now, moves = change.previous.load, change.current.load, change.cost_changes()
    rest = moves[_MOVES_SHOWN:]
    costs = [("cost", before.totals.cost, now.totals.cost)]
    costs += [(markdown(name), was, is_now) for name, was, is_now in moves[:_MOVES_SHOWN]]
    if rest:
        was = sum((move[1] for move in rest), Decimal(0))
        costs.append((f"{len(rest)} more", was, sum((move[2] for move in rest), Decimal(0))))
    return _table(
        f"| | {markdown(before.manifest_id)} | {markdown(now.manifest_id)} | change |",
        [
            ("rows", f"{before.totals.rows:,}", f"{now.totals.rows:,}", f"{change.rows:+,}"),
            *((name, f"{a:,.2f}", f"{b:,.2f}", f"{b - a:+,.2f}") for name, a, b in costs),
        ],
    )
