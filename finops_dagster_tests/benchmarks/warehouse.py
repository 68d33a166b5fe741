"""Benchmarks of the load of a month of 30 columns into PostgreSQL, and of its restatement.

The server runs on the same machine and has no replicas, so it writes no WAL for the rows of a load;
a server with replicas takes a quarter longer.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import median

import duckdb

from finops_dagster.billing.columns import literal, quoted
from finops_dagster_tests.benchmarks.project import (
    MONTH,
    VERSION,
    BenchmarkProject,
    Figure,
    Run,
    made_once,
)
from finops_dagster_tests.cur import deliver, folder_put
from finops_dagster_tests.servers.postgresql import PostgreSQLServer

_ROWS_A_SECOND = 150_000
_MOMENT = "strftime(TIMESTAMP '2024-01-01' + to_hours((line % 743 + {hours})::INT), '%xT%XZ')"
# Thirty columns, as real bills have them: ids, times, amounts, the vendor's texts, and tags.
_COLUMNS = {
    "identity/LineItemId": "md5(line::TEXT)",
    "bill/BillingPeriodStartDate": "'2024-01-01T00:00:00Z'",
    "lineItem/UsageStartDate": _MOMENT.format(hours=0),
    "lineItem/UsageEndDate": _MOMENT.format(hours=1),
    "lineItem/UnblendedCost": "(hash(line) % 100000000000)::DECIMAL(38, 10) / 10000000000",
    **{f"pricing/cost{n}": f"(hash(line, {n}) % 100000)::DECIMAL(38, 3) / 1000" for n in range(5)},
    **{
        f"product/word{n}": f"'a word of the vendor, ' || hash(line, {n}) % 1000" for n in range(12)
    },
    **{
        f"resourceTags/user:{n}": f"CASE WHEN line % 3 = 0 THEN 'team ' || line % {n} END"
        for n in range(7, 13)
    },
}


def warehouse(rows: int, runs: int) -> Iterator[Figure]:
    """Measure the seconds of the stage (fill, measure, exchange) and the process's peak memory."""
    project = BenchmarkProject.create(made_once(f"source-{rows}x30", _write_bill, rows))
    project.materialize()
    stages: dict[str, list[float]] = {"first load": [], "restatement": []}
    processes: dict[str, list[Run]] = {load: [] for load in stages}
    with PostgreSQLServer() as server, server.connect() as connection:
        settings = {"host": server.host, "database": "postgres", "user": "postgres"}
        config = [f"--database-config={name}={value}" for name, value in settings.items()]
        command = ["--backend=postgresql", *config, "aws", "load-billing-remote", "--force"]
        for _ in range(runs):
            connection.execute("DROP SCHEMA IF EXISTS finops CASCADE")
            for load in stages:
                connection.execute("CHECKPOINT")  # as after the hours between two versions
                run = project.finops(*command, "--start-date", MONTH, "--end-date", MONTH)
                stages[load].append(project.stage_seconds("warehouse_table"))
                processes[load].append(run)
    for load, stage_seconds in stages.items():
        run, seconds = Run.median(processes[load]), median(stage_seconds)
        measure = f"{rows:,} rows x {len(_COLUMNS) + 2} columns into PostgreSQL, {load}"
        notes = (
            f"{rows / seconds:,.0f} rows/s; the process {run.cpu:.2f} s of CPU, "
            f"peak {run.megabytes:,.0f} MB"
        )
        yield Figure(measure, seconds, "s", rows / _ROWS_A_SECOND, notes)


def _write_bill(folder: Path, rows: int) -> None:
    folder.mkdir(parents=True)
    file = folder / "bill.csv.gz"
    cells = ", ".join(f"{sql} AS {quoted(name)}" for name, sql in _COLUMNS.items())
    duckdb.execute(
        f"COPY (SELECT {cells} FROM range({rows}) lines(line)) TO {literal(str(file))} "
        "(FORMAT csv, HEADER, COMPRESSION gzip)"
    )
    amounts = {name: "OptionalBigDecimal" for name in _COLUMNS if name.startswith("pricing/cost")}
    deliver(
        folder_put(folder),
        MONTH,
        [file.read_bytes()],
        version=VERSION,
        export_name="bench-cur",
        headers=list(_COLUMNS),
        types={"lineItem/UsageEndDate": "DateTime", **amounts},
    )
    file.unlink()
