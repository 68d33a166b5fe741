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
from rich.table import Column, Table
from rich.text import Text

from finops_dagster.billing.columns import file_literal, glob_literal
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
from finops_dagster.focus.month import focus_lake
from finops_dagster.lake import Lake
from finops_dagster.pipeline import STAGES
from finops_dagster.pipeline.build import build_definitions
from finops_dagster.pipeline.export import Export
from finops_dagster.pipeline.instance import open_instance
from finops_dagster.pipeline.report import record_report, write_report_page
from finops_dagster.pipeline.runs import MetadataValues, run_month
from finops_dagster.processes import set_private_umask
from finops_dagster.settings import Settings
from finops_dagster.tables.database import DuckDB
from finops_dagster.terminal import console as plain_console

_SETTINGS = Path(__file__).with_name("demo.toml")
_ACCOUNTS = Path(__file__).with_name("accounts.csv")
_SETTINGS_COPY = Path("data/demo/finops.toml")  # for the commands after the demo
# The demo has no warehouse.
_STAGES = [stage for stage in STAGES if not stage.startswith("warehouse")]
_MONTH_TOTALS = "SELECT count(*), sum({cost}) FROM read_parquet({path}, hive_partitioning = false)"
_COST_BY_CATEGORY = """
SELECT ProviderName, BillingCurrency, ServiceCategory, sum(BilledCost), sum(EffectiveCost)
FROM read_parquet({files}, union_by_name = true, hive_partitioning = false)
GROUP BY GROUPING SETS (
    (ProviderName, BillingCurrency), (ProviderName, BillingCurrency, ServiceCategory)
)
ORDER BY ProviderName, BillingCurrency, ServiceCategory IS NULL, sum(BilledCost) DESC
"""


class _Load(NamedTuple):
    bill: DemoBill
    month: BillingMonth
    totals: Totals
    charged: Decimal
    """The BilledCost of the month's charges."""
    is_unchanged: bool


def main() -> int:
    """Write the missing versions as the clouds do, load every month, and print the costs.

    Returns the exit code: 1 if a month fails, or if its totals differ from those of its files; else
    0, and the page of the report is written too. All data is in `data/demo` in the working
    directory, with a copy of the demo's settings; runs are recorded in DAGSTER_HOME. Settings in
    environment variables are ignored.
    """
    console = plain_console()
    # Environment variables are ignored: they name the places of the user's own months.
    settings = Settings.model_validate(tomllib.loads(_SETTINGS.read_text(encoding="utf-8")))
    _SETTINGS_COPY.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(_SETTINGS, _SETTINGS_COPY)
    accounts = settings.accounts.file
    if accounts is not None and not accounts.exists():  # People may try out names of their own.
        shutil.copyfile(_ACCOUNTS, accounts)
    console.print(
        Text("\nThree months of an invented company's bills", style="bold"),
        Text(" from AWS and Azure, loaded as yours would be.\n"),
        Text(
            f"The files are written to {AWS_FOLDER} and {AZURE_FOLDER}, in the clouds' layouts.\n"
        ),
        sep="",
    )
    with DuckDB.with_limits(settings.database.duckdb).open_in_memory() as connection:
        try:
            loads = list(_deliver_and_load(console, settings, connection))
        except BillError as error:
            console.print(shortened(str(error)), style="red", soft_wrap=True)
            return 1
        _print_restatements(console, loads)
        _print_costs(console, connection, settings.storage.open_lake())
        if not _print_comparison(console, loads):
            return 1
    if all(load.is_unchanged for load in loads):
        console.print("\nNothing has changed: every stage already has the newest version.")
    lake, duckdb = settings.storage.open_lake(), DuckDB.with_limits(settings.database.duckdb)
    page, metadata, checks = write_report_page(settings, lake, duckdb)
    with open_instance() as instance:
        record_report(instance, metadata, checks)
    console.print(f"\nThe bill as a page, for any browser: {page}", soft_wrap=True)
    _print_next(console)
    return 0


