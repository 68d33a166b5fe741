"""`finops demo`: deliver and load an invented company's AWS bill."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any, NamedTuple

from duckdb import DuckDBPyConnection
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from finops_dagster.billing.columns import files_literal
from finops_dagster.billing.errors import BillError, shortened
from finops_dagster.billing.money import Totals
from finops_dagster.billing.months import BillingMonth
from finops_dagster.demo.export import BillVersion, write_version
from finops_dagster.pipeline import STAGES
from finops_dagster.pipeline.build import build_definitions
from finops_dagster.pipeline.export import Export
from finops_dagster.pipeline.runs import MetadataValues, open_instance, run_month
from finops_dagster.processes import keep_files_private
from finops_dagster.settings import Settings
from finops_dagster.tables.database import DuckDB
from finops_dagster.terminal import console as plain_console

_VERSIONS = [
    BillVersion(date(2024, 1, 1), "20240203T050312Z", rows=48_211),
    BillVersion(date(2024, 2, 1), "20240302T044907Z", rows=50_334),
    BillVersion(date(2024, 3, 1), "20240403T051544Z", rows=52_067),
    BillVersion(date(2024, 2, 1), "20240408T050158Z", rows=50_371, restated=True),
]
_LAST_MONTH = _VERSIONS[2]
_SETTINGS = Path(__file__).with_name("demo.toml")
_SETTINGS_COPY = Path("data/demo/finops.toml")  # for the commands after the demo
_SOURCE = Path("data/demo/source")
_EXPORT_NAME = "demo-cur"
_CHARGE_VIEW = """
CREATE OR REPLACE VIEW charge AS
SELECT strftime(billing_month, '%Y-%m') AS month, lineitem_productcode AS service,
    lineitem_unblendedcost AS cost
