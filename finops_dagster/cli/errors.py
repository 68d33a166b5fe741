"""Any error as the one line that a person needs."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator

from finops_dagster.billing.errors import BillError, first_line

_OF_THE_DISK = (
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
)


def one_line(error: BaseException) -> str:
    """Return what is wrong and what to do; of an error that nobody foresaw, its type, its text, and
    where its trace is."""
    from finops_dagster.settings import dagster_home
    from finops_dagster.traces import record_unexpected_error

    for translated in (_ours, _of_the_history):
        for cause in _causes(error):
            if line := translated(cause):
                return line
    return record_unexpected_error(error, dagster_home())


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _ours(error: BaseException) -> str | None:
    from finops_dagster.settings import dagster_home
    from finops_dagster.settings_table import SettingsError

    if isinstance(error, BillError | SettingsError):
        return str(error)
    if isinstance(error, sqlite3.Error) and error.sqlite_errorcode & 0xFF in _OF_THE_DISK:
        return (
            f"Dagster's history in {dagster_home()} cannot be written: {error}; make room on its "
            "disk, or let it be written, and give the same command again"
        )
    # These take a second to import.
    from finops_dagster.billing.disk import disk_problem
    from finops_dagster.object_stores import StoreError, StoreUnavailable
    from finops_dagster.warehouses.month_file import WarehouseUnavailable

    if isinstance(error, StoreError | StoreUnavailable | WarehouseUnavailable):
        return str(error)
    return disk_problem(error)


def _of_the_history(error: BaseException) -> str | None:
    """Return what SQLAlchemy says, through which Dagster reaches the database of its history."""
    from finops_dagster.settings import dagster_home

    sqlalchemy = sys.modules.get("sqlalchemy.exc")
    if sqlalchemy is None or not isinstance(error, sqlalchemy.SQLAlchemyError):
        return None
    return (
        f"Dagster's history cannot be read or written: {first_line(error)}; look at storage in "
        f"{dagster_home() / 'dagster.yaml'}"
    )
