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

import duckdb
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from finops_dagster.billing.columns import Sql, files_literal
from finops_dagster.billing.errors import BillError, for_people
from finops_dagster.billing.money import Totals
from finops_dagster.billing.months import BillingMonth
from finops_dagster.demo.export import Version, write_version
from finops_dagster.pipeline.build import build_definitions
from finops_dagster.pipeline.export import Export
from finops_dagster.pipeline.runs import Metadata, MonthRun, open_instance, run_month
from finops_dagster.processes import keep_files_private
from finops_dagster.settings import Settings
from finops_dagster.sources.aws.cur1 import AwsCur1
from finops_dagster.sources.aws.settings import AwsExport
from finops_dagster.terminal import console as plain_console

_VERSIONS = [
    Version(date(2024, 1, 1), "20240203T050312Z", rows=48_211),
    Version(date(2024, 2, 1), "20240302T044907Z", rows=50_334),
    Version(date(2024, 3, 1), "20240403T051544Z", rows=52_067),
    Version(date(2024, 2, 1), "20240408T050158Z", rows=50_371, restated=True),
]
_SETTINGS = Path(__file__).with_name("demo.toml")
# Where the settings are put for the commands that are called after the demo.
_COPY = Path("data/demo/finops.toml")
_SERVICES_SHOWN = 12


@dataclass(frozen=True)
class Loaded:
    """What one run of one month came to."""

    month: BillingMonth
    version: str
    totals: Totals
    seconds: float
    unchanged: bool


def restate() -> str:
    """Deliver the last month once more, as AWS does when it restates one; return what was done.
    Raises BillError where the demo has not delivered it before."""
    export, source = _export_and_source(_settings())
    last = _VERSIONS[2]
    folder = (source / _manifest_key(export, BillingMonth.of(last.month))).parent
    delivered = sum(path.is_dir() for path in folder.glob("*"))
    if not delivered:
        raise BillError(f"{source} has no month to restate; give the command finops demo first")
    now = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    version = replace(last, assembly_id=now, rows=last.rows + 19 * delivered, restated=True)
    write_version(source, "", export.export_name, version)
    month = BillingMonth.of(version.month)
    return (
        f"AWS restated {month}: version {now} with {version.rows:,} rows is in {source}.\n"
        f"The sensor {export.group}_manifests of the UI loads it within five minutes, and at once: "
        f"{_command()} -c {_COPY} aws run-pipeline"
    )


def _settings() -> Settings:
    """Return the demo's own settings. What the environment says is of a person's own months, which
    an invented bill must never reach."""
    return Settings.model_validate(tomllib.loads(_SETTINGS.read_text(encoding="utf-8")))


def _export_and_source(settings: Settings) -> tuple[AwsExport, Path]:
    export = settings.exports[0]
    assert isinstance(export, AwsExport)
    return export, Path(export.source.removeprefix("file://"))


def main() -> int:
    """Deliver what is missing, load every month, and show what is there. Returns an exit code."""
    console = plain_console()
    settings = _settings()
    export, source = _export_and_source(settings)
    _COPY.parent.mkdir(parents=True, exist_ok=True)
    _COPY.write_text(_SETTINGS.read_text(encoding="utf-8"), encoding="utf-8")
    console.print(
        Text("\nThree months of an invented company's AWS bill", style="bold"),
        Text(", loaded as yours would be.\n"),
        Text(f"It is delivered to {for_people(str(source))}, laid out as AWS does.\n"),
        sep="",
    )
    try:
        loads = list(_deliver_and_load(console, settings, export, source))
    except RuntimeError as error:
        console.print(for_people(str(error)), style="red", soft_wrap=True)
        return 1
    _print_restatements(console, loads)
    _print_costs(console, settings, export)
    if not _print_proof(console, settings, export, source):
        return 1
    if all(load.unchanged for load in loads):
        console.print("\nNothing changed since the last time: every stage looked, and did no work.")
    _print_next(console)
    return 0


def _deliver_and_load(
    console: Console, settings: Settings, export: AwsExport, source: Path
) -> Iterator[Loaded]:
    """Run the chain for every month that is there, and again for every version that comes."""
    pending = [v for v in _VERSIONS if v.assembly_id > _delivered(source, export, v)]
    awaited = {v.month for v in pending}
    there = sorted({v.month for v in _VERSIONS} - awaited)
    steps = [*((month, None) for month in there), *((v.month, v) for v in pending)]
    definitions = build_definitions(settings)
    stages = len(definitions.resolve_asset_graph().get_all_asset_keys())
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with open_instance() as instance, Progress(*columns, console=console) as progress:
        bar = progress.add_task("", total=len(steps) * stages)
        for first_day, version in steps:
            month = BillingMonth.of(first_day)
            if version is not None:
                progress.update(bar, description=f"{month}  AWS delivers {version.assembly_id}")
                write_version(source, "", export.export_name, version)

            def advance(stage: str, _: Metadata, month: BillingMonth = month) -> None:
                progress.update(bar, advance=1, description=f"{month}  {stage}")

            run = run_month(definitions, instance, Export(export), month, on_stage=advance)
            if run.error is not None:
                raise RuntimeError(f"{month} failed: {run.error}")
            load = _loaded(run)
            progress.console.print(_line(load))
            yield load
        progress.update(bar, description="done")


