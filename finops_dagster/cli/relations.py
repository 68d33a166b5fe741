"""The bill as relations of DuckDB, for the commands that query it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import date

from duckdb import DuckDBPyConnection

from finops_dagster.billing.errors import BillError
from finops_dagster.focus.month import focus_lake
from finops_dagster.lake import LakeAsOf
from finops_dagster.reports.relations import open_relations
from finops_dagster.settings import Settings
from finops_dagster.tables.database import DuckDB


def open_bill_relations(
    settings: Settings, as_of: date | None = None
) -> AbstractContextManager[tuple[DuckDBPyConnection, list[str]]]:
    """Open a DuckDB in memory with the bill of all exports, for the block.

    The block gets the connection and the names of the relations of `create_relations`: a view for
    each export that has a month, `accounts`, and, if a month has charges, `focus` and
    `focus_named`. With `as_of`, the months have the versions that they had at the end of that day
    in UTC. Raises BillError if a file cannot be read, if the lake no longer has one of these
    versions, and for an error of DuckDB in the block.
    """
    return open_relations(
        DuckDB.with_limits(settings.database.duckdb),
        settings.storage.open_lake() if as_of is None else _lake_as_of(settings, as_of),
        settings.exports,
        settings.accounts,
    )


def _lake_as_of(settings: Settings, day: date) -> LakeAsOf:
    lake = LakeAsOf.at_end_of_day(settings.storage.open_lake(), day)
    missing = []
    for export in settings.exports:
        bills = [*lake.missing_version_errors(export.name)]
        # Charges that were derived again in a new lake do not say what those of the day were.
        months = set() if bills else {*lake.files(export.name)}
        missing += [*bills, *focus_lake(lake).missing_version_errors(export.name, months)]
    if missing:
        newest = max(missing, key=lambda error: error.since)
        raise BillError(
            f"the lake lacks a version of {day}: {newest}; name {newest.since:%Y-%m-%d} or a "
            "later day; to keep more versions from now on, raise storage.lake.keep_versions"
        )
    return lake
