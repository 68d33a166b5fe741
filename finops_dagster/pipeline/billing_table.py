"""Stage 3: the month in the export's DuckDB table, replaced whole or not at all."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import dagster as dg

from finops_dagster.billing.disk import disk_problem
from finops_dagster.billing.errors import FileInvalid, StageMissing
from finops_dagster.billing.manifest import Manifest
from finops_dagster.billing.money import plain
from finops_dagster.billing.months import BillingMonth
from finops_dagster.lake.folder import ParquetLake
from finops_dagster.lake.footer import column_names
from finops_dagster.pipeline.checks import (
    COSTS_NOT_ROUNDED,
    NOT_FEWER_ROWS,
    ONE_CURRENCY,
    RECONCILES,
    USUAL_COST,
    costs_not_rounded,
    not_fewer_rows,
    one_currency,
    reconciles,
    usual_cost,
)
from finops_dagster.pipeline.export import Export
from finops_dagster.pipeline.stage import (
    RunOptions,
    StageEvents,
    hold_to_one_version,
    kept_metadata,
    markdown,
    month_of,
    stage,
    version_metadata,
    warnings,
)
from finops_dagster.pipeline.staged_files import staged_manifest
from finops_dagster.progress import rows_shown
from finops_dagster.staging.folder import (
    Counted,
    CurrentVersion,
    StagedMonth,
    StagingFolder,
)
from finops_dagster.tables.database import BillingDatabase, watched
from finops_dagster.tables.files import read_files
from finops_dagster.tables.ledger import Load
from finops_dagster.tables.load import held_version, replacing_month
from finops_dagster.tables.month_report import MonthReport, Restatement, report

Metadata = dict[str, dg.MetadataValue[Any] | dg.TableSchema | str | int | float | bool]

_SERVICES_SHOWN, _MOVES_SHOWN = 20, 5
# What is known only while the month is replaced.
_SAID_ONCE = (
    "replaced_version",
    "rows_changed",
    "cost_changed",
    "cost_changed_exact",
    "restatement",
    "warnings",
)


@dataclass(frozen=True)
class Outcome:
    """The month as the table now holds it, and what was done for it. `warnings` are of columns
    whose type is not what this version gives."""

    month: MonthReport
    did: str = "unchanged"
    warnings: Sequence[str] = ()
    restatement: Restatement | None = None


def billing_table_asset(export: Export) -> dg.AssetsDefinition:
    """The table of this export, a month of it."""

    @stage(
        export,
        after="staged_files",
        kinds={"duckdb", "table"},
        checks=[RECONCILES, NOT_FEWER_ROWS, USUAL_COST, ONE_CURRENCY, COSTS_NOT_ROUNDED],
    )
    def billing_table(
        context: dg.AssetExecutionContext,
        staging: StagingFolder,
        database: dg.ResourceParam[BillingDatabase],
        lake: ParquetLake,
        run_options: RunOptions,
    ) -> StageEvents:
        """The month's line items with exact types, in one table for all months of the export."""
        month = month_of(context)
        manifest = staged_manifest(staging, export, month)
        staged = staging.month(export.name, month)
        with loading_month(
            export,
            month,
            manifest,
            staged,
            database,
            lake,
            run_id=context.run.run_id,
            force=run_options.force,
        ) as outcome:
            now = outcome.month
            hold_to_one_version(context, now.load.manifest_id)
            kept = kept_metadata(context, now.load.manifest_id, *_SAID_ONCE)
            result: dg.MaterializeResult[None] = dg.MaterializeResult(
                data_version=dg.DataVersion(now.load.manifest_id),
                metadata=_metadata(outcome, kept),
                check_results=[
                    reconciles(now.load.manifest_id, now.load.totals),
                    not_fewer_rows(now.load, now.version_before),
                    usual_cost(now.load, now.month_before),
                    one_currency(now.currencies),
                    costs_not_rounded(now.load, round_money=export.rounds_money),
                ],
            )
        yield result
        try:
            staged.remove_other_versions(manifest)
        except OSError as error:
            context.log.warning(f"older staged files stay: {disk_problem(error) or error}")

    return billing_table


