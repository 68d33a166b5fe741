"""Find the exports that have charges, and the derivation of a month of one of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from finops_dagster.billing.errors import BillError, StageMissing, reprocess_advice
from finops_dagster.billing.months import BillingMonth
from finops_dagster.focus.mappings import MAPPINGS, mapping_of
from finops_dagster.focus.month import FocusDerivation
from finops_dagster.lake import Lake
from finops_dagster.sources import VENDORS
from finops_dagster.sources.settings import ExportSettings
from finops_dagster.tables.database import DuckDB


def charge_sources(export: ExportSettings) -> Mapping[str, str] | None:
    """Return {dataset: export} for the bills from which an export's charges are derived.

    The dataset is "" if that is only its own bill. Azure's actual costs need a second export, the
    amortized costs, which complete the bill. None if the export has no charges of its own: its
    bill completes another one, its settings do not name the second export, or no format of it has a
    mapping.
    """
    formats = VENDORS[export.vendor].formats(export)
    has_mapping = any((export.vendor, name) in MAPPINGS for name in formats)
    return export.bill_exports_by_dataset if has_mapping else None


def completing_exports(exports: Iterable[ExportSettings]) -> set[str]:
    """Return the names of the exports that complete bills of `exports`; see `charge_sources`.

    Such an export may be one of `exports` too.
    """
    return {
        name
        for export in exports
        for name in (charge_sources(export) or {}).values()
        if name != export.name
    }


def no_charges_reason(
    export: ExportSettings, month: BillingMonth, exports: Iterable[ExportSettings]
) -> str | None:
    """Return why the settings exclude a month's charges, as text for people; None if they do not.

    The `start_month` and `end_month` of the export decide, and those of the one that completes its
    bill. None also for an export that has no charges at all. Other reasons do not count.
    `exports` are all exports of the settings.
    """
    names = (charge_sources(export) or {}).values()
    for source in exports:
        if source.name not in names:
            continue
        if str(month) < source.start_month:
            bound, limit = "start", source.start_month
        elif source.end_month is not None and str(month) > source.end_month:
            bound, limit = "end", source.end_month
        else:
            continue
        completes = "" if source.name == export.name else ", which completes its bill,"
        return (
            f"{export.name} {month} has no charges, as {source.name}{completes} {bound}s with "
            f"{limit}; to have them, change {bound}_month of {source.name}"
        )
    return None


def focus_derivation(
    export: ExportSettings, month: BillingMonth, lake: Lake, duckdb: DuckDB
) -> FocusDerivation:
    """Return the derivation of a month of an export that has charges.

    Only the footer of the export's bill is read; nothing is derived yet. Raises StageMissing if the
    lake does not have this bill, and BillError if its format has no mapping. Whether the lake has a
    second bill is not checked.
    """
    exports, file = charge_sources(export), lake.file(export.name, month)
    bill = file.version()
    if bill is None:
        advice = reprocess_advice(export.name, month)
        raise StageMissing(f"{file.location} is missing or damaged; {advice}")
    mapping = mapping_of(export.vendor, bill.format)
    if mapping is None or exports is None:
        raise BillError(
            f"{export.name} {month} has the format {bill.format}, which has no mapping to FOCUS; "
            "only the bill is loaded, and nothing needs to be done"
        )
    return FocusDerivation(lake, duckdb, mapping, exports, month)
