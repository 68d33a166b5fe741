"""Metadata of the stages in Dagster's UI: numbers that it plots, and tables in Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dagster as dg

from finops_dagster.billing.delivery import Delivery
from finops_dagster.billing.errors import escaped, excerpts, shortened
from finops_dagster.billing.manifest import Manifest, ManifestFile
from finops_dagster.billing.money import Totals, decimal_text, exact_sum
from finops_dagster.billing.restatement import (
    CostChange,
    Restatement,
    footer_of_restatements,
    restatements_of_footer,
    summed_changes,
)
from finops_dagster.billing.version import Load, Version
from finops_dagster.focus.comparison import CostGroup
from finops_dagster.focus.conformance import BrokenRule
from finops_dagster.focus.entries import Entry
from finops_dagster.staging.folder import VersionRecord
from finops_dagster.tables.month_report import MonthReport

Metadata = dict[
    str, dg.MetadataValue[Any] | dg.TableSchema | dg.TableColumnLineage | str | int | float | bool
]

RESTATED = "restated"
"""The key of the summary of a restatement, as JSON with exact amounts, which alerts read."""
# Known only while the month is replaced; later runs repeat them until the next load.
LOAD_KEYS = (
    "replaced_version",
    "rows_changed",
    "cost_changed",
    "cost_changed_exact",
    "restatement",
    RESTATED,
    "warnings",
)
_MAX_SERVICES, _MAX_CHANGES, _MAX_HEADERS, _MAX_DIFFERENCES = 20, 5, 50, 20
_PLAIN_WORDS = re.compile(r"(?:[A-Za-z0-9 -]|(?<=[A-Za-z0-9])_(?=[A-Za-z0-9]))*")


@dataclass(frozen=True)
class LoadedMonth:
    """A month in the billing table: its report, and the outcome of the stage.

    `outcome` is `loaded` or `unchanged`. `warnings` has a line for each column that has another
    type in the table than in this version, and one about rows without a billing period.
    `restatement` is None if the load replaced nothing, or the same version without any change.
    """

    report: MonthReport
    outcome: str = "unchanged"
    warnings: Sequence[str] = ()
    restatement: Restatement | None = None


def version_metadata(version: Version) -> Metadata:
    """Return the metadata of a version: id, number of rows, headline cost, names of currencies."""
    return {
        "manifest_id": version.manifest_id,
        "dagster/partition_row_count": version.totals.rows,
        **_cost(version),
    }


def _cost(version: Version) -> Metadata:
    cost = version.totals.cost
    return {
        "total_cost": float(cost),
        "total_cost_exact": decimal_text(cost),
        **_currencies(version.totals),
    }


def _currencies(totals: Totals) -> Metadata:
    """Return the currencies of the headline cost, the largest first; nothing if they are unknown.

    Old releases did not record them.
    """
    by_cost = sorted((totals.costs or {}).items(), key=lambda pair: (-pair[1], pair[0]))
    names = ", ".join(currency or "(none)" for currency, _ in by_cost)
    return {"currency": names} if names else {}


def manifest_metadata(manifest: Manifest, previous: Manifest | None) -> Metadata:
    """Return the metadata of a manifest, with the columns added and removed since `previous`.

    `columns_added` and `columns_removed` are texts: up to 50 headers, and the number of the others.
    Both are empty without `previous`, and if either manifest lists no columns.
    """
    added, removed = manifest.columns_added_and_removed(previous)
    return {
        "format": manifest.format,
        "manifest_id": manifest.id,
        "files": len(manifest.files),
        "columns": len(manifest.columns),
        "columns_added": excerpts(added, _MAX_HEADERS),
        "columns_removed": excerpts(removed, _MAX_HEADERS),
        **_delivery(manifest.delivery),
    }


def _delivery(delivery: Delivery | None) -> Metadata:
    if delivery is None:
        return {}
    metadata: Metadata = {"covered_days": delivery.covered_days} if delivery.covered_days else {}
    if delivery.submitted_at is not None:
        submitted_at = delivery.submitted_at.replace(tzinfo=UTC)
        metadata["submitted_at"] = dg.MetadataValue.timestamp(submitted_at)
    return metadata


def manifest_object_metadata(source: ManifestFile) -> Metadata:
    """Return address, size and time of the object that a manifest was read from.

    The sensor compares them, to see whether a run has read the vendor's newest manifest.
    """
    return {
        "manifest": source.location,
        "dagster/uri": location_metadata(source.location)["dagster/uri"],
        "bytes": source.size,
        "last_modified": dg.MetadataValue.timestamp(source.last_modified),
    }


def location_metadata(location: str) -> Metadata:
    """Return the metadata `path` and `dagster/uri` of a file: its location, and that as a URI.

    `location` is the address of an object in a store, or a path on this machine.
    """
    uri = location if "://" in location else file_uri(Path(location))
    return {"path": dg.MetadataValue.path(location), "dagster/uri": uri}


def file_uri(path: Path) -> str:
    """Return the `file://` URL of a path on this machine, which is made absolute.

    The `=` of a month's folder is not percent-encoded; other special characters are.
    """
    return f"file://{quote(str(path.resolve()), safe='/=')}"


def staged_metadata(record: VersionRecord) -> Metadata:
    """Return the metadata of the staged files: version id, number of files, bytes and rows, cost.

    It is the headline cost, with the names of its currencies and the number of rounded costs.
    """
    return {
        "manifest_id": record.manifest_id,
        "files": record.file_count,
        "bytes": record.byte_count,
        "rows": record.totals.rows,
        **_cost(record),
        "costs_rounded": record.rounded,
    }


def table_metadata(loaded: LoadedMonth, repeated: Mapping[str, dg.MetadataValue[Any]]) -> Metadata:
    """Return the metadata of the billing table.

    `repeated` has the values of LOAD_KEYS from the last run; it is empty after a load.
    """
    report, restatement = loaded.report, loaded.restatement
    return {
        **version_metadata(report.load),
        # The UI keeps this order: what changed comes first, as people look for it first.
        **({} if report.is_final is None else {"final": report.is_final}),
        **repeated,
        **({} if restatement is None else _restatement_metadata(restatement)),
        **warnings_metadata(loaded.warnings),
        **_rounded_columns(report.load),
        "currency": ", ".join(currency for currency, _ in report.currencies),
        "services": len(report.services),
        "cost_by_service": _service_table(report),
    }


def entries_table(entries: Iterable[Entry]) -> dg.MetadataValue[Any]:
    """Return a Markdown table of a month's entries: what FOCUS leaves out or moves, and why."""
    lines = [
        (
            safe_markdown(entry.kind),
            entry.why,
            entry.currency,
            f"{entry.rows:,}",
            decimal_text(entry.billed),
            decimal_text(entry.effective),
        )
        for entry in entries
    ]
    return markdown_table("| rule | why | currency | rows | billed | effective |", lines, texts=3)