def _loaded(run: MonthRun) -> Loaded:
    table = run.stages["billing_table"]
    totals = Totals(table["dagster/partition_row_count"], Decimal(table["total_cost_exact"]))
    return Loaded(run.month, table["manifest_id"], totals, run.seconds, run.is_unchanged)


def _delivered(source: Path, export: AwsExport, version: Version) -> str:
    """The newest version of the month that the source holds; nothing is before everything."""
    manifest = source / _manifest_key(export, BillingMonth.of(version.month))
    return str(json.loads(manifest.read_text())["assemblyId"]) if manifest.exists() else ""


def _manifest_key(export: AwsExport, month: BillingMonth) -> str:
    vendor = AwsCur1()
    return vendor.manifest_keys(vendor.home("", export.export_name), export.export_name, month)[0]


def _line(load: Loaded) -> str:
    done = "unchanged" if load.unchanged else "loaded   "
    return (
        f"{load.month}  {done}  {load.version}  {load.totals.rows:>7,} rows  "
        f"{load.totals.cost:>10,.2f} USD  {load.seconds:4.1f} s"
    )


def _print_restatements(console: Console, loads: list[Loaded]) -> None:
    """Say what a second version of a month changed."""
    first: dict[BillingMonth, Loaded] = {}
    for load in loads:
        before = first.setdefault(load.month, load)
        if before is not load:
            console.print(
                f"\nAWS restated {load.month}: {load.totals.rows - before.totals.rows:+,} rows, "
                f"{load.totals.cost - before.totals.cost:+,.2f} USD. The month was replaced whole."
            )


def _lake(settings: Settings, export: AwsExport) -> Sql:
    files = files_literal(settings.storage.parquet_dir / export.name, "*/*.parquet")
    return Sql(f"read_parquet({files}, hive_partitioning = false)")


def _print_costs(console: Console, settings: Settings, export: AwsExport) -> None:
    """Cost by service and month, read from the Parquet files."""
    rows = duckdb.execute(
        f"PIVOT (SELECT lineitem_productcode AS service, lineitem_unblendedcost AS cost, "
        f"strftime(billing_month, '%Y-%m') AS month FROM {_lake(settings, export)}) "
        "ON month USING sum(cost) GROUP BY service"
    )
    months = [column[0] for column in rows.description or []][1:]
    costs = sorted(rows.fetchall(), key=lambda row: -sum(cost or 0 for cost in row[1:]))
    table = Table(title="\nUnblended cost by service, in USD", title_justify="left")
    table.add_column("service")
    for month in months:
        table.add_column(month, justify="right")
    for service, *by_month in costs[:_SERVICES_SHOWN]:
        table.add_row(for_people(str(service)), *(f"{cost or 0:,.2f}" for cost in by_month))
    rest = [
        sum(row[column] or 0 for row in costs[_SERVICES_SHOWN:])
        for column in range(1, len(months) + 1)
    ]
    if len(costs) > _SERVICES_SHOWN:
        table.add_row(f"{len(costs) - _SERVICES_SHOWN} more", *(f"{cost:,.2f}" for cost in rest))
    table.add_section()
    totals = [sum(row[column] or 0 for row in costs) for column in range(1, len(months) + 1)]
    table.add_row("total", *(f"{cost:,.2f}" for cost in totals), style="bold")
    console.print(table)


def _print_proof(console: Console, settings: Settings, export: AwsExport, source: Path) -> bool:
    """Hold what Parquet says against the source, added up cell by cell by other means."""
    console.print(
        "\nThe same months, added up from the source cell by cell with Python's decimals:"
    )
    loaded = duckdb.execute(
        "SELECT billing_month, count(*), sum(lineitem_unblendedcost) "
        f"FROM {_lake(settings, export)} GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    equal = True
    for first_day, rows, cost in loaded:
        month = BillingMonth.of(first_day)
        expected = _added_up(source, export, month)
        same = expected == Totals(rows, cost)
        equal &= same
        sign = "=" if same else "differs from"
        console.print(f"  {month}  {expected}  {sign}  {Totals(rows, cost)}", soft_wrap=True)
    return equal


def _added_up(source: Path, export: AwsExport, month: BillingMonth) -> Totals:
    manifest = json.loads((source / _manifest_key(export, month)).read_text())
    count, total = 0, Decimal(0)
    with localcontext(prec=60):
        for key in manifest["reportKeys"]:
            with gzip.open(source / key, "rt", encoding="utf-8", newline="") as text:
                reader = csv.reader(text)
                position = next(reader).index("lineItem/UnblendedCost")
                for row in reader:
                    count += 1
                    total += Decimal(row[position] or 0)
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