FROM read_parquet({files}, hive_partitioning = false)
"""
_MONTH_TOTALS = "SELECT count(*), sum(cost) FROM charge WHERE month = ?"
_COST_BY_SERVICE = """
WITH service AS (
    SELECT service, row_number() OVER (ORDER BY sum(cost) DESC) AS rank, count(*) OVER () AS number
    FROM charge GROUP BY service
), shown AS (
    SELECT month, cost, least(rank, 13) AS rank,
        if(rank < 13, service, number - 12 || ' more') AS service
    FROM charge JOIN service USING (service)
)
FROM (PIVOT shown ON month USING coalesce(sum(cost), 0) GROUP BY rank, service)
ORDER BY rank
"""


class _LoadedMonth(NamedTuple):
    month: BillingMonth
    totals: Totals
    is_unchanged: bool


def main() -> int:
    """Deliver the missing versions, load every month, print the costs, and return the exit code.

    All data is in `data/demo` in the working directory; runs are recorded in DAGSTER_HOME. The exit
    code is 1 if a month fails, or differs from its files.
    """
    console = plain_console()
    # Environment variables are ignored: they name the places of the user's own months.
    settings = Settings.model_validate(tomllib.loads(_SETTINGS.read_text(encoding="utf-8")))
    _SETTINGS_COPY.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(_SETTINGS, _SETTINGS_COPY)
    console.print(
        Text("\nThree months of an invented company's AWS bill", style="bold"),
        Text(", loaded as yours would be.\n"),
        Text(f"Its files are written to {_SOURCE}, in AWS's layout.\n"),
        sep="",
    )
    with DuckDB.of(settings.database.duckdb).scratch() as connection:
        try:
            loads = list(_deliver_and_load(console, settings, connection))
        except BillError as error:
            console.print(shortened(str(error)), style="red", soft_wrap=True)
            return 1
        _print_restatements(console, loads)
        _print_costs(console, connection)
        if not _print_comparison(console, {load.month: load.totals for load in loads}):
            return 1
    if all(load.is_unchanged for load in loads):
        console.print("\nNothing has changed: every stage already has the newest version.")
    _print_next(console)
    return 0


def restate() -> str:
    """Deliver another version of the last month, and return a message about it; loads nothing.

    Raises BillError if the demo has not delivered the last month yet.
    """
    delivered = len(list(_SOURCE.glob(f"{_EXPORT_NAME}/{_LAST_MONTH.month:%Y%m%d}-*/*/")))
    if not delivered:
        raise BillError(f"{_SOURCE} has no month to restate; run finops demo first")
    assembly_id = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    rows = _LAST_MONTH.rows + 19 * delivered
    version = replace(_LAST_MONTH, assembly_id=assembly_id, rows=rows, restated=True)
    write_version(_SOURCE, "", _EXPORT_NAME, version)
    return (
        f"AWS restated {BillingMonth.of(_LAST_MONTH.month)}: version {assembly_id} with {rows:,} "
        f"rows is in {_SOURCE}.\nWhile finops dev runs, the sensor demo_manifests loads it within "
        f"five minutes. To load it now: {_finops_command()} -c {_SETTINGS_COPY} aws run-pipeline"
    )


def _deliver_and_load(
    console: Console, settings: Settings, connection: DuckDBPyConnection
) -> Iterator[_LoadedMonth]:
    """Run the stages for every complete month, then deliver and load each missing version."""
    pending = [v for v in _VERSIONS if v.assembly_id > _manifest(v.month).get("assemblyId", "")]
    complete = {v.month for v in _VERSIONS} - {v.month for v in pending}
    steps = [*((month, None) for month in sorted(complete)), *((v.month, v) for v in pending)]
    definitions, export = build_definitions(settings), Export(settings.exports[0])
    files = files_literal(settings.storage.parquet_dir / export.settings.name, "*/*.parquet")
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn())
    with open_instance() as instance, Progress(*columns, console=console) as progress:
        # The demo has no warehouse.
        bar = progress.add_task("", total=len(steps) * len(STAGES[:-1]))
        for first_day, version in steps:
            month = BillingMonth.of(first_day)
            if version is not None:
                progress.update(bar, description=f"{month}  AWS delivers {version.assembly_id}")
                write_version(_SOURCE, "", _EXPORT_NAME, version)

            def advance(stage: str, _: MetadataValues, month: BillingMonth = month) -> None:
                progress.update(bar, advance=1, description=f"{month}  {stage}")

            run = run_month(definitions, instance, export, month, on_stage=advance)
            if run.error is not None:
                raise BillError(f"{month} failed: {run.error}")
            connection.execute(_CHARGE_VIEW.format(files=files))
            totals = connection.execute(_MONTH_TOTALS, [str(month)]).fetchone()
            load = _LoadedMonth(month, Totals.of(totals), run.is_unchanged)
            progress.console.print(
                f"{month}  {'unchanged' if run.is_unchanged else 'loaded   '}  "
                f"{_manifest(first_day)['assemblyId']}  {load.totals.rows:>7,} rows  "
                f"{load.totals.cost:>10,.2f} USD  {run.seconds:4.1f} s"
            )
            yield load
        progress.update(bar, description="done")


def _manifest(first_day: date) -> dict[str, Any]:
    """Return the newest manifest of a month, or {} if none was delivered."""
    pattern = f"{_EXPORT_NAME}/{first_day:%Y%m%d}-*/*-Manifest.json"
    manifests: list[dict[str, Any]]
    manifests = [json.loads(path.read_text()) for path in _SOURCE.glob(pattern)]
    return manifests[0] if manifests else {}


def _print_restatements(console: Console, loads: list[_LoadedMonth]) -> None:
    """Print what the second version of a month changed."""
    first: dict[BillingMonth, Totals] = {}
    for load in loads:
        previous = first.setdefault(load.month, load.totals)
        if previous is not load.totals:
            console.print(
                f"\nAWS restated {load.month}: {load.totals.rows - previous.rows:+,} rows, "
                f"{load.totals.cost - previous.cost:+,.2f} USD. The whole month was replaced."
            )


def _print_costs(console: Console, connection: DuckDBPyConnection) -> None:
    costs = connection.execute(_COST_BY_SERVICE)
    table = Table("service", title="\nUnblended cost by service, in USD", title_justify="left")
    for month, *_ in (costs.description or [])[2:]:
        table.add_column(month, justify="right")
    rows = costs.fetchall()
    for _, service, *by_month in rows:
        table.add_row(shortened(service), *(f"{cost:,.2f}" for cost in by_month))
    table.add_section()
    totals = map(sum, list(zip(*rows, strict=True))[2:])
    table.add_row("total", *(f"{total:,.2f}" for total in totals), style="bold")
    console.print(table)


def _print_comparison(console: Console, loaded: dict[BillingMonth, Totals]) -> bool:
    """Print the totals of the lake and of the vendor's files, and return whether they agree."""
    console.print("\nThe same months, summed from the source files cell by cell in Python:")
    is_equal = True
    for month, totals in sorted(loaded.items()):
        counted = _counted_totals(_manifest(month.first_day)["reportKeys"])
        is_equal &= counted == totals
        sign = "=" if counted == totals else "differs from"
        console.print(f"  {month}  {counted}  {sign}  {totals}", soft_wrap=True)
    return is_equal


def _counted_totals(keys: list[str]) -> Totals:
    count, total = 0, Decimal(0)
    with localcontext(prec=60):
        for key in keys:
            with gzip.open(_SOURCE / key, "rt", encoding="utf-8", newline="") as text:
                for row in csv.DictReader(text):
                    count += 1
                    total += Decimal(row["lineItem/UnblendedCost"] or 0)
    return Totals(count, total)


def _finops_command() -> str:
    """Return the command to type: `finops`, or the path that was run if PATH has no finops."""
    program = sys.argv[0]
    return program if Path(program).name == "finops" and not shutil.which("finops") else "finops"


def _print_next(console: Console) -> None:
    finops = _finops_command()
    width = len(f"{finops} -c {_SETTINGS_COPY} dev")
    console.print("\nNext", style="bold")
    for arguments, purpose in {
        f"-c {_SETTINGS_COPY} dev": "show these months in the Dagster UI",
        "demo --restate": "write a changed version of March, which the sensor loads",
        "init": "write a settings file for your own bucket",
    }.items():
        console.print(f"  {f'{finops} {arguments}':{width}}  {purpose}", soft_wrap=True)


if __name__ == "__main__":
    keep_files_private()
    sys.exit(main())