@contextmanager
def loading_month(
    export: Export,
    month: BillingMonth,
    manifest: Manifest,
    staged: StagedMonth,
    database: BillingDatabase,
    lake: ParquetLake,
    *,
    run_id: str,
    force: bool,
) -> Iterator[Outcome]:
    """Make the table hold this version of the month, unless it does.

    The block is given what the table then holds, and runs before the commit. On any error, also of
    the block, the month stays as it was. Raises StageMissing, FileInvalid where a staged file is
    not what was fetched, and what `replacing_month` raises.
    """
    version, staged_files = staged.current_version(manifest), staged.version(manifest)
    with database.connect(export.name, month) as connection:
        held = held_version(connection, export.name, month, export.formats)
        before = held and report(connection, held, export.formats[held.format])
        if before and before.load.manifest_id == version.id and not force:
            yield Outcome(before)
            return
        # Another run may find other files under the same id, and would put them here meanwhile.
        with staged_files.turn():
            for problem in staged_files.damage() or ():
                raise FileInvalid(
                    f"{problem}; finops state reprocess {export.name} {month} fetches it again"
                )
            load = _new_load(export, month, manifest, version, staged_files.counted(), run_id)
            vendor = export.formats[manifest.format]
            files = read_files(staged_files.paths, vendor)
            names = column_names(lake.paths(export.name))
            with (
                watched(connection, "loaded", load.totals.rows, rows_shown),
                replacing_month(
                    connection,
                    load,
                    manifest,
                    files,
                    vendor,
                    names,
                    round_money=export.rounds_money,
                ) as (recorded, to_know),
            ):
                now = report(connection, recorded, vendor)
                is_restated = before and before.load.manifest_id != version.id
                restatement = Restatement(before, now) if before and is_restated else None
                yield Outcome(now, "loaded", to_know, restatement)


def _new_load(
    export: Export,
    month: BillingMonth,
    manifest: Manifest,
    version: CurrentVersion,
    counted: Counted | None,
    run_id: str,
) -> Load:
    if counted is None or version.digest not in (None, counted.content.digest):
        raise StageMissing(
            f"the files of {export.name} {month}, version {version.id}, are not all staged; "
            f"materialize {export.name}/staged_files"
        )
    return Load(
        export.name,
        month,
        version.id,
        export.table,
        counted.totals,
        len(counted.content.files),
        counted.content.bytes,
        run_id,
        manifest.format,
        counted.content,
    )


def _metadata(done: Outcome, kept: Mapping[str, dg.MetadataValue[Any]]) -> Metadata:
    """What changed comes first, as it is what people ask about first; `kept` is what was said of
    this version before."""
    month, change = done.month, done.restatement
    metadata: Metadata = {
        "outcome": done.did,
        **version_metadata(month.load.manifest_id, month.load.totals),
    }
    if month.is_final is not None:
        metadata["final"] = month.is_final
    if change is not None:
        metadata["replaced_version"] = change.before.load.manifest_id
        metadata["rows_changed"] = change.rows
        metadata["cost_changed"] = float(change.cost)
        metadata["cost_changed_exact"] = plain(change.cost)
        metadata["restatement"] = dg.MetadataValue.md(_restatement_table(change))
    return {
        **metadata,
        **kept,
        **warnings(done.warnings),
        **_rounded(month.load),
        "currency": ", ".join(currency for currency, _ in month.currencies),
        "services": len(month.services),
        "cost_by_service": dg.MetadataValue.md(_services_table(month)),
        "dagster/table_name": month.load.table,
        "dagster/column_schema": dg.TableSchema(
            [dg.TableColumn(name, sql_type) for name, sql_type in month.columns.items()]
        ),
    }


def _rounded(load: Load) -> Metadata:
    """The columns with rounded numbers, where there are any."""
    if not load.rounded:
        return {}
    lines = ["| column | rounded to 18 decimals | changed by |", "|---|---:|---:|"]
    for column in load.rounded:
        amount = "" if column.amount is None else plain(column.amount)
        lines.append(f"| {markdown(column.name)} | {column.cells:,} | {amount} |")
    return {"decimals_rounded": dg.MetadataValue.md("\n".join(lines))}


def _services_table(month: MonthReport) -> str:
    lines = [f"| service | {month.cost} |", "|---|---:|"]
    lines += [
        f"| {markdown(name)} | {cost:,.2f} |" for name, cost in month.services[:_SERVICES_SHOWN]
    ]
    rest = month.services[_SERVICES_SHOWN:]
    if rest:
        lines.append(f"| {len(rest)} more | {sum(cost for _, cost in rest):,.2f} |")
    return "\n".join(lines)


def _restatement_table(change: Restatement) -> str:
    before, now = change.before.load, change.now.load
    lines = [
        f"| | {markdown(before.manifest_id)} | {markdown(now.manifest_id)} | change |",
        "|---|---:|---:|---:|",
        f"| rows | {before.totals.rows:,} | {now.totals.rows:,} | {change.rows:+,} |",
        f"| cost | {before.totals.cost:,.2f} | {now.totals.cost:,.2f} | {change.cost:+,.2f} |",
    ]
    moves = change.moves()
    lines += [_move_row(markdown(name), was, is_now) for name, was, is_now in moves[:_MOVES_SHOWN]]
    rest = moves[_MOVES_SHOWN:]
    if rest:
        before_cost = sum((was for _, was, _ in rest), Decimal(0))
        now_cost = sum((is_now for _, _, is_now in rest), Decimal(0))
        lines.append(_move_row(f"{len(rest)} more", before_cost, now_cost))
    return "\n".join(lines)


def _move_row(name: str, before: Decimal, now: Decimal) -> str:
    return f"| {name} | {before:,.2f} | {now:,.2f} | {now - before:+,.2f} |"
