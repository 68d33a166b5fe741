"""The rows about months that `finops aws show-state` and `finops state` print."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from finops_dagster.billing.errors import BillError, count_text, shortened
from finops_dagster.billing.money import decimal_text
from finops_dagster.billing.months import BillingMonth
from finops_dagster.billing.restatement import CostChange, restatements_of_footer
from finops_dagster.cli.options import Selection
from finops_dagster.cli.output import Headings, Row, key_headings
from finops_dagster.cli.stored_months import (
    UNKNOWN,
    StageVersions,
    StoredMonth,
    StoredMonths,
    newest_read_version,
    stages_of,
)
from finops_dagster.focus.exports import no_charges_reason
from finops_dagster.pipeline import FOCUS_STAGES, STAGES
from finops_dagster.pipeline.history import History, Materialization, RunFailure, open_history
from finops_dagster.settings import Settings

_CHANGES_SHOWN = 3


def loaded_month_rows(settings: Settings, selection: Selection) -> list[Row]:
    """Return a row for each month that the warehouse's ledger records as loaded.

    By export, newest month first; `start` and `end` of the selection are ignored. The keys are
    `export`, `month`, `version`, `rows`, `loaded_at` in UTC, and `table`, its full name. Without a
    warehouse, the ledger in DuckDB and the records of a lake in a store are read instead. Raises
    BillError if no export is selected or a ledger cannot be read, and WarehouseUnavailable.
    """
    stored, rows = StoredMonths(settings), list[Row]()
    for export in selection.exports(settings):
        table, loads = stored.warehouse_months(export)
        rows += [
            {
                "export": export.name,
                "month": load.month,
                "version": load.manifest_id,
                "rows": load.rows,
                "loaded_at": load.loaded_at,
                "table": table,
            }
            for load in loads
        ]
    return rows


def month_rows(settings: Settings, selection: Selection, history: History) -> Iterator[Row]:
    """Yield a row for each selected month that is stored, or of which a run left a stage undone.

    By export, newest month first. The keys are `export`, `month`, those of the month's
    `StoredMonth.stage_versions`, `rows` and `cost` of the Parquet file, `last_run` and `reason`. A
    missing value is None. Raises BillError if no export is selected.

    `last_run` is the status of the newest run that left a stage undone, such as "failure" or
    "started"; "success" if no run did, or none ran (see `History.month_status`). `reason` says why
    that run failed, or why the month has no charges.
    """
    for month in StoredMonths(settings).months_with_footers(selection):
        export, name = month.key
        # The status is "success" also if no run ever was; such a month is listed only if stored.
        last_run, reason = history.month_status(export, name, month.expected_stages)
        if last_run != "success" or not set(month.stage_versions.values()) <= {None, UNKNOWN}:
            yield {
                "export": export,
                "month": name,
                **month.stage_versions,
                "rows": month.lake_load and month.lake_load.totals.rows,
                "cost": month.lake_load and month.lake_load.totals.cost,
                "last_run": last_run,
                "reason": reason or month.no_charges_reason,
            }


def stage_rows(settings: Settings, selection: Selection) -> list[Row]:
    """Return a row for each stage of one month: its last result, and the error since then.

    The selection must be one month of one export. The keys are `stage`, `version`, `outcome`,
    `rows`, `cost` as exact text, those of `restatement_fields`, `when`, `run`, `checks` (as text:
    `2 passed`) and `error`. What a stage has not recorded is None. `error` may also say why the
    month has no charges. If the event log does not have the month, version and totals come from a
    lake in a store, if there is one. Raises BillError if the export is unknown or does not have the
    month.
    """
    export, month = selection.exports(settings)[0], str(selection.start)
    if not selection.months(export):
        raise BillError(f"{export.name} has no month {month}; choose from {export.months_text}")
    no_charges = no_charges_reason(export, BillingMonth.parse(month), settings.exports)
    with open_history() as history:
        by_stage = history.materializations(export.name, [month], stages_of(settings, export))
        rows = [
            _stage_row(stage, last, history.why_not_materialized(export.name, month, stage, last))
            for stage, last in ((stage, months.get(month)) for stage, months in by_stage.items())
        ]
    (stored,) = StoredMonths(settings).months(selection)
    if stored.lake_file.is_in_store and not any(row["version"] for row in rows):
        rows = [{**row, **_stored_fields(stored, row["stage"])} for row in rows]
    return [
        row | {"error": no_charges} if no_charges and row["stage"] in FOCUS_STAGES else row
        for row in rows
    ]


def _stored_fields(month: StoredMonth, stage: str) -> Row:
    """Return the version of a stage, with the totals of the file that records it."""
    version, record = month.stage_versions.get(stage), month.lake_load
    if stage in FOCUS_STAGES:
        record = month.charges_record.version if month.charges_record else None
    if record is None or version is None:
        return {}
    totals = record.totals
    return {"version": version, "rows": totals.rows, "cost": decimal_text(totals.cost)}


def _stage_row(stage: str, last: Materialization | None, failure: RunFailure | None) -> Row:
    metadata, error, failed_check = last.metadata if last else {}, None, None
    if failure and failure.stage in (None, stage):
        error, failed_check = failure.message, failure.check
    elif failure:
        # The stages after a failed one did not run, so they have no error of their own.
        error = f"not reached: {failure.stage} failed"
    # A failed stage has no new materialization, so its metadata has the checks of the one before.
    return {
        "stage": stage,
        "version": last and last.version,
        "outcome": metadata.get("outcome"),
        "rows": metadata.get("dagster/partition_row_count", metadata.get("rows")),
        "cost": metadata.get("total_cost_exact"),
        **restatement_fields(metadata),
        "when": last and last.at,
        "run": last and last.run_id,
        "checks": f"failed: {failed_check}" if failed_check else metadata.get("checks"),
        "error": error,
    }


def restatement_fields(metadata: Mapping[str, Any]) -> Row:
    """Return the fields of a row about a restatement, from the metadata of `billing_table`.

    They are `replaced_version`, `rows_changed`, `cost_changed` (new minus old, as exact text) and
    `largest_changes` (up to three, each a dictionary of the fields of CostChange). All are None if
    the load replaced no version. Loads of earlier releases recorded a rounded cost, no replaced
    version, and no largest changes.
    """
    # The shortest text of the float is the rounded cost that was recorded.
    cost = metadata.get("cost_changed")
    rounded = None if cost is None else decimal_text(Decimal(str(cost)))
    recorded = restatements_of_footer(metadata.get("restated", {}))
    changes = [vars(change) for of in recorded for change in of.listed_changes[:_CHANGES_SHOWN]]
    return {
        "replaced_version": metadata.get("replaced_version"),
        "rows_changed": metadata.get("rows_changed"),
        "cost_changed": metadata.get("cost_changed_exact", rounded),
        "largest_changes": changes or None,
    }


def restatement_text(row: Row) -> str | None:
    """Return `restatement_fields` of a row as text: `+2 rows, +1.50 against v1`.

    None if the load replaced no version. The cost is rounded to two decimals.
    """
    if row["rows_changed"] is None:
        return None
    rows, cost = row["rows_changed"], Decimal(row["cost_changed"])
    replaced = row["replaced_version"] or "the version before"
    return f"{count_text(rows, 'row', '+')}, {cost:+,.2f} against {replaced}"


def _largest_changes_text(row: Row) -> str | None:
    changes = [CostChange(**change) for change in row["largest_changes"] or ()]
    return "; ".join(map(change_text, changes)) or None


def change_text(change: CostChange) -> str:
    """Return service, account and the added cost as text: `Tax in 123456789012 +1.50 USD`.

    The names are escaped and shortened as by `shortened`; the cost has two decimals.
    """
    service, account = (shortened(name or "(none)") for name in (change.service, change.account))
    return f"{service} in {account} {change.added_cost:+,.2f} {change.currency or ''}".rstrip()


def _stages_behind_text(versions: StageVersions) -> str | None:
    """Return the stages that do not have the month's newest version: `parquet: v1; focus: nothing`.

    The newest is that of `newest_version`. Empty if all have it; None if it is not known.
    """
    newest = newest_read_version(versions)
    if newest is None:
        return None
    behind: dict[str, list[str]] = defaultdict(list)
    for stage in STAGES[1:]:
        if stage in versions and versions[stage] != newest:
            behind[versions[stage] or "nothing"].append(stage)
    return "; ".join(f"{', '.join(stages)}: {version}" for version, stages in behind.items())


MONTH_HEADINGS: Headings = {
    **key_headings("export month"),
    "version": newest_read_version,
    "stages_behind": _stages_behind_text,
    **key_headings("rows cost last_run"),
}
STAGE_HEADINGS: Headings = {
    **key_headings("stage version outcome rows cost"),
    "restatement": restatement_text,
    "largest_changes": _largest_changes_text,
    **key_headings("when run checks error"),
}
