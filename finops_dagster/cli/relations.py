"""The relations that commands query: those of the lake that the settings name."""

from __future__ import annotations

from contextlib import AbstractContextManager

from duckdb import DuckDBPyConnection

from finops_dagster.reports.relations import open_relations
from finops_dagster.settings import Settings
from finops_dagster.tables.database import DuckDB


def relations_of(
    settings: Settings,
) -> AbstractContextManager[tuple[DuckDBPyConnection, list[str]]]:
    """Open a DuckDB in memory for the block, as `open_relations` does."""
    return open_relations(
        DuckDB.of(settings.database.duckdb),
        settings.storage.open_lake(),
        settings.exports,
        settings.accounts,
    )
