"""Where months end: a folder a warehouse, whose client is imported only when it is opened."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import TYPE_CHECKING, Protocol

from finops_dagster.settings_table import SettingsError, SettingsTable
from finops_dagster.warehouses.bigquery.settings import BigQuerySettings
from finops_dagster.warehouses.duckdb.settings import DuckDBSettings
from finops_dagster.warehouses.postgresql.settings import PostgreSQLSettings
from finops_dagster.warehouses.snowflake.settings import SnowflakeSettings
from finops_dagster.warehouses.sql.settings import SqlSettings

if TYPE_CHECKING:
    from finops_dagster.warehouses.base import Warehouse

WAREHOUSES: dict[str, type[SettingsTable]] = {
    "duckdb": DuckDBSettings,
    "bigquery": BigQuerySettings,
    "postgresql": PostgreSQLSettings,
    "snowflake": SnowflakeSettings,
    "sql": SqlSettings,
}
"""The table of each warehouse in the settings file."""
DIALECTS = {
    "duckdb": f"{__name__}.duckdb.dialect:DuckDBDialect.factory",
    "bigquery": f"{__name__}.bigquery.dialect:BigQueryDialect.factory",
    "postgresql": f"{__name__}.postgresql.dialect:PostgreSQLDialect.factory",
    "snowflake": f"{__name__}.snowflake.dialect:SnowflakeDialect.factory",
    "sql": f"{__name__}.sql.databases:dialect_factory",
}
"""What makes each warehouse's dialect of its settings; the module alone imports the client."""


class BackendSettings(Protocol):
    """The settings of the one warehouse in which months end: its name in WAREHOUSES, its table."""

    @property
    def backend(self) -> str: ...
    @property
    def warehouse(self) -> SettingsTable: ...


def open_warehouse(settings: BackendSettings) -> Warehouse:
    """Return the warehouse that the settings choose. Makes no connection yet. Raises SettingsError
    where its client is not installed, or cannot do what the settings ask for."""
    from finops_dagster.warehouses.base import Warehouse

    backend = settings.backend
    try:
        dialect_factory = resolve_name(DIALECTS[backend])
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"backend is {backend}, whose client {error.name} is not installed: "
            f'pip install "finops-dagster[{backend}]"'
        ) from error
    return Warehouse(dialect_factory(settings.warehouse))
