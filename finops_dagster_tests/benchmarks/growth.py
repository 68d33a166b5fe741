"""How cost grows: each of rows, columns, parts, months and exports at three sizes."""

from __future__ import annotations

from collections.abc import Iterator

from finops_dagster_tests.benchmarks.chain import Chain, source
from finops_dagster_tests.benchmarks.figures import Figure
from finops_dagster_tests.benchmarks.many import YEARS

ROWS = 300_000


def growth() -> Iterator[Figure]:
    """One run of each size, the whole chain from the shell."""
    for rows in (ROWS // 3, ROWS, ROWS * 3):
        yield _first_load(f"{rows:,} rows of 154 columns in 4 parts", rows, 154, 4)
    for columns in (70, 140, 200):
        yield _first_load(f"{ROWS:,} rows of {columns} columns in 4 parts", ROWS, columns, 4)
    for parts in (1, 4, 16):
        yield _first_load(f"{ROWS:,} rows of 154 columns in {parts} parts", ROWS, 154, parts)
    for months in (6, 12, 36):
        chain = Chain.over(f"file://{source(5000, 150, 1, YEARS)}")
        until = f"{YEARS[months - 1]:%Y-%m}"
        run = chain.finops("aws", "run-pipeline", "--end-date", until)
        yield Figure(f"{months} months of 5,000 rows", run.seconds, "s")
    for exports in (1, 10, 50):
        chain = Chain.over("file://nowhere", exports=exports)
        run = chain.python("import finops_dagster.definitions")
        yield Figure(f"import of the definitions of {exports} exports", run.seconds, "s")


def _first_load(measure: str, rows: int, columns: int, parts: int) -> Figure:
    run = Chain.over(f"file://{source(rows, columns, parts)}").materialize()
    return Figure(measure, run.seconds, "s", None, f"peak {run.megabytes:,.0f} MB")
