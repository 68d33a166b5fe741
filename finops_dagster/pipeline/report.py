"""The asset `report`: the bill as a page, from the charges of all exports, in the lake."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import dagster as dg

from finops_dagster.billing.errors import BillError
from finops_dagster.billing.money import decimal_text
from finops_dagster.lake import Lake
from finops_dagster.object_stores import StoreError, StoreUnavailable
from finops_dagster.pipeline.bar_charts import cost_by_month
from finops_dagster.pipeline.export import Export
from finops_dagster.pipeline.metadata import Metadata, location_metadata
from finops_dagster.pipeline.report_alerts import REPORT
from finops_dagster.pipeline.report_checks import BUDGETS_KEPT, NO_ANOMALIES, check_report
from finops_dagster.pipeline.stage import permanent_failure, retry_or_failure
from finops_dagster.settings import Settings
from finops_dagster.tables.database import DuckDB

_PAGE = "report/report.html"
# One report for all months of a backfill: once the runs that derive charges have ended. `eager`
# would wait until every month has charges, and may miss those of the half minute after a request.
_AUTOMATION = (
    dg.AutomationCondition.any_deps_match(dg.AutomationCondition.newly_updated()).since(
        dg.AutomationCondition.newly_requested()
    )
    & ~dg.AutomationCondition.any_deps_in_progress()
    & ~dg.AutomationCondition.in_progress()
)


def report_asset(settings: Settings, exports: Sequence[Export]) -> dg.AssetsDefinition:
    """Return the asset `report`; `exports` are those with charges, and there is at least one."""
    keys = [exports[0].resource_key(name) for name in ("lake", "database")]

    @dg.asset(
        key=REPORT,
        deps=[export.asset_key("focus") for export in exports],
        group_name="report",
        kinds={"html"},
        owners=["team:finops"],
        check_specs=[
            dg.AssetCheckSpec(**vars(check), asset=REPORT) for check in (BUDGETS_KEPT, NO_ANOMALIES)
        ],
        automation_condition=_AUTOMATION,
        required_resource_keys={*keys},
    )
    def report(
        context: dg.AssetExecutionContext,
    ) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
        """Write the bill of all exports as a page, `report/report.html` in the lake.

        Its checks warn about budgets that are exceeded, and about anomalies.
        """
        lake, database = (getattr(context.resources, key) for key in keys)
        try:
            location, metadata, checks = write_report_page(settings, lake, database.duckdb)
        except (BillError, StoreError) as error:
            raise permanent_failure(error, str(error)) from None
        except StoreUnavailable as error:
            raise retry_or_failure(context, error, "write the report again later") from error
        context.log.info(f"{location} is written")
        yield dg.MaterializeResult(metadata=metadata)
        yield from checks

    return report


def write_report_page(
    settings: Settings, lake: Lake, duckdb: DuckDB
) -> tuple[str, Metadata, list[dg.AssetCheckResult]]:
    """Write the report's page into the lake; return its address, metadata and results of checks.

    The metadata are the key figures. Raises BillError if there are no charges, or if a file cannot
    be read; for a lake in a store also StoreError and StoreUnavailable.
    """
    # They take time to import, and most runs write no report.
    from finops_dagster.reports.builder import Scope
    from finops_dagster.reports.files import write_report
    from finops_dagster.reports.headline import Headline, costs_by_month

    builder = replace(settings.report_builder(), lake=lake, duckdb=duckdb)
    report = builder.report(Scope())
    document = report.document
    months = document["months"]
    if not months:
        raise BillError(
            f"{lake.location} has no charges of any month; run finops aws run-pipeline, or that of "
            "another vendor"
        )
    with lake.writing_file(_PAGE) as path:
        write_report(document, path, "html")
        size = path.stat().st_size
    location = f"{lake.location}/{_PAGE}"
    metadata: Metadata = {
        **location_metadata(location),
        "bytes": size,
        "months": f"{months[0]} to {months[-1]}",
    }
    if headline := Headline.of(document):
        metadata |= {
            "month": headline.month,
            "state": headline.state,
            "currency": headline.currency,
            "billed": float(headline.billed),
            "billed_exact": decimal_text(headline.billed),
            "effective": float(headline.effective),
            "effective_exact": decimal_text(headline.effective),
        }
        if headline.previous is not None:
            metadata["billed_month_before"] = float(headline.previous)
        metadata["cost_by_month"] = cost_by_month(costs_by_month(document))
    return location, metadata, check_report(report)


def record_report(
    instance: dg.DagsterInstance, metadata: Metadata, checks: Sequence[dg.AssetCheckResult]
) -> None:
    """Record what `write_report_page` returned in Dagster's event log, without a run."""
    instance.report_runless_asset_event(dg.AssetMaterialization(REPORT, metadata=metadata))
    for check in checks:
        assert check.check_name is not None
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                asset_key=REPORT,
                check_name=check.check_name,
                passed=check.passed,
                metadata=check.metadata,
                severity=check.severity,
                description=check.description,
            )
        )