def rules_table(broken: Iterable[BrokenRule]) -> dg.MetadataValue[Any]:
    """Return a Markdown table of the rules of FOCUS that charges break, with an example of each."""
    lines = [
        (
            safe_markdown(found.rule.id),
            found.rule.text,
            found.rule.disputed or "",
            safe_markdown(", ".join(f"{name}={value}" for name, value in found.example.items())),
            f"{found.rows:,}",
        )
        for found in broken
    ]
    return markdown_table(
        "| rule | what it says | disputed because | example | charges |", lines, texts=4
    )


def differences_table(
    export: str, groups: Mapping[str, Sequence[CostGroup]]
) -> dg.MetadataValue[Any]:
    """Return a Markdown table of the groups of charges whose cost differs in another export.

    `groups` has them by the name of the other export, the largest differences first; the first 20
    of each are shown. `export` is the name of the month's export.
    """
    lines = [
        (
            other,
            safe_markdown(group.account or ""),
            safe_markdown(group.service or ""),
            safe_markdown(group.category or ""),
            group.currency or "",
            *map(decimal_text, (*group.billed, *group.effective)),
        )
        for other, of_other in groups.items()
        for group in of_other[:_MAX_DIFFERENCES]
    ]
    header = (
        "| compared with | account | service | category | currency "
        f"| billed {export} | billed there | effective {export} | effective there |"
    )
    return markdown_table(header, lines, texts=5)


def unknown_keys_metadata(unknown: Mapping[str, Mapping[str, int]]) -> Metadata:
    """Return the metadata `unknown`: a Markdown table of the keys that lookups lack.

    `unknown` has the number of line items by lookup and key. An empty dict if it is empty.
    """
    lines = [
        (safe_markdown(lookup), safe_markdown(key), f"{rows:,}")
        for lookup, keys in unknown.items()
        for key, rows in keys.items()
    ]
    header = "| lookup | unknown key | line items |"
    return {"unknown": markdown_table(header, lines, texts=2)} if lines else {}


def warnings_metadata(messages: Sequence[str]) -> dict[str, dg.MetadataValue[Any]]:
    """Return the metadata `warnings` with a line for each message; an empty dict without any."""
    lines = "\n".join(f"- {escaped(message)}" for message in messages)
    return {"warnings": dg.MetadataValue.text(lines)} if messages else {}


