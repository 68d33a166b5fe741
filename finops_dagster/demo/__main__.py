"""`finops demo`: deliver and load the bills of an invented company's two clouds."""

from __future__ import annotations

import csv
import gzip
import shutil
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal, localcontext
from pathlib import Path
from typing import NamedTuple

from duckdb import DuckDBPyConnection
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from finops_dagster.billing.columns import files_literal
from finops_dagster.billing.errors import BillError, shortened
from finops_dagster.billing.money import Totals, decimal_text
from finops_dagster.billing.months import BillingMonth
from finops_dagster.demo.bills import (
    AWS_EXPORT,
    AWS_FOLDER,
    AWS_VERSIONS,
    AZURE_FOLDER,
    BILLS,
    DemoBill,
    DemoVersion,
)
from finops_dagster.demo.export import write_version
from finops_dagster.pipeline import BILL_STAGES
from finops_dagster.pipeline.build import build_definitions
from finops_dagster.pipeline.export import Export
from finops_dagster.pipeline.runs import MetadataValues, open_instance, run_month
from finops_dagster.processes import keep_files_private
from finops_dagster.settings import Settings
from finops_dagster.tables.database import DuckDB
from finops_dagster.terminal import console as plain_console

_SETTINGS = Path(__file__).with_name("demo.toml")
_SETTINGS_COPY = Path("data/demo/finops.toml")  # for the commands after the demo
_SHOWN_SERVICES = 8  # of each cloud
_CHARGE_VIEW = """
CREATE OR REPLACE VIEW {cloud} AS
SELECT strftime(billing_month, '%Y-%m') AS month, {service} AS service, {cost} AS cost
FROM read_parquet({files}, hive_partitioning = false)
"""
_MONTH_TOTALS = "SELECT count(*), sum(cost) FROM {cloud} WHERE month = $month"
_COST_BY_SERVICE = """
WITH ranked AS (
    SELECT service, row_number() OVER (ORDER BY sum(cost) DESC) AS rank, count(*) OVER () AS number
    FROM {cloud} GROUP BY service
), shown AS (
    SELECT month, cost, least(rank, {shown} + 1) AS rank,
        if(rank <= {shown}, service, number - {shown} || ' more') AS service
    FROM {cloud} JOIN ranked USING (service)
)
FROM (PIVOT shown ON month USING coalesce(sum(cost), 0) GROUP BY rank, service)
ORDER BY rank
"""


class _Load(NamedTuple):
    bill: DemoBill
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
        Text("\nThree months of an invented company's bills", style="bold"),
        Text(" from AWS and Azure, loaded as yours would be.\n"),
        Text(
            f"The files are written to {AWS_FOLDER} and {AZURE_FOLDER}, in the clouds' layouts.\n"
        ),
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
        if not _print_comparison(console, loads):
            return 1
    if all(load.is_unchanged for load in loads):
        console.print("\nNothing has changed: every stage already has the newest version.")
    _print_next(console)
    return 0


def restate() -> str:
    """Deliver another version of AWS's last month, and return a message about it; loads nothing.

    Raises BillError if the demo has not delivered the last month yet.
    """
    last = max(AWS_VERSIONS, key=lambda version: version.month)
    delivered = len(list(AWS_FOLDER.glob(f"{AWS_EXPORT}/{last.month:%Y%m%d}-*/*/")))
    if not delivered:
        raise BillError(f"{AWS_FOLDER} has no month to restate; run finops demo first")
    assembly_id = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    rows = last.rows + 19 * delivered
    version = replace(last, assembly_id=assembly_id, rows=rows, restated=True)
    write_version(AWS_FOLDER, "", AWS_EXPORT, version)
    return (
        f"AWS restated {BillingMonth.of(last.month)}: version {assembly_id} with {rows:,} "
        f"rows is in {AWS_FOLDER}.\nWhile finops dev runs, the sensor demo_manifests loads it "
        "within five minutes. To load it now: "
        f"{_finops_command()} -c {_SETTINGS_COPY} aws run-pipeline"
    )


