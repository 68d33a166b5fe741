"""One month of 30 columns from the lake into PostgreSQL, and into it once more.

The server, on the same machine, has no replicas and so writes no WAL of what a load fills; one that
has some needs a quarter more time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import median

import duckdb

from finops_dagster.billing.columns import literal, quoted
from finops_dagster_tests.benchmarks.chain import MONTH, VERSION, Chain, Figure, Run, once
from finops_dagster_tests.cur import deliver, folder_put
from finops_dagster_tests.servers.postgresql import PostgreSQLServer

_ROWS_A_SECOND = 150_000
_MOMENT = "strftime(TIMESTAMP '2024-01-01' + to_hours((line % 743 + {hours})::INT), '%xT%XZ')"
# Of each thirty columns: ids, times, amounts, what the vendor says in words, and tags.
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
    """The seconds of the stage, with all that a load is: fill, measure, exchange; and the peak of
    the whole process."""
    chain = Chain.over(once(f"source-{rows}x30", _write_bill, rows))
    chain.materialize()
    stages: dict[str, list[float]] = {"first load": [], "restatement": []}
    processes: dict[str, list[Run]] = {side: [] for side in stages}
    with PostgreSQLServer() as server, server.connect() as connection:
        facts = {"host": server.host, "database": "postgres", "user": "postgres"}
        config = [f"--database-config={name}={value}" for name, value in facts.items()]
        command = ["--backend=postgresql", *config, "aws", "load-billing-remote", "--force"]
        for _ in range(runs):
            connection.execute("DROP SCHEMA IF EXISTS finops CASCADE")
            for side in stages:
                connection.execute("CHECKPOINT")  # as after the hours between two versions
                run = chain.finops(*command, "--start-date", MONTH, "--end-date", MONTH)
                stages[side].append(chain.stage_seconds("warehouse_table"))
                processes[side].append(run)
    for side, each in stages.items():
        run, seconds = Run.median(processes[side]), median(each)
        measure = f"{rows:,} rows x {len(_COLUMNS) + 2} columns into PostgreSQL, {side}"
        beside = (
            f"{rows / seconds:,.0f} rows/s; the process {run.cpu:.2f} s of CPU, "
            f"peak {run.megabytes:,.0f} MB"
        )
        yield Figure(measure, seconds, "s", rows / _ROWS_A_SECOND, beside)


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
