"""The warehouses: one folder each, whose client is imported only when it is opened."""

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
"""The settings of each warehouse, the table `[database.NAME]`."""
DIALECTS = {
    "duckdb": f"{__name__}.duckdb.dialect:DuckDBDialect.factory",
    "bigquery": f"{__name__}.bigquery.dialect:BigQueryDialect.factory",
    "postgresql": f"{__name__}.postgresql.dialect:PostgreSQLDialect.factory",
    "snowflake": f"{__name__}.snowflake.dialect:SnowflakeDialect.factory",
    "sql": f"{__name__}.sql.databases:dialect_factory",
}
"""The path of the function that turns each warehouse's settings into a dialect factory.

Such a function raises SettingsError for a database that cannot be used. Only the modules of these
paths import the warehouses' clients.
"""


class BackendSettings(Protocol):
    """The name of the selected warehouse in WAREHOUSES, and its settings."""

    @property
    def backend(self) -> str: ...
    @property
    def warehouse(self) -> SettingsTable: ...


def open_warehouse(settings: BackendSettings) -> Warehouse:
    """Return the warehouse that the settings select, without connecting to it.

    Raises SettingsError if the client of the warehouse is not installed, or for settings of `sql`
    with a database that cannot be used. For `duckdb`, `warehouse_path` must be set, which is not
    checked.
    """
    from finops_dagster.warehouses.base import Warehouse

    backend = settings.backend
    try:
        factory_of = resolve_name(DIALECTS[backend])
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"the client of backend {backend} is not installed ({error.name} is missing); run pip "
            f"install '.[{backend}]' in the folder from which finops_dagster was installed"
        ) from error
    return Warehouse(factory_of(settings.warehouse))
