"""The month's charges in FOCUS, derived from the lake's file and written beside it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

import dagster as dg
import duckdb
import pyarrow.parquet as pq

from finops_dagster.billing.columns import quoted
from finops_dagster.billing.disk import memory_or_disk_problem
from finops_dagster.billing.errors import BillError, count_text, first_line
from finops_dagster.billing.money import decimal_text
from finops_dagster.billing.version import LoadedVersion
from finops_dagster.focus.comparison import comparable_exports, differing_groups
from finops_dagster.focus.conformance import find_broken_rules
from finops_dagster.focus.entries import COST, CURRENCY, EFFECTIVE_COST
from finops_dagster.focus.exports import charge_sources, focus_derivation, no_charges_reason
from finops_dagster.focus.month import (
    FOCUS_VERSION,
    ChargesRecord,
    FocusDerivation,
    focus_lake,
)
from finops_dagster.lake import Lake, parquet_relation
from finops_dagster.lake.catalog_settings import CHARGES_TABLE
from finops_dagster.object_stores import StoreError
from finops_dagster.pipeline import STAGES_TAG
from finops_dagster.pipeline.bar_charts import cost_by_category
from finops_dagster.pipeline.checks import ADDS_UP, CONFORMS
from finops_dagster.pipeline.column_schema import charges_lineage, charges_schema
from finops_dagster.pipeline.export import Export
from finops_dagster.pipeline.metadata import (
    Metadata,
    differences_table,
    entries_table,
    location_metadata,
    rules_table,
    unknown_keys_metadata,
    version_metadata,
)
from finops_dagster.pipeline.registration import OpenCatalog, catalog_checks, register_files
from finops_dagster.pipeline.resources import RunOptions
from finops_dagster.pipeline.stage import (
    StageMonth,
    require_version,
    stage,
    stage_result,
)
from finops_dagster.tables.database import BillingDatabase

_CHECKS = (ADDS_UP, CONFORMS)
_RULES_BROKEN, _BROKEN_RULES = "rules_broken", "broken_rules"
_COMPARED_WITH, _GROUPS_DIFFER, _DIFFERENCES = "compared_with", "groups_differ", "differences"
_COST_BY_CATEGORY, _CATEGORY = "cost_by_category", "ServiceCategory"
# A run of `parquet` alone is followed, of any month. A run of both stages is not: if it was killed
# between them, its retry derives the charges. `eager` would follow it: it does not know the stages
# of a job's run, and of other runs only those of the month that was written last.
_UPDATED_ALONE = (
    dg.AutomationCondition.newly_updated()
    & ~dg.AutomationCondition.executed_with_root_target()
    & ~dg.AutomationCondition.all_new_updates_have_run_tags(tag_values={STAGES_TAG: "all"})
)
OPTIONS: Mapping[str, Any] = {
    # After the warehouse's stage, which is a sibling: the bill does not wait for its charges.
    "op_tags": {"dagster/priority": "-1"},
    "automation_condition": (
        dg.AutomationCondition.any_deps_match(
            _UPDATED_ALONE | dg.AutomationCondition.will_be_requested()
        ).since_last_handled()
        & ~dg.AutomationCondition.any_deps_missing()
        & ~dg.AutomationCondition.any_deps_in_progress()
        & ~dg.AutomationCondition.in_progress()
    ),
}


def focus_asset(
    export: Export, exports: Sequence[Export], open_catalog: OpenCatalog = None
) -> dg.AssetsDefinition:
    """Return the asset of a month's charges, for an export with `has_focus`.

    `exports` are all of the settings. If another one of the vendor has charges of the month for the
    same billing account, and exactly one of the two is native, their charges are compared.
    `open_catalog` opens the catalog to register the file in; with None there is no catalog.
    """
    settings = [other.settings for other in exports]
    checks = [*_CHECKS, *catalog_checks(open_catalog)]
    options, deps = {**OPTIONS, "output_required": False}, list(_other_bills(export))

    @stage(
        export,
        "focus",
        kinds={"parquet"},
        checks=checks,
        deps=deps,
        options=options,
        footer="parquet",
    )
    def focus(
        context: dg.AssetExecutionContext,
        footer: LoadedVersion | None,
        lake: dg.ResourceParam[Lake],
        database: dg.ResourceParam[BillingDatabase],
        run_options: RunOptions,
    ) -> dg.MaterializeResult[LoadedVersion] | Sequence[dg.AssetCheckResult]:
        """Derive the month's charges in FOCUS from its bill, and write them to a file in the lake.

        The charges add up to the bill, or the stage fails and the old file stays. Amounts that
        FOCUS leaves out or moves to other charges are listed with the reason.
        """
        at = StageMonth.of_run(context, export, run_options)
        if reason := no_charges_reason(export.settings, at.month, settings):
            context.log.warning(reason)
            return [check.warning_result(passed=True, description=reason) for check in checks]
        derivation = focus_derivation(export.settings, at.month, lake, database.duckdb)
        if footer is not None:
            current = derivation.bill_versions()[export.name].manifest_id
            require_version(footer.manifest_id, current)
        record, outcome = None if run_options.force else derivation.up_to_date_record(), "unchanged"
        if record is None:
            with derivation.replacing_month(context.run.run_id) as record:
                outcome = "derived"
        registered = register_files(
            open_catalog, focus_lake(lake), export, CHARGES_TABLE, context.log.warning
        )
        return focus_result(at, derivation, (record, outcome), exports, registered)

    return focus


def focus_result(
    at: StageMonth,
    derivation: FocusDerivation,
    record_and_outcome: tuple[ChargesRecord, str],
    exports: Sequence[Export],
    catalog_results: Sequence[dg.AssetCheckResult],
) -> dg.MaterializeResult[LoadedVersion]:
    """Return the stage's result for charges that the lake has.

    Queries check the charges by the rules of FOCUS, and compare them with those of other exports,
    as `focus_asset` says. What the month's last materialization of the same charges found is copied
    instead: of the rules if the outcome is `unchanged`, of the comparison if the charges of the
    other exports are the same too. `exports` are all of the settings, and `catalog_results` is what
    `register_files` returned.
    """
    record, outcome = record_and_outcome
    repeated = _previous_conformance(at, record) if outcome == "unchanged" else {}
    charges = derivation.charges_file.snapshot()
    conformance = repeated or _conformance(derivation, charges.local_path())
    schema, vendor = charges.schema(), at.export.settings.vendor
    metadata = {
        **_focus_metadata(record),
        **conformance,
        **_comparison(at, derivation, record, exports),
        **location_metadata(charges.location),
        "dagster/column_schema": charges_schema(schema, vendor),
        "dagster/column_lineage": charges_lineage(derivation, schema),
    }
    results = [_passed_adds_up(record), _focus_conforms(conformance, at), *catalog_results]
    return stage_result(record.version, outcome, metadata, results)


def _other_bills(export: Export) -> Iterator[dg.AssetDep]:
    """Yield the Parquet files of other exports that complete the bill, such as amortized costs."""
    for name in (charge_sources(export.settings) or {}).values():
        if name != export.name:
            with catch_warnings():
                # A beta feature of Dagster, whose version is pinned. The other export may begin
                # with a later month.
                simplefilter("ignore", dg.BetaWarning)
                mapping = dg.TimeWindowPartitionMapping(allow_nonexistent_upstream_partitions=True)
            yield dg.AssetDep(dg.AssetKey([name, "parquet"]), partition_mapping=mapping)


def _conformance(derivation: FocusDerivation, charges: Path) -> Metadata:
    """Check the month's charges by the rules of FOCUS, and return the broken ones as metadata.

    The costs by service category are part of it. `charges` is the path of their file.
    """
    with derivation.duckdb.open_in_memory() as connection:
        broken = find_broken_rules(connection, parquet_relation(charges))
        picture = _cost_by_category(connection, charges)
    count = sum(not rule.rule.disputed for rule in broken)
    listed = {_BROKEN_RULES: rules_table(broken)} if broken else {}
    return {**picture, _RULES_BROKEN: count, **listed}


def _cost_by_category(connection: duckdb.DuckDBPyConnection, charges: Path) -> Metadata:
    """Return the costs by service category as metadata; empty if the charges have none."""
    if _CATEGORY not in pq.read_schema(charges).names:
        return {}
    rows = connection.execute(
        f"SELECT coalesce({quoted(CURRENCY)}, '(none)'), coalesce({quoted(_CATEGORY)}, '(none)'), "
        f"coalesce(sum({quoted(COST)}), 0), coalesce(sum({quoted(EFFECTIVE_COST)}), 0) "
        f"FROM {parquet_relation(charges)} GROUP BY ALL"
    ).fetchall()
    return {_COST_BY_CATEGORY: cost_by_category(rows)} if rows else {}


def _previous_conformance(at: StageMonth, record: ChargesRecord) -> Metadata:
    """Return the metadata of `_conformance` of the last run, if its charges were the same."""
    keys = (_RULES_BROKEN, _BROKEN_RULES, _COST_BY_CATEGORY, "mapping")
    previous = at.previous_metadata(record.version.manifest_id, *keys)
    if "mapping" not in previous or previous.pop("mapping").value != record.mapping:
        return {}
    return {**previous}


def _comparison(
    at: StageMonth, derivation: FocusDerivation, record: ChargesRecord, exports: Iterable[Export]
) -> Metadata:
    """Return what differs from the month's charges that the vendor made itself, as metadata.

    Empty if no other export has them. What the last run compared is not compared again.
    """
    name, vendor = at.export.name, at.export.settings.vendor
    of_vendor = [e.name for e in exports if e.settings.vendor == vendor and e.name != name]
    try:
        others = dict(comparable_exports(derivation, of_vendor))
        if not others:
            return {}
        versions = [f"{name} {other.warehouse_version_id}" for name, other in others.items()]
        compared_with = "; ".join(versions)
        keys = (_COMPARED_WITH, _GROUPS_DIFFER, _DIFFERENCES, "mapping")
        previous = at.previous_metadata(record.version.manifest_id, *keys)
        found = {key: value.value for key, value in previous.items()}
        if (found.get(_COMPARED_WITH), found.get("mapping")) == (compared_with, record.mapping):
            return {**previous}
        groups = {name: differing_groups(derivation, name) for name in others}
    except (duckdb.Error, BillError, StoreError) as error:
        # The other charges are no part of this month, which stays right without them.
        problem = memory_or_disk_problem(error) or (
            f"charges cannot be read: {first_line(error)}; run finops state verify --deep"
        )
        return {_COMPARED_WITH: f"nothing, as {problem}"}
    count = sum(map(len, groups.values()))
    table = {_DIFFERENCES: differences_table(derivation.export, groups)} if count else {}
    return {_COMPARED_WITH: compared_with, _GROUPS_DIFFER: count, **table}


def _focus_conforms(conformance: Metadata, at: StageMonth) -> dg.AssetCheckResult:
    """Return the result of the check `focus_conforms`; a failure only warns.

    `conformance` is metadata in which `rules_broken` is the number of broken rules of FOCUS,
    without disputed ones. Nothing is queried. `at` is for the message.
    """
    count = conformance[_RULES_BROKEN]
    broken = count.value if isinstance(count, dg.IntMetadataValue) else count
    rules = count_text(int(str(broken)), "rule")
    description = f"The charges break {rules} of FOCUS {FOCUS_VERSION}."
    if broken:
        description += f" finops focus check {at.export.name} {at.month} names them."
    return CONFORMS.warning_result(passed=not broken, description=description)


def _passed_adds_up(record: ChargesRecord) -> dg.AssetCheckResult:
    """Return the passed result of the check `adds_up`, with the month's entries.

    It compares nothing: charges that do not add up have failed their stage before.
    """
    return dg.AssetCheckResult(
        passed=True,
        check_name=ADDS_UP.name,
        metadata={
            "manifest_id": record.version.manifest_id,
            **({"entries": entries_table(record.entries)} if record.entries else {}),
        },
    )


def _focus_metadata(record: ChargesRecord) -> Metadata:
    """Return the metadata of a month's charges; `total_cost` is their BilledCost."""
    effective = (record.version.totals.sums or {})[EFFECTIVE_COST]
    return {
        **version_metadata(record.version),
        "effective_cost": float(effective),
        "effective_cost_exact": decimal_text(effective),
        "mapping": record.mapping,
        "sources": ", ".join(
            f"{export} {version}" for export, version in record.bill_version_ids.items()
        ),
        **({"entries": entries_table(record.entries)} if record.entries else {}),
        "unknown_keys": sum(sum(keys.values()) for keys in record.unknown.values()),
        **unknown_keys_metadata(record.unknown),
    }
