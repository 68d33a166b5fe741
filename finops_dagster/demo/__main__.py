"""`finops demo`: an invented company's AWS bill, delivered and loaded as a real one would be."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

from duckdb import DuckDBPyConnection
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from finops_dagster.billing.columns import files_literal
from finops_dagster.billing.errors import BillError, for_people
from finops_dagster.billing.money import Totals
from finops_dagster.billing.months import BillingMonth
from finops_dagster.demo.export import Version, write_version
from finops_dagster.pipeline import STAGES
from finops_dagster.pipeline.build import build_definitions
from finops_dagster.pipeline.export import Export
from finops_dagster.pipeline.runs import Metadata, open_instance, run_month
from finops_dagster.processes import keep_files_private
from finops_dagster.settings import Settings
from finops_dagster.tables.database import DuckDB
from finops_dagster.terminal import console as plain_console

_VERSIONS = [
    Version(date(2024, 1, 1), "20240203T050312Z", rows=48_211),
    Version(date(2024, 2, 1), "20240302T044907Z", rows=50_334),
    Version(date(2024, 3, 1), "20240403T051544Z", rows=52_067),
    Version(date(2024, 2, 1), "20240408T050158Z", rows=50_371, restated=True),
]
_LAST = _VERSIONS[2]
_SETTINGS = Path(__file__).with_name("demo.toml")
_COPY = Path("data/demo/finops.toml")  # for the commands that are called after the demo
_SOURCE = Path("data/demo/source")
_EXPORT_NAME = "demo-cur"
_SERVICES_SHOWN = 12


@dataclass(frozen=True)
class _Load:
    month: BillingMonth
    version: str
    totals: Totals
    seconds: float
    is_unchanged: bool

    def __str__(self) -> str:
        return (
            f"{self.month}  {'unchanged' if self.is_unchanged else 'loaded   '}  {self.version}  "
            f"{self.totals.rows:>7,} rows  {self.totals.cost:>10,.2f} USD  {self.seconds:4.1f} s"
        )


def main() -> int:
    """Deliver what is missing, load every month, and show what is there. Returns an exit code."""
    console = plain_console()
    # What the environment says is of a person's own months, which an invented bill never reaches.
    settings = Settings.model_validate(tomllib.loads(_SETTINGS.read_text(encoding="utf-8")))
    _COPY.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(_SETTINGS, _COPY)
    console.print(
        Text("\nThree months of an invented company's AWS bill", style="bold"),
        Text(", loaded as yours would be.\n"),
        Text(f"It is delivered to {_SOURCE}, laid out as AWS does.\n"),
        sep="",
    )
    with DuckDB.of(settings.database.duckdb).scratch() as lake:
        try:
            loads = list(_deliver_and_load(console, settings, lake))
        except BillError as error:
            console.print(for_people(str(error)), style="red", soft_wrap=True)
            return 1
        _print_restatements(console, loads)
        _print_costs(console, lake)
        if not _print_proof(console, lake):
            return 1
    if all(load.is_unchanged for load in loads):
        console.print("\nNothing changed since the last time: every stage looked, and did no work.")
    _print_next(console)
    return 0


def restate() -> str:
    """Deliver the last month once more, as AWS does when it restates one; return what was done.
    Raises BillError where the demo has not delivered it before."""
    delivered = len(list(_SOURCE.glob(f"{_EXPORT_NAME}/{_LAST.month:%Y%m%d}-*/*/")))
    if not delivered:
        raise BillError(f"{_SOURCE} has no month to restate; give the command finops demo first")
    now = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    rows = _LAST.rows + 19 * delivered
    write_version(
        _SOURCE, "", _EXPORT_NAME, replace(_LAST, assembly_id=now, rows=rows, restated=True)
    )
    return (
        f"AWS restated {BillingMonth.of(_LAST.month)}: version {now} with {rows:,} rows is in "
        f"{_SOURCE}.\nThe sensor demo_manifests of the UI loads it within five minutes, and at "
        f"once: {_command()} -c {_COPY} aws run-pipeline"
    )


def _deliver_and_load(
    console: Console, settings: Settings, lake: DuckDBPyConnection
) -> Iterator[_Load]:
    """Run the chain for every month that is there, and again for every version that comes."""
    pending = [v for v in _VERSIONS if v.assembly_id > _manifest(v.month).get("assemblyId", "")]
    complete = {v.month for v in _VERSIONS} - {v.month for v in pending}
    steps = [*((month, None) for month in sorted(complete)), *((v.month, v) for v in pending)]
    definitions, export = build_definitions(settings), Export(settings.exports[0])
    files = files_literal(settings.storage.parquet_dir / export.settings.name, "*/*.parquet")
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with open_instance() as instance, Progress(*columns, console=console) as progress:
        bar = progress.add_task("", total=len(steps) * len(STAGES[:-1]))  # there is no warehouse
        for first_day, version in steps:
            month = BillingMonth.of(first_day)
            if version is not None:
                progress.update(bar, description=f"{month}  AWS delivers {version.assembly_id}")
                write_version(_SOURCE, "", _EXPORT_NAME, version)

            def advance(stage: str, _: Metadata, month: BillingMonth = month) -> None:
                progress.update(bar, advance=1, description=f"{month}  {stage}")

            run = run_month(definitions, instance, export, month, on_stage=advance)
            if run.error is not None:
                raise BillError(f"{month} failed: {run.error}")
            lake.execute(
                "CREATE OR REPLACE VIEW charge AS SELECT strftime(billing_month, '%Y-%m') AS month,"
                " lineitem_productcode AS service, lineitem_unblendedcost AS cost"
                f" FROM read_parquet({files}, hive_partitioning = false)"
            )
            totals, loaded = _totals(lake, month), _manifest(first_day)["assemblyId"]
            load = _Load(month, loaded, totals, run.seconds, run.is_unchanged)
            progress.console.print(str(load))
            yield load
        progress.update(bar, description="done")


def _manifest(first_day: date) -> dict[str, Any]:
    """Return the newest manifest of a month; nothing where it was not delivered."""
    pattern = f"{_EXPORT_NAME}/{first_day:%Y%m%d}-*/*-Manifest.json"
    found: list[dict[str, Any]] = [json.loads(each.read_text()) for each in _SOURCE.glob(pattern)]
    return found[0] if found else {}


def _totals(lake: DuckDBPyConnection, month: BillingMonth) -> Totals:
    sql = "SELECT count(*), sum(cost) FROM charge WHERE month = ?"
    return Totals.of(lake.execute(sql, [str(month)]).fetchone())


def _print_restatements(console: Console, loads: list[_Load]) -> None:
    """Say what a second version of a month changed."""
    first: dict[BillingMonth, Totals] = {}
    for load in loads:
        before = first.setdefault(load.month, load.totals)
        if before is not load.totals:
            console.print(
                f"\nAWS restated {load.month}: {load.totals.rows - before.rows:+,} rows, "
                f"{load.totals.cost - before.cost:+,.2f} USD. The month was replaced whole."
            )


def _print_costs(console: Console, lake: DuckDBPyConnection) -> None:
    """Cost by service and month."""
    pivoted = lake.execute("PIVOT charge ON month USING coalesce(sum(cost), 0) GROUP BY service")
    months = [column[0] for column in pivoted.description or []][1:]
    rows = sorted(pivoted.fetchall(), key=lambda row: -sum(row[1:]))
    costs = {str(service): by_month for service, *by_month in rows}
    table = Table(title="\nUnblended cost by service, in USD", title_justify="left")
    table.add_column("service")
    for month in months:
        table.add_column(month, justify="right")

    def add(name: str, several: list[list[Decimal]], style: str | None = None) -> None:
        by_month = (sum(costs) for costs in zip(*several, strict=True))
        table.add_row(for_people(name), *(f"{cost:,.2f}" for cost in by_month), style=style)

    for service in list(costs)[:_SERVICES_SHOWN]:
        add(service, [costs[service]])
    if more := list(costs.values())[_SERVICES_SHOWN:]:
        add(f"{len(more)} more", more)
    table.add_section()
    add("total", list(costs.values()), "bold")
    console.print(table)


def _print_proof(console: Console, lake: DuckDBPyConnection) -> bool:
    """Hold what Parquet says against the source, added up cell by cell by other means."""
    console.print(
        "\nThe same months, added up from the source cell by cell with Python's decimals:"
    )
    is_equal = True
    for first_day in sorted({version.month for version in _VERSIONS}):
        month = BillingMonth.of(first_day)
        source, loaded = _added_up(_manifest(first_day)["reportKeys"]), _totals(lake, month)
        is_equal &= source == loaded
        sign = "=" if source == loaded else "differs from"
        console.print(f"  {month}  {source}  {sign}  {loaded}", soft_wrap=True)
    return is_equal


def _added_up(keys: list[str]) -> Totals:
    count, total = 0, Decimal(0)
    with localcontext(prec=60):
        for key in keys:
            with gzip.open(_SOURCE / key, "rt", encoding="utf-8", newline="") as text:
                for row in csv.DictReader(text):
                    count += 1
                    total += Decimal(row["lineItem/UnblendedCost"] or 0)
    return Totals(count, total)


def _command() -> str:
    """Return how a person gives the command here: as it was just given, where no PATH finds it."""
    given = sys.argv[0]
    return given if Path(given).name == "finops" and not shutil.which("finops") else "finops"


def _print_next(console: Console) -> None:
    finops = _command()
    width = len(f"{finops} -c {_COPY} dev")
    console.print("\nNext", style="bold")
    for arguments, what in {
        f"-c {_COPY} dev": "the same months in the UI",
        "demo --restate": "restates one, for its sensor to find",
        "init": "settings for your own bucket",
    }.items():
        console.print(f"  {f'{finops} {arguments}':{width}}  {what}", soft_wrap=True)


if __name__ == "__main__":
    keep_files_private()
    sys.exit(main())
