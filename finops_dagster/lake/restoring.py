"""Loads a month into the billing table from its file in the lake."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

from finops_dagster.billing.columns import ADDED_COLUMNS, SqlType
from finops_dagster.billing.disk import memory_or_disk_problem
from finops_dagster.billing.errors import FileInvalid, first_line, reprocess_advice
from finops_dagster.billing.version import Load
from finops_dagster.lake.lake import LakeFile
from finops_dagster.lake.records import names_from_footers
from finops_dagster.lake.relations import parquet_relation
from finops_dagster.sources.base import Format
from finops_dagster.tables.casts import prepare_casts
from finops_dagster.tables.load import MonthLoader
from finops_dagster.tables.parquet_files import parquet_file


@contextmanager
def loading_month_from_lake(
    connection: duckdb.DuckDBPyConnection, load: Load, bill_format: Format, file: LakeFile
) -> Iterator[tuple[Load, list[str]]]:
    """Load the month into the billing table from its file in the lake, and record the load.

    `load` is that of `load_from_footer`. Rows and record are written in one transaction, and the
    block runs before the commit: after an error in it, nothing is changed. The block gets the
    recorded load, with the present time as `loaded_at`, and warnings: for each column whose type in
    the table is another one, and for rows without a billing period.

    Raises ReconciliationError if the rows do not have the totals of `load`, BillError as
    `MonthLoader.column_mapping` and `LakeFile.local_path`, and FileInvalid for any duckdb.Error,
    also in the block; only one of memory or disk is raised unchanged.
    """
    prepare_casts(connection)
    path = file.local_path()
    loader = MonthLoader(connection, load, bill_format)
    try:
        described = connection.execute(f"DESCRIBE FROM {parquet_relation(path)}").fetchall()
        mappings = [
            loader.column_mapping(name, name, SqlType(sql_type), name)
            for name, sql_type, *_ in described[len(ADDED_COLUMNS) :]
        ]
        names = names_from_footers([file])
        with loader.replacing_rows([parquet_file(path)], mappings, names) as loaded:
            yield loaded
    except duckdb.Error as error:
        if memory_or_disk_problem(error):
            raise
        raise FileInvalid(
            f"{file.location} cannot be read: {first_line(error)}; "
            f"{reprocess_advice(load.export, load.month)}"
        ) from error