def safe_markdown(text: str) -> str:
    """Return untrusted text as safe Markdown, escaped and shortened; it also fits a table's cell.

    Text that is not plain words becomes inline code, where Markdown acts on backticks alone.
    """
    # A table's cell ends at a pipe, even inside inline code.
    code = shortened(text).replace("|", r"\x7c")
    if _PLAIN_WORDS.fullmatch(text):
        return code
    fence = "`" * (1 + max(map(len, re.findall("`+", code)), default=0))
    # Markdown strips one space at each end, and a backtick there would belong to the fence.
    pad = " " if {code[0], code[-1]} & {" ", "`"} else ""
    return f"{fence}{pad}{code}{pad}{fence}"


def markdown_table(
    header: str, lines: Iterable[Sequence[str]], texts: int = 1
) -> dg.MetadataValue[Any]:
    """Return a Markdown table; its columns after the first `texts` are numbers, aligned right.

    `header` is its first line, `| service | cost |`; each of `lines` has the cells of one line,
    which must be safe, see `safe_markdown`.
    """
    rule = f"|{'---|' * texts}{'---:|' * (header.count('|') - 1 - texts)}"
    return dg.MetadataValue.md(
        "\n".join([header, rule, *(f"| {' | '.join(cells)} |" for cells in lines)])
    )


def _rounded_columns(load: Load) -> Metadata:
    lines = [
        (
            safe_markdown(column.name),
            f"{column.cells:,}",
            "" if column.amount is None else decimal_text(column.amount),
        )
        for column in load.rounded or ()
    ]
    header = "| column | cells rounded to 18 decimals | difference in all |"
    return {"decimals_rounded": markdown_table(header, lines)} if lines else {}


def _service_table(report: MonthReport) -> dg.MetadataValue[Any]:
    lines = [
        (safe_markdown(name), f"{cost:,.2f}") for name, cost in report.services[:_MAX_SERVICES]
    ]
    rest = report.services[_MAX_SERVICES:]
    if rest:
        lines.append((f"{len(rest)} other services", f"{sum(cost for _, cost in rest):,.2f}"))
    # Costs of several currencies are added up here: `currency` says so.
    currency = f" {safe_markdown(report.currencies[0][0])}" if len(report.currencies) == 1 else ""
    return markdown_table(f"| service | {report.cost_column}{currency} |", lines)


def _restatement_metadata(restatement: Restatement) -> Metadata:
    totals, summary = (
        restatement.changes_by_currency,
        footer_of_restatements([_summary(restatement)]),
    )
    added_cost = exact_sum(total.added_cost for total in totals)
    return {
        "replaced_version": restatement.replaced_id,
        "rows_changed": sum(total.added_rows for total in totals),
        "cost_changed": float(added_cost),
        "cost_changed_exact": decimal_text(added_cost),
        "restatement": _restatement_table(restatement),
        RESTATED: dg.MetadataValue.json(summary),
    }


def restatement_from_metadata(metadata: Mapping[str, dg.MetadataValue[Any]]) -> Restatement | None:
    """Return the restatement in metadata of the billing table; None if it has none.

    It has the largest changes, and all others added up.
    """
    if RESTATED not in metadata:
        return None
    summary: Any = metadata[RESTATED].value
    return restatements_of_footer(summary)[0]


def _summary(restatement: Restatement) -> Restatement:
    """Return the restatement with its largest changes, and all others added up."""
    changes = restatement.changes
    listed = restatement.listed_changes[:_MAX_CHANGES]
    rest = summed_changes(change for change in changes if change not in listed)
    return replace(restatement, changes=(*listed, *rest))


def _restatement_table(restatement: Restatement) -> dg.MetadataValue[Any]:
    """Return rows and costs of both versions, and the services and accounts that changed most."""
    totals, changes = restatement.changes_by_currency, _summary(restatement).changes

    def costs(change: CostChange, service: str, account: str) -> tuple[str, ...]:
        currency = ""
        if len(totals) > 1:
            named = f" in {safe_markdown(change.currency or '')}"
            currency = named if change.currency else " without currency"
        before, after = f"{change.cost_before:,.2f}", f"{change.cost_after:,.2f}"
        return service + currency, account, before, after, f"{change.added_cost:+,.2f}"

    old_rows, new_rows = (
        sum(change.rows_before for change in totals),
        sum(change.rows_after for change in totals),
    )
    return markdown_table(
        f"| service | account | {safe_markdown(restatement.replaced_id)} "
        f"| {safe_markdown(restatement.manifest_id)} | change |",
        [
            ("rows", "", f"{old_rows:,}", f"{new_rows:,}", f"{new_rows - old_rows:+,}"),
            *(costs(total, "cost", "") for total in totals),
            *(
                costs(c, "other", "")
                if c.is_sum
                else costs(
                    c, safe_markdown(c.service or "(none)"), safe_markdown(c.account or "(none)")
                )
                for c in changes
            ),
        ],
        texts=2,
    )
