"""The bill as relations of DuckDB, for the commands that query it."""

from __future__ import annotations

from contextlib import AbstractContextManager

from duckdb import DuckDBPyConnection

from finops_dagster.reports.relations import open_relations
from finops_dagster.settings import Settings
from finops_dagster.tables.database import DuckDB


def relations_of(
    settings: Settings,
) -> AbstractContextManager[tuple[DuckDBPyConnection, list[str]]]:
    """Open a DuckDB in memory with the bill of all exports, for the block.

    The block gets the connection and the names of the relations: a view for each export, and
    `focus` and others if a month has charges. See `open_relations`.
    """
    return open_relations(
        DuckDB.of(settings.database.duckdb),
        settings.storage.open_lake(),
        settings.exports,
        settings.accounts,
    )
