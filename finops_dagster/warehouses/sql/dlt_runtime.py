"""dlt as a library: no telemetry, settings from ours and the environment, errors in one line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any

import duckdb
import sqlalchemy as sa
from dlt.common.configuration.container import Container
from dlt.common.configuration.exceptions import ConfigFieldMissingException, LookupTraces
from dlt.common.configuration.providers import EnvironProvider
from dlt.common.configuration.providers.doc import CustomLoaderDocProvider
from dlt.common.configuration.providers.provider import ConfigProvider
from dlt.common.configuration.specs.pluggable_run_context import PluggableRunContext
from dlt.common.destination.typing import PreparedTableSchema
from dlt.common.exceptions import MissingDependencyException
from dlt.common.runtime.run_context import RunContext
from dlt.destinations.impl.sqlalchemy.dialect import (
    SqliteDialectCapabilities,
    register_dialect_capabilities,
)
from sqlalchemy.sql.elements import quoted_name

from finops_dagster.billing.errors import BillError, first_line
from finops_dagster.warehouses.base import WarehouseUnavailable

_SETTINGS: dict[str, Any] = {
    "runtime": {"dlthub_telemetry": False, "log_level": "CRITICAL", "intercept_signals": False},
    "providers": {"enable_airflow_secrets": False},
    # Every other naming convention would rename columns: `user__team` to `user_team`.
    "schema": {"naming": "direct"},
    "restore_from_destination": False,
    # Who asks again is the stage, which begins anew; dlt would go on with what it had before.
    "load": {"raise_on_max_retries": 1, "delete_completed_jobs": True},
}
# To dlt a wrong password passes like a lost connection; what the drivers say tells them apart.
_PASSING = re.compile(
    r"connection (was |is )?(refused|reset|closed|aborted|lost|already closed)"
    r"|closed the connection|lost connection|gone away|broken pipe|unreachable|timed? ?out"
    r"|shutting down|starting up"
    r"|too many (connections|clients)|temporarily|deadlock|serializ|conflict"
    r"|database is locked|could not set lock|lock wait",
    re.IGNORECASE,
)
# dlt keeps its settings for the whole process: two threads would use each other's.
_one_at_a_time = RLock()


class _Run(RunContext):
    """Where dlt looks for settings: in the environment, then in ours; in no file of anyone's."""

    def __init__(self, destination: str, options: dict[str, Any]) -> None:
        super().__init__(".")
        self._document = {**_SETTINGS, "destination": {destination: options}}

    def initial_providers(self) -> list[ConfigProvider]:
        ours = CustomLoaderDocProvider("[database.sql]", lambda: self._document)
        return [EnvironProvider(), ours]


class _QuotedInSQLite(SqliteDialectCapabilities):
    """SQLAlchemy leaves names bare that it does not know for SQLite's words, such as `nothing`."""

    def adapt_table(self, table: sa.Table, table_schema: PreparedTableSchema) -> sa.Table:
        """The table with every column's name in quotes."""
        for column in table.columns:
            column.name = quoted_name(column.name, quote=True)
        return super().adapt_table(table, table_schema)


register_dialect_capabilities("sqlite", _QuotedInSQLite)


@contextmanager
def dlt_for(destination: str, options: dict[str, Any], where: str) -> Iterator[None]:
    """Let dlt have the destination's `options`, and nothing that another use of dlt in this process
    set; say what goes wrong as `explained` does."""
    with _one_at_a_time:
        try:
            with Container().injectable_context(PluggableRunContext(_Run(destination, options))):
                yield
        except Exception as error:
            told = explained(error, destination, where)
            if told is error:
                raise
            raise told from error


def explained(error: Exception, destination: str, where: str) -> Exception:
    """What goes wrong `where` in one line: BillError, or WarehouseUnavailable where asking again
    may help."""
    cause = _cause(error)
    if isinstance(cause, BillError | WarehouseUnavailable):
        return cause
    passes = _PASSING.search(str(cause))
    return (WarehouseUnavailable if passes else BillError)(f"{where}: {_told(destination, cause)}")


def _cause(error: BaseException) -> BaseException:
    """What dlt wrapped: its own exceptions tell the step and a trace, the innermost says why."""
    if isinstance(error, _TOLD):
        return error
    wrapped = (getattr(error, name, None) for name in _WRAPPED)
    inner = next((each for each in wrapped if isinstance(each, BaseException)), None)
    return error if inner is None or inner is error else _cause(inner)


_TOLD = (BillError, WarehouseUnavailable, ConfigFieldMissingException, MissingDependencyException)
_WRAPPED = (
    "exception",
    "client_exception",
    "dbapi_exception",
    "inner_exc",
    "orig",
    "__cause__",
)


def _told(destination: str, error: BaseException) -> str:
    if isinstance(error, MissingDependencyException):
        return f'its client is not installed: pip install "{error.dependencies[0]}"'
    if isinstance(error, ModuleNotFoundError):
        return f"its client {error.name} is not installed"
    if isinstance(error, ConfigFieldMissingException):
        return (
            f"dlt lacks {', '.join(_missing(error.traces))}; give it in [database.sql.credentials],"
            f" or as DESTINATION__{destination.upper()}__CREDENTIALS__... in the environment, and "
            "secrets only there"
        )
    if isinstance(error, duckdb.Error):
        return first_line(error)
    return " ".join(str(error).split()) or type(error).__name__


def _missing(traces: dict[str, Any]) -> list[str]:
    names: list[str] = []
    for field, lookups in traces.items():
        inner = next((each for each in lookups if isinstance(each, LookupTraces)), None)
        names += _missing(inner.traces) if inner else [field]
    return names
