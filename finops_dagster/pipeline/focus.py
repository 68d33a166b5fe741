"""The month's charges in FOCUS, derived from the lake's file and written beside it."""

import dagster as dg

from finops_dagster.billing.money import decimal_text
from finops_dagster.billing.version import LoadedVersion
from finops_dagster.focus.exports import focus_derivation
from finops_dagster.focus.month import EFFECTIVE_COST, FocusMonth
from finops_dagster.lake import Lake
from finops_dagster.pipeline.checks import ADDS_UP
from finops_dagster.pipeline.export import Export
from finops_dagster.pipeline.metadata import (
    Metadata,
    entries_table,
    unknown_keys_table,
    version_metadata,
)
from finops_dagster.pipeline.resources import RunOptions
from finops_dagster.pipeline.stage import billing_month, require_version, stage, stage_result
from finops_dagster.tables.database import BillingDatabase

OPTIONS = {
    # After the warehouse's stage, which is a sibling: the bill does not wait for its charges.
    "op_tags": {"dagster/priority": "-1"},
    # A run of `parquet` alone is followed, of any month; a run that has both stages is not.
    "automation_condition": dg.AutomationCondition.eager().without(
        dg.AutomationCondition.in_latest_time_window()
    ),
}


def focus_asset(export: Export) -> dg.AssetsDefinition:
    """Return the asset of a month's charges, for an export that has a mapping."""

    @stage(export, "focus", kinds={"parquet"}, checks=[ADDS_UP], options=OPTIONS, footer="parquet")
    def focus(
        context: dg.AssetExecutionContext,
        footer: LoadedVersion | None,
        lake: dg.ResourceParam[Lake],
        database: dg.ResourceParam[BillingDatabase],
        run_options: RunOptions,
    ) -> dg.MaterializeResult[LoadedVersion]:
        """Derive the month's charges from its bill, and account for every amount of it."""
        month = billing_month(context)
        derivation = focus_derivation(export.settings, month, lake, database.duckdb)
        if footer is not None:
            current = derivation.sources()[export.name].manifest_id
            require_version(footer.manifest_id, current)
        path = {"path": dg.MetadataValue.path(derivation.path)}
        record = None if run_options.force else derivation.current()
        if record is not None:
            metadata = {**focus_metadata(record), **path}
            return stage_result(record.version, "unchanged", metadata, [adds_up(record)])
        with derivation.replacing_month(context.run.run_id) as record:
            metadata = {**focus_metadata(record), **path}
            return stage_result(record.version, "derived", metadata, [adds_up(record)])

    return focus


def adds_up(record: FocusMonth) -> dg.AssetCheckResult:
    """Return the passed check of charges that add up; any others have made the stage fail."""
    return dg.AssetCheckResult(
        passed=True,
        check_name=ADDS_UP.name,
        metadata={
            "manifest_id": record.version.manifest_id,
            **({"entries": entries_table(record.entries)} if record.entries else {}),
        },
    )


def focus_metadata(record: FocusMonth) -> Metadata:
    """Return the metadata of a month's charges; `total_cost` is their BilledCost."""
    effective = (record.version.totals.sums or {})[EFFECTIVE_COST]
    return {
        **version_metadata(record.version),
        "effective_cost": float(effective),
        "effective_cost_exact": decimal_text(effective),
        "mapping": record.mapping,
        "sources": ", ".join(f"{export} {version}" for export, version in record.sources.items()),
        **({"entries": entries_table(record.entries)} if record.entries else {}),
        "unknown_keys": sum(sum(keys.values()) for keys in record.unknown.values()),
        **unknown_keys_table(record.unknown),
    }
