"""The rows of a month in SQL: in its file, and in its table."""

from __future__ import annotations

from pathlib import Path

from finops_dagster.billing.columns import Sql, file_literal, literal, quoted
from finops_dagster.billing.version import Load


def parquet_relation(path: Path) -> Sql:
    """Return what follows FROM to read a month's Parquet file; `billing_month` is a DATE."""
    # Otherwise DuckDB would take billing_month from the folder's name, as text.
    return Sql(f"read_parquet({file_literal(path)}, hive_partitioning = false)")


def month_relation(load: Load) -> Sql:
    """Return what follows FROM to read all rows of the load's month in its table.

    Rows of other versions are among them, if there are any. The text ends with a WHERE clause, so
    add further conditions with AND.
    """
    first_day = Sql(f"DATE {literal(str(load.month.first_day))}")
    return Sql(f"{quoted(load.table)} WHERE billing_month = {first_day}")
