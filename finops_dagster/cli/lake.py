"""Questions to the Parquet lake, in a database that lives in memory and can only read."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import duckdb

from finops_dagster.billing.columns import files_literal, quoted
from finops_dagster.billing.errors import BillError, first_line
from finops_dagster.settings import Settings


def ask(settings: Settings, sql: str, most: int | None = None) -> list[dict[str, Any]]:
    """The rows of one SELECT over the exports that have Parquet files, and no more than `most`.
    Raises BillError."""
    with closing(duckdb.connect()) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for export in settings.exports:
            folder = settings.storage.parquet_dir / export.name
            if any(folder.glob("billing_month=*/*.parquet")):
                files = files_literal(folder, "billing_month=*/*.parquet")
                connection.execute(
                    f"CREATE VIEW {quoted(export.table_name)} AS FROM read_parquet({files}, "
                    "union_by_name = true, hive_partitioning = false)"
                )
        try:
            statements = connection.extract_statements(sql)
            if [one.type for one in statements] != [duckdb.StatementType.SELECT]:
                raise BillError("a query is one SELECT; nothing else is run")
            answer = connection.execute(statements[0])
            names = [column[0] for column in answer.description or []]
            rows = answer.fetchall() if most is None else answer.fetchmany(most)
            return [dict(zip(names, row, strict=True)) for row in rows]
        except duckdb.Error as error:
            raise BillError(first_line(error)) from error