def write_restated_version() -> str:
    """Write a changed version of AWS's last month, and return a message about it; loads nothing.

    Each call writes another version. Raises BillError if the demo has not written the month yet.
    """
    last = max(AWS_VERSIONS, key=lambda version: version.first_day)
    version_count = len(list(AWS_FOLDER.glob(f"{AWS_EXPORT}/{last.first_day:%Y%m%d}-*/*/")))
    if not version_count:
        raise BillError(f"{AWS_FOLDER} has no month to restate; run finops demo first")
    assembly_id = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    rows = last.rows + 19 * version_count
    version = replace(last, assembly_id=assembly_id, rows=rows, restated=True)
    write_version(AWS_FOLDER, "", AWS_EXPORT, version)
    return (
        f"AWS restated {BillingMonth.of(last.first_day)}: version {assembly_id} with {rows:,} "
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
        bar = progress.add_task("", total=len(steps) * len(_STAGES))
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
            lake = settings.storage.open_lake()
            totals = _totals(
                connection, lake.file(export.name, month).local_path(), bill.cost_column
            )
            file = focus_lake(lake).file(export.name, month)
            charges = _totals(connection, file.local_path(), "BilledCost")
            load = _Load(bill, month, totals, charges.cost, run.is_unchanged)
            progress.console.print(
                f"{name}  {'unchanged' if run.is_unchanged else 'loaded   '}  "
                f"{bill.newest(month.first_day)[0]:16}  {load.totals.rows:,} rows  "
                f"{load.totals.cost:,.2f} {bill.currency}  {run.seconds:4.1f} s"
            )
            yield load
        progress.update(bar, description="done")


def _steps(bill: DemoBill) -> Iterator[tuple[BillingMonth, DemoVersion | None]]:
    """Yield the months that have their newest version, then the versions that are missing."""
    missing = [v for v in bill.versions if v.name > bill.newest(v.first_day)[0]]
    for first_day in sorted({v.first_day for v in bill.versions} - {v.first_day for v in missing}):
        yield BillingMonth.of(first_day), None
    for version in missing:
        yield BillingMonth.of(version.first_day), version


def _totals(connection: DuckDBPyConnection, path: Path, cost: str) -> Totals:
    """Return the number of rows in a month's file, and the sum of a column."""
    query = _MONTH_TOTALS.format(cost=cost, path=file_literal(path))
    return Totals.from_result_row(connection.execute(query).fetchone())


def _print_restatements(console: Console, loads: list[_Load]) -> None:
    """Print what the second version of a month changed."""
    first: dict[tuple[str, BillingMonth], Totals] = {}
    lines = [""]
    for bill, month, totals, *_ in loads:
        previous = first.setdefault((bill.cloud, month), totals)
        if previous is not totals:
            lines.append(
                f"{bill.cloud} restated {month}: {totals.rows - previous.rows:+,} rows, "
                f"{totals.cost - previous.cost:+,.2f} {bill.currency}. "
                "The whole month was replaced."
            )
    if lines[1:]:
        console.print(*lines, sep="\n")


def _print_costs(console: Console, connection: DuckDBPyConnection, lake: Lake) -> None:
    """Print a table of the charges of all months; costs in different currencies are not added."""
    table = Table(
        "provider",
        "service category",
        *(Column(heading, justify="right") for heading in ("billed", "effective", "currency")),
        title="\nBoth bills in FOCUS: the cost of three months",
        title_justify="left",
    )
    files = glob_literal(Path(focus_lake(lake).location), "*/*/*.parquet")
    rows = connection.execute(_COST_BY_CATEGORY.format(files=files)).fetchall()
    for provider, currency, category, *costs in rows:
        cells = (provider, shortened(category or "total"), *(f"{cost:,.2f}" for cost in costs))
        table.add_row(*cells, currency, style=None if category else "bold")
        if not category:
            table.add_section()
    console.print(table)


def _print_comparison(console: Console, loads: list[_Load]) -> bool:
    """Print the costs in the source files, the lake and FOCUS; return whether they agree."""
    console.print(
        "\nThe source files, summed cell by cell in Python  =  the lake  =  BilledCost in FOCUS:"
    )
    is_equal = True
    newest = {(load.bill.cloud, load.month): load for load in loads}
    for bill, month, loaded, charged, _ in (newest[key] for key in sorted(newest)):
        source = _source_totals(bill.newest(month.first_day)[1], bill.cost_header)
        signs = [
            "=" if equal else "differs from" for equal in (source == loaded, loaded.cost == charged)
        ]
        console.print(
            f"{bill.cloud:5}  {month}  {source}  {signs[0]}  {decimal_text(loaded.cost)}  "
            f"{signs[1]}  {decimal_text(charged)}",
            soft_wrap=True,
        )
        is_equal &= source == loaded and loaded.cost == charged
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
    set_private_umask()
    sys.exit(main())
