"""Errors as one line of text."""

from __future__ import annotations

import sqlite3
import sys

from finops_dagster.billing.errors import BillError, causes, first_line

_DISK_ERRORS = (
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
)


def error_line(error: BaseException) -> str:
    """Return an error as one line: what is wrong, and what to do.

    If the error or one of its causes is of this project, the disk or Dagster's storage, the line is
    about that one. Otherwise the trace is written to a file in DAGSTER_HOME, which the line names.
    """
    from finops_dagster.settings import dagster_home
    from finops_dagster.traces import record_unexpected_error

    # Dagster wraps the errors of the pipeline, and SQLAlchemy those of SQLite.
    for message in (_known_error, _history_error):
        for cause in causes(error):
            if line := message(cause):
                return line
    return record_unexpected_error(error, dagster_home())


def _known_error(error: BaseException) -> str | None:
    from finops_dagster.settings import dagster_home
    from finops_dagster.settings_table import SettingsError

    if isinstance(error, BillError | SettingsError):
        return str(error)
    # The low byte is SQLite's primary code; the rest says more about the same problem.
    if isinstance(error, sqlite3.Error) and error.sqlite_errorcode & 0xFF in _DISK_ERRORS:
        return (
            f"Dagster's history in {dagster_home()} cannot be written: {error}; free space on its "
            "disk, or allow writing to it, and run the same command again"
        )
    # These imports take a second, so they come after the cheap ones.
    from finops_dagster.billing.disk import memory_or_disk_problem
    from finops_dagster.object_stores import StoreError, StoreUnavailable
    from finops_dagster.warehouses.month_file import WarehouseUnavailable

    if isinstance(error, StoreError):
        return str(error)
    if isinstance(error, StoreUnavailable | WarehouseUnavailable):
        return f"{error}; run the same command again later"
    return memory_or_disk_problem(error)


def _history_error(error: BaseException) -> str | None:
    """Return the message for an error of SQLAlchemy, which Dagster's history uses, else None."""
    from finops_dagster.settings import dagster_home

    sqlalchemy = sys.modules.get("sqlalchemy.exc")
    if sqlalchemy is None or not isinstance(error, sqlalchemy.SQLAlchemyError):
        return None
    return (
        f"Dagster's history cannot be read or written: {first_line(error)}; check storage in "
        f"{dagster_home() / 'dagster.yaml'}"
    )