def _deliver_and_load(
    console: Console, settings: Settings, connection: DuckDBPyConnection
) -> Iterator[_Load]:
    """Run the stages for every complete month, then deliver and load each missing version."""
    definitions = build_definitions(settings)
    steps = [
        (bill, Export(export), step)
        for bill, export in zip(BILLS, settings.exports, strict=True)
        for step in _steps(bill)
    ]
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn())
    with open_instance() as instance, Progress(*columns, console=console) as progress:
        # The demo has no warehouse.
        bar = progress.add_task("", total=len(steps) * len(BILL_STAGES[:-1]))
        for bill, export, (month, version) in steps:
            name = f"{bill.cloud:5}  {month}"
            if version is not None:
                progress.update(bar, description=f"{name}  delivers {version.name}")
                version.write()

            def advance(stage: str, _: MetadataValues, name: str = name) -> None:
                progress.update(bar, advance=1, description=f"{name}  {stage}")

            run = run_month(definitions, instance, export, month, on_stage=advance)
            if run.error is not None:
                raise BillError(f"{bill.cloud} {month} failed: {run.error}")
            folder = settings.storage.parquet_dir / export.settings.name
            load = _Load(
                bill, month, _lake_totals(connection, bill, folder, month), run.is_unchanged
            )
            progress.console.print(
                f"{name}  {'unchanged' if run.is_unchanged else 'loaded   '}  "
                f"{bill.newest(month.first_day)[0]:16}  {load.totals.rows:,} rows  "
                f"{load.totals.cost:,.2f} {bill.currency}  {run.seconds:4.1f} s"
            )
            yield load
        progress.update(bar, description="done")


def _steps(bill: DemoBill) -> Iterator[tuple[BillingMonth, DemoVersion | None]]:
    """Yield the months that have their newest version, then the versions that are missing."""
    missing = [v for v in bill.versions if v.name > bill.newest(v.month)[0]]
    for first_day in sorted({v.month for v in bill.versions} - {v.month for v in missing}):
        yield BillingMonth.of(first_day), None
    for version in missing:
        yield BillingMonth.of(version.month), version


def _lake_totals(
    connection: DuckDBPyConnection, bill: DemoBill, folder: Path, month: BillingMonth
) -> Totals:
    files = files_literal(folder, "*/*.parquet")
    connection.execute(_CHARGE_VIEW.format(**vars(bill), files=files))
    row = connection.execute(
        _MONTH_TOTALS.format(cloud=bill.cloud), {"month": str(month)}
    ).fetchone()
    return Totals.of(row)


def _print_restatements(console: Console, loads: list[_Load]) -> None:
    """Print what the second version of a month changed."""
    first: dict[tuple[str, BillingMonth], Totals] = {}
    lines = [""]
    for bill, month, totals, _ in loads:
        previous = first.setdefault((bill.cloud, month), totals)
        if previous is not totals:
            lines.append(
                f"{bill.cloud} restated {month}: {totals.rows - previous.rows:+,} rows, "
                f"{totals.cost - previous.cost:+,.2f} {bill.currency}. "
                "The whole month was replaced."
            )
    if lines[1:]:
        console.print(*lines, sep="\n")


def _print_costs(console: Console, connection: DuckDBPyConnection) -> None:
    table = Table(
        "service",
        title="\nAWS's unblended and Azure's billed cost by service",
        title_justify="left",
    )
    for bill in BILLS:
        query = _COST_BY_SERVICE.format(cloud=bill.cloud, shown=_SHOWN_SERVICES)
        costs = connection.execute(query)
        if bill is BILLS[0]:
            for month, *_ in (costs.description or [])[2:]:
                table.add_column(month, justify="right")
        rows = costs.fetchall()
        for _, service, *by_month in rows:
            table.add_row(shortened(service), *(f"{cost:,.2f}" for cost in by_month))
        totals = (f"{sum(column):,.2f}" for column in list(zip(*rows, strict=True))[2:])
        table.add_row(f"{bill.cloud} total, {bill.currency}", *totals, style="bold")
        table.add_section()
    console.print(table)


def _print_comparison(console: Console, loads: list[_Load]) -> bool:
    """Print the costs in the source files and in the lake, and return whether the totals agree."""
    console.print("\nThe source files, summed cell by cell in Python  =  the lake:")
    is_equal = True
    newest = {(load.bill.cloud, load.month): load for load in loads}
    for bill, month, loaded, _ in (newest[key] for key in sorted(newest)):
        source = _source_totals(bill.newest(month.first_day)[1], bill.header)
        compared = (
            f"=  {decimal_text(loaded.cost)}" if source == loaded else f"differs from  {loaded}"
        )
        console.print(f"{bill.cloud:5}  {month}  {source}  {compared}", soft_wrap=True)
        is_equal &= source == loaded
    return is_equal


def _source_totals(files: list[Path], header: str) -> Totals:
    count, total = 0, Decimal(0)
    with localcontext(prec=60):
        for file in files:
            # Azure's files begin with a byte order mark.
            with gzip.open(file, "rt", encoding="utf-8-sig", newline="") as text:
                rows = csv.reader(text)
                position = next(rows).index(header)
                for row in rows:
                    count += 1
                    total += Decimal(row[position] or 0)
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
        "demo --restate": "write a changed version of AWS's March, which the sensor loads",
        "init": "write a settings file for your own bills",
    }.items():
        console.print(f"  {f'{finops} {arguments}':{width}}  {purpose}", soft_wrap=True)


if __name__ == "__main__":
    keep_files_private()
    sys.exit(main())
