"""Months that need no run, as every stage would record only what Dagster has already."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import dagster as dg

from finops_dagster.billing.manifest import Manifest
from finops_dagster.billing.months import BillingMonth
from finops_dagster.focus.exports import focus_derivation, no_charges_reason
from finops_dagster.focus.month import focus_lake
from finops_dagster.lake import Lake
from finops_dagster.lake.catalog_settings import CHARGES_TABLE
from finops_dagster.object_stores import ObjectStores
from finops_dagster.pipeline import FOCUS_STAGES
from finops_dagster.pipeline.billing_table import MonthLoading, table_result
from finops_dagster.pipeline.build import build_resources
from finops_dagster.pipeline.export import Export
from finops_dagster.pipeline.focus import focus_result
from finops_dagster.pipeline.history import History
from finops_dagster.pipeline.manifest import manifest_result
from finops_dagster.pipeline.observations import StageChange, record_observation
from finops_dagster.pipeline.parquet import load_of_unchanged_file, parquet_result
from finops_dagster.pipeline.registration import register_files
from finops_dagster.pipeline.runs import MonthRun, plain_values
from finops_dagster.pipeline.stage import StageMonth, is_interrupt
from finops_dagster.pipeline.staged_files import MonthStaging, staged_result
from finops_dagster.pipeline.warehouse_focus import charges_record_and_file
from finops_dagster.pipeline.warehouse_table import WarehouseLoading, month_file
from finops_dagster.settings import Settings
from finops_dagster.sources.base import Source
from finops_dagster.staging.folder import VersionRecord

Result = dg.MaterializeResult[Any]
# Metadata that is about a run, and not about the version.
_OF_A_RUN = {"outcome", "seconds", "bytes_fetched", "MB_per_second", "job_id"}


class UnchangedMonths:
    """Verifies months without a run, by the functions that the stages use in a run."""

    def __init__(self, settings: Settings, instance: dg.DagsterInstance) -> None:
        resources = build_resources(settings)
        self._staging, self._lake = resources.staging, resources.lake
        self._warehouse, self._instance = resources.warehouse, instance
        # A run waits for a file that another process has open, and says so.
        duckdb = replace(resources.database.duckdb, lock_wait_seconds=0)
        self._database = replace(resources.database, duckdb=duckdb)
        self._exports = [Export(export) for export in settings.exports]
        self._stores, self._sources = ObjectStores(), dict[str, Source]()
        self._open_catalog = cache(settings.open_catalog) if settings.catalog else None

    def verify_month(
        self,
        export: Export,
        month: BillingMonth,
        stages: Sequence[str],
        on_warning: Callable[[str], None],
    ) -> MonthRun | None:
        """Return the result of a month that needs no run of these stages; None for any other.

        It needs none if its last runs succeeded, and if each stage has the vendor's newest version
        and would record the metadata and results of checks that Dagster has already. `stages` are
        all stages of the export, in their order. `run_id` is the run that recorded the last stage.

        As in a run, the staged version is recorded, staged files of older versions are deleted, and
        the lake's files are registered in the catalog. An observation of the manifest records in
        Dagster that the month was verified. `on_warning` gets why the month has no charges, if it
        has none. None after an error too: the run says what is wrong. Raises KeyboardInterrupt.
        """
        started = time.monotonic()
        settings = [other.settings for other in self._exports]
        no_charges = no_charges_reason(export.settings, month, settings)
        if no_charges is not None:
            stages = [stage for stage in stages if stage not in FOCUS_STAGES]
        at = {stage: StageMonth(export, stage, month, self._instance) for stage in stages}
        try:
            results = self._results(at)
        except Exception as error:
            if is_interrupt(error):
                raise KeyboardInterrupt from None
            return None
        if results is None:
            return None
        text = "verified without a run: every stage has the vendor's newest version"
        record_observation(
            self._instance, StageChange(export.name, "manifest", str(month), text), {}
        )
        if no_charges is not None:
            on_warning(no_charges)
        last_record = at[stages[-1]].last_materialization
        checks = (check for result in results.values() for check in result.check_results or ())
        return MonthRun(
            month,
            last_record.run_id if last_record else None,
            time.monotonic() - started,
            {stage: plain_values(_metadata(result)) for stage, result in results.items()},
            None,
            tuple(str(check.check_name) for check in checks if not check.passed),
        )

    def _results(self, months: Mapping[str, StageMonth]) -> dict[str, Result] | None:
        """Return the result of each stage; None if a stage has work to do, or anything to record.

        `months` are the selected stages, in their order.
        """
        results = dict[str, Result]()
        # A month that Dagster does not have costs the vendor no request.
        if any(at.last_materialization is None for at in reversed([*months.values()])):
            return None
        for stage, at in months.items():
            result = self._result(at, results)
            if result is None or not _is_recorded(result, at.last_materialization):
                return None
            results[stage] = result
        versions = {result.data_version for result in [*results.values()][1:]}
        return results if len(versions) == 1 and self._has_succeeded(months) else None

    def _has_succeeded(self, months: Mapping[str, StageMonth]) -> bool:
        """Return whether the last runs of the month did all of the stages."""
        at = next(iter(months.values()))
        history = History(self._instance, month=str(at.month))
        status, _ = history.month_status(at.export.name, str(at.month), [*months])
        return status == "success"

    def _result(self, at: StageMonth, results: Mapping[str, Result]) -> Result | None:
        """Return what a stage would record of its month; None if it has work to do.

        `results` are those of the stages before it.
        """
        match at.stage:
            case "manifest":
                return manifest_result(at, self._source(at.export), self._staging, self._lake)
            case "staged_files":
                return self._staged_files(at, results["manifest"].value)
            case "billing_table":
                return self._billing_table(at, results["staged_files"].value)
            case "parquet":
                return self._parquet(at)
            case "focus":
                return self._focus(at)
            case _:
                return self._warehouse_loading(at).unchanged_result()

    def _source(self, export: Export) -> Source:
        """Return the export's source, which remembers the manifests that it has read."""
        if export.name not in self._sources:
            places = self._staging, self._lake, self._database
            self._sources[export.name] = export.source(self._stores, *places)
        return self._sources[export.name]

    def _staged_files(self, at: StageMonth, manifest: Manifest) -> Result | None:
        places = self._staging, self._lake, self._database
        staged = MonthStaging.of(at.export, manifest, *places).record_unchanged(
            self._source(at.export)
        )
        return None if staged is None else staged_result(staged)

    def _billing_table(self, at: StageMonth, version: VersionRecord) -> Result | None:
        places = self._staging, self._database, self._lake
        loaded = MonthLoading(at.export, at.month, version, *places, run_id="").unchanged_month()
        return None if loaded is None else table_result(at, loaded, self._database)

    def _parquet(self, at: StageMonth) -> Result | None:
        with self._database.connect(at.export.name, at.month) as connection:
            file = self._lake.file(at.export.name, at.month).snapshot()
            load = load_of_unchanged_file(connection, at.export, at.month, file)
        if load is None:
            return None
        registered = self._register_files(at, self._lake, at.export.table)
        return parquet_result(load, "unchanged", file.location, file.size(), registered)

    def _focus(self, at: StageMonth) -> Result | None:
        settings, duckdb = at.export.settings, self._database.duckdb
        derivation = focus_derivation(settings, at.month, self._lake, duckdb)
        record = derivation.up_to_date_record()
        if record is None:
            return None
        registered = self._register_files(at, focus_lake(self._lake), CHARGES_TABLE)
        return focus_result(at, derivation, (record, "unchanged"), self._exports, registered)

    def _register_files(
        self, at: StageMonth, lake: Lake, table: str
    ) -> Sequence[dg.AssetCheckResult]:
        """Return the result of the check of the catalog, which a run also records."""
        return register_files(self._open_catalog, lake, at.export, table, lambda _: None)

    def _warehouse_loading(self, at: StageMonth) -> WarehouseLoading:
        assert self._warehouse is not None
        if at.stage == "warehouse_table":
            file = month_file(at.export, at.month, self._lake, self._database.duckdb)
            return WarehouseLoading(at, file, file.footer, self._warehouse)
        charges, file = charges_record_and_file(
            at.export, at.month, self._lake, self._database.duckdb
        )
        return WarehouseLoading(at, file, charges.version, self._warehouse)


def _is_recorded(result: Result, record: dg.EventLogRecord | None) -> bool:
    """Return whether a materialization has the version and the metadata of the result."""
    event = record.asset_materialization if record else None
    if event is None or result.data_version is None:
        return False
    recorded_version = (event.tags or {}).get("dagster/data_version")
    is_same = _of_version(_metadata(result)) == _of_version(event.metadata)
    return is_same and recorded_version == result.data_version.value


def _of_version(metadata: Mapping[str, dg.MetadataValue[Any]]) -> dict[str, dg.MetadataValue[Any]]:
    return {key: value for key, value in metadata.items() if key not in _OF_A_RUN}


def _metadata(result: Result) -> Mapping[str, dg.MetadataValue[Any]]:
    """Return the metadata as Dagster records it, which gives plain values their types."""
    return dg.AssetMaterialization("result", metadata=result.metadata).metadata
